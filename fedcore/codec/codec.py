"""Weighted means of real vectors as sums in a ring: clip, scale, round stochastically; invert on the sum.

The weight travels behind the values, so the server learns only the sum of the weights. Values
are multiplied by weight / weight_cap before rounding; the plan makes wrapping impossible, not unlikely.

An encoded vector is: values, one entry each; precise values and the weight, as digits to the base
levels + 1, lowest first, so that they fit rings of few bits. Where the cap is 1 all count alike and no weight
is sent: nobody can claim one. A value of one bit is a sign: 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.tiles import tiles
from fedcore.errors import CodecError, SettingError, SpoiledError
from fedcore.settings import at_least, require, settle
from secagg.kernels import (
    NotFiniteError,
    QuantizedVector,
    UIntArray,
    dequantize,
    lane_dtype,
    ring_mask,
)

MAXIMUM_BITS = 40  # of a value; exact in the arithmetic of the kernel
PRECISE_STEPS = 2**23  # of a precise value in [0, 1]


@dataclass(frozen=True, slots=True)
class WeightedMean:
    """The content of a sum: the mean of the vectors and the sum of their weights."""

    mean: NDArray[np.float64]  # (d,)
    weight: int
    precise: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (e,)


class _Signs:
    """Values in [-clip, clip] that are rounded to 0 or 1: up with probability (1 + share x / clip) / 2."""

    def __init__(self, values: NDArray[Any], clip: float, share: float, ring_bits: int, seed: bytes) -> None:
        self._values, self._clip, self._share = values, clip, share
        self._ring_bits, self._seed = ring_bits, seed

    @property
    def length(self) -> int:
        """Entries."""
        return self._values.size

    def read(self, first: int, out: UIntArray) -> None:
        """Write entries first .. first + out.size - 1. Raises NotFiniteError."""
        for at, part in tiles(out):
            values = self._values[first + at : first + at + part.size].astype(np.float64)
            moved = np.clip(values, -self._clip, self._clip) * self._share + self._clip
            finite = np.isfinite(values)  # what is not stays, to be refused
            clip = 2 * self._clip
            shifted = QuantizedVector(
                np.where(finite, moved, values),
                clip=clip,
                scale=1 / clip,
                limit=1,
                ring_bits=self._ring_bits,
                seed=self._seed,
                first=first + at,
            )
            try:
                shifted.read(0, part)
            except NotFiniteError as error:
                index = first + at + error.index
                raise NotFiniteError(index, float(values[error.index])) from error


class EncodedVector:
    """Quantized values and behind them the digits: what a client submits (a VectorSource)."""

    def __init__(self, quantized: QuantizedVector | _Signs, digits: list[int]) -> None:
        self._quantized = quantized
        self._digits = digits

    def followed_by(self, entries: list[int]) -> EncodedVector:
        """Return the same vector with these ring elements behind it."""
        return EncodedVector(self._quantized, [*self._digits, *entries])

    @property
    def length(self) -> int:
        """Entries."""
        return self._quantized.length + len(self._digits)

    def read(self, first: int, out: UIntArray) -> None:
        """Write entries first .. first + out.size - 1. Raises CodecError for values that are not finite."""
        values = out[: max(self._quantized.length - first, 0)]  # behind them only digits
        try:
            if values.size:
                self._quantized.read(first, values)
        except NotFiniteError as error:
            raise CodecError(f"update[{error.index}]: must be finite") from error
        rest = out[values.size :]
        at = max(first - self._quantized.length, 0)
        rest[:] = self._digits[at : at + rest.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """The map between vectors of one round and ring elements.

    clip        largest magnitude of a coordinate; larger ones are clipped
    bits        of a rounded coordinate, sign included, 1..40
    weight_cap  largest weight of a client
    clients     at most so many are summed
    precise     values in [-1, 1] beside the vector that are carried to 2^-23, whatever the bits
    headroom    steps that noise adds to a sum at most
    raises      SettingError: out of range, or a sum that 64 bits cannot hold
    """

    clip: float
    bits: int
    weight_cap: int
    clients: int
    precise: int = 0
    headroom: int = 0

    def __post_init__(self) -> None:
        settle(self)
        require(1e-100 <= self.clip <= 1e100, "clip", "in 1e-100..1e100", self.clip)
        for name in ("bits", "weight_cap", "clients", "precise", "headroom"):
            value = getattr(self, name)
            require(isinstance(value, int), name, "an integer", value)
        require(1 <= self.bits <= MAXIMUM_BITS, "bits", f"in 1..{MAXIMUM_BITS}", self.bits)
        at_least(self, 1, "clients")
        require(1 <= self.weight_cap <= 2**62, "weight_cap", "in 1..2^62", self.weight_cap)
        require(0 <= self.precise <= 1000, "precise", "in 0..1000", self.precise)
        require(0 <= self.headroom < 2**62, "headroom", "in 0..2^62", self.headroom)
        if self.headroom and self.bits == 1:
            raise SettingError("bits: noise needs 2 or more, a sign has no room for it")
        if self.ring_bits > 64:
            raise SettingError(
                f"bits: sums of {self.clients} values of {self.bits} bits need "
                f"{self.ring_bits} ring bits, 64 is the limit"
            )

    @property
    def levels(self) -> int:
        """Largest magnitude of a rounded coordinate."""
        return max(int(2 ** (self.bits - 1) - 1), 1)

    @property
    def ring_bits(self) -> int:
        """Bits in which no sum of `clients` vectors can wrap, sign included; signs are counted from 0."""
        return (self.clients * self.levels + self.headroom).bit_length() + (self.bits > 1)

    @property
    def _weight_digits(self) -> int:
        return _digits_of(self.weight_cap, self.levels + 1) if self.weight_cap > 1 else 0

    @property
    def _precise_digits(self) -> int:
        return _digits_of(2 * PRECISE_STEPS * self.weight_cap, self.levels + 1)

    @property
    def overhead(self) -> int:
        """Entries behind the values: digits of the precise values and of the weight."""
        return self.precise * self._precise_digits + self._weight_digits

    def length(self, dimension: int) -> int:
        """Entries of an encoded vector of `dimension` values."""
        return dimension + self.overhead

    def encode(
        self,
        values: NDArray[np.floating[Any]],
        weight: int,
        seed: bytes,
        precise: NDArray[np.float64] | None = None,
    ) -> UIntArray:
        """Encode one client's vector: all of `source`.

        returns  (length(d),), values below 2^ring_bits
        raises   CodecError: a weight outside 0..weight_cap, NaN or infinite values
        """
        source = self.source(values, weight, seed, precise)
        out = np.empty(source.length, lane_dtype(self.ring_bits))
        source.read(0, out)
        return out

    def source(
        self,
        values: NDArray[np.floating[Any]],
        weight: int,
        seed: bytes,
        precise: NDArray[np.float64] | None = None,
    ) -> EncodedVector:
        """Encode one client's vector as it is read: for uploads that hold one chunk at a time.

        values   (d,) float64 or float32, left unchanged, and by the caller, too, until all is read
        seed     32 random bytes for the rounding, never used twice
        precise  (e,) values in [-1, 1], e as planned; rounded to the nearest of 2^-23
        weight   0: the vector says nothing, and counts as nothing unless all count alike
        raises   CodecError: a weight outside 0..weight_cap, precise values out of range; when it is
                 read: NaN or infinite values
        """
        if not isinstance(weight, int):
            raise CodecError(f"weight: must be an integer, is {weight!r}")
        if not 0 <= weight <= self.weight_cap:
            raise CodecError(f"weight: must be in 0..{self.weight_cap}, is {weight}")
        base = self.levels + 1
        digits: list[int] = []
        for value in self._checked(precise):
            steps = round((value + 1) * PRECISE_STEPS) * weight
            digits += _to_digits(steps, base, self._precise_digits)
        digits += _to_digits(weight, base, self._weight_digits)
        return EncodedVector(self._quantized(np.asarray(values), weight / self.weight_cap, seed), digits)

    def _checked(self, precise: NDArray[np.float64] | None) -> list[float]:
        given = [] if precise is None else [float(value) for value in precise]
        if len(given) != self.precise:
            raise CodecError(f"precise: must be {self.precise} values, are {len(given)}")
        for i, value in enumerate(given):
            if not -1 <= value <= 1:  # also NaN
                raise CodecError(f"precise[{i}]: must be in [-1, 1], is {value}")
        return given

    def _quantized(self, values: NDArray[Any], share: float, seed: bytes) -> QuantizedVector | _Signs:
        kind = np.float32 if values.dtype == np.float32 else np.float64
        values = np.ascontiguousarray(values, kind)
        if self.bits == 1:
            return _Signs(values, self.clip, share, max(self.ring_bits, 2), seed)
        if not share:
            values, share = np.zeros_like(values), 1.0
        scale = self.levels / self.clip * share
        return QuantizedVector(
            values, clip=self.clip, scale=scale, limit=self.levels, ring_bits=self.ring_bits, seed=seed
        )

    def decode(self, total: UIntArray, survivors: int) -> WeightedMean:
        """Decode a sum over `survivors` clients.

        total   (length(d),), values below 2^ring_bits
        raises  CodecError: more survivors than planned; SpoiledError: a sum of weights that cannot be
        """
        if not 1 <= survivors <= self.clients:
            raise CodecError(f"survivors: must be in 1..{self.clients}, are {survivors}")
        if int(total.max()) > ring_mask(self.ring_bits):
            raise CodecError(f"total: values must be below 2^{self.ring_bits}")
        base, width = self.levels + 1, self._precise_digits
        weight = survivors
        if self._weight_digits:
            weight = _from_digits(total[len(total) - self._weight_digits :], base)
        dimension = len(total) - self.overhead
        if int(total[dimension:].max(initial=0)) > survivors * self.levels:
            raise SpoiledError(f"total: a digit is above {survivors * self.levels}")
        if not 1 <= weight <= survivors * self.weight_cap:
            raise SpoiledError(
                f"total: weights of {survivors} clients sum to 1..{survivors * self.weight_cap}, "
                f"not to {weight}"
            )
        rest = total[dimension:]
        precise = [
            _from_digits(rest[i * width : (i + 1) * width], base) / (PRECISE_STEPS * weight) - 1
            for i in range(self.precise)
        ]
        if any(not -1 <= value <= 1 for value in precise):
            raise SpoiledError("total: precise values are outside [-1, 1]")
        step = self.clip / self.levels * self.weight_cap / weight
        values = total[:dimension]
        if self.bits == 1:
            mean = (2.0 * values.astype(np.float64) - survivors) * step
        else:
            mean = dequantize(values, step=step, ring_bits=self.ring_bits)
        return WeightedMean(mean, weight, np.array(precise))

    def error_bound(self, survivors: int, weight: int) -> float:
        """Largest difference, per coordinate, between a decoded mean and the mean of the clipped values."""
        step = self.clip / self.levels * (2 if self.bits == 1 else 1)
        return survivors * step * self.weight_cap / weight


def _digits_of(largest: int, base: int) -> int:
    """Digits that hold 0..largest."""
    count = 1
    while base**count <= largest:
        count += 1
    return count


def _to_digits(value: int, base: int, count: int) -> list[int]:
    """Return digits, lowest first."""
    out = []
    for _ in range(count):
        value, digit = divmod(value, base)
        out.append(digit)
    return out


def _from_digits(digits: UIntArray, base: int) -> int:
    """Undo `_to_digits`, also on sums of digits."""
    return sum(int(digit) * base**i for i, digit in enumerate(digits))
