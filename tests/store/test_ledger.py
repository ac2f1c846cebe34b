from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import ParameterError
from secagg.store import ConcernKind, LedgerError, MemoryStore, ParticipationLedger
from secagg.store.ledger import DAY_S

SUBJECT, OTHER = b"s" * 32, b"o" * 32


def names(numbers: Iterable[int]) -> list[bytes]:
    return [bytes([number]) * 32 for number in numbers]


def ledger(**options: object) -> ParticipationLedger:
    return ParticipationLedger(MemoryStore(), **options)  # type: ignore[arg-type]


def test_sums_that_differ_by_fewer_members_than_the_floor_are_refused() -> None:
    book = ledger(floor=3)
    book.released(SUBJECT, b"1" * 16, names(range(10)))
    with pytest.raises(LedgerError) as caught:
        book.check_sum(SUBJECT, names(range(1, 9)))
    (concern,) = caught.value.concerns
    assert concern.kind is ConcernKind.DIFFERENCING
    assert concern.clients == tuple(names([0, 9]))
    assert concern.detail == (
        f"differs from the sum of round {(b'1' * 16).hex()} by 2 members, at least 3 are needed"
    )


def test_equal_sums_and_sums_that_differ_enough_are_taken() -> None:
    book = ledger(floor=3)
    book.released(SUBJECT, b"1" * 16, names(range(10)))
    assert book.check_sum(SUBJECT, names(range(10))) == ()
    assert book.check_sum(SUBJECT, names(range(3, 10))) == ()


def test_sums_about_another_subject_do_not_count() -> None:
    book = ledger()
    book.released(SUBJECT, b"1" * 16, names(range(10)))
    assert book.check_sum(OTHER, names(range(9))) == ()


def test_a_ledger_that_warns_returns_the_concern() -> None:
    book = ledger(differencing="warn")
    book.released(SUBJECT, b"1" * 16, names(range(10)))
    assert [c.clients for c in book.check_sum(SUBJECT, names(range(9)))] == [tuple(names([9]))]


@given(st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)), st.integers(1, 6))
def test_a_concern_is_raised_exactly_for_small_differences(one: set[int], two: set[int], floor: int) -> None:
    book = ledger(floor=floor, differencing="warn")
    book.released(SUBJECT, b"1" * 16, names(one))
    assert bool(book.check_sum(SUBJECT, names(two))) == (0 < len(one ^ two) < floor)


def test_a_vector_of_a_round_without_result_is_noticed_when_it_comes_again() -> None:
    book = ledger()
    for client in names([1, 2]):
        book.uploaded(SUBJECT, b"1" * 16, client, 0)
    (concern,) = book.check_clients(SUBJECT, names(range(5)))
    assert (concern.kind, concern.clients) == (ConcernKind.REPEATED, tuple(names([1, 2])))
    assert book.check_clients(OTHER, names(range(5))) == ()
    with pytest.raises(LedgerError, match="2 clients uploaded about this subject before"):
        ParticipationLedger(book._store, repeats="refuse").check_clients(SUBJECT, names(range(5)))


def test_a_vector_that_was_summed_is_settled_and_that_of_a_later_round_is_not() -> None:
    book = ledger()
    one, two, three = names([1, 2, 3])
    book.uploaded(SUBJECT, b"1" * 16, one, 0)
    book.uploaded(SUBJECT, b"1" * 16, two, 0)
    book.uploaded(SUBJECT, b"2" * 16, three, 0)
    book.released(SUBJECT, b"1" * 16, [one, two, three])
    (concern,) = book.check_clients(SUBJECT, [one, two, three])
    assert concern.clients == (three,)


def test_it_knows_the_cohorts_of_a_client() -> None:
    book = ledger()
    book.released(SUBJECT, b"1" * 16, names([1, 2, 3]))
    book.released(OTHER, b"2" * 16, names([1, 4, 5]))
    found = [(p.round_id, p.subject, p.members) for p in book.participations(*names([1]))]
    assert found == [
        (b"1" * 16, SUBJECT, frozenset(names([1, 2, 3]))),
        (b"2" * 16, OTHER, frozenset(names([1, 4, 5]))),
    ]
    assert len(book.participations(*names([4]))) == 1
    assert book.participations(*names([9])) == ()


def test_rounds_in_a_day_are_counted_and_forgotten_after_it() -> None:
    book = ledger(rounds_per_day=2)
    (one,) = names([1])
    assert book.too_often([one], 0) == ()
    for number, now in enumerate((10, 20)):
        book.uploaded(SUBJECT, bytes([number]) * 16, one, now)
    (concern,) = book.too_often(names([1, 2]), 30)
    assert (concern.kind, concern.clients) == (ConcernKind.TOO_OFTEN, (one,))
    assert book.too_often([one], 11 + DAY_S) == ()
    assert ledger().too_often([one], 0) == ()


def test_what_was_kept_outlives_the_ledger() -> None:
    store = MemoryStore()
    ParticipationLedger(store).released(SUBJECT, b"1" * 16, names(range(10)))
    with pytest.raises(LedgerError):
        ParticipationLedger(store).check_sum(SUBJECT, names(range(9)))


@pytest.mark.parametrize(
    "options",
    [{"floor": 0}, {"differencing": "ignore"}, {"repeats": ""}, {"rounds_per_day": 0}],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        ledger(**options)


def test_a_vector_of_an_aborted_round_is_remembered_beyond_the_sum_of_a_later_one() -> None:
    book = ledger()
    (one,) = names([1])
    for number in (b"1", b"2"):
        book.uploaded(SUBJECT, number * 16, one, 0)
    book.released(SUBJECT, b"2" * 16, [one])
    assert [c.clients for c in book.check_clients(SUBJECT, [one])] == [(one,)]
