"""Random numbers by counter, and distributions as tables: the same on every machine, in any order.

What device i draws for a purpose, the n-th time, is a function of these and the seed: nothing is drawn before
somebody asks, and a device's day is the same whoever else is asked. Distributions go through tables of
quantiles, which are rounded, and straight lines between them: no library's logarithm, which may differ in its
last digit, decides about an event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cache
from math import exp, log, log1p
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import SettingError

_CELL_BITS = 12
CELLS = 1 << _CELL_BITS
_DIGITS = 12
_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEPS = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_FRACTION = np.uint64((1 << (64 - _CELL_BITS)) - 1)
_MOST_SEED = 1 << 64


class Purpose(IntEnum):
    """What a number is drawn for: two purposes share none."""

    CLASS = 0
    SPEED = 1
    DOWN = 2
    UP = 3
    ZONE = 4
    ABSENCE = 5
    PRESENCE = 6


class Draws:
    """Random numbers of one seed, by Philox4x32-10 (Salmon et al., SC 2011, section 4.3)."""

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < _MOST_SEED:
            raise SettingError(f"seed: must be in 0..2^64 - 1, is {seed}")
        self.seed = seed

    def bits(
        self, purpose: int, index: NDArray[np.integer], number: NDArray[np.integer] | int = 0
    ) -> NDArray[np.uint64]:
        """Return 64 random bits for each device.

        index   (n,) of devices, below 2^32
        number  (n,) or one: the how many-th, below 2^32
        """
        wide = np.asarray(index).astype(np.uint64)
        counter = [wide, np.broadcast_to(np.uint64(purpose), wide.shape)]
        counter += [np.broadcast_to(np.asarray(number).astype(np.uint64), wide.shape), np.zeros_like(wide)]
        words = philox(counter, (self.seed & int(_LOW), self.seed >> 32))
        bits: NDArray[np.uint64] = words[0] << _HALF | words[1]
        return bits


def philox(counter: Sequence[NDArray[np.uint64]], key: tuple[int, int]) -> list[NDArray[np.uint64]]:
    """Return four words of 32 bits for each counter of four words."""
    a, b, c, d = counter
    keys = list(key)
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = second >> _HALF ^ b ^ np.uint64(keys[0]), first >> _HALF ^ d ^ np.uint64(keys[1])
        b, d = second & _LOW, first & _LOW
        keys = [(one + step) & int(_LOW) for one, step in zip(keys, _STEPS, strict=True)]
    return [a, b, c, d]


class Quantiles:
    """A distribution, by 4097 of its quantiles: 0, 1/4096, .. 1."""

    def __init__(self, values: Sequence[float]) -> None:
        if len(values) != CELLS + 1:
            raise SettingError(f"values: must be {CELLS + 1} quantiles, are {len(values)}")
        self.values = np.array([float(f"{value:.{_DIGITS}g}") for value in values])
        if not np.isfinite(self.values).all() or (np.diff(self.values) < 0).any():
            raise SettingError("values: must be finite, and must not fall")

    @classmethod
    def of(cls, quantile: Callable[[float], float]) -> Quantiles:
        """Tabulate an inverse distribution function; its two ends are cut at 1/8192."""
        inner = [j / CELLS for j in range(1, CELLS)]
        return cls([quantile(at) for at in (0.5 / CELLS, *inner, 1 - 0.5 / CELLS)])

    @classmethod
    def log_normal(cls, median: float, sigma: float) -> Quantiles:
        """Tabulate exp(sigma N), N standard normal, times the median."""
        if not median > 0 or not sigma >= 0:
            raise SettingError(
                f"log-normal: median must be above 0 and sigma not below, are {median}, {sigma}"
            )
        normal = NormalDist()
        return cls.of(lambda at: median * exp(sigma * normal.inv_cdf(at)))

    @classmethod
    def measured(cls, samples: Sequence[float]) -> Quantiles:
        """Tabulate what was measured: anything between the smallest and the largest."""
        if not len(samples):
            raise SettingError("samples: must be one at least")
        ordered = sorted(float(one) for one in samples)
        at = [j * (len(ordered) - 1) / CELLS for j in range(CELLS + 1)]
        return cls(np.interp(at, np.arange(len(ordered)), ordered).tolist())

    @property
    def mean(self) -> float:
        """The mean of what is drawn."""
        return float((self.values[1:] + self.values[:-1]).sum() / (2 * CELLS))

    def survival(self, at: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability of more than this."""
        shares = np.arange(CELLS + 1) / CELLS
        upper = np.interp(at, self.values, shares, left=0.0, right=1.0)
        return np.asarray(1 - upper)

    def draw(self, bits: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Turn 64 random bits into a number each."""
        cell = (bits >> np.uint64(64 - _CELL_BITS)).astype(np.intp)
        low = self.values[cell]
        drawn: NDArray[np.float64] = low + (self.values[cell + 1] - low) * _fraction(bits)
        return drawn


def exponential(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn 64 random bits into an exponential number of mean 1 each (2e-5 more, by the straight lines).

    In the last cell it has no memory: what is left of the bits is drawn again, on top.
    """
    table, tail, left = *_exponential_table(), bits
    out = np.zeros(bits.shape)
    for _ in range(64 // _CELL_BITS - 1):
        cell = (left >> np.uint64(64 - _CELL_BITS)).astype(np.intp)
        last = cell == CELLS - 1
        low, high = table[cell], table[np.minimum(cell + 1, CELLS - 1)]
        out += np.where(last, tail, low + (high - low) * _fraction(left))
        left = np.where(last, left << np.uint64(_CELL_BITS), np.uint64(0))
        if not last.any():
            break
    return out


def shares_of(bits: NDArray[np.uint64], shares: Sequence[float]) -> NDArray[np.uint8]:
    """Turn 64 random bits into an index each, by shares that sum to 1."""
    edges = np.cumsum(np.asarray(shares, np.float64))
    if len(edges) > 1 << 8 or (np.asarray(shares) < 0).any() or not abs(edges[-1] - 1) < 1e-9:
        raise SettingError(f"share: must be up to 256 that sum to 1, are {list(shares)}")
    return np.searchsorted(edges[:-1], uniform(bits), side="right").astype(np.uint8)


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn 64 random bits into a number in [0, 1) each."""
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def _fraction(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.asarray((bits & _FRACTION) * 2.0 ** (_CELL_BITS - 64))


@cache
def _exponential_table() -> tuple[NDArray[np.float64], float]:
    """Return the quantiles below 4095/4096, and that one."""
    values = [float(f"{-log1p(-j / CELLS):.{_DIGITS}g}") for j in range(CELLS)]
    return np.array(values), float(f"{log(CELLS):.{_DIGITS}g}")
