"""Redis: what is being said. Events, the token log, its tail, and the feeds that readers follow."""
