"""Missing values become the mean of all sites: results are those of rows that were filled beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.layout import Category, Layout, Missing, Number
from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError, SettingError
from fedcore.learner import flatten
from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.models import SoftmaxRegression
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.statistics.analyst import Analyst
from fedcore.statistics.standardizer import Standardizer
from tests.fedcore.rows import table_of

LABEL = Category(name="y", categories=("0", "1"))
SCHEMA = Schema.of(
    Layout(
        columns=(
            Number(name="age", low=0, high=100, missing=Missing.MEAN, varies=False),
            Number(name="dose", low=-5, high=5, varies=False),
            Number(name="level", low=0, high=10, missing=Missing.MEAN, varies=False),
        ),
        label=LABEL,
    )
)
LEARNER = LocalSGD(model=SoftmaxRegression(3, 2), epochs=2)


def make_sites(sizes: list[int], seed: int, gaps: float) -> dict[str, Site]:
    rng = np.random.default_rng(seed)
    sites = {}
    for i, rows in enumerate(sizes):
        features = np.column_stack(
            [rng.uniform(0, 100, rows), rng.uniform(-5, 5, rows), rng.uniform(0, 10, rows)]
        )
        for column in (0, 2):
            features[rng.random(rows) < gaps, column] = np.nan
        labels = (np.nan_to_num(features[:, 0], nan=50) + 10 * features[:, 1] > 50).astype(np.int64)
        sites[f"s{i}"] = Site(f"s{i}", Table(features, labels), SCHEMA, LEARNER, seed=1)
    sites["s0"].table.features[0] = [50.0, 0.0, 5.0]  # type: ignore[attr-defined] # somebody has a value
    return sites


def filled(sites: dict[str, Site], mean: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, Site]:
    def whole(table: Table) -> Table:
        return replace(table, features=np.where(np.isnan(table.features), mean, table.features))

    return {name: replace(site, table=whole(table_of(site))) for name, site in sites.items()}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=4, max_size=6), st.integers(0, 999), st.sampled_from([0, 0.2, 0.9])
)
def test_means_are_those_of_the_values_that_are_there(sizes: list[int], seed: int, gaps: float) -> None:
    sites = make_sites(sizes, seed, gaps)
    plan = TrainingPlan(rounds=0, clients=len(sites), weight_cap=40)
    found = Federation(PlainSum(sites), SCHEMA, LEARNER, plan).run().standardizer
    whole = join_tables([table_of(site) for site in sites.values()])
    expected = Standardizer.of(whole)
    share = (~np.isnan(whole.features)).mean(axis=0).min()
    bound = plan.codec(TaskKind.MEAN).error_bound(len(sites), len(whole))
    width = SCHEMA.high - SCHEMA.low
    assert (np.abs(found.mean - expected.mean) / width).max() <= 2.1 * bound / share
    variance = np.abs((found.deviation / width) ** 2 - (expected.deviation / width) ** 2)
    assert variance.max() <= 5 * bound / share
    assert np.nanmean(whole.features, axis=0) == pytest.approx(expected.mean)


def test_training_is_that_on_rows_filled_with_the_mean() -> None:
    sites = make_sites([30, 40, 50, 60], 3, 0.3)
    plan = TrainingPlan(rounds=3, clients=4, weight_cap=60)
    model = Federation(SecureSum(sites), SCHEMA, LEARNER, plan).run()
    same = filled(sites, model.standardizer.mean)
    for site in same.values():
        assert not np.isnan(table_of(site).features).any()
    again = Federation(PlainSum(same), SCHEMA, LEARNER, plan).run()
    assert flatten(model.parameters) == pytest.approx(flatten(again.parameters), abs=1e-3)
    scaled = model.standardizer.apply(table_of(sites["s1"])).features
    assert (scaled[np.isnan(table_of(sites["s1"]).features)] == 0).all()


def test_a_column_of_which_nobody_has_a_value_is_named() -> None:
    sites = make_sites([10, 10, 10, 10], 1, 0.0)
    for site in sites.values():
        table_of(site).features[:, 2] = np.nan
    plan = TrainingPlan(rounds=1, clients=4, weight_cap=60)
    with pytest.raises(DataError, match="column level: no row of any site has a value"):
        Federation(PlainSum(sites), SCHEMA, LEARNER, plan).run()


def test_without_standardization_there_is_no_mean_to_fill_with() -> None:
    sites = make_sites([10, 10, 10, 10], 1, 0.1)
    plan = TrainingPlan(rounds=1, clients=4, weight_cap=60, standardize=False)
    with pytest.raises(SettingError, match=r"plan.standardize: must be true where missing values.* of age"):
        Federation(PlainSum(sites), SCHEMA, LEARNER, plan).run()


@pytest.mark.parametrize(
    ("high", "varies", "refused"), [(1e12, True, True), (1e12, False, False), (120.0, True, False)]
)
def test_bounds_too_wide_for_a_sum_to_see_a_column_vary_are_refused(
    high: float, varies: bool, refused: bool
) -> None:
    wide = Schema.of(Layout(columns=(Number(name="age", low=0, high=high, varies=varies),), label=LABEL))
    learner = LocalSGD(model=SoftmaxRegression(1, 2))
    rng = np.random.default_rng(0)
    sites = {
        f"s{i}": Site(f"s{i}", Table(rng.uniform(0, 100, (30, 1)), np.arange(30) % 2), wide, learner)
        for i in range(4)
    }
    plan = TrainingPlan(rounds=1, clients=4, weight_cap=30)
    if refused:
        with pytest.raises(DataError, match=r"column age: varies by less than what a sum resolves"):
            Federation(PlainSum(sites), wide, learner, plan).run()
    else:
        model = Federation(PlainSum(sites), wide, learner, plan).run()
        assert (model.standardizer.deviation[0] > 0) == (high < 1000)


def test_an_order_has_no_place_for_what_is_missing() -> None:
    analyst = Analyst(PlainSum(make_sites([10] * 4, 1, 0.1)), SCHEMA, clients=4)
    assert analyst.covariance().shape == (3, 3)
    with pytest.raises(DataError, match="column age: a value that is missing has no place in an order"):
        analyst.quantiles([0.5])


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ([[50.0, np.nan, 5.0]], [0], "row 1, column dose: must be finite"),
        ([[50000.0, 0.0, 5.0]], [0], r"row 1, column age: must be in \[0, 100\]"),
        ([[50.0, 0.0, 5.0]], [2], "row 1, column label: must be in 0 .. 1"),
        ([[50.0, 0.0]], [0], r"features must be \(1, 3\)"),
    ],
)
def test_rows_that_do_not_fit_the_schema_make_no_site(
    features: list[list[float]], labels: list[int], message: str
) -> None:
    with pytest.raises(DataError, match=f"s0.*{message}"):
        Site("s0", Table(np.array(features), np.array(labels)), SCHEMA, LEARNER)
