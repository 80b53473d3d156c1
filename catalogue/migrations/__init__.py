"""Alembic's scripts; `catalogue.migrate.upgrade` runs them."""
