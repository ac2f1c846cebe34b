"""Mask expansion: the PRG of the protocol added to a vector, many seeds in one pass.

The PRG is AES-128-CTR (PROTOCOL.md, 4.2; the PRG of Bonawitz et al., CCS 2017, section 2.3).
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from secagg.kernels._library import check_apart, lib, read, vector, write
from secagg.kernels._parallel import check_threads, in_threads, ranges, usable_cpus
from secagg.kernels.ring import LANES, UIntArray

SEED_BYTES = 32
MAXIMUM_KEYSTREAM_BYTES = 2**36  # the 32-bit block counter must not wrap
_TILE_BYTES = 1 << 16  # of the path through `cryptography`
_GROUP_LANES = 256  # ranges start where the widest variant starts a group of blocks: 512 bytes
_SMALLEST_SPLIT = 1 << 14  # lanes: every thread expands all the keys
_WORTH_A_THREAD = 1 << 24  # bytes of keystream: half a millisecond; starting threads takes a tenth


def mask_apply(
    acc: UIntArray,
    seeds: bytes | bytearray | memoryview,
    signs: NDArray[np.int8],
    *,
    first: int = 0,
    threads: int | None = None,
) -> None:
    """Add signs[j] * PRG(seed j)[first : first + d] to `acc` in place, modulo its lane.

    acc      (d,), contiguous uint16, uint32 or uint64; the lane is that of the ring
    seeds    32 * count bytes
    signs    (count,), int8, +1 or -1
    first    index of acc[0] in the masks
    threads  the range is split over that many; None: over the CPUs of this process, as far as the
             work is worth it. The result does not depend on it.
    raises   TypeError, ValueError
    """
    lanes = vector("acc", acc, LANES)
    signs = vector("signs", signs, (np.int8,))
    view = memoryview(seeds)
    if view.nbytes != SEED_BYTES * signs.size or not view.c_contiguous:
        raise ValueError(
            f"seeds: {signs.size} signs need {SEED_BYTES * signs.size} contiguous bytes, got {view.nbytes}"
        )
    check_apart("seeds", view, lanes)
    if not np.all(np.abs(signs) == 1):
        raise ValueError("signs: every entry must be +1 or -1")
    if first < 0 or (first + lanes.size) * lanes.itemsize > MAXIMUM_KEYSTREAM_BYTES:
        raise ValueError(f"first: {first} with {lanes.size} lanes passes 2^36 bytes of keystream, or is < 0")
    if threads is None:
        work = lanes.nbytes * signs.size
        threads = max(min(usable_cpus(), work // _WORTH_A_THREAD), 1)
    check_threads(threads)
    if not lanes.size or not signs.size:
        return
    apply = _apply_native if lib.sa_has_mask() else _apply_library

    def part(where: tuple[int, int]) -> None:
        apply(lanes[where[0] : where[1]], seeds, signs, first + where[0])

    parts = min(threads, -(-lanes.size // _SMALLEST_SPLIT))
    in_threads(part, ranges(lanes.size, parts, _GROUP_LANES))


def _apply_native(
    lanes: UIntArray,
    seeds: bytes | bytearray | memoryview,
    signs: NDArray[np.int8],
    first: int,
) -> None:
    lib.sa_mask_add(
        write(lanes, "char[]"),
        lanes.size,
        lanes.itemsize,
        first,
        read(seeds, "uint8_t[]"),
        read(signs, "int8_t[]"),
        signs.size,
    )


def _apply_library(
    lanes: UIntArray,
    seeds: bytes | bytearray | memoryview,
    signs: NDArray[np.int8],
    first: int,
) -> None:
    """Do the same with the AES of `cryptography`, for CPUs without AES instructions."""
    view = memoryview(seeds).cast("B")
    zeros = bytes(_TILE_BYTES)
    stream = bytearray(_TILE_BYTES + 15)  # update_into asks for a block of slack
    wide = np.dtype(f"<u{lanes.itemsize}")
    per_tile = _TILE_BYTES // lanes.itemsize
    for j in range(signs.size):
        encryptor = _seek(bytes(view[SEED_BYTES * j : SEED_BYTES * (j + 1)]), first * lanes.itemsize)
        for at in range(0, lanes.size, per_tile):
            tile = lanes[at : at + per_tile]
            written = encryptor.update_into(zeros[: tile.nbytes], stream)
            mask = np.frombuffer(stream, wide, count=written // lanes.itemsize)
            if signs[j] > 0:
                tile += mask
            else:
                tile -= mask
    stream[:] = bytes(len(stream))


def _seek(seed: bytes, position: int) -> CipherContext:
    """Keystream of `seed` from byte `position` on."""
    block, skip = divmod(position, 16)
    counter = seed[16:28] + block.to_bytes(4, "big")
    encryptor = Cipher(algorithms.AES128(seed[:16]), modes.CTR(counter)).encryptor()
    encryptor.update(bytes(skip))
    return encryptor
