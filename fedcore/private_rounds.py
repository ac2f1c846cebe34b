"""Differential privacy of a training run: how much noise each site adds, and what the rounds have cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from fedcore.asks import Weighting
from fedcore.codec import Codec
from fedcore.errors import TaskError
from fedcore.noise import Noise, rounded_norm
from fedcore.privacy import Accountant, Budget, Mechanism, Release, calibrate, l1_bound
from fedcore.task import Task, TaskKind
from secagg import ParameterError


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
    sensitivity     L2 norm of what one person adds to a site's vector; None: a whole vector is protected
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

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon) and 0 < self.delta < 1):
            raise TaskError(f"epsilon, delta: must be > 0 and in (0, 1), are {self.epsilon}, {self.delta}")
        if self.rounds < 1 or self.colluders < 0 or self.smallest <= self.colluders:
            raise TaskError(
                f"rounds, smallest, colluders: must be at least 1, and more survivors than colluders, "
                f"are {self.rounds}, {self.smallest}, {self.colluders}"
            )
        if self.sensitivity is not None and not 0 < self.sensitivity < math.inf:
            raise TaskError(f"sensitivity: must be positive and finite, is {self.sensitivity}")
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
        scale = codec.levels / codec.clip
        longest = rounded_norm(norm * scale, dimension)
        # The same randomness rounds two neighbouring vectors less than a step a coordinate apart. That they
        # are rounded alike is true only while rounding is not tried again, which depends on the vector.
        one = math.inf if self.sensitivity is None else self.sensitivity * scale + math.sqrt(dimension)
        return Noise(
            mechanism=self.mechanism,
            variance=_variance(self, min(one, longest), dimension),
            sensitivity=min(one, longest),
            norm=longest if longest <= one else 0.0,
            smallest=self.smallest,
        )

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


def _bounded(given: Noise, wanted: Noise) -> bool:
    """Tell whether rounding keeps the norm that is wanted; 0 is none, and then it must not be tried again."""
    if not wanted.norm:
        return not given.norm
    return 0 < given.norm <= wanted.norm * (1 + _SLACK)


_SLACK = 1e-3  # the bisection of the calibration


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
    """Keeps the account of a run: asked before a round, told after it. A site may have its own."""

    plan: PrivacyPlan
    accountant: Accountant = field(init=False)

    def __post_init__(self) -> None:
        self.accountant = Accountant(self.plan.delta)

    def before(self, noise: Noise, dimension: int) -> None:
        """Refuse a round that could pass the budget. Raises BudgetExceededError."""
        self.accountant.require(self.plan.release(noise, dimension, self.plan.smallest), self.plan.budget)

    def demand(self, task: Task) -> None:
        """Refuse a task that gives this site less privacy than its own plan. Raises TaskError.

        The server's word does not count: what the noise must be follows from the task's codec and norm.
        """
        if task.kind is not TaskKind.TRAIN or task.noise is None or task.shaping.norm is None:
            raise TaskError(f"task.noise: {task.name} has none, this site's plan demands it")
        if task.asks.weighting is not Weighting.UNIFORM or task.codec.weight_cap != 1:
            raise TaskError("task.asks.weighting: must be uniform where noise is added")
        if task.passes or task.precise:
            raise TaskError("task.passes, task.precise: one noisy vector a round, and nothing beside it")
        sent = task.shaping.length(task.dimension) + task.hidden
        longest = task.shaping.norm * math.sqrt(1 + (task.asks.quantile if task.hidden else 0.0) ** 2)
        try:
            wanted = self.plan.noise(task.codec, longest, sent)
        except ParameterError as error:
            raise TaskError(f"task.shaping.norm, task.codec.clip: {error}") from error
        given = task.noise
        if given.mechanism is not wanted.mechanism or given.smallest < self.plan.smallest:
            raise TaskError(
                f"task.noise: must be {wanted.mechanism} for {self.plan.smallest} survivors or more, "
                f"is {given.mechanism} for {given.smallest}"
            )
        if given.variance < wanted.variance * (1 - _SLACK) or not _bounded(given, wanted):
            raise TaskError(
                f"task.noise: variance must be {wanted.variance:.6g} or more within the norm "
                f"{wanted.norm:.6g}, is {given.variance:.6g} within {given.norm:.6g}"
            )
        self.before(wanted, sent)
        self.accountant.spend(self.plan.release(wanted, sent, self.plan.smallest))

    def after(self, noise: Noise, dimension: int, survivors: int | None) -> float:
        """Spend; None: a round without a result. Returns epsilon up to now."""
        count = self.plan.smallest if survivors is None else survivors
        self.accountant.spend(self.plan.release(noise, dimension, count))
        return self.accountant.epsilon
