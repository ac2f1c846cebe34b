from __future__ import annotations

from pathlib import Path

import pytest

from secagg import ParameterError
from secagg.store.sql import (
    Database,
    DatabaseSpool,
    FolderSpool,
    MemorySpool,
    Spool,
    SpooledPacked,
    SpoolError,
    SpoolMissingError,
)

ONE, OTHER = bytes(16), bytes(15) + b"\1"
DIGEST, SECOND = bytes(32), bytes(31) + b"\1"


@pytest.fixture(params=["folder", "database", "memory"])
def spool(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Spool:
    if request.param == "folder":
        return FolderSpool(tmp_path / "spool")
    return DatabaseSpool(database) if request.param == "database" else MemorySpool()


def test_vectors_are_kept_until_their_round_is_over(spool: Spool) -> None:
    packed, other = SpooledPacked(spool, ONE), SpooledPacked(spool, OTHER)
    packed.put(DIGEST, b"first")
    packed.put(SECOND, memoryview(b"second"))
    packed.put(SECOND, b"second")  # again, after the server was killed in between
    other.put(DIGEST, b"other")
    again = SpooledPacked(spool, ONE)
    assert (bytes(again.get(DIGEST)), bytes(again.get(SECOND))) == (b"first", b"second")
    again.clear()
    assert again.failure is None
    assert spool.names() == [f"{OTHER.hex()}.{DIGEST.hex()}"]
    with pytest.raises(SpoolMissingError):
        packed.get(DIGEST)
    assert bytes(other.get(DIGEST)) == b"other"


def test_what_a_killed_server_left_unfinished_goes_with_its_round(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = FolderSpool(folder)
    spool.create(f"{ONE.hex()}.{DIGEST.hex()}").write(b"half")
    SpooledPacked(spool, OTHER).clear()
    assert len(list(folder.iterdir())) == 1
    SpooledPacked(spool, ONE).clear()
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_gone_is_said_and_nothing_raised_when_a_round_is_over(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    packed = SpooledPacked(FolderSpool(folder), ONE)
    packed.put(DIGEST, b"first")
    away = folder.rename(tmp_path / "away")
    with pytest.raises(SpoolError, match="spool"):
        packed.put(SECOND, b"second")
    packed.clear()
    assert "spool" in str(packed.failure)
    away.rename(folder)
    packed.clear()
    assert packed.failure is None
    assert list(folder.iterdir()) == []


def test_a_round_id_has_16_bytes() -> None:
    with pytest.raises(ParameterError, match="round_id: must be 16 bytes, is 3"):
        SpooledPacked(MemorySpool(), b"abc")
