"""Real vectors to ring elements by stochastic rounding, and back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels._library import lib, read, vector, write
from secagg.kernels.mask import mask_apply
from secagg.kernels.ring import UIntArray, _lanes, lane_dtype

_TILE = 1 << 14  # values whose random words fit the cache
_PLUS = np.ones(1, np.int8)


class NotFiniteError(ParameterError):
    """A value to quantize is NaN or infinite; `index` is its place."""

    def __init__(self, index: int, value: float) -> None:
        super().__init__(f"values[{index}]: must be finite, is {value}")
        self.index = index


def quantize(
    values: NDArray[np.float32] | NDArray[np.float64],
    *,
    clip: float,
    scale: float,
    limit: int,
    ring_bits: int,
    seed: bytes,
    first: int = 0,
) -> UIntArray:
    """Clip to [-clip, clip], scale, round stochastically, reduce modulo 2^ring_bits.

    values   (d,), contiguous float32 or float64
    scale    ring steps per unit; limit: no result has a larger magnitude, limit < 2^(ring_bits - 1)
    seed     32 bytes; value i is rounded with word first + i of its PRG (32-bit lanes)
    returns  (d,) in the lane of ring_bits, two's complement modulo 2^ring_bits
    raises   NotFiniteError, ValueError, TypeError

    The rounding is unbiased up to 2^-32: x goes up with probability ceil(2^32 frac(x)) / 2^32.
    """
    array = np.require(vector("values", values, (np.float32, np.float64)), requirements=["C", "A"])
    dtype = lane_dtype(ring_bits)
    if not (math.isfinite(clip) and clip > 0 and math.isfinite(scale) and scale > 0):
        raise ParameterError(f"clip, scale: must be positive and finite, are {clip}, {scale}")
    if not 1 <= limit < 2 ** min(ring_bits - 1, 52):
        raise ParameterError(
            f"limit: must be in 1..2^{min(ring_bits - 1, 52)} - 1 for {ring_bits} bits, is {limit}"
        )
    run, ctype = (
        (lib.sa_quantize_f32, "float[]") if array.dtype == np.float32 else (lib.sa_quantize_f64, "double[]")
    )
    out = np.empty(array.size, dtype)
    words = np.empty(min(_TILE, array.size), np.uint32)
    for at in range(0, array.size, _TILE):
        n = min(_TILE, array.size - at)
        words[:n] = 0
        mask_apply(words[:n], seed, _PLUS, first=first + at)
        done = run(
            write(out[at : at + n], "char[]"),
            out.itemsize,
            ring_bits,
            read(array[at : at + n], ctype),
            read(words, "uint32_t[]"),
            n,
            clip,
            scale,
            limit,
        )
        if done != n:
            raise NotFiniteError(at + done, float(array[at + done]))
    return out


def dequantize(values: UIntArray, *, step: float, ring_bits: int) -> NDArray[np.float64]:
    """Centre ring elements in [-2^(b-1), 2^(b-1)) and multiply them by `step`.

    values  (d,), lanes at least ring_bits wide; returns (d,) float64; raises TypeError, ValueError
    """
    lanes = _lanes("values", values, ring_bits)
    out = np.empty(lanes.size, np.float64)
    if lanes.size:
        lib.sa_dequantize(
            write(out, "double[]"), read(lanes, "char[]"), lanes.size, lanes.itemsize, ring_bits, step
        )
    return out
