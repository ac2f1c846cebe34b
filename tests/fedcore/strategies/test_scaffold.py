"""Control variates: c is the mean of all c_i whatever drops out; a change counts only when it was summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from fedcore.errors import TaskError
from fedcore.rounds.aggregation import GroupSum, PlainSum
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg, RoundUpdate, Scaffold
from tests.fedcore.strategies.toys import (
    Ran,
    Runner,
    Vector,
    make_toy_sites,
    make_toys,
    run_over,
    toy_plan,
)

TOYS = make_toys(9)
DROPS = {"train 2": frozenset({"s01"}), "train 3": frozenset({"s01", "s04"}), "train 5": frozenset({"s00"})}


def controls(ran: Ran) -> dict[str, Vector]:
    """Return c_i of every site after the last round in which its vector counted."""
    found = {}
    for name, site in ran.sites.items():
        state = site.state
        if state.pending is not None and state.counted:
            assert name in state.counted
            found[name] = state.pending[1]["control"]
        else:
            found[name] = state.control if state.control is not None else np.zeros(4)
    return found


@pytest.mark.parametrize(
    ("kind", "cohort", "rounds"),
    [
        (kind, cohort, rounds)
        for kind in ("float", "plain")
        for cohort in (None, 5)
        for rounds in (1, 2, 3, 4, 8)
    ]
    + [("secure", None, 5), ("secure", 7, 8)],
)
def test_the_servers_control_is_the_mean_of_the_sites_after_every_round(
    kind: str, cohort: int | None, rounds: int
) -> None:
    """With a cohort, sites are asked again only several rounds later."""
    checkpoints: list[RunState] = []
    plan = toy_plan(rounds=rounds, cohort=cohort, bits=32)
    ran = Runner(TOYS, DROPS).run(
        kind, Scaffold(sites=9, control_scale=0.1), plan, on_checkpoint=checkpoints.append
    )
    server = checkpoints[-1].state["control"]
    mean = np.mean(list(controls(ran).values()), axis=0)
    assert server == pytest.approx(mean, abs=1e-12 if kind == "float" else 1e-6)
    assert np.abs(server).max() > 1e-2


@dataclass
class Losing:
    """Loses the upload of s03 in the second round, after it was computed."""

    inner: PlainSum

    @property
    def names(self) -> Sequence[str]:
        return self.inner.names

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        return self.inner.deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        if task.name == "train 2":
            self.inner.sites["s03"].contribute(task)
            among = [name for name in self.names if name != "s03"]
        return self.inner.sum(task, among)


def test_a_site_that_dropped_out_keeps_its_control() -> None:
    def state_after(rounds: int, **drops: frozenset[str]) -> Vector | None:
        absent = {name.replace("_", " "): sites for name, sites in drops.items()}
        ran = Runner(TOYS, absent).run("plain", Scaffold(sites=9), toy_plan(rounds=rounds))
        return controls(ran)["s01"]

    kept, also = state_after(1), state_after(2, train_2=frozenset({"s01"}))
    moved = state_after(2)
    assert kept is not None
    assert also is not None
    assert kept.tolist() == also.tolist()
    assert moved is not None
    assert moved.tolist() != kept.tolist()


def test_who_computed_but_was_not_in_the_sum_keeps_its_control() -> None:
    """It computes, the upload is lost: nothing tells it that it counted."""

    states = []
    for rounds in (1, 2, 3, 4):
        sites = make_toy_sites(TOYS)
        ran = run_over(
            Losing(PlainSum(sites)), sites, Scaffold(sites=9, control_scale=0.1), toy_plan(rounds=rounds)
        )
        states.append(controls(ran)["s03"].tolist())
    assert states[0] == states[1]
    assert states[1] != states[2] != states[3]


def test_it_reaches_the_common_optimum_where_federated_averaging_drifts() -> None:
    uniform = FedAvg(ask=Asks(weighting=Weighting.UNIFORM))
    # The minimum of the unweighted mean of the sites' losses.
    H = np.mean([toy.X.T @ toy.X / toy.rows for toy in TOYS.values()], axis=0)
    b = np.mean([toy.X.T @ toy.y / toy.rows for toy in TOYS.values()], axis=0)
    optimum = np.linalg.solve(H, b)
    plan = toy_plan(rounds=400)
    far, near = (
        float(np.linalg.norm(Runner(TOYS).run("float", strategy, plan).flat - optimum))
        for strategy in (uniform, Scaffold(sites=9))
    )
    assert near < 1e-6
    assert far > 1e-3


def test_an_update_without_control_variates_is_refused() -> None:
    update = RoundUpdate(UpdateKind.DELTA, np.zeros(2), 1, 1)
    with pytest.raises(TaskError, match="has no control variates"):
        Scaffold(sites=1).step(np.zeros(2), update, {"control": np.zeros(2)})
