"""SQL: plain functions of a Session, which `Database` runs as one transaction each.

Nothing here depends on the web, the queue or Redis.
"""
