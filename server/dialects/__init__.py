"""How it is told: pure functions from events to what a client speaks. No I/O."""
