"""SQL: what was said. Plain functions of a Session; `Database` runs one as one transaction. Knows no web, queue or Redis."""
