"""Named arrays as bytes, in the safetensors format: checkpoints and models are written by this alone.

A header of JSON values travels in the format's own metadata: any reader of safetensors opens the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedcore.errors import DataError
from secagg.store import replace_file

_HEADER = "header"  # the one key of the metadata
_DIGEST = "sha256"  # in the header of a file
_KINDS = "fiub"  # of numbers: nothing else is written or read


def pack(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> bytes:
    """Return the bytes of named arrays and of a header that JSON can carry."""
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise DataError(f"arrays: {name} must be numbers, is {array.dtype}")
    return save(
        {name: np.asarray(array, order="C") for name, array in arrays.items()}, {_HEADER: _text(header)}
    )


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Undo `pack`. Raises DataError: not such bytes; the arrays are copies."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        header = json.loads(metadata[_HEADER])
        arrays = load(data)
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(f"not named arrays: {error}") from error
    if not isinstance(header, dict):
        raise DataError("not named arrays: the header is no table")
    if bad := [name for name, array in arrays.items() if array.dtype.kind not in _KINDS]:
        raise DataError(f"not named arrays: {min(bad)} is not numbers")
    return arrays, header


def write(path: Path, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all, on disk when this returns. Raises DataError.

    The header gets a digest of everything, so that a file which a disk has changed is noticed.
    """
    try:
        replace_file(path, pack(arrays, {**header, _DIGEST: _digest(arrays, header)}))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a file of `write`. Raises DataError."""
    try:
        arrays, header = unpack(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if header.pop(_DIGEST, None) != _digest(arrays, header):
        raise DataError(f"{path}: is damaged: its digest is another")
    return arrays, header


def _digest(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> str:
    hashed = hashlib.sha256(_text(header).encode())
    for name, array in sorted(arrays.items()):
        hashed.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hashed.update(np.asarray(array, order="C").data if array.size else b"")
    return hashed.hexdigest()


def _text(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
