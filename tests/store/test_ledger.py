from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest

from secagg.errors import ParameterError
from secagg.store import DEALT, ConcernKind, LedgerError, MemoryStore, ParticipationLedger, cells
from secagg.store.ledger import DAY_S

SUBJECT, OTHER = b"s" * 32, b"o" * 32


def names(numbers: Iterable[int]) -> list[bytes]:
    return [bytes([number]) * 32 for number in numbers]


def ledger(**options: object) -> ParticipationLedger:
    return ParticipationLedger(MemoryStore(), **options)  # type: ignore[arg-type]


def test_without_a_cohort_a_sum_over_other_members_is_refused_and_the_cure_is_named() -> None:
    book = ledger()
    book.sign(SUBJECT, b"1" * 16, names(range(10)), floor=3)
    with pytest.raises(LedgerError) as caught:
        book.sign(SUBJECT, b"2" * 16, names(range(1, 12)), floor=3)
    (concern,) = caught.value.concerns
    assert concern.kind is ConcernKind.DIFFERENCING
    assert concern.clients == tuple(names([0, 10, 11]))
    assert concern.detail == (
        f"differs from the sum of round {(b'1' * 16).hex()} by 3 members: with other sums, fewer than 3 "
        "could be told apart. Sum over the same members again (wait for 1 of them), or agree on a cohort "
        "before the first upload, and leave out whole cells of it"
    )
    assert [p.round_id for p in book.participations(*names([5]))] == [b"1" * 16]  # nothing was kept


def test_the_same_members_may_be_summed_again_and_strangers_to_a_sum_may_be_too() -> None:
    book = ledger()
    book.sign(SUBJECT, b"1" * 16, names(range(10)), floor=3)
    assert book.sign(SUBJECT, b"2" * 16, names(range(10)), floor=3) == ()
    assert book.check_sum(SUBJECT, names(range(10, 15)), floor=3) == ()  # known to a server only


def test_a_set_that_was_only_signed_counts_and_so_does_each_that_a_client_was_told_of() -> None:
    book = ledger()
    book.signed(SUBJECT, b"1" * 16, names(range(10)))
    book.released(SUBJECT, b"1" * 16, names(range(9)))  # it was shown another S than the quorum
    for members in (range(10), range(9)):
        with pytest.raises(LedgerError, match="by 1 members"):
            book.check_sum(SUBJECT, names(members), floor=2)


def test_one_complaint_is_enough_for_rounds_over_the_same_members() -> None:
    book = ledger()
    for number in (b"1", b"2", b"3"):
        book.sign(SUBJECT, number * 16, names(range(10)), floor=3)
    with pytest.raises(LedgerError) as caught:
        book.check_sum(SUBJECT, names(range(9)), floor=3)
    assert len(caught.value.concerns) == 1


def test_a_sum_is_over_the_floor_of_the_ledger_or_of_the_round() -> None:
    for book, floor in ((ledger(floor=4), 2), (ledger(), 4)):
        assert book.check_sum(SUBJECT, names(range(4)), floor=floor) == ()
        with pytest.raises(LedgerError, match="a sum over too few members: it is over 3, at least 4"):
            book.check_sum(SUBJECT, names(range(3)), floor=floor)


def test_sums_about_another_subject_do_not_count() -> None:
    book = ledger()
    book.sign(SUBJECT, b"1" * 16, names(range(10)), floor=3)
    assert book.check_sum(OTHER, names(range(9)), floor=3) == ()


def test_a_ledger_that_warns_returns_the_concern_and_keeps_the_set() -> None:
    book = ledger(differencing="warn")
    book.sign(SUBJECT, b"1" * 16, names(range(10)), floor=3)
    found = book.sign(SUBJECT, b"2" * 16, names(range(9)), floor=3)
    assert [c.clients for c in found] == [tuple(names([9]))]
    assert len(book.participations(*names([0]))) == 2


def test_within_a_cohort_whole_cells_may_leave_and_come_back() -> None:
    book, everybody = ledger(), names(range(10))
    book.join(SUBJECT, cohort=everybody, floor=3)
    one, two, three = cells(DEALT, everybody, floor=3)
    for number, members in enumerate((one | two | three, one | three, two | three, three, everybody)):
        assert book.sign(SUBJECT, bytes([number]) * 16, members, floor=3) == ()


def test_a_cell_with_a_member_missing_is_refused_and_the_cure_is_named() -> None:
    book, everybody = ledger(), names(range(10))
    book.join(SUBJECT, cohort=everybody, floor=3)
    one, two, three = cells(DEALT, everybody, floor=3)
    first = min(one)
    with pytest.raises(LedgerError) as caught:
        book.sign(SUBJECT, b"1" * 16, (one - {first}) | two, floor=3)
    (concern,) = caught.value.concerns
    assert (concern.kind, concern.clients) == (ConcernKind.DIFFERENCING, tuple(sorted(one - {first})))
    assert concern.detail == (
        "1 members are missing from 1 cells of which 2 are in it, at least 3 must leave together: "
        "wait for those missing, or leave out these 2, too"
    )
    book.sign(SUBJECT, b"2" * 16, two | three, floor=3)
    with pytest.raises(LedgerError, match=f"after the sum of round {(b'2' * 16).hex()}, 1 members"):
        book.check_sum(SUBJECT, frozenset(everybody) - {first}, floor=3)


def test_who_is_not_of_the_cohort_is_in_no_sum() -> None:
    book, everybody = ledger(), names(range(6))
    book.join(SUBJECT, cohort=everybody, floor=3)
    with pytest.raises(LedgerError, match="another cohort.*1 members are not of the cohort of 6"):
        book.check_sum(SUBJECT, names(range(7)), floor=3)


def test_a_cohort_is_settled_before_the_first_upload_for_good() -> None:
    store, everybody = MemoryStore(), names(range(6))
    for book in (ParticipationLedger(store), ParticipationLedger(store)):  # a restart
        assert book.join(SUBJECT, cohort=everybody, floor=3) == ()
        for cohort, floor in ((everybody[1:], 3), (everybody, 2), (None, 3)):
            with pytest.raises(LedgerError, match="a cohort of 6 in cells of 3 was settled"):
                book.join(SUBJECT, cohort=cohort, floor=floor)
        assert book.join(OTHER, cohort=None, floor=3) == ()
        with pytest.raises(LedgerError, match="no cohort was settled.*now it is a cohort of 6"):
            book.join(OTHER, cohort=everybody, floor=3)


@pytest.mark.parametrize("left", ["a vector", "a signature", "a sum"])
def test_once_something_left_without_a_cohort_there_is_none(left: str) -> None:
    book, everybody = ledger(), names(range(6))
    if left == "a vector":
        book.uploaded(SUBJECT, b"1" * 16, everybody[0], 0)
    elif left == "a signature":
        book.signed(SUBJECT, b"1" * 16, everybody)
    else:
        book.released(SUBJECT, b"1" * 16, everybody)
    with pytest.raises(LedgerError, match="no cohort was settled"):
        book.join(SUBJECT, cohort=everybody, floor=3)


def test_cells_are_as_large_as_the_ledger_and_the_round_demand() -> None:
    everybody = names(range(6))
    with pytest.raises(LedgerError, match="cells of 3 of 6 members: at least 4 are needed"):
        ledger(floor=4).join(SUBJECT, cohort=everybody, floor=3)
    with pytest.raises(LedgerError, match="cells of 7 of 6 members"):
        ledger().join(SUBJECT, cohort=everybody, floor=7)
    book = ledger()
    book.join(SUBJECT, cohort=everybody, floor=3)
    assert book.check_sum(SUBJECT, everybody, floor=2) == ()  # a smaller roster has fewer colluders
    with pytest.raises(LedgerError, match="its cells are of 3 members or more, at least 4 are needed"):
        book.check_sum(SUBJECT, everybody, floor=4)


def test_passes_over_one_update_are_over_the_same_members_whole_cells_or_not() -> None:
    book, everybody = ledger(), names(range(6))
    book.join(SUBJECT, cohort=everybody, floor=3)
    one, _ = cells(DEALT, everybody, floor=3)
    book.sign(SUBJECT, b"1" * 16, everybody, floor=3, same=True)
    assert book.check_sum(SUBJECT, everybody, floor=3, same=True) == ()
    assert book.check_sum(SUBJECT, one, floor=3) == ()
    with pytest.raises(LedgerError, match="by 3 members"):
        book.check_sum(SUBJECT, one, floor=3, same=True)


class Slow(MemoryStore):
    """Gives another thread time between a look and a write."""

    def names(self, prefix: str) -> list[str]:
        found = super().names(prefix)
        time.sleep(0.05)
        return found


def test_of_two_rounds_at_once_only_one_set_is_signed() -> None:
    store, refused = Slow(), []

    def sign(last: int) -> None:
        try:
            ParticipationLedger(store).sign(SUBJECT, bytes([last]) * 16, names(range(last)), floor=3)
        except LedgerError as error:
            refused.append(error)

    threads = [threading.Thread(target=sign, args=(last,)) for last in (9, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert len(ParticipationLedger(store).participations(*names([0]))) == 1


def test_a_subject_has_32_bytes() -> None:
    with pytest.raises(ParameterError, match="subject: must be 32 bytes, is 5"):
        ledger().check_sum(b"short", names(range(9)), floor=3)


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
    ParticipationLedger(store).signed(SUBJECT, b"1" * 16, names(range(10)))
    with pytest.raises(LedgerError):
        ParticipationLedger(store).check_sum(SUBJECT, names(range(9)), floor=2)


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


def test_a_vector_is_spent_once() -> None:
    book, (me, other) = ledger(), names([1, 2])
    book.spend(SUBJECT, b"1" * 16, me, 0)
    for number in (1, 2):
        with pytest.raises(LedgerError, match="uploaded before, and must be presumed summed") as caught:
            book.spend(SUBJECT, bytes([number]) * 16, me, 0)
        assert caught.value.concerns[0].kind is ConcernKind.REPEATED
    book.spend(SUBJECT, b"2" * 16, me, 0, again=True)
    book.spend(SUBJECT, b"1" * 16, other, 0)
    book.spend(OTHER, b"1" * 16, me, 0)
    assert book.told(SUBJECT, me)


@pytest.mark.parametrize("repeats", ["warn", "refuse"])
def test_what_was_spent_is_in_no_other_sum_until_it_is_known_which_it_was_in(repeats: str) -> None:
    book, (me, other) = ledger(repeats=repeats), names([1, 2])
    book.spend(SUBJECT, b"1" * 16, me, 0)
    with pytest.raises(LedgerError, match="1 clients uploaded about this subject, once for all"):
        book.check_clients(SUBJECT, [me, other])
    assert book.check_clients(SUBJECT, [other]) == ()
    book.released(SUBJECT, b"1" * 16, [me, other])
    assert book.check_clients(SUBJECT, [me]) == ()


def test_of_a_vector_that_was_spent_and_uploaded_the_spending_counts() -> None:
    """Whatever the order of their rounds' names."""
    for spent, opened in ((b"1", b"2"), (b"2", b"1")):
        book, (me,) = ledger(), names([1])
        book.uploaded(SUBJECT, opened * 16, me, 0)
        book.spend(SUBJECT, spent * 16, me, 0, again=True)
        with pytest.raises(LedgerError, match="once for all"):
            book.check_clients(SUBJECT, [me])


def test_a_vector_that_was_spent_meanwhile_is_not_submitted() -> None:
    book, (me, other) = ledger(repeats="warn"), names([1, 2])
    book.check_clients(SUBJECT, [me])
    book.spend(SUBJECT, b"1" * 16, me, 0)
    with pytest.raises(LedgerError, match="once for all while this one was made"):
        book.submit(SUBJECT, b"2" * 16, me, 0)
    book.submit(SUBJECT, b"2" * 16, other, 0)
    assert book.told(SUBJECT, other)
