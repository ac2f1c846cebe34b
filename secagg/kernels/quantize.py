"""Real vectors to ring elements by stochastic rounding, and back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels._library import lib, read, vector, write
from secagg.kernels.mask import SEED_BYTES, mask_apply
from secagg.kernels.ring import UIntArray, checked_lanes, lane_dtype

_TILE = 1 << 17  # values whose random words are drawn at a time: 512 KiB, few calls, within the cache
_PLUS = np.ones(1, np.int8)


class NotFiniteError(ParameterError):
    """A value to quantize is NaN or infinite; `index` is its place."""

    def __init__(self, index: int, value: float) -> None:
        super().__init__(f"values[{index}]: must be finite, is {value}")
        self.index = index


class QuantizedVector:
    """Real values that become ring elements when they are read, tile by tile (a VectorSource).

    values     (d,), contiguous float32 or float64; not copied
    clip       values are clipped to [-clip, clip]; scale: ring steps per unit
    limit      no result has a larger magnitude, limit < 2^(ring_bits - 1)
    seed       32 bytes; value i is rounded with word first + i of its PRG (32-bit lanes)
    raises     ParameterError, TypeError, ValueError

    The rounding is unbiased up to 2^-32: x goes up with probability ceil(2^32 frac(x)) / 2^32.
    """

    def __init__(
        self,
        values: NDArray[np.float32] | NDArray[np.float64],
        *,
        clip: float,
        scale: float,
        limit: int,
        ring_bits: int,
        seed: bytes,
        first: int = 0,
    ) -> None:
        array = vector("values", values, (np.float32, np.float64))
        self._values = np.require(array, requirements=["C", "A"])
        self.dtype = lane_dtype(ring_bits)
        if not (math.isfinite(clip) and clip > 0 and math.isfinite(scale) and scale > 0):
            raise ParameterError(f"clip, scale: must be positive and finite, are {clip}, {scale}")
        if len(seed) != SEED_BYTES:
            raise ValueError(f"seed: must be {SEED_BYTES} bytes, is {len(seed)}")
        if first < 0:
            raise ValueError(f"first: must be at least 0, is {first}")
        if not isinstance(limit, int):
            raise ParameterError(f"limit: must be an integer, is {limit!r}")
        if not 1 <= limit < 2 ** min(ring_bits - 1, 52):
            raise ParameterError(
                f"limit: must be in 1..2^{min(ring_bits - 1, 52)} - 1 for {ring_bits} bits, is {limit}"
            )
        self._ring_bits, self._seed, self._first = ring_bits, seed, first
        self._clip, self._scale, self._limit = clip, scale, limit
        self._run, self._ctype = (
            (lib.sa_quantize_f32, "float[]")
            if array.dtype == np.float32
            else (lib.sa_quantize_f64, "double[]")
        )

    @property
    def length(self) -> int:
        """Entries."""
        return self._values.size

    def read(self, first: int, out: UIntArray) -> None:
        """Write ring elements first .. first + out.size - 1 to `out`, lanes at least ring_bits wide.

        raises  NotFiniteError, TypeError, ValueError
        """
        checked_lanes("out", out, self._ring_bits)
        if not 0 <= first <= self.length - out.size:
            raise ValueError(f"first: {first} with {out.size} entries is not within the {self.length} values")
        words = np.empty(min(_TILE, out.size), np.uint32)
        for at in range(first, first + out.size, _TILE):
            values = self._values[at : min(at + _TILE, first + out.size)]
            words[: values.size] = 0
            mask_apply(words[: values.size], self._seed, _PLUS, first=self._first + at, threads=1)
            done = self._run(
                write(out[at - first : at - first + values.size], "char[]"),
                out.itemsize,
                self._ring_bits,
                read(values, self._ctype),
                read(words, "uint32_t[]"),
                values.size,
                self._clip,
                self._scale,
                self._limit,
            )
            words[:] = 0
            if done != values.size:
                raise NotFiniteError(at + done, float(values[done]))


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
    """Clip, scale, round stochastically, reduce modulo 2^ring_bits: all of a QuantizedVector.

    returns  (d,) in the lane of ring_bits, two's complement modulo 2^ring_bits
    raises   NotFiniteError, ParameterError, ValueError, TypeError
    """
    source = QuantizedVector(
        values, clip=clip, scale=scale, limit=limit, ring_bits=ring_bits, seed=seed, first=first
    )
    out = np.empty(source.length, source.dtype)
    source.read(0, out)
    return out


def dequantize(values: UIntArray, *, step: float, ring_bits: int) -> NDArray[np.float64]:
    """Centre ring elements in [-2^(b-1), 2^(b-1)) and multiply them by `step`.

    values  (d,), lanes at least ring_bits wide; returns (d,) float64; raises TypeError, ValueError
    """
    lanes = checked_lanes("values", values, ring_bits)
    out = np.empty(lanes.size, np.float64)
    if lanes.size:
        lib.sa_dequantize(
            write(out, "double[]"), read(lanes, "char[]"), lanes.size, lanes.itemsize, ring_bits, step
        )
    return out
