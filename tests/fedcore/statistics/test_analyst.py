"""Answers from sums are those of numpy on the rows of all sites that are in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError, TaskError
from fedcore.rounds.aggregation import FloatSum, GroupSum, PlainSum, SecureSum
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task, TaskKind
from fedcore.statistics.analyst import EXACT, OTHER, Analyst
from secagg import AbortReason, RoundAbortedError
from tests.fedcore.rounds.test_site import LEARNER, SCHEMA, make_sites
from tests.fedcore.rows import table_of

Sum: TypeAlias = type[PlainSum] | type[SecureSum] | type[FloatSum]
ALL = frozenset(f"{kind} {number}" for kind in TaskKind for number in range(1, 9))
GONE = "site-3"

every_sum = pytest.mark.parametrize("aggregator", [PlainSum, SecureSum, FloatSum])
with_dropouts = pytest.mark.parametrize("dropout", [False, True])


def ask(
    aggregator: Sum, dropout: bool = False, sites: dict[str, Site] | None = None
) -> tuple[Analyst, Table]:
    """An analyst, and the rows of the sites that answer."""
    sites = make_sites() if sites is None else sites
    gone = frozenset({GONE}) if dropout else frozenset[str]()
    absent = dict.fromkeys(ALL, gone)
    pooled = join_tables([table_of(site) for name, site in sites.items() if name not in gone])
    schema = next(iter(sites.values())).schema
    assert schema is not None
    return Analyst(aggregator(sites, absent), schema, len(sites), weight_cap=1000), pooled


def quantile(values: np.ndarray, probability: float) -> float:
    """The least value with the share of the values at or below it."""
    return float(np.quantile(values, probability, method="inverted_cdf"))


@every_sum
@with_dropouts
def test_counts_are_exact(aggregator: Sum, dropout: bool) -> None:
    analyst, pooled = ask(aggregator, dropout)
    assert analyst.rows() == len(pooled)
    assert analyst.label_counts() == {
        name: int((pooled.labels == i).sum()) for i, name in enumerate(SCHEMA.classes)
    }
    histogram = analyst.histogram(7)
    for column, (edges, counts) in enumerate(zip(histogram.edges, histogram.counts, strict=True)):
        places = np.clip(np.searchsorted(edges, pooled.features[:, column], side="left") - 1, 0, None)
        assert counts.tolist() == np.bincount(places, minlength=7).tolist()
    assert len(pooled) == (120 if not dropout else 89)


@every_sum
@with_dropouts
def test_moments_are_those_of_the_pooled_rows(aggregator: Sum, dropout: bool) -> None:
    analyst, pooled = ask(aggregator, dropout)
    standardizer = analyst.standardizer()
    ranges = SCHEMA.high - SCHEMA.low
    assert np.abs((standardizer.mean - pooled.features.mean(axis=0)) / ranges).max() < 1e-6
    assert np.abs((standardizer.deviation - pooled.features.std(axis=0)) / ranges).max() < 1e-5
    expected = np.cov(pooled.features.T, bias=True)
    assert np.abs((analyst.covariance() - expected) / np.outer(ranges, ranges)).max() < 1e-6
    ours = analyst.correlation()
    assert np.abs(ours[:2, :2] - np.corrcoef(pooled.features[:, :2].T)).max() < 1e-4


@pytest.mark.parametrize("aggregator", [PlainSum, SecureSum])
@with_dropouts
def test_quantiles_are_as_near_as_they_promise(aggregator: Sum, dropout: bool) -> None:
    analyst, pooled = ask(aggregator, dropout)
    probabilities = [0.0, 0.125, 0.5, 0.75, 1.0]
    for rounds, bins in ((1, 10), (3, 8), (2, 32)):
        found = analyst.quantiles(probabilities, rounds, bins)
        assert found.shape == (3, 5)
        width = (SCHEMA.high - SCHEMA.low) / bins**rounds
        for column in range(3):
            for i, probability in enumerate(probabilities):
                exact = quantile(pooled.features[:, column], probability)
                assert exact <= found[column, i] <= exact + width[column] * (1 + 1e-9)


@every_sum
def test_principal_components_are_those_of_numpy(aggregator: Sum) -> None:
    analyst, pooled = ask(aggregator)
    found = analyst.principal_components(2)
    _, _, directions = np.linalg.svd(pooled.features - pooled.features.mean(axis=0))
    for ours, theirs in zip(found.components, directions, strict=False):
        assert abs(float(ours @ theirs)) == pytest.approx(1.0, abs=1e-6)
        assert ours[np.abs(ours).argmax()] > 0
    assert found.variances[0] > found.variances[1] > 0
    assert found.components @ found.components.T == pytest.approx(np.eye(2))


def test_values_that_nobody_asked_for_are_counted_as_other() -> None:
    sites = small_sites([[0, 1], [1, 2], [3, 2], [2, 7]], [[0, 0], [1, 1], [0, 1], [1, 1]])
    analyst, _ = ask(SecureSum, sites=sites)
    assert analyst.categories("level", [2, 1, 9]) == {2.0: 3, 1.0: 2, 9.0: 0, OTHER: 3}
    assert analyst.categories("level", range(10))[OTHER] == 0
    with pytest.raises(DataError, match=r"column: must be one of \['level'\], is 'dose'"):
        analyst.categories("dose", [1])
    for bad in ([], [1, 1], [float("nan")]):
        with pytest.raises(DataError, match="values: must be one or more finite numbers, each once"):
            analyst.categories("level", bad)


LEVELS = Schema((Column("level", 0.0, 10.0),), ("no", "yes"))


def small_sites(values: list[list[float]], labels: list[list[int]]) -> dict[str, Site]:
    """Sites with one column, `level`, from 0 to 10."""
    return {
        f"site-{i}": Site(
            f"site-{i}", Table(np.array([column], float).T, np.array(found, np.int64)), LEVELS, LEARNER, 1
        )
        for i, (column, found) in enumerate(zip(values, labels, strict=True))
    }


def test_a_column_without_spread_and_rows_at_the_bounds_have_defined_answers() -> None:
    for value in (0.0, 4.0, 10.0):
        analyst, _ = ask(PlainSum, sites=small_sites([[value] * 3, [value] * 5], [[0] * 3, [1] * 5]))
        assert analyst.standardizer().mean == pytest.approx([value], abs=1e-4)
        assert analyst.standardizer().deviation.tolist() == [0.0]
        assert analyst.covariance().tolist() == [[0.0]]
        assert analyst.correlation().tolist() == [[1.0]]
        low, high = analyst.ranges(5)[0]
        assert low <= value <= high == low + 2
        assert analyst.quantiles([0.0, 0.5, 1.0])[0] == pytest.approx([value] * 3, abs=10 / 32**3)
        assert analyst.label_counts() == {"no": 3, "yes": 5}  # each site has one class alone
        if value == 10:
            assert analyst.quantiles([0.0, 1.0]).tolist() == [[10.0, 10.0]]


def test_quantiles_at_the_lower_bound_are_exact() -> None:
    analyst, _ = ask(PlainSum, sites=small_sites([[0.0] * 3, [0.0, 10.0]], [[0] * 3, [1] * 2]))
    assert analyst.quantiles([0.0, 0.5, 0.8, 1.0]).tolist() == [[0.0, 0.0, 0.0, 10.0]]


def test_a_site_without_rows_sits_out() -> None:
    sites = small_sites([[1, 2], [], [4], [0, 9]], [[0, 1], [], [1], [0, 1]])
    empty = Table(np.zeros((0, 1)), np.zeros(0, np.int64))
    sites["site-1"] = Site("site-1", empty, LEVELS, LEARNER, 1)
    for aggregator in (PlainSum, SecureSum):
        analyst, pooled = ask(aggregator, sites=sites)
        assert analyst.rows() == len(pooled) == 5
        assert analyst.quantiles([0.5])[0, 0] == pytest.approx(2, abs=10 / 32**3)


@st.composite
def tables(draw: st.DrawFn) -> list[list[float]]:
    """Values by site, with many at the bounds and many alike."""
    value = st.one_of(st.sampled_from([0.0, 2.5, 5.0, 10.0]), st.floats(0, 10))
    return draw(st.lists(st.lists(value, min_size=1, max_size=20), min_size=1, max_size=5))


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(1, 12), st.integers(2, 9), st.integers(1, 4), st.integers(0, 16))
def test_any_tables_give_what_numpy_gives(
    values: list[list[float]], bins: int, fine: int, rounds: int, sixteenths: int
) -> None:
    pooled = np.concatenate([np.array(column) for column in values])
    analyst, _ = ask(PlainSum, sites=small_sites(values, [[0] * len(column) for column in values]))
    histogram = analyst.histogram(bins)
    assert histogram.counts.sum() == analyst.rows() == len(pooled)
    assert np.cumsum(histogram.counts[0]).tolist() == [
        int((pooled <= edge).sum()) for edge in histogram.edges[0, 1:]
    ]
    low, high = analyst.ranges(bins)[0]
    width = 10 / bins * (1 + 1e-9)
    assert low <= pooled.min() <= low + width
    assert high - width <= pooled.max() <= high
    found = analyst.quantiles([sixteenths / 16], rounds, fine)[0, 0]
    exact = quantile(pooled, sixteenths / 16)
    assert exact <= found <= exact + 10 / fine**rounds * (1 + 1e-9)
    assert analyst.label_counts() == {"no": len(pooled), "yes": 0}
    assert analyst.categories("level", [2.5, 10.0]) == {
        2.5: int((pooled == 2.5).sum()),
        10.0: int((pooled == 10.0).sum()),
        OTHER: int(((pooled != 2.5) & (pooled != 10.0)).sum()),
    }
    assert analyst.covariance()[0, 0] == pytest.approx(pooled.var(), abs=1e-3)


class Recording(PlainSum):
    """Remembers the tasks."""

    def __init__(self, sites: Mapping[str, Site], absent: Mapping[str, frozenset[str]]) -> None:
        super().__init__(sites, absent)
        self.tasks: list[Task] = []

    def sum(self, task: Task, among: object = None) -> GroupSum:
        self.tasks.append(task)
        return super().sum(task, among)  # type: ignore[arg-type]


def test_each_question_takes_as_many_sums_as_it_says() -> None:
    aggregator = Recording(make_sites(), {})
    analyst = Analyst(aggregator, SCHEMA, 5)
    for question, sums in (
        (analyst.rows, ["count 1"]),
        (analyst.standardizer, ["mean 1", "deviation 1"]),
        (lambda: analyst.histogram(4), ["cumulative 1"]),
        (lambda: analyst.ranges(4), ["cumulative 1"]),
        (lambda: analyst.quantiles([0.5], rounds=3), ["cumulative 1", "cumulative 2", "cumulative 3"]),
        (analyst.covariance, ["mean 1", "covariance 1"]),
        (analyst.correlation, ["mean 1", "covariance 1"]),
        (lambda: analyst.principal_components(1), ["mean 1", "covariance 1"]),
        (analyst.label_counts, ["count 1"]),
        (lambda: analyst.categories("unit", [1]), ["count 1"]),
    ):
        aggregator.tasks.clear()
        question()
        assert [task.name for task in aggregator.tasks] == sums


def test_the_number_of_rows_comes_without_any_other_number() -> None:
    aggregator = Recording(make_sites(), {})
    Analyst(aggregator, SCHEMA, 5).rows()
    (task,) = aggregator.tasks
    assert all(site.compute(task).coordinates.tolist() == [0.0] for site in make_sites().values())


@pytest.mark.parametrize("aggregator", [PlainSum, SecureSum])
def test_a_site_that_comes_or_goes_between_two_sums_ends_the_question(aggregator: Sum) -> None:
    absent = {
        "deviation 1": frozenset({"site-2"}),
        "cumulative 2": frozenset({"site-0"}),
        "covariance 1": frozenset({"site-1"}),
    }
    analyst = Analyst(aggregator(make_sites(), absent), SCHEMA, 5)
    with pytest.raises(TaskError, match="deviation 1: site-2 in some sums of one question, not in all"):
        analyst.standardizer()
    with pytest.raises(TaskError, match="cumulative 2: site-0 in some sums"):
        analyst.quantiles([0.5])
    assert analyst.quantiles([0.5], rounds=1).shape == (3, 1)
    analyst = Analyst(aggregator(make_sites(), {"mean 1": frozenset({"site-4"})}), SCHEMA, 5)
    with pytest.raises(TaskError, match="covariance 1: site-4 in some sums"):
        analyst.correlation()


def test_three_of_four_sites_answer_questions_of_several_sums() -> None:
    sites = make_sites(4)  # a cohort of three alone is too small for the threat model
    analyst, pooled = ask(SecureSum, dropout=True, sites=sites)
    assert analyst.rows() == len(pooled) == 10 + 17 + 24
    assert analyst.standardizer().mean == pytest.approx(pooled.features.mean(axis=0), rel=1e-4)


def test_a_sum_without_a_result_is_tried_again_as_often_as_allowed() -> None:
    class Failing(PlainSum):
        left = 2

        def sum(self, task: Task, among: object = None) -> GroupSum:
            self.left -= 1
            if self.left >= 0:
                raise RoundAbortedError(AbortReason.TOO_FEW_SURVIVORS, "nobody")
            return super().sum(task, among)  # type: ignore[arg-type]

    assert Analyst(Failing(make_sites()), SCHEMA, 5).rows() == 120
    with pytest.raises(RoundAbortedError):
        Analyst(Failing(make_sites()), SCHEMA, 5, attempts=2).rows()


def test_rows_beyond_the_cap_do_not_count() -> None:
    assert Analyst(PlainSum(make_sites()), SCHEMA, 5, weight_cap=30).rows() == 10 + 17 + 24 + 30 + 30


def test_counts_are_exact_up_to_the_largest_cap() -> None:
    sites = make_sites()
    analyst = Analyst(PlainSum(sites), SCHEMA, 5, weight_cap=EXACT // 5)
    pooled = join_tables([table_of(site) for site in sites.values()])
    assert list(analyst.label_counts().values()) == np.bincount(pooled.labels).tolist()
    assert analyst.categories("unit", [1.0]) == {1.0: 120, OTHER: 0}
    with pytest.raises(TaskError, match=f"exact up to a product of {EXACT}, is {EXACT + 1}"):
        Analyst(PlainSum(sites), SCHEMA, 1, weight_cap=EXACT + 1)
    with pytest.raises(TaskError, match="attempts: must be at least 1, are 0"):
        Analyst(PlainSum(sites), SCHEMA, 5, attempts=0)


def test_questions_that_mean_nothing_are_refused() -> None:
    analyst, _ = ask(PlainSum)
    for bad in ([], [-0.1], [1.1], [float("nan")]):
        with pytest.raises(DataError, match=r"probabilities: must be one or more in 0\.\.1"):
            analyst.quantiles(bad)
    for rounds, bins in ((0, 8), (2, 1)):
        with pytest.raises(DataError, match="rounds, bins: must be at least 1 and 2"):
            analyst.quantiles([0.5], rounds, bins)
    with pytest.raises(DataError, match="bins: must be at least 1, are 0"):
        analyst.histogram(0)
    for count in (0, 4):
        with pytest.raises(DataError, match=rf"count: must be in 1\.\.3, is {count}"):
            analyst.principal_components(count)


@pytest.mark.skipif(
    not (Path(os.environ.get("SECAGG_DATA", "")) / "heart_disease").is_dir(),
    reason="SECAGG_DATA does not name a folder with heart_disease",
)
def test_four_hospitals_describe_their_patients() -> None:
    from fedcore.data import heart_disease

    heart = heart_disease()
    sites = {name: Site(name, table, heart.schema, LEARNER, 3) for name, table in heart.train.items()}
    analyst, pooled = ask(SecureSum, sites=sites)
    assert analyst.rows() == len(pooled) == 486
    assert list(analyst.label_counts().values()) == np.bincount(pooled.labels).tolist()
    assert analyst.categories("sex", [0.0, 1.0])[OTHER] == 0
    found = analyst.quantiles([0.25, 0.5, 0.75])
    exact = np.quantile(pooled.features, [0.25, 0.5, 0.75], axis=0, method="inverted_cdf").T
    ranges = heart.schema.high - heart.schema.low
    assert ((found - exact) >= -1e-12).all()
    assert ((ranges / 32**3) >= (found - exact).T).all()
    assert np.abs(analyst.correlation() - np.corrcoef(pooled.features.T)).max() < 1e-3
