"""A store that outlives its process: one SQLite file, for one process at a time."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self

from secagg.store.errors import StoreBusyError, StoreError, StoreFullError
from secagg.store.files import sync_folder
from secagg.store.lock import FileLock

SCHEMA = 1
APPLICATION = 0x5EC_A667  # marks the file as ours, in its header
_PATIENCE_S = 5.0  # for another process when the file is shared
_MODE = 0o600

_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""
# What was replaced or removed is overwritten in the file; FULL syncs the log at every commit.
SETTINGS = ("synchronous = FULL", "fullfsync = ON", "secure_delete = ON")


class SqliteStore:
    """Keeps values in a file that only its owner may read. Its repr shows no value.

    path       made when it is missing, with mode 0600; SQLite gives its -wal and -shm the same
    exclusive  whether everybody else is refused with StoreBusyError: by a lock on PATH.lock that the
               operating system takes back when the process ends, however it ends

    raises     StoreError: not a database, not ours, of another version, readable by others, or in a
               folder that cannot be written

    A child that is forked must not use its parent's store. The file is on a local disk: SQLite's log does
    not work over a network.
    """

    durable = True

    def __init__(self, path: str | Path, *, exclusive: bool = True) -> None:
        self.path = Path(path).resolve()
        self._lock = RLock()
        self._held = FileLock(self.path.with_name(self.path.name + ".lock")) if exclusive else None
        self._db: sqlite3.Connection | None = None
        try:
            make_private(self.path)
            self._db = sqlite3.connect(
                self.path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
            with self._translated() as db:
                self._open(db)
        except BaseException:
            self.close()
            raise

    def _open(self, db: sqlite3.Connection) -> None:
        (application,), (version,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        new = (application, version) == (0, 0) and empty
        if not new and application != APPLICATION:
            raise StoreError(f"{self.path}: is a database of something else")
        if not new and version != SCHEMA:
            raise StoreError(f"{self.path}: has schema {version}, this program knows schema {SCHEMA}")
        if (mode := db.execute("PRAGMA journal_mode = WAL").fetchone()) != ("wal",):
            raise StoreError(f"{self.path}: a write-ahead log is not possible here (journal mode {mode[0]})")
        for setting in SETTINGS:
            db.execute(f"PRAGMA {setting}")
        if new:
            db.executescript(_CREATE)

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values in one transaction; None removes a name. On disk when it returns."""
        removed = [(name,) for name, value in values.items() if value is None]
        kept = [(name, bytes(value)) for name, value in values.items() if value is not None]
        with self.transaction(), self._translated() as db:
            db.executemany("DELETE FROM entries WHERE name = ?", removed)
            db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", kept)

    def get(self, name: str) -> bytes | None:
        """Return the value, or None."""
        with self._translated() as db:
            row = db.execute("SELECT value FROM entries WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""
        query = "SELECT name FROM entries WHERE name >= ? AND name < ? ORDER BY name"
        with self._translated() as db:
            return [name for (name,) in db.execute(query, (prefix, prefix + chr(0x10FFFF)))]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let nobody else in until the end; keep everything that was put, or nothing if it raises."""
        with self._lock:
            if self._db is not None and self._db.in_transaction:  # of this thread: it has the lock
                yield
                return
            with self._translated() as db:
                db.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._translated() as db:
                    db.execute("COMMIT")
            except BaseException:
                with self._translated() as db:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Give the file to the next process; may be called again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
            if self._held is not None:
                self._held.release()
                self._held = None

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread; what SQLite raises becomes a StoreError that names the file."""
        with self._lock:
            if self._db is None:
                raise StoreError(f"{self.path}: is closed")
            try:
                yield self._db
            except sqlite3.Error as error:
                raise KINDS.get(primary_code(error), StoreError)(f"{self.path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r}{', closed' if self._db is None else ''})"


KINDS = {
    sqlite3.SQLITE_BUSY: StoreBusyError,
    sqlite3.SQLITE_LOCKED: StoreBusyError,
    sqlite3.SQLITE_FULL: StoreFullError,
}


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def make_private(path: Path) -> None:
    """Make the file with its mode, never wider; one that is there must not be open to others.

    It is not opened when it is there: closing it would take away the locks that another connection of this
    process has on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _MODE))
        sync_folder(path.parent)
    except FileExistsError:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise StoreError(f"{path}: is not a file") from None
        if wide := stat.S_IMODE(mode) & 0o077:
            raise StoreError(
                f"{path}: is open to others ({wide:03o}), it may hold secrets: chmod 600"
            ) from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
