"""Every test of a database runs on both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from secagg.store.sql import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "server.db")
    return str(request.getfixturevalue("postgresql").new_database())


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database(url) as one:
        yield one
