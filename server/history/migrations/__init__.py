"""Alembic's migrations, numbered."""
