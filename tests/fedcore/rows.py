"""The rows of a site, where a test knows that they are a table."""

from __future__ import annotations

from fedcore.data.table import Table
from fedcore.rounds.site import Site


def table_of(site: Site) -> Table:
    assert isinstance(site.table, Table)
    return site.table


def held_out_of(site: Site) -> Table:
    assert isinstance(site.held_out, Table)
    return site.held_out
