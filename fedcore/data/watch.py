"""A file of rows that changes while a site takes part: each change is read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fedcore.data.files import inspect
from fedcore.data.reading import Reading
from fedcore.data.schema import Schema
from fedcore.errors import DataError


@dataclass(slots=True)
class Watched:
    """A table's file, as it was when it was last read."""

    path: Path
    schema: Schema
    label: str
    fault: str = ""  # that was told of it last
    _seen: tuple[int, ...] = field(default=(), repr=False)

    def news(self) -> Reading | None:
        """Read the file if it has changed since. Raises DataError: it cannot be read; it will be tried again.

        A file that changes while it is read is read again the next time.
        """
        return None if self._now() == self._seen else self.read()

    def read(self) -> Reading:
        """Read the file. Raises DataError."""
        before = self._now()
        found = inspect(self.path, self.schema, self.label)
        if self._now() != before:
            raise DataError(f"{self.path}: is being written")
        self._seen = before
        return found

    def _now(self) -> tuple[int, ...]:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
