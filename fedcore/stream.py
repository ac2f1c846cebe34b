"""The AES stream of the masks as a source of numbers, for noise and for public choices alike.

Unlike numpy's generators it is cryptographic, and a seed gives the same numbers on every machine and
with every version of numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import mask_apply

_PLUS = np.ones(1, np.int8)
_TILE = 1 << 16  # words at a time
_LEADING = 16  # bits by which words are told apart first


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
    """Return `size` different numbers of 0..count - 1, ascending: the first of `permutation`, sorted.

    Those with the smallest words are found without sorting or keeping all words: by the leading bits of a
    word all but a few are decided.
    """
    if count <= _TILE:
        return np.sort(permutation(seed, count)[:size])
    counts = np.zeros(1 << _LEADING, np.int64)
    for _, heads, _ in _by_head(seed, count):
        counts += np.bincount(heads, minlength=counts.size)
    last = int(np.searchsorted(np.cumsum(counts), size))  # the head that the choice ends in
    sure = int(counts[:last].sum())
    out, filled = np.empty(size, np.int64), 0
    places, tied = [], []
    for first, heads, drawn in _by_head(seed, count):
        found = first + np.flatnonzero(heads < last)
        out[filled : filled + found.size] = found
        filled += found.size
        undecided = np.flatnonzero(heads == last)
        places.append(first + undecided)
        tied.append(drawn[undecided])
    order = np.argsort(np.concatenate(tied), kind="stable")
    out[filled:] = np.concatenate(places)[order[: size - sure]]
    out.sort()
    return out


def _by_head(seed: bytes, count: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint64]]]:
    """Yield words a tile at a time: the number of the first one, their leading bits, themselves."""
    for first in range(0, count, _TILE):
        drawn = words(seed, min(_TILE, count - first), first)
        yield first, (drawn >> np.uint64(64 - _LEADING)).astype(np.int64), drawn
