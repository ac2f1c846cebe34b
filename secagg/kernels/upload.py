"""The client's path from values to the packed masked vector, chunk by chunk.

A chunk is read (or quantized), masked with all seeds and packed while it is in the cache: beyond the
source and the packed bytes a client needs the memory of one chunk per thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels._parallel import check_threads, in_threads, ranges
from secagg.kernels.mask import mask_apply
from secagg.kernels.ring import UIntArray, lane_dtype, pack, packed_bytes, ring_mask

CHUNK = 1 << 16  # lanes; a multiple of 8, so that every chunk packs to whole bytes


class VectorSource(Protocol):
    """Ring elements on demand: what a client sums, produced as it is uploaded.

    What it gives must not depend on when or how often it is read; with several threads it is read from
    all of them. A source over an array must be left alone until the upload is made.
    """

    @property
    def length(self) -> int:
        """Entries."""
        ...

    def read(self, first: int, out: UIntArray) -> None:
        """Write entries first .. first + out.size - 1, all below 2^ring_bits, to `out`."""
        ...


def check_entries(chunk: NDArray[np.integer[Any]], ring_bits: int, first: int = 0) -> None:
    """Raise ParameterError unless every entry is in 0..2^ring_bits - 1; `first`: the index of chunk[0]."""
    if not chunk.size or (int(chunk.max()) <= ring_mask(ring_bits) and int(chunk.min()) >= 0):
        return
    outside = chunk > ring_mask(ring_bits)
    if chunk.dtype.kind == "i":
        outside |= chunk < 0
    raise ParameterError(f"vector[{first + int(outside.argmax())}]: must be in 0..2^{ring_bits} - 1")


def masked_chunks(
    source: VectorSource,
    seeds: bytes | bytearray | memoryview,
    signs: NDArray[np.int8],
    ring_bits: int,
    *,
    first: int = 0,
    end: int | None = None,
) -> Iterator[bytearray]:
    """Yield the packed masked entries first .. end - 1 of `source`, CHUNK entries at a time.

    seeds, signs  as for mask_apply
    first         a multiple of 8
    raises        ParameterError for an entry not below 2^ring_bits; what the source raises; TypeError,
                  ValueError
    """
    if first % 8:
        raise ValueError(f"first: must be a multiple of 8, is {first}")
    end = source.length if end is None else end
    if not 0 <= first <= end <= source.length:
        raise ValueError(f"first, end: {first}, {end} are not within the {source.length} entries")
    scratch = np.empty(min(CHUNK, max(end - first, 0)), lane_dtype(ring_bits))
    try:
        for at in range(first, end, CHUNK):
            chunk = scratch[: min(CHUNK, end - at)]
            source.read(at, chunk)
            check_entries(chunk, ring_bits, at)
            mask_apply(chunk, seeds, signs, first=at, threads=1)
            yield pack(chunk, ring_bits)
    finally:
        scratch[:] = 0


def pack_masked(
    source: VectorSource,
    seeds: bytes | bytearray | memoryview,
    signs: NDArray[np.int8],
    ring_bits: int,
    *,
    threads: int = 1,
) -> bytearray:
    """Return all of `source` masked and packed; every thread takes a range of its own.

    returns  ceil(d * ring_bits / 8) bytes
    raises   what the source raises, TypeError, ValueError
    """
    check_threads(threads)
    packed = bytearray(packed_bytes(source.length, ring_bits))
    whole = memoryview(packed)

    def part(where: tuple[int, int]) -> None:
        at = packed_bytes(where[0], ring_bits)
        for chunk in masked_chunks(source, seeds, signs, ring_bits, first=where[0], end=where[1]):
            whole[at : at + len(chunk)] = chunk
            at += len(chunk)

    in_threads(part, ranges(source.length, threads, CHUNK))
    whole.release()
    return packed
