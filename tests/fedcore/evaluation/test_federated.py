"""Federated evaluation gives the metrics of the pooled held-out rows, as scikit-learn computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import TaskError
from fedcore.evaluation.federated import BINS, SITE_BINS, Evaluation, SiteSpread, dimension, to_evaluation
from fedcore.learner import Parameters
from fedcore.rounds.aggregation import FloatSum, PlainSum, SecureSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.statistics.standardizer import Standardizer
from tests.fedcore.rows import held_out_of
from tests.lazy import Lazy

metrics: Any = Lazy("sklearn.metrics")

Sum: TypeAlias = type[PlainSum] | type[SecureSum] | type[FloatSum]
NOTHING: Parameters = {"unused": np.zeros(1)}

every_sum = pytest.mark.parametrize("aggregator", [PlainSum, SecureSum, FloatSum])


class Mute:
    """A learner without scores."""

    def initial(self) -> Parameters:
        return {"unused": np.zeros(1)}

    def fit(self, parameters: Parameters, rows: Table, seed: int) -> Parameters:
        return parameters

    def evaluate(self, parameters: Parameters, rows: Table) -> dict[str, float]:
        return {}


class Reader(Mute):
    """Its scores stand in the rows."""

    def scores(self, parameters: Parameters, rows: Table) -> NDArray[np.float64]:
        return rows.features


@dataclass
class Broken(Reader):
    """Gives scores that are none."""

    answer: Any

    def scores(self, parameters: Parameters, rows: Table) -> NDArray[np.float64]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.asarray(self.answer)


def schema_of(classes: int) -> Schema:
    return Schema(
        tuple(Column(f"p{i}", 0.0, 1.0) for i in range(classes)), tuple(f"class-{i}" for i in range(classes))
    )


def scored(classes: int, rows: int, seed: int) -> Table:
    """Labels, and scores that know a little about them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[labels]
    scores = np.exp(logits)
    return Table(scores / scores.sum(axis=1, keepdims=True), labels)


def right(hits: int, rows: int, classes: int = 2, label: int = 0) -> Table:
    """Rows of one class, `hits` of which are guessed."""
    guesses = np.where(np.arange(rows) < hits, label, (label + 1) % classes)
    return Table(np.eye(classes)[guesses] * 0.8 + 0.1, np.full(rows, label))


def sites_of(tables: list[Table], learner: Any = None) -> dict[str, Site]:
    """Sites whose training rows would give other answers than their held-out rows."""
    classes = tables[0].features.shape[1]
    return {
        f"site-{i}": Site(
            *(f"site-{i}", right(0, 3, classes), schema_of(classes), learner or Reader(), 5), held_out=table
        )
        for i, table in enumerate(tables)
    }


def federation(
    aggregator: Sum, sites: dict[str, Site], absent: dict[str, frozenset[str]] | None = None, **changes: Any
) -> Federation:
    plan = TrainingPlan(**({"rounds": 1, "clients": len(sites), "weight_cap": 1000} | changes))
    return Federation(aggregator(sites, absent or {}), next(iter(sites.values())).schema, Reader(), plan)


def areas(table: Table) -> list[tuple[float, float]]:
    """Area of each curve, and the share of the pairs that share a bin, which is the tolerance."""
    classes, out = table.features.shape[1], []
    for label in [1] if classes == 2 else range(classes):
        inside = table.labels == label
        if not 0 < inside.sum() < len(inside):
            continue
        score = table.features[:, label]
        bins = np.clip((score * BINS).astype(int), 0, BINS - 1)
        one, rest = (np.bincount(bins[rows], minlength=BINS) for rows in (inside, ~inside))
        tied = float(one @ rest) / (inside.sum() * (~inside).sum())
        out.append((float(metrics.roc_auc_score(inside, score)), tied))
    return out


def check(found: Evaluation, pooled: Table) -> None:
    """Compare with scikit-learn on the pooled rows."""
    classes, guesses = pooled.features.shape[1], pooled.features.argmax(axis=1)
    every = np.arange(classes)
    assert found.rows == len(pooled)
    expected = metrics.confusion_matrix(pooled.labels, guesses, labels=every)
    assert np.array_equal(found.confusion, expected)
    assert found.metrics["accuracy"] == pytest.approx(metrics.accuracy_score(pooled.labels, guesses))
    loss = metrics.log_loss(pooled.labels, pooled.features, labels=every)
    assert found.metrics["log_loss"] == pytest.approx(loss, abs=1e-3)
    f1 = metrics.f1_score(pooled.labels, guesses, average="macro")
    assert found.metrics["macro_f1"] == pytest.approx(f1)
    if classes == 2:
        check_the_second(found, pooled)
    if curves := areas(pooled):
        exact, tied = np.mean(curves, axis=0)
        assert abs(found.metrics["auc"] - exact) <= tied / 2 + 1e-9
    else:
        assert math.isnan(found.metrics["auc"])


def check_the_second(found: Evaluation, pooled: Table) -> None:
    """Of the second of two classes, with scores as coarse as the bins."""
    labels, guesses = pooled.labels, pooled.features.argmax(axis=1)
    bins = np.clip((pooled.features[:, 1] * BINS).astype(int), 0, BINS - 1)
    expected = dict.fromkeys(("precision", "recall", "average_precision", "ks"), float("nan"))
    if guesses.any():
        expected["precision"] = float(metrics.precision_score(labels, guesses))
    if labels.any():
        expected["recall"] = float(metrics.recall_score(labels, guesses))
        expected["average_precision"] = float(metrics.average_precision_score(labels, bins))
    if 0 < labels.sum() < len(labels):
        wrong, right, _ = metrics.roc_curve(labels, bins, drop_intermediate=False)
        expected["ks"] = float(np.abs(right - wrong).max())
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, nan_ok=True)


@every_sum
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_an_evaluation_is_that_of_the_pooled_held_out_rows(aggregator: Sum, classes: int) -> None:
    tables = [scored(classes, 20 + 13 * i, i) for i in range(5)]
    check(federation(aggregator, sites_of(tables)).evaluate(NOTHING), join_tables(tables))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 999))
def test_any_rows_give_the_metrics_of_scikit_learn(classes: int, sizes: list[int], seed: int) -> None:
    tables = [scored(classes, size, seed + i) for i, size in enumerate(sizes)]
    check(federation(PlainSum, sites_of(tables)).evaluate(NOTHING), join_tables(tables))


def test_the_binned_area_is_near_the_exact_one() -> None:
    tables = [scored(2, 400, i) for i in range(3)]
    found = federation(PlainSum, sites_of(tables)).evaluate(NOTHING).metrics["auc"]
    (exact, _) = areas(join_tables(tables))[0]
    assert abs(found - exact) < 1e-3
    assert 0.7 < exact < 0.99


@every_sum
def test_dropouts_are_left_out(aggregator: Sum) -> None:
    tables = [scored(3, 30, i) for i in range(5)]
    absent = {"evaluate 4": frozenset({"site-1"}), "sites 4": frozenset({"site-2"})}
    drive = federation(aggregator, sites_of(tables), absent)
    check(drive.evaluate(NOTHING, number=4), join_tables([tables[i] for i in (0, 2, 3, 4)]))
    check(drive.evaluate(NOTHING, number=5), join_tables(tables))
    counted = [t for i, t in enumerate(tables) if i != 2]
    assert drive.evaluate_sites(NOTHING, number=4).counts.tolist() == spread_of(counted)


def spread_of(tables: list[Table]) -> list[int]:
    """Counts by bin, in whole numbers."""
    hits = [int((t.features.argmax(axis=1) == t.labels).sum()) for t in tables]
    places = [min(h * SITE_BINS // len(t), SITE_BINS - 1) for h, t in zip(hits, tables, strict=True)]
    return np.bincount(places, minlength=SITE_BINS).tolist()  # type: ignore[no-any-return]


@every_sum
def test_the_spread_counts_every_site_once_whatever_its_rows(aggregator: Sum) -> None:
    tables = [right(1, 10), right(99, 100), right(3, 4), right(600, 1000), right(1, 2)]
    found = federation(aggregator, sites_of(tables)).evaluate_sites(NOTHING)
    assert found.counts.sum() == 5
    assert found.counts.tolist() == spread_of(tables)
    assert found.worst == pytest.approx(0.1)
    assert found.median == pytest.approx(0.61)  # the middle of 0.60 to 0.62


@every_sum
def test_sites_that_are_always_or_never_right_lie_in_the_outer_bins(aggregator: Sum) -> None:
    found = federation(aggregator, sites_of([right(7, 7), right(0, 5), right(3, 3), right(4, 4)]))
    spread = found.evaluate_sites(NOTHING)
    assert spread.counts[0] == 1
    assert spread.counts[-1] == 3
    assert spread.worst == 0.0
    alone = federation(aggregator, sites_of([right(7, 7)] * 4)).evaluate_sites(NOTHING)
    assert alone.worst == pytest.approx(1 - 1 / SITE_BINS)


@pytest.mark.parametrize("hits", [28, 29, 56, 57, 58, 7, 14])
def test_an_accuracy_on_an_edge_is_in_the_bin_above_it(hits: int) -> None:
    spread = federation(PlainSum, sites_of([right(hits, 100)])).evaluate_sites(NOTHING)
    assert spread.counts[hits // 2] == 1


def test_the_median_is_in_the_bin_of_the_middle_site() -> None:
    counts = np.zeros(SITE_BINS, np.int64)
    counts[[3, 10, 40]] = [2, 1, 2]
    spread = SiteSpread(counts)
    assert (spread.worst, spread.median) == (3 / SITE_BINS, 10.5 / SITE_BINS)


@pytest.mark.parametrize("classes", [2, 3])
def test_rows_of_one_class_have_no_area_but_everything_else(classes: int) -> None:
    drive = federation(SecureSum, sites_of([right(3, 4, classes), *[right(5, 5, classes)] * 4]))
    found = drive.evaluate(NOTHING)
    assert math.isnan(found.metrics["auc"])
    assert found.metrics["accuracy"] == 23 / 24
    assert found.confusion[0, 0] == 23
    assert found.confusion.sum() == 24


def test_a_class_that_nobody_has_is_left_out_of_the_area() -> None:
    table = scored(3, 60, 1)
    tables = [table.take(np.flatnonzero(table.labels != 2))]
    check(federation(PlainSum, sites_of(tables)).evaluate(NOTHING), tables[0])


def test_sites_of_one_class_each_have_an_area_together() -> None:
    table = scored(2, 80, 4)
    tables = [table.take(np.flatnonzero(table.labels == label)) for label in (0, 1)]
    check(federation(PlainSum, sites_of(tables)).evaluate(NOTHING), join_tables(tables))


def test_certain_scores_at_both_ends_are_counted() -> None:
    table = Table(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 1, 0]))
    found = federation(PlainSum, sites_of([table])).evaluate(NOTHING)
    assert found.confusion.tolist() == [[1, 1], [1, 1]]
    assert found.metrics["auc"] == 0.5
    assert found.metrics["log_loss"] == pytest.approx(-math.log(1e-15) / 2)


def odd_sites(odd: Site) -> dict[str, Site]:
    return sites_of([scored(2, 20 + i, i) for i in range(4)]) | {"odd": odd}


TABLE = scored(2, 6, 9)


@pytest.mark.parametrize(
    ("learner", "held_out", "reason"),
    [
        (Mute(), TABLE, "Mute gives no class probabilities"),
        (Reader(), TABLE.take(np.zeros(0, np.int64)), "has no rows"),
        (Broken(np.ones((5, 2))), TABLE, r"scores: must be 6 by 2, are \(5, 2\)"),
        (Broken(np.ones((6, 3))), TABLE, "scores: must be 6 by 2"),
        (Broken(KeyError("secret")), TABLE, "evaluation: the learner failed with KeyError"),
        (Broken(TaskError("scores: none")), TABLE, "scores: none"),
        (Reader(), Table(TABLE.features, np.full(6, 2)), r"labels: must be in 0\.\.1"),
        (Reader(), Table(TABLE.features, np.full(6, -1)), r"labels: must be in 0\.\.1"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:30],
)
def test_a_site_that_cannot_be_evaluated_sits_out(learner: Any, held_out: Table, reason: str) -> None:
    odd = Site("odd", TABLE, schema_of(2), learner, 5)
    odd.held_out = held_out  # past the check of what a site is made of
    sites = odd_sites(odd)
    pooled = join_tables([held_out_of(site) for name, site in sites.items() if name != "odd"])
    for aggregator in (PlainSum, SecureSum, FloatSum):
        records: list[RoundRecord] = []
        drive = federation(aggregator, sites)
        drive.on_round = records.append
        check(drive.evaluate(NOTHING), pooled)
        assert drive.evaluate_sites(NOTHING).counts.sum() == 4
        for record in records:
            assert record.result is not None
            assert "secret" not in str(record.result.failures)
            with pytest.raises(TaskError, match=reason):
                raise TaskError(record.result.failures["odd"])
    with pytest.raises(TaskError, match="no site could contribute"):
        federation(PlainSum, {"odd": odd}).evaluate(NOTHING)


@every_sum
def test_a_row_whose_scores_are_no_numbers_counts_as_one_about_which_the_model_says_nothing(
    aggregator: Sum,
) -> None:
    table = scored(2, 8, 3)
    for bad in (np.nan, np.inf):
        scores, silent = table.features.copy(), table.features.copy()
        scores[2, 1], silent[2] = bad, 0.5
        sites = odd_sites(Site("odd", table, schema_of(2), Broken(scores), 5))
        pooled = [held_out_of(site) for name, site in sites.items() if name != "odd"]
        expected = join_tables([*pooled, Table(silent, table.labels)])
        check(federation(aggregator, sites).evaluate(NOTHING), expected)


def test_an_evaluation_without_any_rows_is_an_error() -> None:
    with pytest.raises(TaskError, match="evaluation: no site could evaluate its rows"):
        to_evaluation(np.zeros(dimension(2)), 50, 2)


def test_sites_without_held_out_rows_are_evaluated_on_their_own() -> None:
    sites = odd_sites(Site("odd", TABLE, schema_of(2), Reader(), 5))
    pooled = join_tables([held_out_of(site) for name, site in sites.items() if name != "odd"] + [TABLE])
    check(federation(PlainSum, sites).evaluate(NOTHING), pooled)


def test_held_out_rows_are_standardized() -> None:
    moved = Standardizer(np.array([0.25, 0.25]), np.array([2.0, 2.0]))
    table = scored(2, 40, 2)
    found = federation(PlainSum, sites_of([table])).evaluate(NOTHING, moved)
    assert found.metrics["accuracy"] == float((table.features.argmax(axis=1) == table.labels).mean())
    hit = (table.features[np.arange(40), table.labels] - 0.25) / 2
    expected = -np.log(np.clip(hit, 1e-15, 1)).mean()
    assert found.metrics["log_loss"] == pytest.approx(expected, abs=1e-3)


def test_secure_and_plain_sums_are_the_same_bit_for_bit() -> None:
    tables = [scored(3, 20 + i, i) for i in range(5)]
    plain, secure = (federation(kind, sites_of(tables)) for kind in (PlainSum, SecureSum))
    assert plain.evaluate(NOTHING).metrics == secure.evaluate(NOTHING).metrics
    one, other = (drive.evaluate_sites(NOTHING).counts for drive in (plain, secure))
    assert np.array_equal(one, other)


def test_votes_are_uniform_and_rows_are_weights() -> None:
    records: list[RoundRecord] = []
    drive = federation(PlainSum, sites_of([scored(2, 20, 0), scored(2, 500, 1)]))
    drive.on_round = records.append
    drive.evaluate(NOTHING)
    drive.evaluate_sites(NOTHING)
    rows, votes = records
    assert (rows.weight, votes.weight) == (520, 2)
    assert votes.task.encoding.asks.weighting is Weighting.UNIFORM
    assert votes.task.encoding.codec.weight_cap == 1
    assert rows.task.encoding.codec.weight_cap == 1000
