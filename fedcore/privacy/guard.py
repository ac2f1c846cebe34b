"""Differential privacy of a training run: how much noise each site adds, and what the rounds have cost."""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import IO

from fedcore.codec.codec import Codec
from fedcore.errors import DataError, SettingError, TaskError
from fedcore.privacy.accounting import Accountant, Budget, Mechanism, Release, calibrate, l1_bound
from fedcore.privacy.noise import Noise, rounded_norm
from fedcore.rounds.instructions import UpdateKind, Weighting
from fedcore.rounds.task import Task, TaskKind
from fedcore.settings import at_least, positive, require
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

    def __post_init__(self) -> None:
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
        """What all rounds together may cost."""
        return Budget(self.epsilon, self.delta)

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


def _bounded(given: Noise, wanted: Noise) -> bool:
    """Tell whether rounding keeps the norm that is wanted; 0 is none, and then it must not be tried again.

    A smaller norm would be one that some vectors cannot keep: the server would hear which.
    """
    return math.isclose(given.norm, wanted.norm, rel_tol=_SAME)


_SLACK = 1e-3  # the bisection of the calibration
_SAME = 1e-9  # what is computed by formula
_MOST_STEPS = 1e60  # far beyond what noise can hide; squares of it are still numbers
# Rotating two vectors of 2^k values twice in single precision: 2 (2 k + 4) 2^-24 of the norm, k <= 40.
_ROTATED = 2.0**-16
_LEAST_ROTATED = 1e-30  # far from the smallest numbers of single precision
_ONE_BY_ONE = threading.Lock()  # a task that was given up may still be computed when the next one comes


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
    """Keeps the account of a run: asked before a round, told after it. A site may have its own.

    account  file (JSON) of what `demand` has spent, gone on with where it exists: without it, a site that is
             started again has spent nothing. One file belongs to one site's rows.
    raises   DataError: the file is not an account, or one for another delta
    """

    plan: PrivacyPlan
    account: Path | None = None
    accountant: Accountant = field(init=False)
    _held: IO[str] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.accountant = Accountant(self.plan.delta)
        if self.account is not None:
            self._held = _locked(self.account)
        if self.account is not None and self.account.exists():
            self.accountant = _read(self.account, self.plan.delta)

    def __del__(self) -> None:
        if getattr(self, "_held", None) is not None:
            self._held.close()  # type: ignore[union-attr]

    def before(self, noise: Noise, dimension: int) -> Accountant:
        """Refuse a round that could pass the budget. Raises BudgetExceededError.

        returns  what the account will be if the round has no result; nothing is spent yet
        """
        release = self.plan.release(noise, dimension, self.plan.smallest)
        self.accountant.require(release, self.plan.budget)
        then = Accountant.restore(self.accountant.state())
        then.spend(release)
        return then

    def demand(self, task: Task) -> None:
        """Refuse a task that gives this site less privacy than its own plan. Raises TaskError.

        The server's word does not count: what the noise must be follows from the task's codec and norm.
        """
        if task.kind is not TaskKind.TRAIN or task.noise is None or task.shaping.norm is None:
            raise TaskError(f"task.noise: {task.name} has none, this site's plan demands it")
        if task.asks.weighting is not Weighting.UNIFORM or task.codec.weight_cap != 1:
            raise TaskError("task.asks.weighting: must be uniform where noise is added")
        if task.passes or task.precise or task.codec.bits == 1:
            raise TaskError(
                "task.passes, task.precise, task.codec.bits: one noisy vector a round, of 2 bits or more, "
                "and nothing beside it"
            )
        self._demand_of_persons(task)
        sent = task.shaping.length(task.dimension) + task.hidden
        longest = task.shaping.norm * math.hypot(1.0, task.asks.quantile if task.hidden else 0.0)
        try:
            wanted = self.plan.noise(task.codec, longest, sent, rotate=task.shaping.rotate)
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
        real = replace(wanted, variance=min(given.variance, wanted.variance))
        with _ONE_BY_ONE:
            self.before(real, sent)
            self.after(real, sent, None)
            if self.account is not None:
                _write(self.account, self.accountant)

    def _demand_of_persons(self, task: Task) -> None:
        """Refuse what a person moves beyond the bound of one gradient. Raises TaskError."""
        if self.plan.sensitivity is None:
            return
        asks = task.asks
        if asks.update is not UpdateKind.GRADIENT or asks.quantile or task.shaping.keep < 1:
            raise TaskError(
                "task.asks, task.shaping: with a sensitivity of persons only gradients are sent, all of "
                "their coordinates, and no quantile: it would not bound the rest"
            )

    def after(self, noise: Noise, dimension: int, survivors: int | None) -> float:
        """Spend; None: a round without a result. Returns epsilon up to now."""
        count = self.plan.smallest if survivors is None else survivors
        self.accountant.spend(self.plan.release(noise, dimension, count))
        return self.accountant.epsilon


def _locked(path: Path) -> IO[str]:
    """Hold the account until the process ends, or the guard. Raises DataError: another one has it."""
    beside = path.with_name(path.name + ".lock")
    try:
        held = beside.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise DataError(f"{path}: is in use: one budget is spent by one process at a time") from error
    return held


def _read(path: Path, delta: float) -> Accountant:
    try:
        found = Accountant.restore(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not an account: {error}") from error
    if found.delta != delta:
        raise DataError(f"{path}: an account for delta {found.delta}, the plan's is {delta}")
    return found


def _write(path: Path, accountant: Accountant) -> None:
    """Replace the file at once, before anything that it accounts for is sent. Raises DataError."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(accountant.state(), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
