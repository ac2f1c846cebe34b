"""Files that are there as a whole or not at all, also after the power went off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from secagg.params import Buffer


def sync_file(file: BinaryIO) -> None:
    """Make what was written to a file durable. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(written: Path, path: Path) -> None:
    """Let a file whose content is durable take the place of another, or of none. Raises OSError."""
    written.replace(path)
    sync_folder(path.parent)


def replace_file(path: Path, content: Buffer, mode: int = 0o644) -> None:
    """Write a file, in place of an older one, durably. mode: of a new file. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            sync_file(file)
        move_into_place(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
