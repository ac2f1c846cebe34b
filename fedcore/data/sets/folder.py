"""The folder of real data sets. The environment variable SECAGG_DATA names it; no package holds them."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from pathlib import Path

from fedcore.errors import DataError

VARIABLE = "SECAGG_DATA"


def data_folder() -> Path:
    """Return the folder of the real sets. Raises DataError, which names the variable."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        raise DataError(f"{VARIABLE}: must name the folder of the real data sets, is not set")
    if not (folder := Path(name)).is_dir():
        raise DataError(f"{VARIABLE}: must name a folder, {folder} is none")
    return folder


def read_bytes(*parts: str) -> bytes:
    """Read a file of the folder, unpacked when its name ends in .gz. Raises DataError, naming it."""
    path = data_folder().joinpath(*parts)
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} (in {VARIABLE}): {error}") from error


def read_lines(*parts: str) -> list[str]:
    """Read a file of the folder as lines of UTF-8. Raises DataError, naming it."""
    try:
        return read_bytes(*parts).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{data_folder().joinpath(*parts)}: {error}") from error


def read_rows(*parts: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read a CSV file of the folder that has these columns. Raises DataError, naming file and column."""
    rows = list(csv.DictReader(read_lines(*parts)))
    name = "/".join(parts)
    for column in columns:
        if not rows or column not in rows[0]:
            raise DataError(f"{name}: column {column} is missing")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise DataError(f"{name}, row {number}: has another number of fields than the header")
    return rows
