"""A simulated federation, trained by fedcore and by peers: `python -m bench.suites.simulation` prints JSON.

A process of its own, with one thread for BLAS: that must be said before numpy is imported. The model is a
softmax regression from zero, trained by FedAvg with local SGD; users, cohorts, epochs, batch sizes and
rates are the same for everybody. Seconds are CPU seconds of a round, all threads included.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fedcore.data import mnist_writers
from fedcore.data.table import Table
from fedcore.errors import DataError
from fedcore.evaluation.baselines import Mode, Trial
from fedcore.learner import Learner, Parameters
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.central import CentralGaussianSum
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.strategies import FedAvg
from fedcore.stream import choose

CLASSES = tuple("0123456789")
Sum = Literal["real", "quantized", "secure", "central Gaussian", "Skellam", "Skellam, secure"]
_MODES: dict[Sum, Mode] = {
    "real": Mode.PLAIN,
    "quantized": Mode.QUANTIZED,
    "secure": Mode.SECURE,
    "central Gaussian": Mode.PLAIN,
    "Skellam": Mode.QUANTIZED,
    "Skellam, secure": Mode.SECURE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """Rows by user, and rows that models are evaluated on; source: in words."""

    source: str
    tables: Mapping[str, Table]
    test: Table

    @property
    def features(self) -> int:
        return int(self.test.features.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What everybody trains.

    cohort   users of a round; None: all; batch: rows of a local step, None: all of a user's
    private  epsilon and delta of all rounds for every user, L2 norm of an update; all users then take part
             with the same weight. Otherwise users weigh as many as their rows.
    """

    rounds: int
    cohort: int | None
    batch: int | None = 10
    epochs: int = 1
    rate: float = 0.1
    private: bool = False
    epsilon: float = 4.0
    delta: float = 1e-3
    norm: float = 0.5
    seed: int = 0  # of batches, rounding and noise; cohorts and rotations stay

    def plan(self, users: Users, *, distributed: bool = False) -> TrainingPlan:
        """Return ours; `distributed`: users add noise, and rotate to bear the rounding better."""
        count = len(users.tables)
        if not self.private:
            return TrainingPlan(
                rounds=self.rounds, clients=count, cohort=self.cohort, weight_cap=130, clip=1.0, bits=12
            )
        privacy = PrivacyPlan(
            epsilon=self.epsilon, delta=self.delta, rounds=self.rounds, smallest=count * 9 // 10
        )
        plan = TrainingPlan(rounds=self.rounds, clients=count, bits=10, norm=self.norm)
        return replace(plan, rotate=True, privacy=privacy) if distributed else plan

    def cohorts(self, users: Users) -> list[list[str]]:
        """Return whom our plan draws, by round."""
        names, plan = sorted(users.tables), self.plan(users)
        if self.cohort is None:
            return [names] * self.rounds
        drawn = (
            choose(plan.round_seed(number, "cohort"), len(names), self.cohort)
            for number in range(1, self.rounds + 1)
        )
        return [[names[i] for i in chosen] for chosen in drawn]


def load(*, tiny: bool) -> Users:
    """Return MNIST by its writers, or synthetic users where SECAGG_DATA is not there."""
    if tiny:
        return synthetic(12, 20, 16)
    try:
        data = mnist_writers()
    except DataError:
        return synthetic(297, 27, 784)
    return Users("MNIST by 297 writers", data.train_by_writer.tables(data.train), data.test)


def synthetic(count: int, rows: int, features: int) -> Users:
    """Return users whose rows lie around one centre per class."""
    rng = np.random.default_rng(1)
    centres = rng.normal(0.5, 0.04, (len(CLASSES), features))

    def table(number: int) -> Table:
        labels = rng.integers(0, len(CLASSES), number)
        noise = rng.normal(0, 0.25, (number, features))
        return Table(np.clip(centres[labels] + noise, 0, 1), labels.astype(np.int64))

    return Users(
        f"synthetic, {count} users", {f"user {i:03d}": table(rows) for i in range(count)}, table(10 * rows)
    )


class Clock:
    """CPU seconds between rounds; the first round, which warms up, is not counted if there are others."""

    def __init__(self) -> None:
        self._at = [time.process_time()]

    def tick(self) -> None:
        self._at.append(time.process_time())

    def seconds(self) -> float:
        taken = [after - before for before, after in zip(self._at, self._at[1:], strict=False)]
        return statistics.median(taken[1:] or taken)


def numpy_learner(work: Work, users: Users) -> LocalSGD:
    return LocalSGD(
        model=SoftmaxRegression(users.features, len(CLASSES)),
        epochs=work.epochs,
        batch_size=work.batch,
        rate=work.rate,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Parameters after every round that was run, and the CPU seconds of a round."""

    parameters: list[Parameters]
    seconds: float


class _EnoughError(Exception):
    """So many rounds as were asked for are over."""


def train(
    work: Work, users: Users, how: Sum, learner: Learner[Any], *, at_most: int | None = None
) -> Trained:
    """Train by fedcore; at_most: rounds after which it ends, as if the rest were to come."""
    clock, found = Clock(), list[Parameters]()

    def on_round(record: RoundRecord) -> None:
        if record.task.kind is TaskKind.TRAIN:
            clock.tick()
            found.append(record.parameters)
            if len(found) == at_most:
                raise _EnoughError

    weighting = Weighting.UNIFORM if work.private else Weighting.ROWS
    trial = Trial(
        rows=users.tables,
        held_out=(users.test,),
        learner=learner,
        plan=work.plan(users, distributed=how.startswith("Skellam")),
        strategy=FedAvg(ask=Asks(weighting=weighting)),
        classes=CLASSES,
        seed=work.seed,
    )
    mode, sites = _MODES[how], trial.sites()
    aggregator = trial.aggregator(mode, sites)
    if how == "central Gaussian":
        aggregator = CentralGaussianSum(sites, work.epsilon, work.delta, work.rounds, seed=work.seed)
    with suppress(_EnoughError):
        trial.federation(mode, aggregator, on_round).run()
    return Trained(found, clock.seconds())


def main() -> None:
    from bench.suites.simulations import everything

    print(json.dumps(everything(tiny="--tiny" in sys.argv[1:])))


if __name__ == "__main__":
    main()
