"""The file: who may read it, who may open it, and what is in it after a crash."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from secagg.store import SqliteStore, StoreBusyError, StoreError, StoreFullError

_CHILD = """
import sys
from secagg.store import SqliteStore
store, n = SqliteStore(sys.argv[1]), 0
while True:
    store.put({"last": n.to_bytes(8, "big"), f"n/{n:08}": bytes(100)})
    print(n, flush=True)
    n += 1
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def child(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.db"


@pytest.mark.process
def test_what_put_returned_for_outlives_a_kill(path: Path) -> None:
    writing = child(path)
    assert writing.stdout is not None
    said = -1
    for line in writing.stdout:
        said = int(line)
        if said >= 50:
            break
    os.kill(writing.pid, signal.SIGKILL)
    rest = writing.stdout.read().split()
    writing.wait()
    writing.stdout.close()
    said = int(rest[-1]) if rest else said
    with SqliteStore(path) as store:  # the lock died with the process
        last = int.from_bytes(store.get("last") or b"", "big")
        assert last in {said, said + 1}  # killed between the commit and the word
        assert store.names("n/") == [f"n/{n:08}" for n in range(last + 1)]


@pytest.mark.process
def test_a_second_process_is_told_which_file_is_in_use(path: Path) -> None:
    writing = child(path)
    try:
        assert writing.stdout is not None
        writing.stdout.readline()
        with pytest.raises(StoreBusyError, match=r"site\.db: is in use"):
            SqliteStore(path)
    finally:
        writing.kill()
        writing.communicate()
    SqliteStore(path).close()


def test_a_second_store_in_one_process_is_refused_by_any_path_until_the_first_is_closed(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    first = SqliteStore(path)
    for other in (path, link):
        with pytest.raises(StoreBusyError):
            SqliteStore(other)
    first.put({"a": b"still mine"})
    first.close()
    first.close()
    with SqliteStore(link) as second:
        assert second.get("a") == b"still mine"
    with pytest.raises(StoreError, match="is closed"):
        first.get("a")


def test_a_failed_opening_leaves_no_lock(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    path.chmod(0o600)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"site\.db: file is not a database") as caught:
            SqliteStore(path)
        assert not isinstance(caught.value, StoreBusyError)


def test_a_shared_file_is_open_to_several_and_a_writer_that_waits_too_long_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.store.sqlite._PATIENCE_S", 0.05)
    with SqliteStore(path, exclusive=False) as one, SqliteStore(path, exclusive=False) as two:
        one.put({"a": b"1"})
        assert two.get("a") == b"1"
        with one.transaction():
            one.put({"a": b"2"})
            with pytest.raises(StoreBusyError, match=r"site\.db: database is locked"):
                two.put({"a": b"3"})
        assert two.get("a") == b"2"


def test_only_the_owner_may_read_the_files_whatever_the_mask(path: Path) -> None:
    before = os.umask(0)
    try:
        with SqliteStore(path) as store:
            store.put({"a": b"secret"})
            files = sorted(path.parent.iterdir())
            names = {file.name for file in files}
            assert names == {"site.db", "site.db-wal", "site.db-shm", "site.db.lock"}
            assert {mode(file) for file in files} == {0o600}
    finally:
        os.umask(before)


def test_the_file_is_made_with_its_mode_before_anything_is_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    connect = sqlite3.connect

    def look(*arguments: object, **options: object) -> sqlite3.Connection:
        seen.append((mode(path), path.stat().st_size))
        return connect(*arguments, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", look)
    before = os.umask(0)
    try:
        SqliteStore(path).close()
    finally:
        os.umask(before)
    assert seen == [(0o600, 0)]


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    SqliteStore(path).close()
    path.chmod(0o640)
    with pytest.raises(StoreError, match=r"site\.db: is open to others \(040\).*chmod 600"):
        SqliteStore(path)


def test_a_database_of_something_else_and_one_of_another_version_are_refused(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    path.chmod(0o600)
    with pytest.raises(StoreError, match="is a database of something else"):
        SqliteStore(path)
    path.unlink()
    SqliteStore(path).close()
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 2")
    later.close()
    with pytest.raises(StoreError, match="has schema 2, this program knows schema 1"):
        SqliteStore(path)


def test_a_folder_that_is_missing_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing/site\.db.*: No such file"):
        SqliteStore(tmp_path / "missing" / "site.db")
    with pytest.raises(StoreError, match=r"is not a file"):
        SqliteStore(tmp_path)
    kept = Path("/sys")  # nobody writes there, not even root
    if kept.is_dir():
        with pytest.raises(StoreError, match=r"/sys/site\.db"):
            SqliteStore(kept / "site.db", exclusive=False)
        with pytest.raises(StoreError, match=r"/sys/site\.db\.lock"):
            SqliteStore(kept / "site.db")


def test_a_read_only_folder_is_refused() -> None:
    folder = Path(tempfile.mkdtemp())  # below a folder that everybody may enter
    folder.chmod(0o555)
    root = os.geteuid() == 0  # who writes anywhere, and must be somebody else for a moment
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            SqliteStore(folder / "site.db")
    finally:
        if root:
            os.seteuid(0)
        folder.rmdir()


def test_of_a_put_that_does_not_fit_nothing_is_kept(path: Path) -> None:
    with SqliteStore(path) as store:
        store.put({"a": b"1"})
        assert store._db is not None
        store._db.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StoreFullError, match=r"site\.db: database or disk is full"):
            store.put({"a": b"2", "b": bytes(1 << 20)})
        assert (store.get("a"), store.get("b")) == (b"1", None)
        store.put({"a": b"3"})  # small ones still fit
    with SqliteStore(path) as store:
        assert store.get("a") == b"3"


def test_a_commit_is_synced_and_what_was_removed_is_overwritten(path: Path) -> None:
    with SqliteStore(path) as store:
        assert store._db is not None
        for name, value in (("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1)):
            assert store._db.execute(f"PRAGMA {name}").fetchone() == (value,)
        store.put({"a": b"a secret of sixteen words"})
        store.put({"a": None})
    assert b"a secret of sixteen" not in path.read_bytes()
    assert not path.with_name("site.db-wal").exists()


def test_its_repr_names_the_file_and_no_value(path: Path) -> None:
    with SqliteStore(path) as store:
        store.put({"name": b"secret"})
        assert repr(store) == f"SqliteStore({str(path.resolve())!r})"
    assert repr(store).endswith(", closed)")
