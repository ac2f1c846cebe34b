"""Federated statistics equal those of the pooled rows, as far as rounding allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.learner import Learner
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.statistics.standardizer import (
    Standardizer,
    to_mean,
    to_standardizer,
    unit_deviations,
    unit_means,
)
from tests.fedcore.rows import table_of

SCHEMA = Schema(
    (
        Column("wide", -1000.0, 3000.0),
        Column("narrow", 0.0, 0.01),
        Column("flat", 0.0, 7.0),
        Column("at the bound", -2.0, 2.0),
        Column("switch", 0.0, 1.0),
    ),
    ("no", "yes"),
)
RANGE = SCHEMA.high - SCHEMA.low


def make_sites(sizes: list[int], seed: int, *, learner: Learner[Any]) -> dict[str, Site]:
    rng = np.random.default_rng(seed)
    sites = {}
    for i, rows in enumerate(sizes):
        features = np.column_stack(
            [
                rng.normal(rng.uniform(0, 2000), 50, rows),
                rng.uniform(0, 0.01, rows),
                np.full(rows, 1 / 3),
                np.full(rows, 2.0),
                rng.integers(0, 2, rows),
            ]
        )
        SCHEMA.check(features, "made")
        sites[f"s{i}"] = Site(f"s{i}", Table(features, rng.integers(0, 2, rows)), SCHEMA, learner)
    return sites


@pytest.mark.parametrize("sizes", [[30, 40, 50, 60], [1, 1, 1, 1, 1], [1, 2, 500, 3, 100], [1000, 1, 1, 1]])
@pytest.mark.parametrize(("aggregator", "seed"), [*((PlainSum, seed) for seed in range(5)), (SecureSum, 0)])
def test_mean_and_deviation_equal_those_of_the_pooled_rows_within_the_bound(
    aggregator: type[PlainSum | SecureSum], sizes: list[int], seed: int
) -> None:
    learner = LogisticRegressionLearner(features=5, classes=2)
    sites = make_sites(sizes, seed, learner=learner)
    plan = TrainingPlan(rounds=0, clients=len(sites), weight_cap=1000)
    model = Federation(aggregator(sites), SCHEMA, learner, plan).run()
    rows = np.concatenate([table_of(site).features for site in sites.values()])
    bound = plan.codec(TaskKind.MEAN).error_bound(len(sites), len(rows))
    assert model.weight == len(rows)
    mean = np.abs(model.standardizer.mean - rows.mean(axis=0)) / RANGE
    assert mean.max() <= bound * 1.001
    # around a mean that is off by e the mean squared deviation is larger by e^2
    variance = np.abs((model.standardizer.deviation / RANGE) ** 2 - rows.var(axis=0) / RANGE**2)
    assert variance.max() <= bound * 1.001 + bound**2
    assert bound < 1e-5
    assert model.standardizer.deviation[2:4].tolist() == [0.0, 0.0]


def test_columns_without_spread_become_zero_and_the_others_standard() -> None:
    learner = LogisticRegressionLearner(features=5, classes=2)
    sites = make_sites([200, 300, 100, 50], 3, learner=learner)
    plan = TrainingPlan(rounds=0, clients=4, weight_cap=300)
    standardizer = Federation(PlainSum(sites), SCHEMA, learner, plan).run().standardizer
    scaled = np.concatenate([standardizer.apply(table_of(site)).features for site in sites.values()])
    assert np.abs(scaled[:, [0, 1, 4]].mean(axis=0)).max() < 1e-3
    assert np.abs(scaled[:, [0, 1, 4]].std(axis=0) - 1).max() < 1e-3
    assert (scaled[:, 2:4] == 0).all()


def test_standardizing_leaves_the_table_as_it_is_and_keeps_the_labels() -> None:
    table = Table(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([1, 0]))
    scaled = Standardizer(np.array([2.0, 4.0]), np.array([0.5, 0.0])).apply(table)
    assert scaled.features.tolist() == [[-2.0, 0.0], [2.0, 0.0]]
    assert scaled.labels.tolist() == [1, 0]
    assert table.features.tolist() == [[1.0, 5.0], [3.0, 5.0]]


def test_units_are_shares_of_the_public_range() -> None:
    schema = Schema((Column("a", -10.0, 30.0), Column("b", 0.0, 4.0)), ("0", "1"))
    table = Table(np.array([[-10.0, 4.0], [30.0, 4.0]]), np.zeros(2, np.int64))
    assert unit_means(table, schema).tolist() == [0.5, 1.0]
    assert to_mean(np.array([0.5, 1.0]), schema).tolist() == [10.0, 4.0]
    assert unit_deviations(table, schema, np.array([10.0, 4.0])).tolist() == [0.25, 0.0]


def test_at_the_bounds_units_stay_within_what_the_codec_carries() -> None:
    table = Table(np.array([SCHEMA.low, SCHEMA.high]), np.zeros(2, np.int64))
    for corner in (SCHEMA.low, SCHEMA.high):
        deviations = unit_deviations(table, SCHEMA, corner)
        assert deviations.max() <= 1.0
        assert deviations.min() >= 0.0
    assert unit_means(table, SCHEMA).max() <= 1.0


def test_spread_below_the_resolution_counts_as_none_and_above_it_counts() -> None:
    schema = Schema((Column("a", 0.0, 10.0), Column("b", 0.0, 10.0), Column("c", 0.0, 10.0)), ("0", "1"))
    made = to_standardizer(np.ones(3), np.array([0.0, 1e-6, 0.04]), schema, resolution=1e-6)
    assert made.deviation == pytest.approx([0.0, 0.0, 2.0])
    assert made.mean.tolist() == [1.0, 1.0, 1.0]
