"""Saying it: the queue, who owns a generation, and writing its log."""
