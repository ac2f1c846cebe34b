"""A lock between processes that nobody needs to clean up."""

from __future__ import annotations

import os
from pathlib import Path

from secagg.store.errors import StoreBusyError, StoreError


class FileLock:
    """Holds a file for this process, until `release` or its end: the lock is the operating system's.

    The file stays; it is empty and only its owner may read it. A process forked meanwhile shares the lock.

    raises  StoreBusyError when somebody has it, StoreError when the file cannot be made
    """

    def __init__(self, path: Path) -> None:
        import fcntl  # not on Windows, where the rest of the package is of use

        try:
            self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            name = str(path).removesuffix(".lock")
            raise StoreBusyError(
                f"{name}: is in use, by another process or twice by this one: stop it first"
            ) from error

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._file)
