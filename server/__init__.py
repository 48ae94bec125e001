"""Tidemark: a chat backend whose streamed answers cannot be lost."""

__version__ = "0.1.0"
