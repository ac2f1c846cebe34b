"""Differential privacy of a training run: how much noise each site adds, and what a sum then reveals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from fedcore.codec.codec import Codec
from fedcore.errors import SettingError
from fedcore.privacy.accounting import Budget, Mechanism, Release, calibrate, l1_bound
from fedcore.privacy.noise import Noise, rounded_norm
from fedcore.settings import at_least, positive, require, settle
from secagg import ParameterError

_MOST_STEPS = 1e60  # far beyond what noise can hide; squares of it are still numbers
# Rotating two vectors of 2^k values twice in single precision: 2 (2 k + 4) 2^-24 of the norm, k <= 40.
_ROTATED = 2.0**-16
_LEAST_ROTATED = 1e-30  # far from the smallest numbers of single precision


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """Privacy against everybody who sees the sums, the server included: of a site's whole vector.

    Where a site holds many persons' rows and bounds what each adds to its vector, `sensitivity` makes it
    the privacy of a person; a site that does not keep to its bound breaks the promise for its own rows.

    epsilon, delta  of all rounds together; a round that would pass it is refused
    rounds          that the noise is calibrated to; attempts without a result count, too: a lying
                    server may have kept their sums
    smallest        fewest survivors of a round with a result
    colluders       among them that may subtract their own noise
    statistics      one release more, of the moments of the columns, gives the standardizer, and `rounds`
                    counts it; else it is that of the public bounds
    sensitivity     L2 norm of what one person adds to a site's vector; None: a whole vector is protected
    raises          SettingError
    Noise of every site: variance for `smallest - colluders` sites to be enough together. A site counts
    uniformly, whatever its rows: a weight would be one more thing to hide.
    """

    epsilon: float
    delta: float
    rounds: int
    smallest: int
    colluders: int = 0
    mechanism: Mechanism = Mechanism.SKELLAM
    sensitivity: float | None = None
    statistics: bool = False

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "epsilon", "sensitivity")
        require(0 < self.delta < 1, "delta", "in (0, 1)", self.delta)
        at_least(self, 1, "rounds")
        at_least(self, 0, "colluders")
        rule = f"more than the {self.colluders} colluders"
        require(self.smallest > self.colluders, "smallest", rule, self.smallest)
        if self.mechanism is Mechanism.GAUSSIAN:
            raise SettingError("mechanism: the central Gaussian needs a trusted server; it is for comparison")

    @property
    def parties(self) -> int:
        """Sites whose noise is sure to be in a sum."""
        return self.smallest - self.colluders

    @property
    def budget(self) -> Budget:
        """Budget of all rounds together."""
        return Budget(self.epsilon, self.delta)

    def of_moments(self, norm: float, expected: float) -> PrivacyPlan:
        """Return the plan of the release of moments: of a person in it, if persons are protected.

        norm  that no person passes; expected: rows by which the sum over persons is divided
        """
        if self.sensitivity is None:
            return self
        if not expected:
            raise SettingError("privacy.statistics: false for a learner that says no expected number of rows")
        return replace(self, sensitivity=norm / expected)

    def noise(self, codec: Codec, norm: float, dimension: int, *, rotate: bool = False) -> Noise:
        """Return what each site adds.

        codec      of the round, but for its headroom; norm: that no vector passes, in units of its values
        dimension  coordinates that are sent; rotate: whether they are rotated
        raises     ParameterError: a norm that no noise fits; no noise is enough
        """
        scale = codec.levels / codec.clip
        if not norm * scale <= _MOST_STEPS:
            raise ParameterError(f"norm: must be at most {_MOST_STEPS:g} steps, is {norm * scale:g}")
        if rotate and not _LEAST_ROTATED <= norm <= 1 / _LEAST_ROTATED:
            raise ParameterError(f"norm: must be in {_LEAST_ROTATED}..{1 / _LEAST_ROTATED:g}, is {norm}")
        longest = rounded_norm(norm * scale, dimension)
        if self.sensitivity is None:
            bound, tried = longest, longest
        else:
            bound, tried = self._of_person(norm, scale, dimension, rotate=rotate), 0.0
            if 2 * longest < bound:  # a person may turn a vector round
                bound, tried = 2 * longest, longest
        return Noise(
            mechanism=self.mechanism,
            variance=_variance(self, bound, dimension),
            sensitivity=bound,
            norm=tried,
            smallest=self.smallest,
        )

    def _of_person(self, norm: float, scale: float, dimension: int, *, rotate: bool) -> float:
        """Return what a person changes of a vector that is rounded once, in steps.

        The same randomness rounds two neighbouring vectors less than a step a coordinate apart. That they
        are rounded alike is true only while rounding is not tried again, which depends on the vector.
        """
        inexact = _ROTATED * norm if rotate else 0.0
        return (min(self.sensitivity or 0.0, 2 * norm) + inexact) * scale + math.sqrt(dimension)

    def release(self, noise: Noise, dimension: int, survivors: int) -> Release:
        """Return what a sum over so many survivors reveals."""
        return Release(
            mechanism=self.mechanism,
            l2=noise.sensitivity,
            l1=l1_bound(noise.sensitivity, dimension),
            dimension=dimension,
            variance=noise.variance,
            parties=survivors - self.colluders,
        )


@lru_cache(maxsize=64)
def _variance(plan: PrivacyPlan, bound: float, dimension: int) -> float:
    return calibrate(
        plan.mechanism,
        epsilon=plan.epsilon,
        delta=plan.delta,
        rounds=plan.rounds,
        l2=bound,
        l1=l1_bound(bound, dimension),
        dimension=dimension,
        parties=plan.parties,
    )
