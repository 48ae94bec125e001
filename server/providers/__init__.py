"""Providers: who says it. Each turns a request into a stream of deltas."""
