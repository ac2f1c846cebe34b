"""Integer noise whose distribution is exact: the discrete Gaussian and the symmetric Skellam.

A draw compares a uniform real U, of which the first bits are known, with the distribution function. Where
those bits do not decide (U's bits equal those of an entry of the table, chance about size * 2^-63), more
bits of both are made until they do. All arithmetic is on integers with proven error bounds, without floats.

Looking a number up in a table takes a time that depends on the number: caches and the search leak it to
whoever measures the party's own processor. That observer could subtract part of the noise, so the privacy
claimed for noise from here holds against readers of the result, not against code that shares the processor.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from fedcore import stream
from secagg import ParameterError

STEPS_LIMIT = 2**16
"""Largest standard deviation, in steps: larger tables would take seconds and many megabytes."""

_CHUNK = 1 << 16  # draws at a time, so that the temporaries stay in the cache
_GUIDE_BITS = 16
_SPARE_BITS = 160  # of the weights beyond the bits of the table; errors take about 64 of them

Bits = Callable[[int, int], int]
"""(draw, count) -> the first `count` bits of that draw's own endless stream, as one number."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Unnormalized masses of first, first + 1, ... in units of 2^-p, each at most `error` units too small."""

    first: int
    units: list[int]
    error: int
    left_out: int  # bound of the total mass outside, in units


@dataclass(frozen=True, slots=True)
class Table:
    """T[i] = floor(2^bits * P[X <= first + i]), ascending; 0 before it, 2^bits - 1 after it."""

    first: int
    floors: list[int]


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A table of at most 64 bits as an array, and the index for each value of the leading bits, if one."""

    first: int
    floors: NDArray[np.uint64]
    guide: NDArray[np.int32]  # -1 where an entry of the table begins with these bits
    shift: np.uint64


def exp_bounds(x: Fraction, precision: int) -> tuple[int, int]:
    """Return lower and upper bounds of 2^precision * exp(-x), for x >= 0."""
    one = 1 << precision
    if x > precision:
        return 0, 1  # exp(-x) < 2^-x
    halvings = max(0, math.ceil(x).bit_length() + 1)
    y = x / (1 << halvings)  # <= 1/2
    low = high = term_low = term_high = one
    k = 0
    while term_high > 1:  # alternating with falling terms: a sum that ends on either sign bounds the value
        k += 1
        term_low = term_low * y.numerator // (y.denominator * k)
        term_high = -(-term_high * y.numerator // (y.denominator * k))
        low, high = (low - term_high, high - term_low) if k % 2 else (low + term_low, high + term_high)
    low, high = max(0, low - 1), min(one, high + 1)  # the terms that were left out sum to at most one unit
    for _ in range(halvings):
        low, high = low * low >> precision, -(-high * high >> precision)
    return low, high


def gaussian_weights(variance: Fraction, precision: int) -> Weights:
    """Return the weights of |X|: 1 for 0 and 2 exp(-k^2 / (2 variance)) for k >= 1 (X itself gets a sign).

    By recurrence: w_(k+1) = w_k r_k, r_(k+1) = r_k q, with r_0 = exp(-1 / (2 variance)), q = r_0^2. As all
    factors are at most 1 and every product is rounded down, the error of r_k is at most that of r_0 plus
    k (error of q + 1), and that of w_k at most the sum of the errors of r_0 .. r_(k-1) plus k.
    """
    low, high = exp_bounds(1 / (2 * variance), precision)
    step_low, step_high = exp_bounds(1 / variance, precision)
    off, off_step = high - low, step_high - step_low + 1
    ratio, weight = low, 1 << precision
    units = [weight]
    while True:
        weight = weight * ratio >> precision
        ratio = ratio * step_low >> precision
        if not weight:
            break
        units.append(2 * weight)
    k = len(units)  # the first that is left out; w_k < error + 1 and all later ratios are below ratio_high
    error = k * (off + 1) + k * k * off_step
    ratio_high = ratio + off + k * off_step
    left_out = 2 * -(-((error + 1) << precision) // ((1 << precision) - ratio_high))
    return Weights(0, units, 2 * error, left_out)


def poisson_weights(mean: Fraction, precision: int) -> Weights:
    """Return the weights mean^k / k! relative to the most likely value, k = floor(mean).

    By recurrence away from that value, where all factors are at most 1: a step adds at most one unit.
    """
    top, bottom, mode = mean.numerator, mean.denominator, math.floor(mean)
    above, weight, k = [1 << precision], 1 << precision, mode
    while weight:
        k += 1
        weight = weight * top // (bottom * k)
        above.append(weight)
    left_out = -(-(len(above) * top) // (bottom * (k + 1) - top)) + len(above)
    below: list[int] = []
    weight, k = 1 << precision, mode
    while weight and k:
        weight = weight * bottom * k // top
        below.append(weight)
        k -= 1
    if k:
        left_out += -(-(len(below) + 1) * bottom * k // (top - bottom * k)) + 1
    error = max(len(above), len(below))
    return Weights(k, below[::-1] + above, error, left_out)


def table(weigh: Callable[[int], Weights], bits: int) -> Table:
    """Return the table of the distribution with these weights.

    `weigh(precision)` gives the weights. An entry whose floor the error leaves open repeats the
    work with more bits, so that every entry is the exact floor.
    """
    spare = _SPARE_BITS
    while True:
        found = _floors(weigh(bits + spare), bits)
        if found is not None:
            return found
        spare *= 2


def _floors(weights: Weights, bits: int) -> Table | None:
    """Return the table, or None when the error leaves an entry open.

    P[X <= k] lies between running / (total + slack) and (running + slack) / total, and below 1.
    """
    slack = weights.left_out + weights.error * len(weights.units)
    total, last = sum(weights.units), (1 << bits) - 1
    most, shifted = total + slack, slack << bits
    first, running, floors = weights.first, 0, list[int]()
    for unit in weights.units:
        running += unit << bits
        floor = running // most
        if floor == last:
            floors.append(floor)
            return Table(first - 1, [0, *floors]) if first > 0 else Table(first, floors)
        if running + shifted >= (floor + 1) * total:
            return None
        if floor or floors:
            floors.append(floor)
        else:
            first += 1  # of the zeros only the last is kept; it shows that U = 0.00.. is undecided
    return None  # the weights end before the tail is below 2^-bits


def _lookup(source: Table, bits: int) -> _Lookup:
    floors = np.array(source.floors, np.uint64)
    guide_bits = min(_GUIDE_BITS, bits)
    shift = np.uint64(bits - guide_bits)
    starts = np.arange(1 << guide_bits, dtype=np.uint64) << shift
    ends = starts + np.uint64((1 << int(shift)) - 1)
    index = np.searchsorted(floors, starts)
    guide = np.where(np.searchsorted(floors, ends, side="right") == index, index, -1).astype(np.int32)
    return _Lookup(source.first, floors, guide, shift)


def _refine(tables: Callable[[int], Table], word: int, bits: int, more: Callable[[int], int]) -> int:
    """Decide a draw whose first `bits` bits are those of an entry; `more(count)` gives those that follow."""
    known = bits
    while True:
        known *= 2
        extra = known - bits
        finer, number = tables(known), word << extra | more(extra)
        index = int(np.searchsorted(np.array(finer.floors, object), number))
        if finer.floors[index] != number:
            return finer.first + index


class _Inversion:
    """Draws from a distribution on 0, 1, ..: the smallest k with U < P[X <= k], U uniform in [0, 1)."""

    __slots__ = ("_bits", "_lookup", "_tables")

    def __init__(self, tables: Callable[[int], Table], bits: int) -> None:
        """`tables(b)` gives the table of b bits; words have `bits` bits, at most 64."""
        self._tables, self._bits = tables, bits
        self._lookup = _lookup(tables(bits), bits)

    def draw(self, words: NDArray[np.uint64], more: Bits) -> NDArray[np.int64]:
        """Return a number for each word, the first bits of its U. `more` gives the bits after them."""
        lookup = self._lookup
        index: NDArray[np.int64] = lookup.guide[words >> lookup.shift].astype(np.int64)
        open_ = np.flatnonzero(index < 0)
        found = np.searchsorted(lookup.floors, words[open_])
        index[open_] = found
        index += lookup.first
        # U < P holds above an entry's floor and fails below it; the floor itself says neither.
        for i in open_[lookup.floors[found] == words[open_]].tolist():
            index[i] = _refine(self._tables, int(words[i]), self._bits, partial(more, i))
        return index


@lru_cache(maxsize=12)
def _gaussian_table(variance: Fraction, bits: int) -> Table:
    return table(lambda precision: gaussian_weights(variance, precision), bits)


@lru_cache(maxsize=12)
def _poisson_table(mean: Fraction, bits: int) -> Table:
    return table(lambda precision: poisson_weights(mean, precision), bits)


@lru_cache(maxsize=8)
def _gaussian_magnitude(variance: Fraction, bits: int = 63) -> _Inversion:
    return _Inversion(lambda wanted: _gaussian_table(variance, wanted), bits)


@lru_cache(maxsize=8)
def _poisson(mean: Fraction, bits: int = 64) -> _Inversion:
    return _Inversion(lambda wanted: _poisson_table(mean, wanted), bits)


def _bits_of(seed: bytes, first: int) -> Bits:
    """Return the endless streams of draws first, first + 1, .., for those few that need more than a word."""

    def bits(draw: int, count: int) -> int:
        size = -(-count // 64)
        found = stream.words(stream.derive(seed, "refine", first + draw), size)
        return int.from_bytes(found.astype(">u8").tobytes(), "big") >> (64 * size - count)

    return bits


def _checked(variance: Fraction | float) -> Fraction:
    if not math.isfinite(variance) or variance <= 0:
        raise ParameterError(f"variance: must be positive and finite, is {variance}")
    if variance > STEPS_LIMIT**2:
        raise ParameterError(f"variance: must be at most {STEPS_LIMIT}^2 steps, is {float(variance)}")
    return Fraction(variance)


class Noise(ABC):
    """A distribution of integers around 0."""

    __slots__ = ("_variance",)

    def __init__(self, variance: Fraction | float) -> None:
        """`variance` in squared steps. ParameterError: not positive, not finite or above 2^32."""
        self._variance = _checked(variance)

    @property
    def variance(self) -> float:
        """The parameter, in squared steps."""
        return float(self._variance)

    def sample(self, seed: bytes, count: int) -> NDArray[np.int64]:
        """Return `count` draws, the same for the same seed. One seed serves one call and stays secret."""
        if count < 0:
            raise ParameterError(f"count: must be at least 0, is {count}")
        out = np.empty(count, np.int64)
        for first, drawn in self.chunks(seed, count):
            out[first : first + drawn.size] = drawn
        return out

    def chunks(self, seed: bytes, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the draws of `sample` a part at a time, and where it begins."""
        draw = self._drawing(seed)
        for first in range(0, count, _CHUNK):
            yield first, draw(first, min(_CHUNK, count - first))

    @abstractmethod
    def _drawing(self, seed: bytes) -> Callable[[int, int], NDArray[np.int64]]:
        """Return what gives draws first .. first + size - 1 of (first, size)."""


class DiscreteGaussian(Noise):
    """Integers k with probability proportional to exp(-k^2 / (2 variance)).

    Canonne, Kamath, Steinke, NeurIPS 2020, definition 1; drawn by inversion instead of their rejection.
    A float is taken as the exact fraction that it is. The variance of the numbers is a little below the
    parameter: by less than 10^-6 of it from a parameter of 1 on, by more below.
    """

    __slots__ = ()

    def _drawing(self, seed: bytes) -> Callable[[int, int], NDArray[np.int64]]:
        magnitude = _gaussian_magnitude(self._variance)
        base = stream.derive(seed, "discrete gaussian")

        def draw(first: int, size: int) -> NDArray[np.int64]:
            words = stream.words(base, size, first)
            found = magnitude.draw(words >> np.uint64(1), _bits_of(base, first))
            sign = (words & np.uint64(1)).astype(np.int64)
            return (found ^ -sign) + sign  # negated where the last bit, of which the magnitude is free, is 1

        return draw


class Skellam(Noise):
    """The difference of two independent Poisson numbers of mean variance / 2 each.

    Agarwal, Kairouz, Liu, NeurIPS 2021, section 3. The sum of independent ones is Skellam again, with the
    sum of the variances. A float is taken as the exact fraction that it is.
    """

    __slots__ = ()

    def _drawing(self, seed: bytes) -> Callable[[int, int], NDArray[np.int64]]:
        poisson = _poisson(self._variance / 2)
        plus, minus = stream.derive(seed, "skellam", "+"), stream.derive(seed, "skellam", "-")

        def draw(first: int, size: int) -> NDArray[np.int64]:
            found = poisson.draw(stream.words(plus, size, first), _bits_of(plus, first))
            found -= poisson.draw(stream.words(minus, size, first), _bits_of(minus, first))
            return found

        return draw
