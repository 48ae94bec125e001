"""Dialects: pure functions from events to the frames of a protocol. No I/O."""
