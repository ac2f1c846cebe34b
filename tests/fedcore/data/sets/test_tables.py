"""Tables for demonstrations: bounds that hold, splits that lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.sets.tables import DATASETS, hold_out, partition_unevenly
from fedcore.data.table import Table
from fedcore.errors import DataError


def numbered(labels: list[int]) -> Table:
    """A table whose only feature is the row's number."""
    return Table(np.arange(float(len(labels)))[:, None], np.array(labels, np.int64))


@pytest.mark.parametrize(
    ("name", "rows", "columns", "classes"), [("breast_cancer", 569, 30, 2), ("digits", 1797, 64, 10)]
)
def test_the_bounds_of_the_schema_contain_the_data(name: str, rows: int, columns: int, classes: int) -> None:
    data = DATASETS[name]()
    assert data.name == name
    assert data.table.features.shape == (rows, columns) == (len(data.table), len(data.schema.columns))
    assert (data.table.features >= data.schema.low).all()
    assert (data.table.features <= data.schema.high).all()
    assert set(data.table.labels.tolist()) == set(range(classes))
    assert len(data.schema.classes) == classes


def test_the_bounds_of_breast_cancer_are_not_taken_from_the_data() -> None:
    data = DATASETS["breast_cancer"]()
    assert (data.table.features.max(axis=0) < data.schema.high).all()


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000), st.integers(1, 8), st.integers(0, 60))
def test_a_partition_neither_loses_nor_doubles_rows_and_no_site_has_too_few(
    sites: int, seed: int, minimum: int, more: int
) -> None:
    table = numbered([i % 3 for i in range(sites * minimum + more)])
    parts = partition_unevenly(table, sites, seed, minimum)
    assert len(parts) == sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(table)))
    assert min(len(part) for part in parts) >= minimum


def test_sites_differ_in_size_and_in_the_mix_of_labels() -> None:
    table = DATASETS["breast_cancer"]().table
    for seed in range(5):
        parts = partition_unevenly(table, 8, seed)
        sizes = [len(part) for part in parts]
        shares = [table.labels[part].mean() for part in parts]
        assert max(sizes) > 2 * min(sizes)
        assert max(shares) - min(shares) > 0.3


def test_a_partition_repeats_with_its_seed_and_only_with_it() -> None:
    table = numbered([0, 1] * 100)
    one, again, other = (partition_unevenly(table, 4, seed) for seed in (3, 3, 4))
    assert [part.tolist() for part in one] == [part.tolist() for part in again]
    assert [part.tolist() for part in one] != [part.tolist() for part in other]


@pytest.mark.parametrize("sites", [0, -1, 3])
def test_too_few_rows_or_sites_are_refused(sites: int) -> None:
    with pytest.raises(DataError, match=f"partition: {sites} sites of 8 rows or more, 23 rows are there"):
        partition_unevenly(numbered([0] * 23), sites, 0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=100), st.floats(0, 1), st.integers(0, 1000))
def test_holding_out_keeps_every_row_once_and_the_share_of_every_class(
    labels: list[int], share: float, seed: int
) -> None:
    table = numbered(labels)
    training, held = hold_out(table, share, seed)
    rows = [*training.features[:, 0].tolist(), *held.features[:, 0].tolist()]
    assert sorted(rows) == list(range(len(labels)))
    for part in (training, held):
        assert part.labels.tolist() == [labels[int(row)] for row in part.features[:, 0]]
    for label in set(labels):
        assert (held.labels == label).sum() == round(share * labels.count(label))


def test_which_rows_are_held_out_depends_on_the_seed_only() -> None:
    table = numbered([0, 1] * 50)
    one, again, other = (hold_out(table, 0.3, seed)[1].features.tolist() for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    table = Table(np.zeros((4, 1)), np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match=r"share: must be in \[0, 1\], is"):
        hold_out(table, share, seed=0)
