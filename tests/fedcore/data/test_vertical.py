"""Columns go to parties: each exactly once, as given or as a seed deals them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data import ColumnPartition, columns
from fedcore.errors import DataError

NAMES = ("age", "dose", "sex")


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True),
    st.data(),
    st.none() | st.integers(0, 1000),
)
def test_every_column_has_one_party_and_every_party_a_column(
    names: list[str], data: st.DataObject, seed: int | None
) -> None:
    parties = data.draw(st.integers(1, len(names)))
    dealt = columns(names, parties, seed)
    assert list(dealt.parties) == [f"party-{i:03}" for i in range(parties)]
    assert sorted(name for held in dealt.parties.values() for name in held) == sorted(names)
    sizes = [len(held) for held in dealt.parties.values()]
    assert max(sizes) - min(sizes) <= 1
    for held in dealt.parties.values():
        assert list(held) == [name for name in names if name in held]
    assert dealt == columns(names, parties, seed)


def test_columns_are_dealt_in_order_without_a_seed_and_shuffled_with_one() -> None:
    names = [f"x{i}" for i in range(20)]
    assert columns(names, 2).parties["party-000"] == tuple(names[:10])
    assert len({columns(names, 2, seed).parties["party-000"] for seed in range(5)}) == 5


def test_columns_can_be_given_by_party() -> None:
    dealt = columns(NAMES, {"host": ["sex", "age"], "guest": ["dose"]})
    assert dealt.parties == {"guest": ("dose",), "host": ("sex", "age")}
    assert dealt.indices("host").tolist() == [2, 0]
    cut = dealt.features(np.arange(6.0).reshape(2, 3))
    assert {party: part.tolist() for party, part in cut.items()} == {
        "guest": [[1], [4]],
        "host": [[2, 0], [5, 3]],
    }


@pytest.mark.parametrize(
    ("parties", "seed", "message"),
    [
        (0, None, "parties: must be in 1 .. 3, the number of columns, is 0"),
        (4, None, "parties: must be in 1 .. 3, the number of columns, is 4"),
        (2, -1, "seed: must not be negative, is -1"),
        ({"a": NAMES}, 1, "seed: has no use"),
        ({"a": ["age", "dose"]}, None, "sex must have one party, has 0"),
        ({"a": NAMES, "b": ["age"]}, None, "age must have one party, has 2"),
        ({"a": [*NAMES, "weight"]}, None, "the table has no column weight"),
        ({"a": NAMES, "b": []}, None, "party b has none"),
        ({"": NAMES}, None, "names not empty"),
        ({}, None, "needs parties"),
    ],
)
def test_columns_that_cannot_be_dealt_so_are_refused(
    parties: int | dict[str, list[str]], seed: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        columns(NAMES, parties, seed)


@pytest.mark.parametrize("names", [(), ("age", "age")])
def test_a_table_without_columns_of_its_own_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="the table needs columns, each once"):
        ColumnPartition({"a": names}, names)


def test_unknown_parties_and_other_matrices_are_refused() -> None:
    dealt = columns(NAMES, 2)
    with pytest.raises(DataError, match="there is no party host"):
        dealt.indices("host")
    with pytest.raises(DataError, match=r"the matrix must have 3, its shape is \(2, 4\)"):
        dealt.features(np.zeros((2, 4)))
