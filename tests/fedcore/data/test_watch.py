"""A file that changes is read once for each change; what cannot be read is tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedcore.data.schema import Column, Schema
from fedcore.data.watch import Watched
from fedcore.errors import DataError

SCHEMA = Schema((Column("age", 0, 100),), ("no", "yes"))


def write(path: Path, text: str, at: int) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(at, at))


def test_each_change_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    watched = Watched(path, SCHEMA, "label")
    with pytest.raises(DataError, match=r"rows\.csv: No such file"):
        watched.news()
    write(path, "age,label\n30,no\n", 1)
    first = watched.news()
    assert first is not None
    assert len(first.complete()) == 1
    assert watched.news() is None
    write(path, "age,label\n30,no\n40,yes\n", 2)
    second = watched.news()
    assert second is not None
    assert second.complete().features[:, 0].tolist() == [30, 40]
    assert watched.news() is None


def test_a_file_that_is_being_written_is_read_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    write(path, "age,label\n30,no\n", 1)
    watched = Watched(path, SCHEMA, "label")
    now = iter([(1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)])
    monkeypatch.setattr(Watched, "_now", lambda _self: next(now))
    with pytest.raises(DataError, match="is being written"):
        watched.news()
    assert watched.news() is not None
