"""Measures of heterogeneity: known answers, limits, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data import Partition, describe, iid, natural
from fedcore.errors import DataError


def test_two_clients_of_one_class_each_are_as_different_as_can_be() -> None:
    found = describe([0, 0, 1, 1], np.array([[1.0], [1.0], [3.0], [3.0]]), natural(["a", "a", "b", "b"]), 2)
    assert (found.clients, found.rows, found.rows_min, found.rows_median, found.rows_max) == (2, 4, 2, 2, 2)
    assert (found.rows_gini, found.variation_mean, found.variation_max) == (0, 0.5, 0.5)
    # Each client's mix is (1, 0), the whole's (1/2, 1/2): H(3/4, 1/4) - (0 + 1) / 2.
    assert found.divergence_mean == pytest.approx(-0.75 * math.log2(0.75) + 0.25 * 2 - 0.5)
    assert (found.classes_mean, found.classes_min, found.single_class) == (1, 1, 2)
    assert found.feature_shift == pytest.approx(1.0)


def test_clients_that_are_alike_have_no_distance() -> None:
    found = describe([0, 1] * 3, np.array([[0.1, 2.0], [0.1, 5.0]] * 3), natural([1, 1, 2, 2, 3, 3]), 2)
    assert (found.variation_max, found.divergence_mean, found.single_class) == (0, 0, 0)
    assert found.classes_min == pytest.approx(2)
    assert found.feature_shift == pytest.approx(0)


def test_a_constant_column_shifts_nothing_whatever_rounding_leaves() -> None:
    values = np.full((1000, 1), 0.1)
    assert describe([0] * 1000, values, iid(1000, 7, 0), 2).feature_shift == 0


def test_sizes_are_measured_as_known() -> None:
    found = describe([0] * 10, None, natural([1, *[2] * 2, *[3] * 7]), 3)
    assert (found.rows_min, found.rows_median, found.rows_max) == (1, 2, 7)
    assert found.rows_gini == pytest.approx((1 + 6 + 5) * 2 / (2 * 9 * 10 / 3))
    assert found.single_class == 3
    assert found.feature_shift is None


def test_a_client_without_rows_counts_for_sizes_only() -> None:
    partition = Partition({"a": np.array([0, 1]), "b": np.array([], np.int64)}, 2)
    found = describe([0, 1], np.zeros((2, 1)), partition, 2)
    assert (found.clients, found.rows_min, found.rows_gini) == (2, 0, 0.5)
    assert (found.variation_mean, found.classes_min, found.single_class) == (0, 2, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60))
def test_measures_stay_within_their_limits(rows: list[tuple[int, int]]) -> None:
    partition = natural([client for _, client in rows])
    found = describe([label for label, _ in rows], np.array(rows, np.float64), partition, 4)
    assert found.rows_min <= found.rows_median <= found.rows_max
    assert 0 <= found.rows_gini < 1
    assert 0 <= found.variation_mean <= found.variation_max + 1e-12 <= 1
    assert 0 <= found.divergence_mean <= found.variation_mean + 1e-9  # bits never exceed total variation
    assert 1 - 1e-12 <= found.classes_min <= found.classes_mean + 1e-12
    assert found.classes_mean <= 4 + 1e-12
    assert found.feature_shift is not None
    assert 0 <= found.feature_shift < math.inf
    assert found == describe([label for label, _ in rows], np.array(rows, np.float64), partition, 4)


def test_tables_show_every_measure() -> None:
    found = describe([0, 0, 1, 1], None, natural(["a", "a", "b", "b"]), 2)
    text, markdown = found.to_text(), found.to_markdown()
    assert text.splitlines() == [
        "clients                             2",
        "rows                                4",
        "rows by client, min / median / max  2 / 2 / 2",
        "rows by client, Gini                0.000",
        "label total variation, mean / max   0.500 / 0.500",
        "label Jensen-Shannon, mean, bits    0.311",
        "effective classes of 2, mean / min  1.00 / 1.00",
        "clients with a single class         2",
        "feature shift, standard deviations  not measured",
    ]
    assert markdown.splitlines()[:3] == ["| measure | value |", "| --- | --- |", "| clients | 2 |"]
    assert len(markdown.splitlines()) == len(text.splitlines()) + 2
    shifted = dataclasses.replace(found, feature_shift=0.12345)
    assert "0.123" in shifted.to_text()
    assert "| 0.123 |" in shifted.to_markdown()


@pytest.mark.parametrize(
    ("labels", "features", "classes", "message"),
    [
        ([0, 1], None, 2, "the partition has 3 rows, the labels 2"),
        ([0, 1, 2], None, 2, "labels: must be in 0 .. 1"),
        ([0, 1, -1], None, 2, "labels: must be in 0 .. 1"),
        ([0.0, 1.0, 1.0], None, 2, "labels: must be integers"),
        ([], None, 2, "labels: must be integers .*not empty"),
        ([0, 1, 1], np.zeros((2, 1)), 2, r"features: must be \(3, columns\)"),
        ([0, 1, 1], np.zeros((3, 0)), 2, r"features: must be \(3, columns\)"),
        ([0, 1, 1], np.array([[0.0], [np.nan], [1.0]]), 2, "features: must be .*finite"),
    ],
)
def test_what_does_not_fit_the_partition_is_refused(
    labels: list[int],
    features: np.ndarray[tuple[int, int], np.dtype[np.float64]] | None,
    classes: int,
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        describe(labels, features, natural(["a", "b", "b"]), classes)
