"""Bad input at one site: it changes nothing, or is refused, and the round goes on; over all three sums."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fedcore.codec.clipping import AdaptiveClip
from fedcore.data.table import Table
from fedcore.errors import TaskError
from fedcore.learner import LocalFit, Metrics, Parameters, Steering, flatten
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.rounds.aggregation import FloatSum, PlainSum, SecureSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState
from fedcore.strategies import FedAdam, FedAvg, FedProx, Scaffold, Strategy
from tests.fedcore.rows import table_of
from tests.fedcore.sites import SCHEMA, make_table

LEARNER = LocalSGD(model=SoftmaxRegression(3, 2), batch_size=8, rate=0.2)
SUMS = [PlainSum, FloatSum, SecureSum]
GOOD = [f"site-{i}" for i in range(5)]
Change = Callable[[Site], Site]


@dataclass(frozen=True)
class Odd:
    """A learner that does something else at one place."""

    fitted: Callable[[Parameters], Any] = dict
    started: Callable[[], Any] = LEARNER.initial
    inner: Any = field(default_factory=lambda: LEARNER)

    def initial(self) -> Any:
        return self.started()

    def fit(self, parameters: Parameters, rows: Any, seed: int) -> Any:
        return self.fitted(self.inner.fit(parameters, rows, seed))

    def fit_steered(self, parameters: Parameters, rows: Any, seed: int, steering: Steering) -> Any:
        fit = self.inner.fit_steered(parameters, rows, seed, steering)
        return LocalFit(self.fitted(fit.parameters), fit.steps, fit.rate)

    def gradient(self, parameters: Parameters, rows: Any) -> Any:
        return self.fitted(self.inner.gradient(parameters, rows))

    def evaluate(self, parameters: Parameters, rows: Any) -> Metrics:
        return {}


def fails(*_: Any) -> Any:
    raise RuntimeError("cuda: out of memory, patient 4711")


class Still(Odd):
    """Stays where it begins."""

    def fit(self, parameters: Parameters, rows: Any, seed: int) -> Any:
        return dict(parameters)

    def fit_steered(self, parameters: Parameters, rows: Any, seed: int, steering: Steering) -> Any:
        return LocalFit(dict(parameters), 1.0, 1.0)


def one_nan(parameters: Parameters) -> Parameters:
    return {**parameters, "intercepts": np.array([0.0, np.nan])}


# What a site says of itself, and whether it refuses: on grounds that do not depend on its rows.
BAD: dict[str, tuple[Change, str]] = {
    "NaN": (lambda s: replace(s, learner=Odd(one_nan)), "must be finite"),
    "infinite": (
        lambda s: replace(s, learner=Odd(lambda p: {n: a + np.inf for n, a in p.items()})),
        "must be finite",
    ),
    "learner raises": (lambda s: replace(s, learner=Odd(fails)), "the learner failed with RuntimeError"),
    "initial raises": (
        lambda s: replace(s, learner=Odd(started=fails)),
        "the learner failed with RuntimeError",
    ),
    "initial is nothing": (
        lambda s: replace(s, learner=Odd(started=lambda: None)),
        "learner.initial: must be arrays by name, are NoneType",
    ),
    "nothing returned": (
        lambda s: replace(s, learner=Odd(lambda _: None)),
        "the learner's result: must be arrays by name, are NoneType",
    ),
    "lists returned": (
        lambda s: replace(s, learner=Odd(lambda p: {n: a.tolist() for n, a in p.items()})),
        "the learner's result: coefficients must be an array of numpy, is list",
    ),
    "text returned": (
        lambda s: replace(s, learner=Odd(lambda p: {n: np.full(a.shape, "x") for n, a in p.items()})),
        "the learner's result: coefficients must be float32 or float64, is <U1",
    ),
    "a parameter less": (
        lambda s: replace(s, learner=Odd(lambda p: {"intercepts": p["intercepts"]})),
        "parameters of other shapes",
    ),
    "other shapes": (
        lambda s: replace(s, learner=Odd(lambda p: {n: a[..., :1] for n, a in p.items()})),
        "parameters of other shapes",
    ),
    "another model": (
        lambda s: replace(s, learner=LocalSGD(model=SoftmaxRegression(3, 4))),
        "task.model: not the shapes",
    ),
    "no rows": (lambda s: replace(s, table=Table(np.zeros((0, 3)), np.zeros(0, np.int64))), "has no rows"),
    "another schema": (
        lambda s: replace(s, schema=replace(SCHEMA, classes=("no", "maybe"))),
        "its schema and classes are not those of this site",
    ),
    "no table": (lambda s: replace(s, table=[1, 2, 3]), "statistics need a table|only tables"),
}
REFUSED = {"initial raises", "initial is nothing", "another model", "another schema", "no table"}
STRATEGIES = [FedAvg(), FedProx(mu=0.1), FedAdam()]


def make_sites(change: Change | None) -> dict[str, Site]:
    names = [*GOOD, "site-x"]
    sites = {name: Site(name, make_table(12 + 7 * i, i), SCHEMA, LEARNER, 7) for i, name in enumerate(names)}
    if change is None:
        del sites["site-x"]
    else:
        sites["site-x"] = change(sites["site-x"])
    return sites


def run(
    kind: Any, sites: dict[str, Site], strategy: Strategy | None = None, **changes: Any
) -> tuple[RunState, list[RoundRecord]]:
    values: dict[str, Any] = {"rounds": 2, "clients": 6, "weight_cap": 100, "bits": 16}
    records: list[RoundRecord] = []
    plan = TrainingPlan(**(values | changes))
    federation = Federation(kind(sites), SCHEMA, LEARNER, plan, strategy or FedAvg(), on_round=records.append)
    return federation.run(), records


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_a_bad_site_says_nothing_for_a_reason_and_the_round_goes_on(
    kind: Any, bad: str, strategy: Strategy
) -> None:
    change, why = BAD[bad]
    # Without standardization, whose sums have a site in them that is bad at training only.
    model, records = run(kind, make_sites(change), strategy, standardize=bad == "no table")
    sits_out = bad in REFUSED or bad == "no rows"
    still: Change | None = None if sits_out else lambda site: replace(site, learner=Still())
    clean, _ = run(kind, make_sites(still), strategy, standardize=bad == "no table")
    train = [record for record in records if record.task.name.startswith("train")]
    assert len(train) == 2
    for record in train:
        assert record.result is not None
        assert record.result.survivors == ((*GOOD,) if bad in REFUSED else (*GOOD, "site-x"))
        assert list(record.result.failures) == ["site-x"]
        assert re.search(why, record.result.failures["site-x"]), record.result.failures
        assert "4711" not in record.result.failures["site-x"]  # what a library says may be about data
    assert flatten(model.parameters).tobytes() == flatten(clean.parameters).tobytes()
    assert np.abs(flatten(model.parameters)).max() > 1e-3


def single_class(site: Site) -> Site:
    return replace(site, table=Table(table_of(site).features, np.zeros(len(table_of(site)), np.int64)))


def constant(site: Site) -> Site:
    return replace(site, table=Table(np.full((9, 3), [50.0, 0.0, 1.0]), np.arange(9) % 2))


def one_row(site: Site) -> Site:
    return replace(site, table=make_table(1, 3))


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("odd", [single_class, constant, one_row], ids=lambda f: f.__name__)
def test_poor_data_takes_part_with_a_defined_result(kind: Any, odd: Change) -> None:
    """One class, columns that never vary (`unit` is so everywhere), a single row."""
    model, records = run(kind, make_sites(odd), evaluate_every=1)
    for record in records:
        assert record.result is not None
        assert record.result.failures == {}
        assert "site-x" in record.result.survivors
    assert np.isfinite(flatten(model.parameters)).all()
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in model.evaluations.values())


@pytest.mark.parametrize("kind", SUMS)
def test_more_rows_than_the_cap_count_as_the_cap(kind: Any) -> None:
    sites = make_sites(lambda site: replace(site, table=make_table(500, 1)))
    _, records = run(kind, sites)
    rows = [len(sites[name].table) for name in sorted(sites)]
    for record in records:
        assert record.weight == sum(min(count, 100) for count in rows)
        assert record.result is not None
        assert record.result.failures == {}


@pytest.mark.parametrize("kind", SUMS)
def test_a_change_of_a_site_that_says_nothing_is_not_kept(kind: Any) -> None:
    sites = make_sites(lambda site: replace(site, learner=Odd(one_nan)))
    run(kind, sites, Scaffold(sites=6), rounds=3, keep=0.5)
    assert sites["site-x"].state.control is None
    assert sites["site-x"].state.residual is None
    assert sites["site-0"].state.control is not None


@pytest.mark.parametrize("kind", SUMS)
def test_personal_values_that_are_not_finite_stay_out(kind: Any) -> None:
    sites = make_sites(lambda site: replace(site, learner=Odd(one_nan)))
    _, records = run(kind, sites, FedAvg(ask=Asks(personal=("intercepts",))), rounds=3)
    assert sites["site-x"].state.personal == {}
    assert records[-1].result is not None
    assert list(records[-1].result.failures) == ["site-x"]


@pytest.mark.parametrize("kind", SUMS)
def test_when_every_site_is_bad_the_error_says_why(kind: Any) -> None:
    sites = {name: replace(site, learner=Odd(fails)) for name, site in make_sites(None).items()}
    with pytest.raises(TaskError, match="train 1: no site could contribute: .*failed with RuntimeError"):
        run(kind, sites)


@pytest.mark.parametrize("kind", SUMS)
def test_a_site_that_failed_once_speaks_in_the_next_round(kind: Any) -> None:
    calls = []

    def sometimes(parameters: Parameters) -> Parameters:
        calls.append(1)
        return fails() if len(calls) == 2 else parameters

    sites = make_sites(lambda site: replace(site, learner=Odd(sometimes)))
    _, records = run(kind, sites, Scaffold(sites=6), rounds=4, norm=AdaptiveClip(norm=1.0))
    trained = [record.result for record in records if record.result and record.task.name[:5] == "train"]
    assert all("site-x" in result.survivors for result in trained)
    assert ["site-x" in result.failures for result in trained] == [False, True, False, False]


@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_steps_that_are_not_finite_are_an_error_and_not_a_model(kind: Any) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Exploding(FedAvg):
        def step(self, parameters: Any, update: Any, state: Any) -> Any:
            return parameters * np.nan, state

    with pytest.raises(TaskError, match="Exploding: the step of round 1 is not finite"):
        run(kind, make_sites(None), Exploding())
