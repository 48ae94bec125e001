"""Providers of models. Each turns a request into a stream of deltas."""
