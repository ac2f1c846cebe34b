"""Partitioners lose nothing, double nothing, repeat with their seed, and differ as they promise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data import (
    Partition,
    breast_cancer,
    describe,
    dirichlet,
    dirichlet_balanced,
    feature,
    iid,
    natural,
    quantity,
    shards,
    uneven,
)
from fedcore.data.table import Table
from fedcore.errors import DataError

# Each deals rows of these labels to so many clients, with a seed and a least size.
Deal = Callable[[list[int], int, int, int], Partition]
ALL: dict[str, Deal] = {
    "iid": lambda labels, clients, seed, least: iid(len(labels), clients, seed, minimum_rows=least),
    "dirichlet": lambda labels, clients, seed, least: dirichlet(
        labels, clients, 0.3, seed, minimum_rows=least
    ),
    "dirichlet tiny": lambda labels, clients, seed, least: dirichlet(
        labels, clients, 1e-6, seed, minimum_rows=least
    ),
    "balanced": lambda labels, clients, seed, least: dirichlet_balanced(
        labels, clients, 0.3, seed, minimum_rows=least
    ),
    "balanced tiny": lambda labels, clients, seed, least: dirichlet_balanced(
        labels, clients, 1e-6, seed, minimum_rows=least
    ),
    "uneven": lambda labels, clients, seed, least: uneven(labels, clients, seed, minimum_rows=least),
    "shards": lambda labels, clients, seed, least: shards(labels, clients, 1, seed, minimum_rows=least),
    "quantity": lambda labels, clients, seed, least: quantity(
        len(labels), clients, 0.5, seed, minimum_rows=least
    ),
    "feature": lambda labels, clients, seed, least: feature(
        matrix(labels), clients, 0, seed, overlap=0.3, minimum_rows=least
    ),
    "principal": lambda labels, clients, seed, least: feature(
        matrix(labels), clients, None, seed, minimum_rows=least
    ),
}
every = pytest.mark.parametrize("deal", ALL.values(), ids=ALL)


def matrix(labels: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Two columns that follow the labels, one constant."""
    column = np.array(labels, np.float64)
    return np.stack([column, -column, np.full(len(column), 0.1)], axis=1)


def rows_of(partition: Partition) -> dict[str, list[int]]:
    return {name: part.tolist() for name, part in partition.parts.items()}


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    clients, least = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    size = clients * least + draw(st.integers(0, 40))
    return (
        draw(st.lists(st.integers(-1, 4), min_size=size, max_size=size)),
        clients,
        draw(st.integers(0, 10**6)),
        least,
    )


@every
@given(cases())
def test_every_row_is_dealt_once_and_no_client_has_too_few(
    deal: Deal, case: tuple[list[int], int, int, int]
) -> None:
    labels, clients, _, least = case
    partition = deal(*case)
    assert sorted(np.concatenate(list(partition.parts.values())).tolist()) == list(range(len(labels)))
    assert list(partition.parts) == [f"client-{i:03}" for i in range(clients)]
    assert min(partition.sizes.values()) >= least
    assert {part.dtype.name for part in partition.parts.values()} == {"int64"}


@every
def test_a_partition_repeats_with_its_seed_and_only_with_it(deal: Deal) -> None:
    labels = [0, 1, 2, 3] * 50
    one, again, other = (rows_of(deal(labels, 5, seed, 2)) for seed in (3, 3, 4))
    assert one == again != other


@every
@pytest.mark.parametrize(
    ("labels", "clients", "seed", "least", "message"),
    [
        ([0, 1], 3, 0, 1, "rows: 3 clients of 1 or more need 3, are 2"),
        ([0, 1] * 5, 3, 0, 4, "rows: 3 clients of 4 or more need 12, are 10"),
        ([], 1, 0, 1, "rows: 1 clients of 1 or more need 1, are 0|features: must be"),
        ([0, 1], 0, 0, 1, "clients: must be at least 1, is 0"),
        ([0, 1], -2, 0, 1, "clients: must be at least 1, is -2"),
        ([0, 1], 2, -1, 1, "seed: must not be negative, is -1"),
        ([0, 1], 2, 0, 0, "minimum_rows: must be at least 1, is 0"),
    ],
)
def test_what_no_partitioner_can_do_is_refused(
    deal: Deal, labels: list[int], clients: int, seed: int, least: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        deal(labels, clients, seed, least)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_concentrations_that_are_not_positive_are_refused(value: float) -> None:
    for maker in (dirichlet, dirichlet_balanced):
        with pytest.raises(DataError, match="alpha: must be positive and finite, is "):
            maker([0, 1, 2], 2, value, 0)
    with pytest.raises(DataError, match="concentration: must be positive and finite, is "):
        quantity(10, 2, value, 0)


@pytest.mark.parametrize("alpha", [5e-324, 1e-200, 1e-9, 1e5, 1e300])
def test_extreme_concentrations_still_deal_every_row(alpha: float) -> None:
    labels = [0, 1, 2, 3, 4] * 20
    made = (
        dirichlet(labels, 7, alpha, 1),
        dirichlet_balanced(labels, 7, alpha, 1),
        quantity(100, 7, alpha, 1),
    )
    assert [sum(partition.sizes.values()) for partition in made] == [100, 100, 100]


@pytest.mark.parametrize("maker", [dirichlet, dirichlet_balanced])
@given(st.integers(0, 1000))
def test_a_small_alpha_is_more_heterogeneous_than_a_large_one(
    maker: Callable[..., Partition], seed: int
) -> None:
    labels = np.arange(1000) % 10
    small, large = (describe(labels, None, maker(labels, 10, alpha, seed), 10) for alpha in (0.1, 100.0))
    assert small.variation_mean > 2 * large.variation_mean
    assert small.divergence_mean > large.divergence_mean
    assert small.classes_mean < large.classes_mean


def test_the_balanced_variant_has_clients_of_equal_size() -> None:
    assert set(dirichlet_balanced([0, 1, 2] * 35, 10, 0.1, 0).sizes.values()) == {10, 11}
    assert len(set(dirichlet([0, 1, 2] * 35, 10, 0.1, 0).sizes.values())) > 2


@pytest.mark.parametrize("alpha", [1e6, 1e12, 1e308])
def test_a_huge_alpha_gives_every_client_the_mix_of_the_whole(alpha: float) -> None:
    labels = [0] * 8000 + [1] * 2000
    assert describe(labels, None, dirichlet_balanced(labels, 10, alpha, 0), 2).variation_max < 0.05
    assert describe(labels, None, dirichlet(labels, 10, alpha, 0), 2).variation_max < 0.01


def test_uneven_clients_differ_in_size_and_in_the_mix_of_labels() -> None:
    labels = breast_cancer().table.labels
    for seed in range(5):
        parts = uneven(labels, 8, seed, minimum_rows=8).parts.values()
        sizes = [len(part) for part in parts]
        shares = [labels[part].mean() for part in parts]
        assert max(sizes) > 2 * min(sizes)
        assert max(shares) - min(shares) > 0.3


def test_clients_of_two_shards_see_few_classes() -> None:
    labels = np.arange(2000) % 10
    found = describe(labels, None, shards(labels, 20, 2, 0), 10)
    assert (found.rows_min, found.rows_max) == (100, 100)
    assert found.classes_mean <= 2 + 1e-12
    even = describe(labels, None, iid(2000, 20, 0), 10)
    assert even.classes_min > 8


@pytest.mark.parametrize("number", [0, -1, 6])
def test_shards_that_cannot_be_cut_are_refused(number: int) -> None:
    with pytest.raises(DataError, match=rf"shards_per_client: must be in 1 .. 5 .*is {number}$"):
        shards([0] * 10, 2, number, 0)


def test_a_small_concentration_makes_sizes_differ_more() -> None:
    for seed in range(5):
        ginis = [
            describe([0] * 2000, None, quantity(2000, 20, concentration, seed), 2).rows_gini
            for concentration in (0.3, 3.0, 300.0)
        ]
        assert ginis == sorted(ginis, reverse=True)
        assert ginis[0] > 0.4
        assert ginis[2] < 0.1


def test_feature_skew_gives_stretches_of_values_and_overlap_takes_it_away() -> None:
    values = np.random.default_rng(0).normal(size=(600, 3))
    values[:, 2] = 7.0
    apart = feature(values, 6, 1, 0)
    ends = [(values[part, 1].min(), values[part, 1].max()) for part in apart.parts.values()]
    assert all(left[1] <= right[0] for left, right in pairwise(ends))
    shifts = [
        describe([0] * 600, values, feature(values, 6, 1, 0, overlap=overlap), 2).feature_shift or 0.0
        for overlap in (0.0, 0.5, 1.0)
    ]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] > 3 * shifts[2]


def test_the_first_principal_component_is_the_common_direction() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=400)
    values = np.stack([1000 * common, common, 0.001 * rng.normal(size=400)], axis=1)
    parts = feature(values, 4, None, 0).parts.values()
    middles = [float(common[part].mean()) for part in parts]
    assert middles == sorted(middles) or middles == sorted(middles, reverse=True)
    assert abs(middles[0] - middles[-1]) > 2


def test_equal_values_do_not_follow_the_order_of_the_file() -> None:
    parts = list(feature(np.zeros((100, 1)), 2, 0, 0).parts.values())
    assert parts[0].max() > 90
    assert parts[1].min() < 10


@pytest.mark.parametrize(
    ("values", "column", "overlap", "message"),
    [
        (np.zeros((4, 2)), 2, 0.0, "column: must be in 0 .. 1, is 2"),
        (np.zeros((4, 2)), -1, 0.0, "column: must be in 0 .. 1, is -1"),
        (np.zeros((4, 2)), 0, 1.5, r"overlap: must be in \[0, 1\], is 1.5"),
        (np.zeros((4, 2)), 0, float("nan"), r"overlap: must be in \[0, 1\]"),
        (np.zeros(4), 0, 0.0, "features: must be"),
        (np.zeros((4, 0)), None, 0.0, "features: must be"),
        (np.array([[1.0], [np.nan]]), 0, 0.0, "features: must be .*finite"),
    ],
)
def test_features_that_cannot_order_rows_are_refused(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    column: int | None,
    overlap: float,
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        feature(values, 2, column, 0, overlap=overlap)


@pytest.mark.parametrize("labels", [[0.5, 1.0], [[0], [1]], ["a", "b"]])
def test_labels_that_are_no_integers_are_refused(labels: list[object]) -> None:
    with pytest.raises(DataError, match="labels: must be integers"):
        dirichlet(labels, 1, 1.0, 0)  # type: ignore[arg-type]


@given(st.lists(st.text(min_size=1, alphabet="abé"), min_size=1, max_size=50))
def test_natural_clients_are_the_ids(ids: list[str]) -> None:
    parts = rows_of(natural(ids))
    assert list(parts) == sorted(set(ids))
    assert parts == {name: [i for i, one in enumerate(ids) if one == name] for name in parts}


def test_integer_ids_name_clients_as_text() -> None:
    assert rows_of(natural([9, 10, 9])) == {"10": [1], "9": [0, 2]}
    assert rows_of(natural(np.array([9, 10, 9]))) == {"10": [1], "9": [0, 2]}


@pytest.mark.parametrize("ids", [[], [1.5], [[1], [2]], [1, "1"], [None, "a"], [True]])
def test_ids_that_name_nobody_are_refused(ids: list[object]) -> None:
    with pytest.raises(DataError, match="ids: must be a list of integers or of strings"):
        natural(ids)  # type: ignore[arg-type]


def test_a_row_without_id_is_named() -> None:
    with pytest.raises(DataError, match="ids: row 1 has none"):
        natural(["a", "", "b"])


@pytest.mark.parametrize(
    ("parts", "rows", "message"),
    [
        ({"a": [0, 1], "b": [1]}, 2, "row 1 must be dealt once, is dealt 2 times"),
        ({"a": [0], "b": [2]}, 3, "row 1 must be dealt once, is dealt 0 times"),
        ({"a": [0]}, 2, "row 1 must be dealt once, is dealt 0 times"),
        ({"a": [0, 3]}, 2, "row numbers must be in 0 .. 1"),
        ({"a": [0, -1]}, 2, "row numbers must be in 0 .. 1"),
        ({"a": [0.0, 1.0]}, 2, "client a: row numbers must be integers"),
        ({"a": [[0, 1]]}, 2, "client a: row numbers must be integers"),
        ({"b": [0], "a": [1]}, 2, "names not empty and ascending"),
        ({"": [0, 1]}, 2, "names not empty and ascending"),
        ({}, 0, "needs clients"),
    ],
)
def test_a_partition_that_is_none_is_refused(parts: dict[str, list[object]], rows: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Partition({name: np.array(part) for name, part in parts.items()}, rows)


def test_a_partition_cannot_be_changed_through_its_arrays() -> None:
    mine = np.array([1, 0])
    partition = Partition({"a": mine}, 2)
    mine[0] = 0
    assert rows_of(partition) == {"a": [1, 0]}
    with pytest.raises(ValueError, match="read-only"):
        partition.parts["a"][0] = 0


def test_each_client_gets_its_rows_of_a_table() -> None:
    table = Table(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
    tables = natural(["b", "a", "b"]).tables(table)
    assert {name: part.features.tolist() for name, part in tables.items()} == {
        "a": [[2, 3]],
        "b": [[0, 1], [4, 5]],
    }
    assert tables["a"].labels.tolist() == [1]
    with pytest.raises(DataError, match="made for 2 rows, the table has 3"):
        natural(["a", "b"]).tables(table)
