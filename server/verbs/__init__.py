"""Verbs: what callers can do. Every rule stands here once; every interface calls these.

A verb takes the services, the caller and typed arguments, checks what may be, and returns rows or
a stream of batches.
"""
