"""Weighted means of real vectors as sums in a ring: clip, scale, round stochastically; invert on the sum.

The weight travels as one more coordinate, so the server learns only the sum of the weights. Values
are multiplied by weight / weight_cap before rounding; the plan makes wrapping impossible, not unlikely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import CodecError
from secagg.kernels import (
    NotFiniteError,
    QuantizedVector,
    UIntArray,
    dequantize,
    lane_dtype,
    ring_mask,
)

MAXIMUM_BITS = 40  # of a value; exact in the arithmetic of the kernel


@dataclass(frozen=True, slots=True)
class WeightedMean:
    """What a sum says: the mean of the vectors and the sum of their weights."""

    mean: NDArray[np.float64]  # (d,)
    weight: int


class EncodedVector:
    """Quantized values and behind them the weight: what a client submits (a VectorSource)."""

    def __init__(self, quantized: QuantizedVector, weight: int) -> None:
        self._quantized = quantized
        self._weight = weight

    @property
    def length(self) -> int:
        """Entries."""
        return self._quantized.length + 1

    def read(self, first: int, out: UIntArray) -> None:
        """Write entries first .. first + out.size - 1. Raises CodecError for values that are not finite."""
        values = out[: max(self._quantized.length - first, 0)]  # behind them only the weight
        try:
            if values.size:
                self._quantized.read(first, values)
        except NotFiniteError as error:
            raise CodecError(f"update[{error.index}]: must be finite") from error
        out[values.size :] = self._weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """How vectors of one round become ring elements.

    clip        largest magnitude of a coordinate; larger ones are clipped
    bits        of a rounded coordinate, sign included, 2..40
    weight_cap  largest weight of a client
    clients     at most so many are summed
    raises      CodecError: out of range, or a sum that 64 bits cannot hold
    """

    clip: float
    bits: int
    weight_cap: int
    clients: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise CodecError(f"clip: must be positive and finite, is {self.clip}")
        if not 1e-100 <= self.clip <= 1e100:
            raise CodecError(f"clip: must be in 1e-100..1e100, is {self.clip}")
        for name in ("bits", "weight_cap", "clients"):
            if not isinstance(getattr(self, name), int):
                raise CodecError(f"{name}: must be an integer, is {getattr(self, name)!r}")
        if not 2 <= self.bits <= MAXIMUM_BITS:
            raise CodecError(f"bits: must be in 2..{MAXIMUM_BITS}, is {self.bits}")
        if self.weight_cap < 1 or self.clients < 1:
            raise CodecError(
                f"weight_cap, clients: must be at least 1, are {self.weight_cap}, {self.clients}"
            )
        if self.ring_bits > 64:
            raise CodecError(
                f"bits, clients: sums of {self.clients} values of {self.bits} bits need "
                f"{self.ring_bits} ring bits, 64 is the limit"
            )

    @property
    def levels(self) -> int:
        """Largest magnitude of a rounded coordinate."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def ring_bits(self) -> int:
        """Bits in which no sum of `clients` vectors can wrap, sign included."""
        return (self.clients * max(self.levels, self.weight_cap)).bit_length() + 1

    def length(self, dimension: int) -> int:
        """Entries of an encoded vector of `dimension` values."""
        return dimension + 1

    def encode(self, values: NDArray[np.float64], weight: int, seed: bytes) -> UIntArray:
        """Encode one client's vector: all of `source`.

        returns  (d + 1,), values below 2^ring_bits
        raises   CodecError: a weight outside 1..weight_cap, NaN or infinite values
        """
        source = self.source(values, weight, seed)
        out = np.empty(source.length, lane_dtype(self.ring_bits))
        source.read(0, out)
        return out

    def source(self, values: NDArray[np.floating[Any]], weight: int, seed: bytes) -> EncodedVector:
        """Encode one client's vector as it is read: for uploads that hold one chunk at a time.

        values   (d,) float64 or float32, left unchanged; seed: 32 random bytes for the rounding, never
                 used twice
        raises   CodecError: a weight outside 1..weight_cap; when it is read: NaN or infinite values
        """
        if not isinstance(weight, int):
            raise CodecError(f"weight: must be an integer, is {weight!r}")
        if not 1 <= weight <= self.weight_cap:
            raise CodecError(f"weight: must be in 1..{self.weight_cap}, is {weight}")
        values = np.asarray(values)
        narrow = values.dtype == np.float32
        quantized = QuantizedVector(
            np.ascontiguousarray(values, np.float32) if narrow else np.ascontiguousarray(values, np.float64),
            clip=self.clip,
            scale=self.levels / self.clip * (weight / self.weight_cap),
            limit=self.levels,
            ring_bits=self.ring_bits,
            seed=seed,
        )
        return EncodedVector(quantized, weight)

    def decode(self, total: UIntArray, survivors: int) -> WeightedMean:
        """Decode a sum over `survivors` clients.

        total   (d + 1,), values below 2^ring_bits
        raises  CodecError: more survivors than planned, a sum of weights that cannot be
        """
        if not 1 <= survivors <= self.clients:
            raise CodecError(f"survivors: must be in 1..{self.clients}, are {survivors}")
        if int(total.max()) > ring_mask(self.ring_bits):
            raise CodecError(f"total: values must be below 2^{self.ring_bits}")
        weight = int(total[-1])
        if not survivors <= weight <= survivors * self.weight_cap:
            raise CodecError(
                f"total: weights of {survivors} clients sum to {survivors}..{survivors * self.weight_cap}, "
                f"not to {weight}"
            )
        step = self.clip / self.levels * self.weight_cap / weight
        return WeightedMean(dequantize(total[:-1], step=step, ring_bits=self.ring_bits), weight)

    def error_bound(self, survivors: int, weight: int) -> float:
        """Largest difference, per coordinate, between a decoded mean and the mean of the clipped values."""
        return survivors * self.clip / self.levels * self.weight_cap / weight
