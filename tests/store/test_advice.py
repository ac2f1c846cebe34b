from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.store import DEALT, LedgerError, MemoryStore, ParticipationLedger, cells

SUBJECT = b"s" * 32


def names(numbers: Iterable[int]) -> frozenset[bytes]:
    return frozenset(bytes([number]) * 32 for number in numbers)


def party(client: bytes) -> str:
    return f"site-{client[0]}"


def test_at_first_everybody_who_is_here_may_be_in_the_sum() -> None:
    book = ParticipationLedger(MemoryStore())
    advice = book.advice(SUBJECT, names(range(5)), floor=3)
    assert (advice.members, advice.left_out, advice.wait) == (names(range(5)), (), False)
    assert advice.sentence(party) == "sum over 5 members"
    assert book.advice(SUBJECT, names(range(2)), floor=3).wait


def test_without_a_cohort_one_waits_for_the_members_of_the_first_sum_and_leaves_out_newcomers() -> None:
    book = ParticipationLedger(MemoryStore())
    book.sign(SUBJECT, b"1" * 16, names(range(5)), floor=3)
    waiting = book.advice(SUBJECT, names([0, 1, 2, 3, 7]), floor=3)
    assert waiting.wait
    assert waiting.sentence(party) == (
        "wait: no sum about this subject is allowed with those who are here; not here: site-4"
    )
    again = book.advice(SUBJECT, names(range(7)), floor=3)
    assert again.members == names(range(5))
    assert again.sentence(party) == "sum over 5 members, without site-5, site-6"


def test_a_server_may_sum_over_those_who_were_in_no_sum_yet() -> None:
    book = ParticipationLedger(MemoryStore())
    book.sign(SUBJECT, b"1" * 16, names(range(4)), floor=3)
    advice = book.advice(SUBJECT, names(range(1, 10)), floor=3)
    assert advice.members == names(range(4, 10))
    assert advice.left_out == tuple(sorted(names([1, 2, 3])))


def test_within_a_cohort_the_cell_of_who_is_missing_is_left_out() -> None:
    book = ParticipationLedger(MemoryStore())
    book.join(SUBJECT, cohort=names(range(10)), floor=3)
    (cell,) = (one for one in cells(DEALT, names(range(10)), floor=3) if names([0]) <= one)
    advice = book.advice(SUBJECT, names(range(1, 12)), floor=3)
    assert advice.members == names(range(10)) - cell
    assert frozenset(advice.left_out) == (cell - names([0])) | names([10, 11])
    assert advice.missing == tuple(names([0]))
    without = ", ".join(sorted(map(party, advice.left_out)))
    assert advice.sentence(party) == f"sum over {10 - len(cell)} members, without {without}; not here: site-0"
    assert book.advice(SUBJECT, names(range(2)), floor=3).wait
    assert book.advice(SUBJECT, names(range(10)), floor=4).wait  # its cells are too small


@given(
    st.booleans(),
    st.integers(2, 4),
    st.lists(st.frozensets(st.integers(0, 8)), max_size=3),
    st.frozensets(st.integers(0, 9)),
)
def test_what_is_advised_is_allowed_and_nothing_larger_is(
    cohort: bool, floor: int, earlier: list[frozenset[int]], here: frozenset[int]
) -> None:
    book = ParticipationLedger(MemoryStore())
    if cohort:
        book.join(SUBJECT, cohort=names(range(9)), floor=floor)
    for number, one in enumerate(earlier):
        advice = book.advice(SUBJECT, names(one), floor=floor)
        if not advice.wait:
            book.sign(SUBJECT, bytes([number]) * 16, advice.members, floor=floor)
    advice = book.advice(SUBJECT, names(here), floor=floor)
    assert frozenset(advice.left_out) == names(here) - advice.members
    if not advice.wait:
        assert book.check_sum(SUBJECT, advice.members, floor=floor) == ()
    for member in advice.left_out:
        with pytest.raises(LedgerError):
            book.check_sum(SUBJECT, advice.members | {member}, floor=floor)
