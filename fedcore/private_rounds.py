"""Differential privacy of a training run: how much noise each site adds, and what the rounds have cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from fedcore.codec import Codec
from fedcore.errors import TaskError
from fedcore.noise import Noise, rounded_norm
from fedcore.privacy import Accountant, Budget, Mechanism, Release, calibrate, l1_bound


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """User-level privacy against everybody who sees the sums, the server included.

    epsilon, delta  of all rounds together; a round that would pass it is refused
    rounds          that the noise is calibrated to; attempts without a result count, too: a lying
                    server may have kept their sums
    smallest        fewest survivors of a round with a result
    colluders       among them that may subtract their own noise
    Noise of every site: variance for `smallest - colluders` sites to be enough together. A site counts
    uniformly, whatever its rows: a weight would be one more thing to hide.
    """

    epsilon: float
    delta: float
    rounds: int
    smallest: int
    colluders: int = 0
    mechanism: Mechanism = Mechanism.SKELLAM

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon) and 0 < self.delta < 1):
            raise TaskError(f"epsilon, delta: must be > 0 and in (0, 1), are {self.epsilon}, {self.delta}")
        if self.rounds < 1 or self.colluders < 0 or self.smallest <= self.colluders:
            raise TaskError(
                f"rounds, smallest, colluders: must be at least 1, and more survivors than colluders, "
                f"are {self.rounds}, {self.smallest}, {self.colluders}"
            )
        if self.mechanism is Mechanism.GAUSSIAN:
            raise TaskError("mechanism: the central Gaussian needs a trusted server; it is for comparison")

    @property
    def parties(self) -> int:
        """Sites whose noise is sure to be in a sum."""
        return self.smallest - self.colluders

    @property
    def budget(self) -> Budget:
        """What all rounds together may cost."""
        return Budget(self.epsilon, self.delta)

    def noise(self, codec: Codec, norm: float, dimension: int) -> Noise:
        """Return what each site adds.

        codec      of the round, but for its headroom; norm: that no vector passes, in units of its values
        dimension  coordinates that are sent
        """
        steps = norm / codec.clip * codec.levels
        bound = rounded_norm(steps, dimension)
        variance = _variance(self, bound, dimension)
        return Noise(mechanism=self.mechanism, variance=variance, norm=bound, smallest=self.smallest)

    def release(self, noise: Noise, dimension: int, survivors: int) -> Release:
        """Return what a sum over so many survivors reveals."""
        return Release(
            mechanism=self.mechanism,
            l2=noise.norm,
            l1=l1_bound(noise.norm, dimension),
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


@dataclass(slots=True)
class PrivacyGuard:
    """Keeps the account of a run: asked before a round, told after it."""

    plan: PrivacyPlan
    accountant: Accountant = field(init=False)

    def __post_init__(self) -> None:
        self.accountant = Accountant(self.plan.delta)

    def before(self, noise: Noise, dimension: int) -> None:
        """Refuse a round that could pass the budget. Raises BudgetExceededError."""
        self.accountant.require(self.plan.release(noise, dimension, self.plan.smallest), self.plan.budget)

    def after(self, noise: Noise, dimension: int, survivors: int | None) -> float:
        """Spend; None: a round without a result. Returns epsilon up to now."""
        count = self.plan.smallest if survivors is None else survivors
        self.accountant.spend(self.plan.release(noise, dimension, count))
        return self.accountant.epsilon
