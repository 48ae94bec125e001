"""Redis: events, the token log, its tail, and the feeds that readers follow."""
