"""The standardizer from one noisy sum: right without noise, harmless with much, private always."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data.layout import Layout
from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import SettingError, TaskError
from fedcore.learners import LocalSGD, PersonClipped, SoftmaxRegression
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Moments, TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.terms import Terms
from fedcore.statistics.moments import from_moments, moments_asked, moments_norm, site_moments
from fedcore.statistics.standardizer import Standardizer, from_bounds
from fedcore.strategies import FedAvg

SCHEMA = Schema((Column("age", 0, 100), Column("dose", -5, 5), Column("flag", 0, 1)), ("no", "yes"))
WIDE = Schema((Column("age", 0, 2000), Column("dose", -100, 100), Column("flag", 0, 1)), ("no", "yes"))


def rows(count: int, seed: int = 0, persons: int | None = None) -> Table:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    age = np.clip(rng.normal(55, 9, count) + 12 * labels, 0, 100)
    dose = np.clip(rng.normal(1, 1, count) - 1.5 * labels, -5, 5)
    features = np.column_stack([age, dose, rng.random(count) < 0.3])
    whose = None if persons is None else np.sort(rng.integers(0, persons, count))
    return Table(features, labels, persons=whose)


def test_without_noise_it_is_the_standardizer_of_all_rows() -> None:
    tables = [rows(50, seed) for seed in range(4)]
    mean = np.mean([site_moments(table, SCHEMA) for table in tables], axis=0)
    found, wanted = from_moments(mean, 0.0, SCHEMA), Standardizer.of(join_tables(tables))
    np.testing.assert_allclose(found.mean, wanted.mean, atol=1e-9)
    np.testing.assert_allclose(found.deviation, wanted.deviation, atol=1e-6)
    assert not found.impossible(SCHEMA)


def test_missing_values_count_nowhere() -> None:
    columns = [
        {"name": "a", "low": 0, "high": 10, "missing": "mean"},
        {"name": "b", "low": 0, "high": 1},
    ]
    layout = Layout.parse({"column": columns, "label": {"name": "y", "classes": ["no", "yes"]}})
    schema = Schema.of(layout)
    table = Table(np.array([[2.0, 0], [np.nan, 1], [6.0, 0], [np.nan, 1]]), np.zeros(4, np.int64))
    found = from_moments(site_moments(table, schema), 0.0, schema)
    np.testing.assert_allclose(found.mean, [4.0, 0.5], atol=1e-9)
    np.testing.assert_allclose(found.deviation, [2.0, 0.5], atol=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 12))
def test_no_person_moves_the_vector_by_more_than_one_rows_norm(seed: int, count: int, persons: int) -> None:
    table = rows(count, seed, persons)
    assert table.persons is not None
    one = int(table.persons[seed % count])
    without = table.take(np.flatnonzero(table.persons != one))
    before = site_moments(without, SCHEMA, 40.0) if len(without) else np.zeros(moments_asked(SCHEMA))
    moved = np.linalg.norm(site_moments(table, SCHEMA, 40.0) - before)
    assert moved <= moments_norm(SCHEMA) / 40 * (1 + 1e-12)


@given(st.integers(0, 10_000), st.floats(0, 100))
def test_whatever_the_noise_it_is_one_that_rows_can_have(seed: int, deviation: float) -> None:
    rng = np.random.default_rng(seed)
    mean = site_moments(rows(30, seed), SCHEMA) + deviation * rng.normal(size=moments_asked(SCHEMA))
    assert not from_moments(mean, deviation, SCHEMA).impossible(SCHEMA)


def test_under_much_noise_it_is_that_of_the_bounds() -> None:
    mean = site_moments(rows(30), SCHEMA)
    found, public = from_moments(mean, 10.0, SCHEMA), from_bounds(SCHEMA)
    assert (found.mean == public.mean).all()
    assert (found.deviation == public.deviation).all()
    near = from_moments(mean, 0.15, SCHEMA)  # noise as large as the spread, but not as the count
    assert (near.deviation >= 0.5 * public.deviation).all()


PERSONS = PersonClipped(model=SoftmaxRegression(3, 2), clip=1.0, expected=200.0)
GRADIENTS = FedAvg(ask=Asks(update=UpdateKind.GRADIENT, weighting=Weighting.UNIFORM), server_rate=5.0)


def federation(
    kind: Any, statistics: bool, **changes: Any
) -> tuple[Federation, list[RoundRecord], PrivacyPlan]:
    privacy = PrivacyPlan(
        epsilon=30.0,
        delta=1e-3,
        rounds=12 + statistics,
        smallest=4,
        sensitivity=1 / 200,
        statistics=statistics,
    )
    privacy = replace(privacy, **changes)
    sites = {
        f"site-{i}": Site(f"site-{i}", rows(200, i), WIDE, PERSONS, None, guard=PrivacyGuard(privacy))
        for i in range(4)
    }
    plan = TrainingPlan(rounds=12, clients=4, norm=1.0, bits=16, privacy=privacy)
    records: list[RoundRecord] = []
    made = Federation(kind(sites), WIDE, PERSONS, plan, GRADIENTS, on_round=records.append)
    return made, records, privacy


def test_it_learns_what_bounds_alone_hide_within_the_same_budget() -> None:
    found = {}
    for statistics in (False, True):
        made, records, _ = federation(PlainSum, statistics)
        state = made.run()
        assert state.epsilon is not None
        assert state.epsilon <= 30.0
        kinds = [record.task.kind for record in records]
        assert kinds.count(TaskKind.MOMENTS) == statistics
        held_out = state.standardizer.apply(rows(2000, 99))
        found[statistics] = PERSONS.evaluate(state.parameters, held_out)["auc"]
    assert found[True] > 0.8
    assert found[True] > found[False] + 0.1


def test_the_secure_sum_gives_such_a_standardizer_and_spends_for_it() -> None:
    made, records, _ = federation(SecureSum, statistics=True)
    state = replace(made, plan=replace(made.plan, rounds=1)).run()
    exact = Standardizer.of(join_tables([rows(200, i) for i in range(4)]))
    width = WIDE.high - WIDE.low
    assert (np.abs(state.standardizer.mean - exact.mean) < 0.1 * width).all()
    spent = [record.epsilon for record in records]
    assert spent[0] is not None
    assert spent[1] is not None
    assert 0 < spent[0] < spent[1]


def test_the_guard_takes_no_less_noise_and_nothing_that_was_not_agreed() -> None:
    made, _, privacy = federation(PlainSum, statistics=True)
    terms = Terms.of(made.plan, made.strategy, made.learner, WIDE)
    task = terms.task(Moments())
    site = Site("a", rows(200), WIDE, PERSONS, None, guard=PrivacyGuard(privacy))
    assert len(site.contribute(task)) == task.encoding.length
    noise = task.encoding.noise
    assert noise is not None
    assert task.encoding.codec.headroom == noise.headroom(4)  # a sum wraps nowhere
    less = replace(task, encoding=replace(task.encoding, noise=replace(noise, variance=noise.variance / 2)))
    with pytest.raises(TaskError, match="task.noise: variance must be"):
        site.contribute(less)
    none = replace(task, encoding=replace(task.encoding, noise=None))
    with pytest.raises(TaskError, match="task.noise: moments 1 has none, this site's plan demands it"):
        site.contribute(none)
    shaping = replace(task.encoding.shaping, norm=0.1)
    smaller = replace(task, encoding=replace(task.encoding, shaping=shaping))
    with pytest.raises(TaskError, match="task.shaping.norm: not that of rows within the bounds"):
        site.contribute(smaller)
    strict = Site("b", rows(200), WIDE, PERSONS, None, guard=PrivacyGuard(replace(privacy, statistics=False)))
    with pytest.raises(TaskError, match="task.noise: moments 1 has none, this site's plan demands it"):
        strict.contribute(task)


def test_what_cannot_be_is_refused_before_anything_is_summed() -> None:
    privacy = PrivacyPlan(epsilon=1, delta=0.01, rounds=3, smallest=4, statistics=True)
    with pytest.raises(SettingError, match="privacy.statistics: is for plan.standardize, which is false"):
        TrainingPlan(clients=4, norm=1.0, privacy=privacy, standardize=False)
    plan = TrainingPlan(clients=4, norm=1.0, bits=14, privacy=replace(privacy, sensitivity=0.1))
    learner = LocalSGD(model=SoftmaxRegression(3, 2))
    with pytest.raises(SettingError, match="privacy.statistics: false for a learner that says no expected"):
        Terms.of(plan, GRADIENTS, learner, SCHEMA).task(Moments())


def test_a_site_without_its_own_guard_bounds_a_persons_part_as_well() -> None:
    made, _, _ = federation(PlainSum, statistics=True)
    task = Terms.of(made.plan, made.strategy, made.learner, WIDE).task(Moments())
    few = rows(20)  # far fewer than expected: a mean of them would move by 10 times as much
    found = Site("a", few, WIDE, PERSONS, None).compute(task).coordinates
    np.testing.assert_allclose(found, site_moments(few, WIDE, PERSONS.expected), rtol=1e-6)
    assert not np.allclose(found, site_moments(few, WIDE, 0.0))
