"""What a site keeps becomes part of it only when its vector counted; what stays at a site is never sent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fedcore.errors import TaskError
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.local_training import GRAIN, SiteState, weight_of, weiszfeld_weight
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg, GeometricMedian
from tests.fedcore.rounds.test_site import make_task
from tests.fedcore.strategies.toys import RATE, Runner, average, make_toys, toy_plan


def asked(number: int, previous: Mapping[str, tuple[str, ...]]) -> Task:
    return make_task(TaskKind.TRAIN, number=number, previous=tuple(previous.items()))


CHANGES = {"control": np.ones(2), "residual": np.zeros(1)}


@pytest.mark.parametrize(
    ("task", "applied", "waits"),
    [
        (asked(2, {"train 1": ("a", "b")}), True, False),
        (asked(2, {"train 1": ("b",)}), False, False),
        (asked(5, {"train 4": ("b",), "train 1": ("a",)}), True, False),  # news of long ago
        (asked(5, {"train 4": ("a",)}), False, False),
        (asked(5, {"train 4": ("b",)}), False, False),
        (asked(1, {"train 0": ("a",)}), False, True),  # the same round again
        (asked(2, {}), False, True),  # nothing is known
    ],
)
def test_changes_are_kept_when_they_counted(task: Task, applied: bool, waits: bool) -> None:
    state = SiteState(pending=("train 1", CHANGES))
    state.settle(task, "a")
    assert (state.control is CHANGES["control"]) == applied
    assert (state.residual is CHANGES["residual"]) == applied
    assert (state.pending is not None) == waits


def test_settling_twice_changes_nothing() -> None:
    state, task = SiteState(pending=("train 1", CHANGES)), asked(2, {"train 1": ("a",)})
    state.settle(task, "a")
    before = state.control
    state.settle(task, "a")
    assert state.control is before


@pytest.mark.parametrize(
    ("weighting", "rows", "weight"),
    [
        (Weighting.ROWS, 7, 7),
        (Weighting.ROWS, 70, 70),  # for the codec to refuse
        (Weighting.CAPPED, 7, 7),
        (Weighting.CAPPED, 70, 50),
        (Weighting.UNIFORM, 70, 1),
    ],
)
def test_weights_follow_the_rows(weighting: Weighting, rows: int, weight: int) -> None:
    assert weight_of(Asks(weighting=weighting), rows, 50) == weight


def test_weights_by_distance_are_those_of_the_paper() -> None:
    ran = Runner(make_toys(5)).run("plain", GeometricMedian(smoothing=0.5, passes=1), toy_plan(rounds=1))
    first, second = (record.task for record in ran.records)
    center = second.arrays["center"]
    direction = np.array([1.0, 0.0, 0.0, 0.0])
    for distance, share in ((0.0, 1.0), (0.4, 1.0), (1.0, 0.5), (50.0, 0.01), (1e9, 0.0)):
        weight = weiszfeld_weight(second, center + distance * direction, 30)
        assert weight == max(1, round(30 * GRAIN * share))
        assert weiszfeld_weight(first, center + distance * direction, 30) == 30 * GRAIN
    with pytest.raises(TaskError, match=r"weight: must be in 1\.\.100, is 101"):
        weiszfeld_weight(second, center + 100 * direction, 101)


@pytest.mark.parametrize("kind", ["float", "plain", "secure"])
def test_personal_parameters_stay_at_their_site(kind: str) -> None:
    toys = make_toys(5)
    ran = Runner(toys).run(kind, FedAvg(ask=Asks(personal=("intercept",))), toy_plan(rounds=4))
    own = dict.fromkeys(toys, 0.0)
    shared = np.zeros(3)
    for _ in range(4):
        after = {name: toy.train(np.append(shared, own[name])) for name, toy in toys.items()}
        shared = average([one[:3] for one in after.values()], [toy.rows for toy in toys.values()])
        own = {name: float(one[3]) for name, one in after.items()}
    assert ran.flat == pytest.approx(shared, abs=1e-5)
    for record in ran.records:
        assert sorted(record.task.model) == ["coefficients"]
        assert record.task.dimension == 3
    for name, site in ran.sites.items():
        assert site.state.pending is not None
        kept = site.state.pending[1]["personal"]["intercept"]
        assert kept == pytest.approx([own[name]], abs=1e-5)
    assert len(set(own.values())) == 5


@pytest.mark.parametrize("kind", ["float", "secure"])
def test_parameters_that_are_not_shared_do_not_move(kind: str) -> None:
    toys = make_toys(5)
    ran = Runner(toys).run(kind, FedAvg(ask=Asks(shared=("coef*",))), toy_plan(rounds=1))
    steps = []
    for toy in toys.values():
        w = np.zeros(4)
        for _ in range(toy.steps):
            w[:3] -= RATE * toy.gradient(w)[:3]
        steps.append(w)
    wanted = average(steps, [toy.rows for toy in toys.values()])
    assert ran.flat == pytest.approx(wanted, abs=1e-6)
    assert ran.model.parameters["intercept"].tolist() == [0.0]


def test_rates_of_a_round_reach_the_local_steps() -> None:
    toys = make_toys(5)
    ran = Runner(toys).run("float", FedAvg(), toy_plan(rounds=3, decay=0.5))
    w = np.zeros(4)
    for i in range(3):
        w = average(
            [toy.train(w, rate=RATE * 0.5**i) for toy in toys.values()], [toy.rows for toy in toys.values()]
        )
    assert ran.flat == pytest.approx(w, abs=1e-12)
