from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import ParameterError
from secagg.store import cells, deal, is_cell

SUBJECT, OTHER = b"s" * 32, b"o" * 32


def names(count: int) -> list[bytes]:
    return [bytes([number]) * 32 for number in range(count)]


def numbers(groups: tuple[frozenset[bytes], ...]) -> list[list[int]]:
    return [sorted(name[0] for name in group) for group in groups]


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 5))
def test_a_deal_is_of_whole_cells_and_every_level_refines_the_last(
    count: int, floor: int, level: int
) -> None:
    cohort = names(max(count, floor))
    dealt = cells(SUBJECT, cohort, floor=floor)
    sizes = {len(cell) for cell in dealt}
    assert len(dealt) == len(cohort) // floor
    assert min(sizes) >= floor
    assert max(sizes) - min(sizes) <= 1
    assert frozenset().union(*dealt) == frozenset(cohort)
    groups, finer = (deal(SUBJECT, cohort, one, floor=floor) for one in (level, level + 1))
    assert len(groups) == min(2**level, len(dealt))
    assert sum(map(len, groups)) == len(cohort)
    assert all(sum(cell <= group for group in groups) == 1 for cell in dealt)
    assert all(any(group <= one for one in groups) for group in finer)
    assert deal(SUBJECT, cohort, 6, floor=floor) == dealt


def test_everybody_deals_alike_and_nobody_chooses_the_places() -> None:
    cohort = names(10)
    first = cells(SUBJECT, cohort, floor=3)
    assert numbers(first) == [[1, 3, 7], [2, 8, 9], [0, 4, 5, 6]]
    assert cells(SUBJECT, reversed(cohort), floor=3) == first  # type: ignore[arg-type]
    assert cells(OTHER, cohort, floor=3) != first
    without = cells(SUBJECT, cohort[1:], floor=3)
    assert [cell - {cohort[0]} for cell in first] != list(without)


def test_a_cell_is_whole() -> None:
    cohort = names(12)
    for level in range(4):
        for group in deal(SUBJECT, cohort, level, floor=3):
            assert is_cell(SUBJECT, cohort, group, floor=3)
            for member in group:
                assert not is_cell(SUBJECT, cohort, group - {member}, floor=3)
    one, _, three, _ = cells(SUBJECT, cohort, floor=3)
    assert not is_cell(SUBJECT, cohort, one | three, floor=3)  # whole cells, and no group of the deal
    assert not is_cell(OTHER, cohort, one, floor=3)
    assert not is_cell(SUBJECT, cohort[:2], cohort[:2], floor=3)


def test_a_cohort_smaller_than_a_cell_is_not_dealt() -> None:
    with pytest.raises(ParameterError, match="cohort: must be at least 4 members"):
        cells(SUBJECT, names(3), floor=4)
    with pytest.raises(ParameterError, match="level"):
        deal(SUBJECT, names(3), -1, floor=1)
    with pytest.raises(ParameterError, match="floor"):
        cells(SUBJECT, names(3), floor=0)
