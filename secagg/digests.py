"""The canonical digest of named arrays: of a model, for the context of a round."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.primitives.labels import encode

_KINDS = "biuf"  # booleans, integers, floats: what has one form of bytes
_WIDEST = 8  # bytes: a long double is another thing on every machine
_CHUNK = 1 << 20  # entries


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Digest of named arrays, 32 bytes; the same whatever their order, byte order and memory layout.

    SHA-256 over label("arrays", count), then for each array, ascending by its name in UTF-8,
    label("array", name, type, shape) and its entries in C order, little-endian. Type is numpy's letter and
    the bytes of an entry ("f4"), shape the lengths of the axes, 8 bytes each, big-endian. The names say which
    array is which: two arrays that change places, or lose an axis, have another digest.

    raises  ParameterError: an array of objects, texts, complex or long double numbers, or times; a name that
            UTF-8 has no bytes for
    """
    state = hashlib.sha256(encode("arrays", len(arrays).to_bytes(8, "big")))
    for name, given in sorted((_name(name), array) for name, array in arrays.items()):
        array = np.asarray(given)
        if array.dtype.kind not in _KINDS or array.dtype.itemsize > _WIDEST:
            raise ParameterError(f"arrays: {name.decode()} must be of numbers, is of {array.dtype}")
        kind = f"{array.dtype.kind}{array.dtype.itemsize}".encode()
        shape = b"".join(length.to_bytes(8, "big") for length in array.shape)
        state.update(encode("array", name, kind, shape))
        flat = array.reshape(-1) if array.flags.c_contiguous else np.ravel(array, order="C")
        little = array.dtype.newbyteorder("<")
        for at in range(0, flat.size, _CHUNK):
            state.update(np.ascontiguousarray(flat[at : at + _CHUNK], little).data)
    return state.digest()


def _name(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"arrays: {name!r} is no name in UTF-8") from error
