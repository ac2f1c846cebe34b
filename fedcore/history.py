"""A run's record: one JSON object per line, flushed as it is written."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from fedcore.errors import DataError


class History:
    """Appends events to a file of JSON lines; every event names its kind first."""

    def __init__(self, path: Path) -> None:
        if path.exists():  # a line that was cut off by a crash is dropped
            whole = path.read_bytes()
            os.truncate(path, whole.rfind(b"\n") + 1)
        self._path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, event: str, **fields: object) -> None:
        """Append one event, with the time (UTC). Fields must be JSON values; `at`: of one that was before."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"event": event, "at": now, **fields}) + "\n")
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file; a last line that is still being written is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
