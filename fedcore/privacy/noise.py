"""Noise that every site adds to its rounded vector before masking: only the noise of the sum is ever seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import Codec
from fedcore.codec.tiles import tiles
from fedcore.errors import CodecError
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.samplers import DiscreteGaussian, Skellam
from fedcore.stream import derive
from secagg.kernels import UIntArray

# Rounding is tried again until the rounded norm is within the bound; each try succeeds with
# probability 1 - exp(-1/2) or more (Kairouz, Liu, Steinke 2021, section 4.2).
_TRIES = 200
_DEVIATIONS = 12  # of the noise of a sum, see `Noise.headroom`: beyond it sums could wrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise that a site adds, in steps of the codec.

    variance  per coordinate and site
    sensitivity  L2 norm of what one protected person or site can change of a rounded vector
    norm      L2 norm of the rounded vector that a site does not pass; 0: rounding is not tried again
    smallest  fewest survivors of a round: fewer leave too little noise in the sum
    raises    CodecError
    """

    mechanism: Mechanism
    variance: float
    sensitivity: float
    norm: float = 0.0
    smallest: int = 1

    def __post_init__(self) -> None:
        if self.mechanism is Mechanism.GAUSSIAN:
            raise CodecError("noise.mechanism: the continuous Gaussian is for comparison, it fits no ring")
        for name in ("variance", "sensitivity", "norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise CodecError(f"noise.{name}: must be finite and at least 0, is {getattr(self, name)}")

    def headroom(self, clients: int) -> int:
        """Return the steps that a coordinate of the noise of so many sites together stays within.

        P[|noise| > headroom] < 2^-100 for both mechanisms, from two sites on, all of them in the sum, by
        Chernoff: 2 exp(-12^2 / 2) < 2^-102 where the noise is large, for the discrete Gaussian throughout;
        small Skellam noise has a heavier tail, which the 8 steps of each site are for.
        """
        return math.ceil(_DEVIATIONS * math.sqrt(clients * self.variance)) + 8 * clients

    def encode(
        self,
        codec: Codec,
        values: NDArray[np.floating[Any]],
        weight: int,
        seed: bytes,
        precise: NDArray[np.float64] | None = None,
    ) -> UIntArray:
        """Round within the norm, then add the noise; the digits behind the values get none.

        raises  CodecError when no rounding is within the norm: the vector is longer than agreed
        """
        if precise is not None and len(precise):
            raise CodecError("precise: noise does not hide precise values")
        encoded = self._rounded(codec, values, weight, seed)
        count = len(values)
        sampler = {Mechanism.DISCRETE_GAUSSIAN: DiscreteGaussian, Mechanism.SKELLAM: Skellam}[self.mechanism]
        ring = np.uint64(2**codec.ring_bits - 1)
        if self.variance:
            for first, drawn in sampler(self.variance).chunks(derive(seed, "noise"), count):
                part = encoded[first : first + drawn.size]
                part[:] = (part.astype(np.uint64) + drawn.astype(np.uint64)) & ring
        return encoded

    def _rounded(
        self, codec: Codec, values: NDArray[np.floating[Any]], weight: int, seed: bytes
    ) -> UIntArray:
        for attempt in range(_TRIES):
            encoded = codec.encode(values, weight, derive(seed, "rounding", attempt))
            if not self.norm:
                return encoded
            steps = (signed(tile, codec.ring_bits) for _, tile in tiles(encoded[: len(values)]))
            if math.sqrt(sum(float(tile @ tile) for tile in steps)) <= self.norm:
                return encoded
        raise CodecError(f"update: no rounding within the norm of {self.norm:.6g} steps in {_TRIES} tries")


def signed(values: UIntArray, ring_bits: int) -> NDArray[np.float64]:
    """Ring elements as signed numbers."""
    wide = values.astype(np.float64)
    return np.where(wide >= 2.0 ** (ring_bits - 1), wide - 2.0**ring_bits, wide)


def rounded_norm(norm: float, dimension: int) -> float:
    """L2 norm that a stochastically rounded vector need not pass (Kairouz et al. 2021, prop. 22).

    norm  of the vector before rounding, in steps; with beta = exp(-1/2)
    """
    spread = math.sqrt(dimension)
    often = norm**2 + dimension / 4 + norm + spread / 2
    return math.sqrt(min(often, (norm + spread) ** 2))
