"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secagg.store import replace_file


def test_a_file_takes_the_place_of_another_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "one"
    for content in (b"first", b"", b"second"):
        replace_file(path, content, 0o600)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["one"]  # noqa: PTH208


def test_what_the_disk_does_not_take_leaves_the_older_one_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one"
    replace_file(path, b"first")

    def failing(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        replace_file(path, b"second")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"first"]
