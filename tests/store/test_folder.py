"""A folder of plain files as a store: whole or as it was, whatever ends the process."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secagg.store import FolderStore, StoreBusyError, StoreDamagedError, StoreError, folder, replace_file


def files(path: Path) -> set[str]:
    return {one.name for one in path.iterdir()} - {"index.json", ".lock"}


def test_values_outlive_the_process_and_only_its_owner_reads_them(tmp_path: Path) -> None:
    with FolderStore(tmp_path / "s") as store:
        store.put({"a": b"1", "b/c": bytes(range(256)) * 100})
        assert store.durable
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in (tmp_path / "s").iterdir())
    with FolderStore(tmp_path / "s") as store:
        assert store.names("") == ["a", "b/c"]
        assert store.get("b/c") == bytes(range(256)) * 100


def test_what_is_replaced_or_removed_leaves_no_file(tmp_path: Path) -> None:
    with FolderStore(tmp_path / "s") as store:
        store.put({"a": b"1", "b": b"2"})
        store.put({"a": b"3", "b": None})
        assert len(files(store.path)) == 1
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.put({"a": b"4", "c": b"5"})
            raise ZeroDivisionError
        assert len(files(store.path)) == 1
        assert store.get("a") == b"3"


def test_one_process_at_a_time_has_the_folder(tmp_path: Path) -> None:
    with FolderStore(tmp_path / "s"), pytest.raises(StoreBusyError):
        FolderStore(tmp_path / "s")
    FolderStore(tmp_path / "s").close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s")
    store.close()
    store.close()
    calls: list[Callable[[], Any]] = [
        lambda: store.get("a"),
        lambda: store.names(""),
        lambda: store.put({"a": b""}),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="is closed"):
            call()
    assert "closed" in repr(store)


def test_a_process_that_ends_before_the_index_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    real, left = replace_file, [0]

    def killed(path: Path, content: bytes, mode: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(path, content, mode)

    with FolderStore(tmp_path / "s") as store:
        store.put({"a": b"before", "b": b"before"})
    for steps in range(3):
        store = FolderStore(tmp_path / "s")
        monkeypatch.setattr(folder, "replace_file", killed)
        monkeypatch.setattr(FolderStore, "_remove", lambda _self, _files: None)  # it is gone, after all
        left[0] = steps
        with pytest.raises(Killed):
            store.put({"a": b"after", "b": b"after"})
        monkeypatch.undo()
        store.close()
        with FolderStore(tmp_path / "s") as again:
            assert (again.get("a"), again.get("b")) == (b"before", b"before")
            assert len(files(again.path)) == 2


def test_a_disk_that_fails_at_the_index_closes_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = replace_file

    def fails_late(path: Path, content: bytes, mode: int) -> None:
        real(path, content, mode)
        if path.name == "index.json":
            raise OSError(5, "Input/output error")

    store = FolderStore(tmp_path / "s")
    monkeypatch.setattr(folder, "replace_file", fails_late)
    with pytest.raises(StoreError, match="open it again"):
        store.put({"a": b"1"})
    with pytest.raises(StoreError, match="is closed"):
        store.get("a")
    monkeypatch.undo()
    with FolderStore(tmp_path / "s") as again:
        assert again.get("a") == b"1"  # it was there after all, and its file, too


def test_an_interruption_at_the_index_loses_no_value_that_the_disk_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = replace_file

    def interrupted(path: Path, content: bytes, mode: int) -> None:
        real(path, content, mode)
        if path.name == "index.json":
            raise KeyboardInterrupt

    store = FolderStore(tmp_path / "s")
    monkeypatch.setattr(folder, "replace_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put({"a": b"1"})
    monkeypatch.undo()
    with FolderStore(tmp_path / "s") as again:
        assert again.get("a") == b"1"


def damage_index(path: Path) -> None:
    (path / "index.json").write_text("{", encoding="utf-8")


def other_index(path: Path) -> None:
    (path / "index.json").write_text(json.dumps({"a": 3}), encoding="utf-8")


@pytest.mark.parametrize("damage", [damage_index, other_index])
def test_a_damaged_index_is_not_an_empty_store(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with FolderStore(tmp_path / "s") as store:
        store.put({"a": b"1"})
    damage(tmp_path / "s")
    with pytest.raises(StoreDamagedError, match=r"index\.json"):
        FolderStore(tmp_path / "s")


def test_a_value_that_is_gone_or_cut_is_damage(tmp_path: Path) -> None:
    with FolderStore(tmp_path / "s") as store:
        store.put({"a": b"12345"})
        (file,) = files(store.path)
        content = (store.path / file).read_bytes()
        (store.path / file).write_bytes(content[:-1])
        with pytest.raises(StoreDamagedError, match="the value of a is cut"):
            store.get("a")
        (store.path / file).unlink()
        with pytest.raises(StoreDamagedError, match="the value of a is gone"):
            store.get("a")


def test_a_folder_that_others_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir(mode=0o755)
    (tmp_path / "wide").chmod(0o755)
    with pytest.raises(StoreError, match="chmod 700"):
        FolderStore(tmp_path / "wide")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        FolderStore(tmp_path / "file")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "node"
    home.mkdir(mode=0o700)
    (home / "party.key").write_bytes(b"secret")
    with pytest.raises(StoreError, match="is no store, and not empty"):
        FolderStore(home)
    assert (home / "party.key").read_bytes() == b"secret"
    with FolderStore(tmp_path / "s") as store:
        store.put({"a": b"1"})
    (tmp_path / "s" / "note.txt").write_text("mine")
    with FolderStore(tmp_path / "s") as store:
        assert store.get("a") == b"1"
    assert (tmp_path / "s" / "note.txt").exists()


def test_an_index_that_is_gone_is_damage_and_no_empty_store(tmp_path: Path) -> None:
    with FolderStore(tmp_path / "s") as store:
        store.put({"counter": b"7"})
    (tmp_path / "s" / "index.json").unlink()
    with pytest.raises(StoreDamagedError, match="is gone, and 1 values are there"):
        FolderStore(tmp_path / "s")
    assert len(files(tmp_path / "s")) == 1
