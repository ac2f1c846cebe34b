"""The strategy of the example trains under secure aggregation, and stays short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcore.examples import own_strategy
from fedcore.examples.own_strategy import FedNesterov
from fedcore.learner import flatten
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import UpdateKind
from fedcore.strategies import RoundUpdate
from tests.fedcore.sites import LEARNER, SCHEMA, make_plan, make_sites, make_table


def test_it_has_fewer_than_40_lines() -> None:
    assert len(Path(own_strategy.__file__).read_text(encoding="utf-8").splitlines()) < 40


def test_two_steps_are_those_of_the_formula() -> None:
    strategy, one = FedNesterov(server_rate=0.5, momentum=0.5), np.array([1.0, -2.0])
    update = RoundUpdate(UpdateKind.DELTA, one, weight=3, clients=3)
    first, state = strategy.step(np.zeros(2), update, strategy.start(2))
    second, _ = strategy.step(first, update, state)
    assert first.tolist() == pytest.approx((0.5 * 1.5 * one).tolist())
    assert (second - first).tolist() == pytest.approx((0.5 * (1 + 0.5 * 1.5) * one).tolist())


def test_it_trains_under_secure_aggregation_with_a_dropout() -> None:
    absent = {"train 2": frozenset({"site-3"})}
    models = [
        Federation(
            kind(make_sites(), absent), SCHEMA, LEARNER, make_plan(rounds=6), FedNesterov(server_rate=0.3)
        ).run()
        for kind in (PlainSum, SecureSum)
    ]
    assert flatten(models[0].parameters).tobytes() == flatten(models[1].parameters).tobytes()
    held_out = models[1].standardizer.apply(make_table(2000, 99))
    assert LEARNER.evaluate(models[1].parameters, held_out)["accuracy"] > 0.85
