"""A site's own account of its privacy: it believes no server about the noise, and refuses what gives less."""

from __future__ import annotations

import fcntl
import json
import math
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from fedcore.errors import DataError, TaskError
from fedcore.privacy.accounting import Accountant
from fedcore.privacy.noise import Noise
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import UpdateKind, Weighting
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from secagg import ParameterError
from secagg.store import replace_file

_SLACK = 1e-3  # the bisection of the calibration
_SAME = 1e-9  # what is computed by formula
_ONE_BY_ONE = threading.Lock()  # a task that was given up may still be computed when the next one comes


def _bounded(given: Noise, wanted: Noise) -> bool:
    """Tell whether rounding keeps the norm that is wanted; 0 is none, and then it must not be tried again.

    A smaller norm would be one that some vectors cannot keep: the server would hear which.
    """
    return math.isclose(given.norm, wanted.norm, rel_tol=_SAME)


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
            self.accountant = read_account(self.account)
            if self.accountant.delta != self.plan.delta:
                there, plan = self.accountant.delta, self.plan.delta
                raise DataError(f"{self.account}: an account for delta {there}, the plan's is {plan}")

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

    def demand(self, task: Task, expected: float = 0.0) -> None:
        """Refuse a task that gives this site less privacy than its own plan. Raises TaskError.

        expected  rows by which this site's learner divides, where it bounds the part of a person
        The server's word does not count: what the noise must be follows from the task's codec and norm.
        """
        encoding = task.encoding
        given, shaping, asks = encoding.noise, encoding.shaping, encoding.asks
        moments = self.plan.statistics and task.kind is TaskKind.MOMENTS
        if not (moments or task.kind is TaskKind.TRAIN) or given is None or shaping.norm is None:
            raise TaskError(f"task.noise: {task.name} has none, this site's plan demands it")
        if asks.weighting is not Weighting.UNIFORM or encoding.codec.weight_cap != 1:
            raise TaskError("task.asks.weighting: must be uniform where noise is added")
        if task.question.passes or encoding.precise or encoding.codec.bits == 1:
            raise TaskError(
                "task.again, task.precise, task.codec.bits: one noisy vector a round, of 2 bits or more, "
                "and nothing beside it"
            )
        if moments:
            plan = self.plan.of_moments(shaping.norm, expected)
        else:
            self._demand_of_persons(encoding)
            plan = self.plan
        longest = shaping.norm * math.hypot(1.0, encoding.quantile)
        try:
            wanted = plan.noise(encoding.codec, longest, encoding.sent, rotate=shaping.rotate)
        except ParameterError as error:
            raise TaskError(f"task.shaping.norm, task.codec.clip: {error}") from error
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
            self.before(real, encoding.sent)
            self.after(real, encoding.sent, None)
            if self.account is not None:
                _write(self.account, self.accountant)

    def _demand_of_persons(self, encoding: Encoding) -> None:
        """Refuse what a person moves beyond the bound of one gradient. Raises TaskError."""
        if self.plan.sensitivity is None:
            return
        asks = encoding.asks
        if asks.update is not UpdateKind.GRADIENT or asks.quantile or encoding.shaping.keep < 1:
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


def read_account(path: Path) -> Accountant:
    """Read the file of an account. Raises DataError."""
    try:
        return Accountant.restore(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not an account: {error}") from error


def _write(path: Path, accountant: Accountant) -> None:
    """Replace the file at once, before anything that it accounts for is sent. Raises DataError."""
    try:
        replace_file(path, json.dumps(accountant.state()).encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
