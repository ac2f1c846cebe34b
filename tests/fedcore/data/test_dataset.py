"""The bundled sets and their bounds; holding out loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data import hold_out, load_set
from fedcore.data.table import Table
from fedcore.errors import DataError


def numbered(labels: list[int]) -> Table:
    """A table whose only feature is the row's number."""
    return Table(np.arange(float(len(labels)))[:, None], np.array(labels, np.int64))


@pytest.mark.parametrize(
    ("name", "rows", "columns", "classes"), [("breast_cancer", 569, 30, 2), ("digits", 1797, 64, 10)]
)
def test_the_bounds_of_the_schema_contain_the_data(name: str, rows: int, columns: int, classes: int) -> None:
    data = load_set(name)
    assert data.name == name
    assert data.table.features.shape == (rows, columns) == (len(data.table), len(data.schema.columns))
    assert (data.table.features >= data.schema.low).all()
    assert (data.table.features <= data.schema.high).all()
    assert set(data.table.labels.tolist()) == set(range(classes))
    assert len(data.schema.classes) == classes


def test_the_bounds_of_breast_cancer_are_not_taken_from_the_data() -> None:
    data = load_set("breast_cancer")
    assert (data.table.features.max(axis=0) < data.schema.high).all()


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


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=60), st.floats(0, 1))
def test_rows_of_a_person_stay_on_one_side(rows: list[tuple[int, int]], share: float) -> None:
    labels, persons = (np.array(one, np.int64) for one in zip(*rows, strict=True))
    training, held = hold_out(Table(np.arange(float(len(rows)))[:, None], labels, persons), share, 1)
    assert training.persons is not None
    assert held.persons is not None
    assert not set(training.persons.tolist()) & set(held.persons.tolist())
    kept = np.concatenate([training.features[:, 0], held.features[:, 0]])
    assert sorted(kept.tolist()) == list(range(len(rows)))


def test_of_numbers_a_share_of_all_rows_is_held_out() -> None:
    table = Table(np.arange(40.0)[:, None], np.linspace(0, 1, 40))
    assert len(hold_out(table, 0.25, 0)[1]) == 10


def test_which_rows_are_held_out_depends_on_the_seed_only() -> None:
    table = numbered([0, 1] * 50)
    one, again, other = (hold_out(table, 0.3, seed)[1].features.tolist() for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    table = Table(np.zeros((4, 1)), np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match=r"share: must be in \[0, 1\], is"):
        hold_out(table, share, seed=0)


def test_a_name_that_is_no_set_is_refused() -> None:
    with pytest.raises(DataError, match="dataset: must be one of breast_cancer, digits, .*, is 'iris'"):
        load_set("iris")
    with pytest.raises(DataError, match="has no natural sites"):
        load_set("digits").first({}, None)
