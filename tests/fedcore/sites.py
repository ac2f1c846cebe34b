"""Sites, plans and tasks that the tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.learner import Learner, Parameters
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import QUESTIONS, AboutModel, Question, TaskKind, Train
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from fedcore.statistics.standardizer import Standardizer

SCHEMA = Schema(
    (Column("age", 0.0, 100.0), Column("dose", -5.0, 5.0), Column("unit", 0.0, 1.0)), ("no", "yes")
)
LEARNER = LogisticRegressionLearner(features=3, classes=2, epochs=3, learning_rate=0.05)
KINDS = (TaskKind.MEAN, TaskKind.DEVIATION, TaskKind.TRAIN)  # the other kinds have tests of their own
MIDDLE = {"mean": np.array([50.0, 0.0, 0.5]), "deviation": np.array([20.0, 2.0, 0.0])}


def make_table(rows: int, seed: int) -> Table:
    """Rows within the bounds: old age and high doses say yes, `unit` is always 1."""
    rng = np.random.default_rng(seed)
    age, dose = rng.uniform(0, 100, rows), rng.uniform(-5, 5, rows)
    labels = (age / 20 + dose + rng.normal(size=rows) > 2.5).astype(np.int64)
    return Table(np.column_stack([age, dose, np.ones(rows)]), labels)


def make_sites(n: int = 5, seed: int | None = 7) -> dict[str, Site]:
    """Sites of 10, 17, 24, ... rows."""
    return {
        f"site-{i}": Site(f"site-{i}", make_table(10 + 7 * i, i), SCHEMA, LEARNER, seed) for i in range(n)
    }


def make_plan(**changes: float) -> TrainingPlan:
    values: dict[str, Any] = {"rounds": 4, "clients": 5, "weight_cap": 100}
    return TrainingPlan(**(values | changes))


def make_terms(plan: TrainingPlan | None = None, **changes: Any) -> Terms:
    """Terms of training `LEARNER` over `make_sites`."""
    values: dict[str, Any] = {
        "plan": plan or make_plan(), "asks": Asks(), "passes": 0, "schema": SCHEMA, "classes": SCHEMA.classes
    }  # fmt: skip
    return Terms(**(values | {"size": 4} | changes))


def make_question(kind: TaskKind, number: int = 1, **changes: Any) -> Question:
    """A question as the federation would ask it, with MIDDLE as the standardization."""
    values: dict[str, Any] = {"number": number}
    if kind in {TaskKind.DEVIATION, TaskKind.COVARIANCE}:
        values["mean"] = MIDDLE["mean"]
    elif kind is TaskKind.CUMULATIVE:
        values["edges"] = np.array([[25.0, 75.0], [-1.0, 1.0], [0.5, 1.0]])
    elif kind is TaskKind.COUNT:
        values["cells"] = np.array([[-1.0, 1.0], [2.0, 1.0]])
    elif kind not in {TaskKind.MEAN, TaskKind.MOMENTS}:
        values |= {"model": LEARNER.initial(), "standardizer": Standardizer(**MIDDLE)}
    return QUESTIONS[kind](**(values | changes))


def make_task(kind: TaskKind, plan: TrainingPlan | None = None, number: int = 1, **changes: Any) -> Task:
    """A task as the federation would make it; changes are of the question."""
    if plan is None and kind is TaskKind.MOMENTS:
        privacy = PrivacyPlan(epsilon=9.0, delta=1e-3, rounds=4, smallest=4, statistics=True)
        plan = replace(make_plan(), norm=1.0, bits=14, privacy=privacy)
    return make_terms(plan).task(make_question(kind, number, **changes))


def asked(task: Task, **changes: Any) -> Task:
    """The task with another question of its kind."""
    return replace(task, question=replace(task.question, **changes))


def encoded(task: Task, **changes: Any) -> Task:
    """The task with another form of the answer."""
    return replace(task, encoding=replace(task.encoding, **changes))


def same(encoding: Encoding) -> Callable[[Question], Encoding]:
    """What derives this form, whatever is asked."""
    return lambda _question: encoding


def model_of(task: Task) -> Parameters:
    """The parameters that a task is about."""
    assert isinstance(task.question, AboutModel)
    return task.question.model


def train_of(task: Task) -> Train:
    """What a training round asks."""
    assert isinstance(task.question, Train)
    return task.question


@dataclass(frozen=True)
class FixedLearner:
    """Starts from zeros of `LEARNER`'s shapes and answers what it was told."""

    answer: Mapping[str, NDArray[np.float64]]

    def initial(self) -> Parameters:
        return LEARNER.initial()

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        return dict(self.answer)

    def evaluate(self, parameters: Parameters, table: Table) -> dict[str, float]:
        return {}


class FailingLearner(FixedLearner):
    """Fails as a library does, with an error of its own."""

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        raise ValueError("Floating-point under-/overflow occurred at epoch #1.")


def answering(coefficients: Any, intercepts: Any) -> FixedLearner:
    return FixedLearner(
        {"coefficients": np.array(coefficients, float), "intercepts": np.array(intercepts, float)}
    )


def site_with(learner: Learner[Any], table: Table | None = None) -> Site:
    return Site("odd", table or make_table(20, 0), SCHEMA, learner, 0)
