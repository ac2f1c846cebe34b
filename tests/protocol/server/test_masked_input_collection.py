from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from secagg.effects import Aborted, AbortReason, BlameReason, RefusalReason, Send
from secagg.messages import MaskedInput, ShareDelivery, SharedKeys
from secagg.params import Identity, Phase
from tests.protocol.network import Cohort, changed, flipped, opened, refused_by_server, sparse


def uploaded(lost: dict[int, Phase] | None = None) -> Cohort:
    """Five clients, 5 elements of 3 bits: 15 bits, one to spare."""
    return Cohort(5, ring_bits=3).advance(Phase.MASKED_INPUT_COLLECTION, lost or {}).ask_all(lost or {})


def sent(cohort: Cohort) -> MaskedInput:
    return opened(MaskedInput, cohort.answer(0))


def signed(cohort: Cohort, packed: bytes, finished: frozenset[int] = frozenset(range(5))) -> bytes:
    """An upload of client 0 with a right signature over whatever it holds."""
    view = cohort.view()
    text = view.upload_text(view.bitmap(finished), hashlib.sha256(packed).digest())
    return cohort.frame(MaskedInput(packed, (), cohort.signers[0].sign(text)))


def spare_bit(cohort: Cohort) -> bytes:
    packed = bytes(sent(cohort).packed)
    return signed(cohort, packed[:-1] + bytes([packed[-1] | 0x80]))


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "short": (lambda c: signed(c, bytes(1)), RefusalReason.WRONG_LENGTH),
    "long": (lambda c: signed(c, bytes(3)), RefusalReason.WRONG_LENGTH),
    "empty": (lambda c: signed(c, b""), RefusalReason.WRONG_LENGTH),
    "spare bits": (spare_bit, RefusalReason.OUT_OF_RANGE),
    "bad signature": (
        lambda c: changed(c, MaskedInput, c.answer(0), signature=flipped(sent(c).signature, 3)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "packed not what was signed": (
        lambda c: changed(c, MaskedInput, c.answer(0), packed=flipped(bytes(sent(c).packed), 0)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "signed for another U1": (
        lambda c: signed(c, bytes(sent(c).packed), frozenset(range(4))),
        RefusalReason.BAD_SIGNATURE,
    ),
    "another client's upload": (lambda c: c.answer(1), RefusalReason.BAD_SIGNATURE),
    "complaint about itself": (
        lambda c: changed(c, MaskedInput, c.answer(0), complaints=(c.identities[0],)),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "complaint about a stranger": (
        lambda c: changed(c, MaskedInput, c.answer(0), complaints=(bytes(32),)),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "the same complaint twice": (
        lambda c: changed(c, MaskedInput, c.answer(0), complaints=(c.identities[1],) * 2),
        RefusalReason.MALFORMED,
    ),
    "a complaint that is too short": (
        lambda c: changed(c, MaskedInput, c.answer(0), complaints=(c.identities[1][:31],)),
        RefusalReason.MALFORMED,
    ),
    "shared keys of another kind of phase": (
        lambda c: c.frame(ShareDelivery(b"\x1f", ())),
        RefusalReason.WRONG_PHASE,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_upload_is_refused_and_a_right_one_may_follow(case: str) -> None:
    cohort = uploaded()
    frame, reason = REFUSED[case]
    refused_by_server(cohort, 0, frame(cohort), reason)
    assert cohort.tell(0) == []
    cohort.tell_all().close()
    assert cohort.total() == [1] * 5


def test_who_shared_no_keys_cannot_upload() -> None:
    cohort = uploaded({0: Phase.SHARE_KEYS})
    refused_by_server(
        cohort, 0, signed(cohort, bytes(2), frozenset(range(1, 5))), RefusalReason.UNKNOWN_SENDER
    )


def test_a_complaint_about_a_dealer_outside_u1_is_refused() -> None:
    cohort = uploaded({4: Phase.SHARE_KEYS})
    frame = changed(cohort, MaskedInput, cohort.answer(0), complaints=(cohort.identities[4],))
    refused_by_server(cohort, 0, frame, RefusalReason.WRONG_NEIGHBORS)
    assert cohort.tell(0) == []


def test_late_shared_keys_are_refused() -> None:
    cohort = Cohort(5).advance(Phase.SHARE_KEYS).ask_all()
    late = cohort.answer(4)
    for i in range(4):
        cohort.tell(i)
    cohort.close()
    refused_by_server(cohort, 4, late, RefusalReason.UNKNOWN_SENDER)


def test_an_upload_twice_is_summed_once() -> None:
    cohort = uploaded()
    assert cohort.tell(0) == []
    before = cohort.server.snapshot()
    assert cohort.tell(0) == []
    assert cohort.server.snapshot() == before
    cohort.tell_all().close()
    assert cohort.total() == [1] * 5


def test_a_different_second_upload_is_an_offence_and_the_first_stands() -> None:
    cohort = uploaded()
    assert cohort.tell(0) == []
    refused_by_server(cohort, 0, signed(cohort, bytes(2)), RefusalReason.EQUIVOCATION)
    packed = changed(cohort, MaskedInput, cohort.answer(0), packed=flipped(bytes(sent(cohort).packed), 0))
    refused_by_server(cohort, 0, packed, RefusalReason.EQUIVOCATION)
    complaining = changed(cohort, MaskedInput, cohort.answer(0), complaints=(cohort.identities[1],))
    refused_by_server(cohort, 0, complaining, RefusalReason.EQUIVOCATION)
    cohort.tell_all().close()
    assert cohort.total() == [1] * 5


def test_everybody_in_u1_gets_u1_and_the_shares_dealt_to_it() -> None:
    cohort = uploaded({4: Phase.SHARE_KEYS})
    dealt = {}
    again = Cohort(5, ring_bits=3).advance(Phase.SHARE_KEYS).ask_all()
    for i in range(4):
        dealt[i] = opened(SharedKeys, again.answer(i))
    for holder in range(4):
        delivery = opened(ShareDelivery, cohort.request(holder))
        assert bytes(delivery.finished) == b"\x0f"
        dealers = [i for i in range(4) if i != holder]
        assert [share.peer for share in delivery.shares] == [cohort.identities[i] for i in dealers]
        for dealer, share in zip(dealers, delivery.shares, strict=True):
            (mine,) = [s for s in dealt[dealer].shares if s.peer == cohort.identities[holder]]
            assert share.ciphertext == mine.ciphertext
            assert share.acceptance == dealt[dealer].acceptance


def test_too_few_uploads_end_the_round() -> None:
    cohort = Cohort(7).advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    for i in range(2):
        cohort.tell(i)
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.TOO_FEW_SURVIVORS


def test_fewer_holders_than_the_threshold_end_the_round() -> None:
    """Four of seven survive: an effective minimum of three, but each has three neighbors, of four needed."""
    cohort = Cohort(7).advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    assert (cohort.view().effective_minimum, cohort.view().roster.threshold) == (3, 4)
    for i in range(4):
        cohort.tell(i)
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.TOO_FEW_SURVIVORS
    assert cohort.outcome.blamed == ()


def complaining(about: int, by: int, clients: int = 5) -> Cohort:
    """The first `by` others complain about one dealer; everybody uploads."""
    cohort = Cohort(clients).advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    complainers = [i for i in range(clients) if i != about][:by]
    for i in complainers:
        frame = changed(cohort, MaskedInput, cohort.answer(i), complaints=(cohort.identities[about],))
        assert cohort.tell(i, frame) == []
    cohort.tell_all()
    return cohort


def test_complaints_that_leave_enough_holders_do_not_end_the_round() -> None:
    cohort = complaining(about=4, by=1)
    assert cohort.server.progress.ready
    cohort.close()
    assert cohort.outcome is None


@pytest.mark.parametrize("by", [2, 4])
def test_complaints_that_leave_too_few_holders_end_the_round_and_name_the_suspects(by: int) -> None:
    cohort = complaining(about=4, by=by)
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.COMPLAINTS
    assert cohort.outcome.blamed == tuple(sorted(cohort.identities[i] for i in [*range(by), 4]))


def test_a_dealer_contradicted_by_more_holders_than_collude_is_guilty_when_complaints_end_the_round() -> None:
    cohort = complaining(about=4, by=4)
    assert cohort.view().suspicion_limit == 1
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.guilty == (cohort.identities[4],)


def test_a_holder_contradicting_more_dealers_than_collude_is_guilty() -> None:
    cohort = Cohort(6).advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    view = cohort.view()
    assert (view.roster.threshold, view.suspicion_limit) == (4, 1)
    frame = changed(cohort, MaskedInput, cohort.answer(0), complaints=cohort.identities[1:3])
    assert cohort.tell(0, frame) == []
    cohort.tell_all().close()
    result = cohort.ask_all().tell_all().close()  # consistency check
    assert result
    for i in range(1, 6):
        cohort.ask(i)
        cohort.tell(i)
    cohort.close()
    assert cohort.outcome is not None
    assert not isinstance(cohort.outcome, Aborted)
    assert [int(value) for value in cohort.outcome.total] == [1] * 6
    assert {cohort.index[b.client]: (b.guilty, b.reason) for b in cohort.outcome.blamed} == {
        0: (True, BlameReason.COMPLAINT),
        1: (False, BlameReason.COMPLAINT),
        2: (False, BlameReason.COMPLAINT),
    }


def stretch(cohort: Cohort, length: int) -> list[int]:
    """The clients on successive places of the circle."""
    return list(cohort.view().graph.circle[:length])


def test_a_gap_on_the_circle_ends_an_active_round() -> None:
    cohort = sparse(70, "active").advance(Phase.MASKED_INPUT_COLLECTION)
    assert cohort.view().roster.degree == 8
    gap = dict.fromkeys(stretch(cohort, 3), Phase.MASKED_INPUT_COLLECTION)
    cohort.ask_all(gap).tell_all(gap)
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.SURVIVOR_GAP


def test_a_gap_that_is_narrow_enough_does_not_end_a_round() -> None:
    cohort = sparse(70, "active").advance(Phase.MASKED_INPUT_COLLECTION)
    gap = dict.fromkeys(stretch(cohort, 1), Phase.MASKED_INPUT_COLLECTION)
    total = cohort.total(gap)
    assert total == cohort.sum_over(set(range(70)) - set(gap))


def test_a_gap_does_not_end_a_passive_round() -> None:
    cohort = sparse(70, "passive").advance(Phase.MASKED_INPUT_COLLECTION)
    half = cohort.view().roster.degree // 2
    gap = dict.fromkeys(stretch(cohort, half), Phase.MASKED_INPUT_COLLECTION)
    assert cohort.total(gap) == cohort.sum_over(set(range(70)) - set(gap))


def test_the_secret_of_a_dropout_without_a_neighbor_that_survived_is_not_needed() -> None:
    cohort = sparse(66, "passive").advance(Phase.SHARE_KEYS)
    view = cohort.view()
    lonely = view.graph.circle[10]
    lost = dict.fromkeys(view.graph.neighbors_of(lonely), Phase.SHARE_KEYS)
    cohort.advance(Phase.SHARE_KEYS, lost).ask_all(lost).tell_all(lost).close()
    lost[lonely] = Phase.MASKED_INPUT_COLLECTION
    (effect,) = cohort.clients[lonely].receive(cohort.request(lonely))
    assert isinstance(effect, Aborted)
    assert effect.reason is AbortReason.TOO_FEW_NEIGHBORS
    assert cohort.total(lost) == cohort.sum_over(set(range(66)) - set(lost))
    assert all(not kinds[0] and not kinds[1] for kinds in [cohort.released[lonely]])


def test_an_earlier_message_repeated_gets_the_current_request() -> None:
    cohort = Cohort(5).advance(Phase.SHARE_KEYS).ask_all()
    earlier = cohort.answer(2)
    cohort.tell_all().close()
    (effect,) = cohort.tell(2, earlier)
    assert isinstance(effect, Send)
    assert effect.to == cohort.identities[2]
    assert bytes(effect.frame) == cohort.request(2)
    cohort.ask(2)
    cohort.tell(2)
    refused_by_server(cohort, 2, earlier, RefusalReason.WRONG_PHASE)
    assert cohort.tell(2) == []  # the newest once more: it stands, the next request is its answer


def test_shares_of_identities_that_were_swapped_do_not_reach_the_wrong_holder() -> None:
    """Two ciphertexts exchanged by a dealer open for neither holder; both complain, the sum is exact."""
    cohort = Cohort(10).advance(Phase.SHARE_KEYS).ask_all()
    message = opened(SharedKeys, cohort.answer(0))
    first, second, *rest = message.shares
    swapped = (
        replace(first, ciphertext=second.ciphertext),
        replace(second, ciphertext=first.ciphertext),
        *rest,
    )
    cohort.tell(0, changed(cohort, SharedKeys, cohort.answer(0), shares=swapped))
    cohort.tell_all().close()
    cohort.ask_all()
    for i in (1, 2):
        assert opened(MaskedInput, cohort.answer(i)).complaints == (cohort.identities[0],)
    for i in range(3, 10):
        assert opened(MaskedInput, cohort.answer(i)).complaints == ()
    cohort.tell_all().close()
    assert cohort.total() == [1] * 10
    assert Identity(first.peer) == cohort.identities[1]
