"""Verbs: what callers can do. Every interface calls them, so every rule is written once.

A verb takes the services, the caller and typed arguments, checks the rules, and returns rows or a
stream of batches.
"""
