"""The norm that updates are clipped to, where it follows a quantile of the sites' norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.settings import positive, require, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveClip:
    """Follows a quantile of the norms (Andrew et al., NeurIPS 2021, algorithm 1, geometric update).

    norm      of the first round
    quantile  of the sites' norms that it moves to
    rate      of the steps: norm *= exp(-rate * (share within - quantile))
    share     of the norm that the bit of a site weighs when noise hides it: a larger share makes the
              quantile surer and the update's noise larger, by sqrt(1 + share^2)
    raises    SettingError
    The share of sites within the norm is summed with the update: the server learns nobody's bit. Sites count
    in it as they do in the mean, so that it is the quantile of rows where those are the weights.
    """

    norm: float
    quantile: float = 0.5
    rate: float = 0.2
    share: float = 0.1

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "norm", "rate")
        require(0 < self.quantile < 1, "quantile", "in (0, 1)", self.quantile)
        require(0 < self.share <= 1, "share", "in (0, 1]", self.share)

    def following(self, norm: float, within: float) -> float:
        """Return the next norm, from the share of sites within this one."""
        return norm * math.exp(-self.rate * (min(max(within, 0.0), 1.0) - self.quantile))
