"""What of an update does not reach the sum is told at its site; what makes no sense is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedcore.data.table import Table
from fedcore.errors import SettingError
from fedcore.learner import Metrics, Parameters
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Train
from fedcore.rounds.site import Site
from fedcore.rounds.terms import Terms
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg
from tests.fedcore.sites import SCHEMA, make_plan, make_table


class Jump:
    """Always moves two parameters by 0.5 and 3."""

    def initial(self) -> Parameters:
        return {"w": np.zeros(2)}

    def fit(self, parameters: Parameters, rows: Table, seed: int) -> Parameters:
        return {"w": parameters["w"] + [0.5, 3.0]}

    def evaluate(self, parameters: Parameters, rows: Table) -> Metrics:
        return {}


def jumping(rows: int) -> dict[str, Site]:
    return {f"s{i}": Site(f"s{i}", make_table(rows, i), SCHEMA, Jump(), seed=1) for i in range(4)}


def plan_of(**changes: float) -> TrainingPlan:
    return replace(make_plan(), **({"rounds": 1, "clients": 4, "clip": 1.0} | changes))  # type: ignore[arg-type]


def test_values_that_the_clip_cuts_are_counted() -> None:
    sites = jumping(20)
    model = Federation(PlainSum(sites), SCHEMA, Jump(), plan_of()).run()
    assert model.parameters["w"] == pytest.approx([0.5, 1.0], abs=1e-2)
    assert sites["s0"].notes == ("1 of 2 values are cut at 1: plan.clip",)
    Federation(PlainSum(sites), SCHEMA, Jump(), plan_of(clip=4.0)).run()
    assert not sites["s0"].notes


def test_rows_beyond_the_cap_count_as_the_cap_and_are_told() -> None:
    """A site of 13 200 rows trains with the others, and counts as 10 000."""
    sites = jumping(20) | {"big": Site("big", make_table(13_200, 9), SCHEMA, Jump(), seed=1)}
    model = Federation(PlainSum(sites), SCHEMA, Jump(), plan_of(clients=5, clip=4.0, weight_cap=10_000)).run()
    assert sites["big"].notes == ("13200 rows count as 10000: plan.weight_cap",)
    assert model.weight == 4 * 20 + 10_000


def test_a_site_that_weighs_less_than_a_step_is_told_so() -> None:
    sites = jumping(20) | {"big": Site("big", make_table(10_000, 9), SCHEMA, Jump(), seed=1)}
    plan = plan_of(clients=5, bits=8, weight_cap=10_000, clip=4.0)
    Federation(PlainSum(sites), SCHEMA, Jump(), plan).run()
    (note,) = sites["s0"].notes
    assert note.startswith("a value at plan.clip is less than one step with 20 of 10000 rows: more plan.bits")
    assert sites["big"].notes == ()


@pytest.mark.parametrize(
    ("rows", "changes", "refused"),
    [
        (10, {"bits": 8, "weight_cap": 10_000}, True),  # a value of 0.5 became 0.0
        (10, {"bits": 16, "weight_cap": 10_000}, False),
        (10, {"bits": 8, "weight_cap": 10}, False),
        (100, {"bits": 8, "weight_cap": 10_000}, False),
    ],
)
def test_a_cap_under_which_all_rows_together_weigh_less_than_a_step_is_refused_before_the_round(
    rows: int, changes: dict[str, int], refused: bool
) -> None:
    sites = jumping(rows)
    federation = Federation(PlainSum(sites), SCHEMA, Jump(), plan_of(**changes))
    if not refused:
        assert federation.run().parameters["w"] == pytest.approx([0.5, 1.0], abs=0.5)
        return
    with pytest.raises(SettingError, match=r"plan.weight_cap: with 10000 and plan.bits 8 .* all 40 rows"):
        federation.run()


def test_a_result_that_comes_after_its_round_was_given_up_changes_nothing() -> None:
    """Of two computations at once only that of the later task is kept, whichever ends last."""
    plan = plan_of(keep=0.5, rounds=2)
    terms = Terms.of(plan, FedAvg(), Jump(), SCHEMA)
    model = {"w": np.zeros(2)}
    scale = Standardizer(np.array([50.0, 0.0, 0.5]), np.array([20.0, 2.0, 0.0]))
    first = replace(terms.task(Train(number=1, model=model, standardizer=scale)), attempt=1)
    again = replace(first, attempt=2)
    site = jumping(20)["s0"]
    late, kept = site.accept(first), None
    compute = site.accept(again)
    compute()
    assert site.state.pending is not None
    kept = site.state.pending[1]["residual"]
    late()
    assert site.state.pending[1]["residual"] is kept
    site.state.count("train 1", ["a", "b"])
    site.accept(replace(terms.task(Train(number=2, model=model, standardizer=scale)), attempt=1))
    assert site.state.residual is kept
