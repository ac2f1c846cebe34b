"""Training ends at its last round, at a target, or when patience is over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fedcore.errors import SettingError
from fedcore.learner import Metrics, Parameters
from fedcore.rounds.stopping import Stopping
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg
from tests.fedcore.strategies.toys import Ran, Runner, make_toys, toy_plan


def run(values: list[float], stopping: Stopping | None, *, metric: str = "accuracy", **changes: Any) -> Ran:
    """Evaluations give these values, one after the other."""
    coming = iter(values)

    def evaluator(_parameters: Parameters, _standardizer: Standardizer) -> Metrics:
        return {metric: next(coming), "other": 0.5}

    plan = toy_plan(**({"rounds": len(values), "evaluate_every": 1, "stopping": stopping} | changes))
    return Runner(make_toys(4)).run("plain", FedAvg(), plan, evaluator=evaluator)


def test_without_stopping_all_rounds_are_run() -> None:
    ran = run([0.1, 0.9, 0.2, 0.2], None)
    assert (ran.model.number, ran.model.stopped) == (4, "")
    assert ran.model.evaluations == {i: {"accuracy": v, "other": 0.5} for i, v in zip((1, 2, 3, 4), (0.1, 0.9, 0.2, 0.2), strict=True)}  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("values", "stopping", "rounds", "why"),
    [
        ([0.1, 0.8, 0.9], Stopping(target=0.8), 2, "accuracy reached 0.8"),
        ([0.1, 0.79, 0.79], Stopping(target=0.8), 3, ""),
        ([0.9, 0.3, 0.2], Stopping(target=0.3, lower=True), 2, "accuracy reached 0.3"),
        ([0.5, 0.4, 0.5, 0.9], Stopping(patience=2), 3, "accuracy has not improved for 2 evaluations"),
        ([0.5, 0.4, 0.51, 0.5, 0.51, 0.9], Stopping(patience=2), 5, "has not improved for 2"),
        ([0.5, 0.6, 0.7, 0.8], Stopping(patience=1), 4, ""),
        ([0.5, 0.55, 0.8], Stopping(patience=1, least=0.1), 2, "has not improved for 1"),
        ([0.5, 0.6, 0.4, 0.2], Stopping(patience=1, lower=True), 2, "has not improved for 1"),
        ([0.5, 0.4, 0.3, 0.2], Stopping(patience=1, lower=True), 4, ""),
        ([math.nan, 0.4, 0.3, 0.35, 0.9], Stopping(patience=2), 4, "has not improved for 2"),
        ([math.nan, math.nan, 0.9], Stopping(patience=1), 2, "has not improved for 1"),
        ([0.4, math.nan, 0.5], Stopping(patience=2, target=0.1, lower=True), 3, "has not improved"),
    ],
)
def test_training_ends_when_it_should(values: list[float], stopping: Stopping, rounds: int, why: str) -> None:
    ran = run(values, stopping)
    assert ran.model.number == rounds
    assert len(ran.records) == rounds
    assert why in ran.model.stopped
    assert bool(ran.model.stopped) == bool(why)


def test_evaluations_come_every_so_many_rounds() -> None:
    ran = run([0.1, 0.2, 0.3], None, rounds=7, evaluate_every=2)
    assert list(ran.model.evaluations) == [2, 4, 6]


def test_no_rounds_are_no_rounds() -> None:
    ran = run([], None, rounds=0)
    assert (ran.records, ran.model.number) == ([], 0)
    assert np.abs(ran.flat).max() == 0


def test_what_cannot_stop_is_refused() -> None:
    with pytest.raises(SettingError, match=r"metric: must be one of \['accuracy', 'other'\], is 'auc'"):
        run([0.1], Stopping(metric="auc", target=0.5))
    with pytest.raises(SettingError, match="patience: must be at least 1"):
        Stopping(patience=0)
    with pytest.raises(SettingError, match="stopping: needs evaluations"):
        toy_plan(stopping=Stopping(target=0.5))
    assert Stopping(target=0.5).reason([]) == ""
