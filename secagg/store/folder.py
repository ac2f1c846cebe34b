"""A store that is a folder of plain files: where a database's log does not work, as on a network drive."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self

from secagg.store.errors import StoreDamagedError, StoreError
from secagg.store.files import replace_file
from secagg.store.lock import FileLock

_INDEX = "index.json"
_MODE = 0o600
_VALUE = re.compile(r"[0-9a-f]{32}")
_WRITTEN = re.compile(r"\.(?:[0-9a-f]{32}|index\.json)\.[0-9a-f]{16}")  # of `replace_file`, not in place yet


class FolderStore:
    """Keeps each value in a file of its own, and their names in an index that is replaced as a whole.

    path    a folder, made with mode 0700 when it is missing; one process at a time has it (PATH/.lock)

    A transaction is the index: values are written and synced first, under names never used before, then the
    index is replaced, then what it no longer names is removed. A process that ends in between leaves what
    was, or what is, and files that the next one removes.

    raises  StoreError: cannot be read or written, is open to others; StoreDamagedError: the index, or a value
            that it names, is gone or cut; StoreBusyError: another process has it
    """

    durable = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self._lock = RLock()
        self._depth = 0
        self._held: FileLock | None = None
        with self._translated():
            self.path.mkdir(mode=0o700, exist_ok=True)
            if wide := stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                raise StoreError(
                    f"{self.path}: is open to others ({wide:03o}), it may hold secrets: chmod 700"
                )
        self._held = FileLock(self.path / ".lock")
        try:
            self._index = self._read_index()
            with self._translated():
                self._sweep()
        except BaseException:
            self.close()
            raise

    def _read_index(self) -> dict[str, str]:
        try:
            index = json.loads((self.path / _INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreDamagedError(f"{self.path / _INDEX}: cannot be read: {error}") from error
        if not isinstance(index, dict) or not all(isinstance(file, str) for file in index.values()):
            raise StoreDamagedError(f"{self.path / _INDEX}: is no index")
        return index

    def _sweep(self) -> None:
        """Remove what an earlier process left behind: files with our names alone, that the index has not.

        raises  StoreError: there is no index, and something else than ours, or values
        """
        found = {one.name for one in self.path.iterdir()} - {_INDEX, ".lock"}
        values = {name for name in found if _VALUE.fullmatch(name)}
        written = {name for name in found if _WRITTEN.fullmatch(name)}
        if not (self.path / _INDEX).exists():
            if values:
                raise StoreDamagedError(f"{self.path / _INDEX}: is gone, and {len(values)} values are there")
            if found - written:
                raise StoreError(f"{self.path}: is no store, and not empty: give it a folder of its own")
            replace_file(self.path / _INDEX, b"{}", _MODE)
        self._remove(written | values - set(self._index.values()))

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values in one transaction; None removes a name. On disk when it returns."""
        with self.transaction(), self._translated():
            for name, value in values.items():
                if value is None:
                    self._staged.pop(name, None)
                    continue
                file = os.urandom(16).hex()
                self._written.append(file)
                size = len(value).to_bytes(8, "big")
                replace_file(self.path / file, size + bytes(value), _MODE)
                self._staged[name] = file

    def get(self, name: str) -> bytes | None:
        """Return the value, or None."""
        with self._lock:
            self._check_open()
            file = (self._staged if self._depth else self._index).get(name)
            if file is None:
                return None
            with self._translated():
                try:
                    content = (self.path / file).read_bytes()
                except FileNotFoundError as error:
                    raise StoreDamagedError(f"{self.path}: the value of {name} is gone") from error
        if int.from_bytes(content[:8], "big") != len(content) - 8:
            raise StoreDamagedError(f"{self.path}: the value of {name} is cut")
        return content[8:]

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""
        with self._lock:
            self._check_open()
            index = self._staged if self._depth else self._index
            return sorted(name for name in index if name.startswith(prefix))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let nobody else in until the end; keep everything that was put, or nothing if it raises."""
        with self._lock:
            self._check_open()
            if not self._depth:
                self._staged, self._written = dict(self._index), list[str]()
            self._depth += 1
            wanted = self._index
            try:
                yield
                if self._depth == 1 and self._staged != self._index:
                    self._replace_index()
                    wanted = self._staged
            finally:
                self._depth -= 1
                if not self._depth and self._held is not None:
                    before = {*self._index.values(), *self._written}
                    self._index = wanted
                    self._remove(before - set(wanted.values()))

    def _replace_index(self) -> None:
        """Write the index; whether a failing disk has the new or the old one the next process finds out."""
        try:
            replace_file(self.path / _INDEX, json.dumps(self._staged, sort_keys=True).encode(), _MODE)
        except BaseException as error:  # an interruption, too, may have come when it was in place
            self.close()
            if isinstance(error, OSError):
                raise StoreError(f"{self.path}: {error.strerror or error}; open it again") from error
            raise

    def _remove(self, files: set[str]) -> None:
        for file in files:
            with suppress(OSError):  # the next process tries again
                (self.path / file).unlink()

    def close(self) -> None:
        """Give the folder to the next process; may be called again."""
        with self._lock:
            if self._held is not None:
                self._held.release()
                self._held = None

    def _check_open(self) -> None:
        if self._held is None:
            raise StoreError(f"{self.path}: is closed")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FolderStore({str(self.path)!r}{', closed' if self._held is None else ''})"
