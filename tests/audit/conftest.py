"""Logs in databases are tested on both kinds."""

from tests.store.sql.conftest import database, url

__all__ = ["database", "url"]
