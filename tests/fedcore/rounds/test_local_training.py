"""What a site keeps becomes part of it only when its vector counted; what stays at a site is never sent."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.local_training import GRAIN, SiteState, weight_of, weiszfeld_weight
from fedcore.strategies import FedAvg, GeometricMedian
from tests.fedcore.sites import model_of, train_of
from tests.fedcore.strategies.toys import RATE, Runner, average, make_toys, toy_plan

CHANGES = {"control": np.ones(2), "residual": np.zeros(1)}
ROUND, LATER = "train 1", "train 5"


def proposed() -> SiteState:
    """A site that sent the vector of the first round."""
    state = SiteState(control=np.full(2, 7.0), members=("a", "z"))
    state.go_on(ROUND)
    state.propose(ROUND, CHANGES)
    return state


@pytest.mark.parametrize("later", [LATER, "evaluate 1", "sites 1", "train 2"])
def test_a_change_becomes_part_of_a_site_only_when_its_vector_counted(
    later: str,
) -> None:
    counted, lost = proposed(), proposed()
    counted.count(ROUND, ["b", "a"])
    for state in (counted, lost):
        assert state.control is not CHANGES["control"]  # not before the next round
        state.go_on(later)
        assert state.pending is None
    assert counted.control is CHANGES["control"]
    assert counted.residual is CHANGES["residual"]
    assert counted.members == ("a", "b")
    assert lost.control is not None
    assert lost.control.tolist() == [7.0, 7.0]
    assert (lost.residual, lost.members) == (None, ("a", "z"))


def test_news_of_another_round_count_nothing() -> None:
    state = proposed()
    state.count(LATER, ["a", "b"])
    assert state.counted == ()
    state.go_on(LATER)
    assert state.residual is None
    SiteState().count(ROUND, ["a"])


def test_a_repeated_attempt_starts_from_the_same_state_and_has_to_count_itself() -> None:
    state = proposed()
    state.count(ROUND, ["a", "b"])  # the sum made no sense: the round is tried again
    before = state.control
    state.go_on(ROUND)
    assert state.control is before
    state.propose(ROUND, {"control": np.full(2, 3.0)})
    assert state.counted == ()
    state.go_on(LATER)
    assert state.control is before
    assert state.residual is None


def test_a_later_pass_of_a_round_keeps_what_its_first_sum_proposed() -> None:
    state = proposed()
    state.count(ROUND, ["a", "b"])
    state.go_on(ROUND)
    assert state.counted == ("a", "b")
    state.go_on(LATER)
    assert state.control is CHANGES["control"]


def test_settling_twice_changes_nothing() -> None:
    state = proposed()
    state.count(ROUND, ["a"])
    state.go_on(LATER)
    before = state.control
    state.go_on(LATER)
    state.go_on("train 6")
    assert state.control is before


def test_a_round_that_changes_nothing_leaves_the_members_of_the_sum_that_the_rest_comes_from() -> None:
    state = proposed()
    state.count(ROUND, ["a", "b"])
    state.go_on("train 2")
    state.propose("train 2", {})
    state.count("train 2", ["a", "c"])
    state.go_on("train 3")
    assert state.members == ("a", "b")


def test_personal_parameters_are_those_of_the_last_round_that_counted() -> None:
    old, new = {"head": np.zeros(1)}, {"head": np.ones(1)}
    state = SiteState(personal=old)
    state.propose(ROUND, {"personal": new})
    assert state.own() is old
    state.count(ROUND, ["a"])
    assert state.own() is new
    state.go_on(LATER)
    assert state.own() is state.personal is new


def test_what_is_kept_comes_back() -> None:
    state = proposed()
    state.count(ROUND, ["a"])
    other = SiteState()
    other.restore(state.kept())
    assert other.kept().keys() == {"control", "pending", "counted", "members"}
    other.go_on(LATER)
    assert other.residual is CHANGES["residual"]
    assert SiteState().kept() == {}


@pytest.mark.parametrize(
    ("asks", "residual", "carries"),
    [
        (Asks(), False, False),
        (Asks(), True, True),
        (Asks(control=1.0, weighting=Weighting.UNIFORM), False, True),
        (Asks(personal=("a",)), False, True),
    ],
)
def test_a_vector_carries_over_what_it_is_made_of(asks: Asks, residual: bool, carries: bool) -> None:
    state = SiteState(control=np.ones(1), residual=np.ones(1), personal={"a": np.ones(1)})
    assert state.carried(asks, residual=residual) is carries
    assert not SiteState().carried(asks, residual=residual)


@pytest.mark.parametrize(
    ("weighting", "rows", "weight"),
    [
        (Weighting.ROWS, 7, 7),
        (Weighting.ROWS, 70, 50),
        (Weighting.UNIFORM, 70, 1),
    ],
)
def test_weights_follow_the_rows(weighting: Weighting, rows: int, weight: int) -> None:
    assert weight_of(Asks(weighting=weighting), rows, 50) == weight


def test_weights_by_distance_are_those_of_the_paper() -> None:
    ran = Runner(make_toys(5)).run("plain", GeometricMedian(smoothing=0.5, passes=1), toy_plan(rounds=1))
    first, second = (record.task for record in ran.records)
    assert train_of(first).center is None
    center = train_of(second).center
    assert center is not None
    direction = np.array([1.0, 0.0, 0.0, 0.0])
    for distance, share in ((0.0, 1.0), (0.4, 1.0), (1.0, 0.5), (50.0, 0.01), (1e9, 0.0)):
        weight = weiszfeld_weight(second.encoding, center, center + distance * direction, 30)
        assert weight == max(1, round(30 * GRAIN * share))
        assert weiszfeld_weight(first.encoding, None, center + distance * direction, 30) == 30 * GRAIN
    assert weiszfeld_weight(second.encoding, center, center, 101) == 100 * GRAIN  # the cap


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
        assert sorted(model_of(record.task)) == ["coefficients"]
        assert record.task.encoding.dimension == 3
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
