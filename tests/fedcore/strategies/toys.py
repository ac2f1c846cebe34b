"""Toy sites of linear least squares, and local training written again in plain numpy, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.table import Table
from fedcore.learner import flatten
from fedcore.learners import LinearRegression, LocalSGD
from fedcore.rounds.aggregation import FloatSum, PlainSum, SecureSum, SumAggregator
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState
from fedcore.strategies import Strategy

Vector = NDArray[np.float64]
FEATURES, RATE = 3, 0.05
KINDS: dict[str, Callable[..., SumAggregator]] = {"float": FloatSum, "plain": PlainSum, "secure": SecureSum}
ABSENT = {"train 2": frozenset({"s02"}), "train 4": frozenset({"s05", "s01"})}


@dataclass(frozen=True)
class Toy:
    """One site: design matrix with a column of ones last, targets, local steps."""

    X: Vector
    y: Vector
    steps: int

    @property
    def rows(self) -> int:
        return len(self.y)

    def gradient(self, w: Vector) -> Vector:
        return np.asarray(self.X.T @ (self.X @ w - self.y) / self.rows)

    def train(
        self,
        w: Vector,
        *,
        mu: float = 0.0,
        correction: Vector | float = 0.0,
        rate: float = RATE,
        steps: int | None = None,
    ) -> Vector:
        """SGD over all rows: w -= rate (grad f(w) + mu (w - w_t) + correction)."""
        now = w.copy()
        for _ in range(steps or self.steps):
            now = now - rate * (self.gradient(now) + mu * (now - w) + correction)
        return now


def make_toys(count: int = 7, *, same_steps: bool = False) -> dict[str, Toy]:
    """Sites of 8, 11, 14, ... rows about different lines, that take 1 to 4 local steps."""
    rng = np.random.default_rng(5)
    toys = {}
    for i in range(count):
        X = np.column_stack([rng.normal(size=(8 + 3 * i, FEATURES)), np.ones(8 + 3 * i)])
        line = np.array([1.0, -0.5, 0.25, 0.3]) + rng.normal(0, 0.5, FEATURES + 1)
        toys[f"s{i:02d}"] = Toy(X, X @ line + rng.normal(0, 0.1, len(X)), 2 if same_steps else 1 + i % 4)
    return toys


def make_toy_sites(toys: Mapping[str, Toy]) -> dict[str, Site]:
    return {
        name: Site(
            name,
            Table(toy.X[:, :-1], toy.y),
            None,
            LocalSGD(model=LinearRegression(FEATURES), steps=toy.steps, batch_size=None, rate=RATE),
            seed=3,
        )
        for name, toy in toys.items()
    }


LEARNER = LocalSGD(model=LinearRegression(FEATURES), rate=RATE)


@dataclass
class Ran:
    """A run and what was reported."""

    model: RunState
    records: list[RoundRecord]
    sites: dict[str, Site]

    @property
    def flat(self) -> Vector:
        return flatten(self.model.parameters)

    @property
    def path(self) -> list[Vector]:
        """Parameters after each round."""
        after = {record.task.number: record.parameters for record in self.records if record.result}
        return [flatten(after[number]) for number in sorted(after)]

    def groups(self, number: int) -> list[tuple[str, ...]]:
        """Survivors of every sum of a round."""
        found = [r.result for r in self.records if r.task.number == number]
        return [result.survivors for result in found if result is not None]


def toy_plan(**changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {"rounds": 5, "clients": 12, "weight_cap": 100, "clip": 4.0, "bits": 24}
    return TrainingPlan(**(values | changes))


@dataclass
class Runner:
    """Runs a strategy over toys."""

    toys: Mapping[str, Toy]
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def run(self, kind: str, strategy: Strategy, plan: TrainingPlan | None = None, **options: Any) -> Ran:
        sites = make_toy_sites(self.toys)
        aggregator: SumAggregator = KINDS[kind](sites, self.absent)
        return run_over(aggregator, sites, strategy, plan or toy_plan(), **options)


def run_over(
    aggregator: SumAggregator, sites: dict[str, Site], strategy: Strategy, plan: TrainingPlan, **options: Any
) -> Ran:
    records: list[RoundRecord] = []
    federation = Federation(
        aggregator, None, LEARNER, plan, strategy=strategy, on_round=records.append, **options
    )
    return Ran(federation.run(), records, sites)


def present(toys: Mapping[str, Toy], number: int, absent: Mapping[str, frozenset[str]] = ABSENT) -> list[str]:
    """Names of those who are in a round."""
    return [name for name in sorted(toys) if name not in absent.get(f"train {number}", frozenset())]


def average(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """Return sum w_i x_i / sum w_i."""
    total = sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))
    return np.asarray(total / sum(weights))


def with_steps(toys: Mapping[str, Toy], steps: Sequence[int]) -> dict[str, Toy]:
    return {name: replace(toys[name], steps=count) for name, count in zip(sorted(toys), steps, strict=True)}
