"""Alembic's migrations of the service's database, oldest first in `versions`."""
