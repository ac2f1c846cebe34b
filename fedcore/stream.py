"""The AES stream of the masks as a source of numbers, for noise and for public choices alike.

Unlike numpy's generators it is cryptographic, and a seed gives the same numbers on every machine and
with every version of numpy.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import mask_apply

_PLUS = np.ones(1, np.int8)


def words(seed: bytes, count: int, first: int = 0) -> NDArray[np.uint64]:
    """Return words first .. first + count - 1 of the stream of a seed (32 bytes); uniform in 0..2^64 - 1."""
    out = np.zeros(count, np.uint64)
    mask_apply(out, seed, _PLUS, first=first)
    return out


def derive(seed: bytes, *purpose: str | int) -> bytes:
    """Return a seed of its own for a purpose; 32 bytes."""
    text = "/".join(map(str, purpose)).encode()
    return hashlib.sha256(len(seed).to_bytes(2, "big") + seed + text).digest()


def permutation(seed: bytes, count: int) -> NDArray[np.int64]:
    """Return a random order of 0..count - 1 (up to the 2^-64 chance that two words are equal)."""
    return np.argsort(words(seed, count), kind="stable").astype(np.int64)


def choose(seed: bytes, count: int, size: int) -> NDArray[np.int64]:
    """Return `size` different numbers of 0..count - 1, ascending."""
    return np.sort(permutation(seed, count)[:size])
