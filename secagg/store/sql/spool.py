"""The spool: large values on their way, such as uploads. In a folder, or in the database."""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sqlalchemy import delete, insert, select
from sqlalchemy import func as sql

from secagg.errors import ParameterError
from secagg.params import Buffer
from secagg.store.errors import StoreDamagedError, StoreError, StoreFullError
from secagg.store.files import move_into_place
from secagg.store.sql.database import Database
from secagg.store.sql.tables import blobs

_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9-]{1,100}")  # of a round, and what it is
_PART_BYTES = 1 << 20
_STALE_S = 3600.0
_FULL = {28, 122}  # ENOSPC, EDQUOT


class SpoolError(StoreError):
    """A spooled value cannot be written or read; the message names it and the reason."""


class SpoolMissingError(SpoolError, StoreDamagedError):
    """A value is not there, though the spool is."""


class SpoolWriter(Protocol):
    """A value on its way: nothing of it is there before `commit` returned."""

    @property
    def name(self) -> str:
        """What the value will be known by."""

    def write(self, data: Buffer) -> None:
        """Append bytes."""

    def commit(self) -> None:
        """Make it durable, in place of an older value of the name."""

    def abandon(self) -> None:
        """Leave nothing behind, nor what was committed; what the disk keeps is swept later."""


class Spool(Protocol):
    """Values by name: a round's id, a dot, and a word of lower-case letters and digits.

    raises  SpoolError; StoreFullError. What raised left nothing behind, and may be tried again
    """

    def create(self, name: str) -> SpoolWriter:
        """Begin to write a value."""

    def open(self, name: str) -> Buffer:
        """Return a value; it is valid as long as the buffer is held."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove values; those that are not there do not matter."""

    def names(self) -> list[str]:
        """Return all names, ascending."""

    def sweep(self, rounds: Collection[str]) -> None:
        """Remove what was begun for rounds and never committed: nobody may commit it any more."""


class FolderSpool:
    """One file a value, in a folder that only its owner reads; all servers of a database must see it.

    folder  made, with mode 0700, when it is missing. What an earlier process left unfinished stays until
            its round is swept, or `sweep_stale`
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with _translated(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            if wide := status.st_mode & 0o077:
                raise SpoolError(f"{folder}: is open to others ({wide:03o}): chmod 700")
        self._same = status.st_dev, status.st_ino

    def create(self, name: str) -> SpoolWriter:
        """Begin to write a value."""
        return _FileWriter(self._folder, _checked(name))

    def open(self, name: str) -> Buffer:
        """Return a value, mapped."""
        path = self._folder / _checked(name)
        with _translated(path):
            try:
                file = path.open("rb")
            except FileNotFoundError as error:
                status = self._folder.stat()
                if (status.st_dev, status.st_ino) != self._same:  # it was taken away, and may come back
                    raise SpoolError(f"{self._folder}: is another folder than it was: mount it") from error
                raise SpoolMissingError(f"{path}: is not there") from error
            with file:
                if not os.fstat(file.fileno()).st_size:
                    return b""
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there do not matter."""
        for name in names:
            path = self._folder / _checked(name)
            with _translated(path):
                path.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return all names, ascending."""
        with _translated(self._folder):
            return sorted(entry.name for entry in os.scandir(self._folder) if _NAME.fullmatch(entry.name))

    def sweep(self, rounds: Collection[str]) -> None:
        """Remove what was begun for rounds and never committed."""
        with _translated(self._folder):
            for entry in self._unfinished():
                if entry.name.partition(".")[0] in rounds:
                    Path(entry.path).unlink(missing_ok=True)

    def sweep_stale(self, older_than_s: float = 0.0) -> int:
        """Remove what was never finished and has not grown for a time; returns how many files."""
        swept, now = 0, time.time()
        with _translated(self._folder):
            for entry in self._unfinished():
                with suppress(FileNotFoundError):  # another server that starts sweeps, too
                    if now - entry.stat().st_mtime >= older_than_s:
                        Path(entry.path).unlink()
                        swept += 1
        return swept

    def _unfinished(self) -> list[os.DirEntry[str]]:
        return [entry for entry in os.scandir(self._folder) if entry.name.endswith(_PARTIAL)]

    def __repr__(self) -> str:
        return f"FolderSpool({str(self._folder)!r})"


_PARTIAL = ".partial"


class _FileWriter:
    """Writes beside the place, and moves there when everything is on disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder, self._path = folder, folder / name
        # Two streams of one party may write at once: each has a file of its own.
        self._partial = self._written = folder / f"{name}.{os.urandom(8).hex()}{_PARTIAL}"
        with _translated(self._path):
            self._file = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        with _translated(self._path):
            while view:
                view = view[os.write(self._file, view) :]

    def commit(self) -> None:
        # After an fsync that failed nobody knows what is on disk: the file is given up, never synced again.
        with _translated(self._path):
            os.fsync(self._file)
            self._close()
            self._written = self._path
            move_into_place(self._partial, self._path)

    def abandon(self) -> None:
        self._close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)
            self._written.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class MemorySpool:
    """Values that live as long as the process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def create(self, name: str) -> SpoolWriter:
        """Begin to write a value."""
        return _MemoryWriter(self._values, _checked(name))

    def open(self, name: str) -> Buffer:
        """Return a value."""
        try:
            return self._values[_checked(name)]
        except KeyError:
            raise SpoolMissingError(f"{name}: is not there") from None

    def remove(self, names: Iterable[str]) -> None:
        """Remove values; those that are not there do not matter."""
        for name in names:
            self._values.pop(_checked(name), None)

    def names(self) -> list[str]:
        """Return all names, ascending."""
        return sorted(self._values)

    def sweep(self, rounds: Collection[str]) -> None:
        """Do nothing: what was begun is its writer's alone."""

    def __repr__(self) -> str:
        return f"MemorySpool({len(self._values)} values)"


class _MemoryWriter:
    def __init__(self, values: dict[str, bytes], name: str) -> None:
        self._values, self.name = values, name
        self._content = bytearray()
        self._committed = False

    def write(self, data: Buffer) -> None:
        self._content += data

    def commit(self) -> None:
        self._values[self.name] = bytes(self._content)
        self._committed = True

    def abandon(self) -> None:
        self._content.clear()
        if self._committed:
            self._values.pop(self.name, None)


class DatabaseSpool:
    """Values in the database, in parts of 1 MiB: for servers that share no folder. Slower, and simpler."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str) -> SpoolWriter:
        """Begin to write a value."""
        return _PartWriter(self._database, _checked(name))

    def open(self, name: str) -> Buffer:
        """Return a value, copied."""
        query = select(blobs.c.content).where(blobs.c.name == _checked(name)).order_by(blobs.c.part)
        with self._database.connection() as db:
            parts = [bytes(part) for part in db.execute(query).scalars()]
        if not parts:
            raise SpoolMissingError(f"{name}: is not in the spool of {self._database.name}")
        return b"".join(parts)

    def remove(self, names: Iterable[str]) -> None:
        """Remove values; those that are not there do not matter."""
        if gone := [_checked(name) for name in names]:
            with self._database.connection() as db:
                db.execute(delete(blobs).where(blobs.c.name.in_(gone)))

    def names(self) -> list[str]:
        """Return all names, ascending."""
        with self._database.connection() as db:
            return list(db.execute(select(sql.distinct(blobs.c.name)).order_by(blobs.c.name)).scalars())

    def sweep(self, rounds: Collection[str]) -> None:
        """Do nothing: what was begun is its writer's alone."""

    def __repr__(self) -> str:
        return f"DatabaseSpool({self._database.name!r})"


class _PartWriter:
    """Holds the parts until the value is whole: a value of the database is there at once or not at all."""

    def __init__(self, database: Database, name: str) -> None:
        self._database, self.name = database, name
        self._parts: list[bytearray] = [bytearray()]
        self._committed = False

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            if len(self._parts[-1]) == _PART_BYTES:
                self._parts.append(bytearray())
            room = _PART_BYTES - len(self._parts[-1])
            self._parts[-1] += view[:room]
            view = view[room:]

    def commit(self) -> None:
        rows = [
            {"name": self.name, "part": number, "content": bytes(part)}
            for number, part in enumerate(self._parts)
        ]
        with self._database.beside() as db:
            db.execute(delete(blobs).where(blobs.c.name == self.name))
            db.execute(insert(blobs), rows)
        self._committed = True

    def abandon(self) -> None:
        self._parts = [bytearray()]
        if self._committed:
            with suppress(StoreError), self._database.beside() as db:
                db.execute(delete(blobs).where(blobs.c.name == self.name))


def spool_of(database: Database, folder: Path | None = None) -> Spool:
    """Return the spool that goes with a database.

    folder  where uploads wait; None: beside the file of SQLite, in the database of PostgreSQL, in memory if
            the database is

    raises  StoreError
    """
    if folder is None and database.shared:
        return DatabaseSpool(database)
    if folder is None and not database.durable:
        return MemorySpool()
    spool = FolderSpool(Path(f"{database.name}.spool") if folder is None else folder)
    # Others may write in a folder of theirs, too; uploads do not pause so long.
    spool.sweep_stale(_STALE_S if database.shared else 0.0)
    return spool


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ParameterError(f"spool: a name is ROUND.WORD, is {name!r}")
    return name


class _translated:  # noqa: N801 - reads as a function
    """Turn OSError into SpoolError or StoreFullError, which name the path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raised = StoreFullError if error.errno in _FULL else SpoolError
            raise raised(f"{self._path}: {error.strerror}") from error
