"""The randomized Walsh-Hadamard transform: flattens a vector before it is quantized.

H D x / sqrt(d) with D random signs spreads every entry over all of them (Suresh et al., "Distributed
mean estimation with limited communication", ICML 2017, section 3).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from secagg.kernels._library import lib, read, vector, write
from secagg.kernels.mask import SEED_BYTES, mask_apply

_TILE = 1 << 20  # values whose signs are drawn at a time: 128 KiB of keystream
_PLUS = np.ones(1, np.int8)


def hadamard(values: NDArray[np.float32], *, seed: bytes, inverse: bool = False) -> None:
    """Rotate `values` in place: random signs, then the Walsh-Hadamard transform over sqrt(d).

    values   (d,), contiguous and aligned float32, d a power of two (pad with zeros)
    seed     32 bytes; the sign of value i changes where bit i % 8 of byte i // 8 of its PRG is set
    inverse  undo it: the transform, then the signs
    raises   TypeError, ValueError

    The result is the same bits on every machine: butterflies at distances 1, 2, 4, ... in this order.
    """
    array = vector("values", values, (np.float32,))
    if not array.flags.aligned or not array.flags.writeable:
        raise ValueError("values: must be aligned and writable")
    d = array.size
    if d < 1 or d & (d - 1):
        raise ValueError(f"values: the length must be a power of two, is {d}")
    if len(seed) != SEED_BYTES:  # before anything changes
        raise ValueError(f"seed: must be {SEED_BYTES} bytes, is {len(seed)}")
    if not inverse:
        _flip(array, seed)
    lib.sa_hadamard(write(array, "float[]"), d, 1 / math.sqrt(d))
    if inverse:
        _flip(array, seed)


def _flip(array: NDArray[np.float32], seed: bytes) -> None:
    for at in range(0, array.size, _TILE):
        tile = array[at : at + _TILE]
        flips = np.zeros(-(-tile.size // 64), np.uint64)  # bits of the keystream, 64 a lane
        mask_apply(flips, seed, _PLUS, first=at // 64, threads=1)
        little = flips.astype("<u8", copy=False).view(np.uint8)
        lib.sa_flip_signs(write(tile, "float[]"), read(little, "uint8_t[]"), tile.size)
