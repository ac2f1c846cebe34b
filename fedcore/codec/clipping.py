"""The norm that updates are clipped to: fixed, or following a quantile of the sites' norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.errors import TaskError


@dataclass(frozen=True, slots=True)
class FixedClip:
    """Always the same L2 norm."""

    norm: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.norm) and self.norm > 0):
            raise TaskError(f"norm: must be positive and finite, is {self.norm}")

    @property
    def share(self) -> float:
        """Return 0: no site says whether it was within the norm."""
        return 0.0

    def following(self, norm: float, within: float) -> float:
        """Return the same norm."""
        return norm


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveClip:
    """Follows a quantile of the norms (Andrew et al., NeurIPS 2021, algorithm 1, geometric update).

    norm      of the first round
    quantile  of the sites' norms that it moves to
    rate      of the steps: norm *= exp(-rate * (share within - quantile))
    share     of the norm that the bit of a site weighs when noise hides it: a larger share makes the
              quantile surer and the update's noise larger, by sqrt(1 + share^2)
    The share of sites within the norm is summed with the update: the server learns nobody's bit. Sites count
    in it as they do in the mean, so that it is the quantile of rows where those are the weights.
    """

    norm: float
    quantile: float = 0.5
    rate: float = 0.2
    share: float = 0.1

    def __post_init__(self) -> None:
        FixedClip(self.norm)
        if not (0 < self.quantile < 1 and 0 < self.share <= 1):
            raise TaskError(f"quantile, share: must be in (0, 1), are {self.quantile}, {self.share}")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise TaskError(f"rate: must be positive and finite, is {self.rate}")

    def following(self, norm: float, within: float) -> float:
        """Return the next norm, from the share of sites within this one."""
        return norm * math.exp(-self.rate * (min(max(within, 0.0), 1.0) - self.quantile))
