from __future__ import annotations

from collections.abc import Callable

import pytest

from secagg.effects import Aborted, AbortReason, RefusalReason
from secagg.messages import SurvivorSet, SurvivorSignature
from secagg.params import Phase
from tests.protocol.network import Cohort, changed, flipped, opened, refused_by_server

LOST = {4: Phase.MASKED_INPUT_COLLECTION}


def signing(lost: dict[int, Phase] | None = None) -> Cohort:
    lost = LOST if lost is None else lost
    return Cohort(5).advance(Phase.CONSISTENCY_CHECK, lost).ask_all(lost)


def signature_of(cohort: Cohort, i: int) -> SurvivorSignature:
    return opened(SurvivorSignature, cohort.answer(i))


def signed(cohort: Cohort, finished: set[int], survivors: set[int]) -> bytes:
    view = cohort.view()
    text = view.survivors_text(view.bitmap(finished), view.bitmap(survivors))
    return cohort.frame(SurvivorSignature(0, cohort.signers[0].sign(text)))


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "another index": (
        lambda c: changed(c, SurvivorSignature, c.answer(0), index=1),
        RefusalReason.SENDER_MISMATCH,
    ),
    "an index outside the roster": (
        lambda c: changed(c, SurvivorSignature, c.answer(0), index=5),
        RefusalReason.SENDER_MISMATCH,
    ),
    "another client's signature": (lambda c: c.answer(1), RefusalReason.SENDER_MISMATCH),
    "another client's signature under its own index": (
        lambda c: changed(c, SurvivorSignature, c.answer(0), signature=signature_of(c, 1).signature),
        RefusalReason.BAD_SIGNATURE,
    ),
    "bad signature": (
        lambda c: changed(
            c, SurvivorSignature, c.answer(0), signature=flipped(signature_of(c, 0).signature, 300)
        ),
        RefusalReason.BAD_SIGNATURE,
    ),
    "another S": (lambda c: signed(c, {0, 1, 2, 3, 4}, {0, 1, 2}), RefusalReason.BAD_SIGNATURE),
    "another U1": (lambda c: signed(c, {0, 1, 2, 3}, {0, 1, 2, 3}), RefusalReason.BAD_SIGNATURE),
    "a set": (lambda c: c.frame(SurvivorSet(b"\x0f")), RefusalReason.WRONG_PHASE),
    "a signature that is too short": (
        lambda c: changed(c, SurvivorSignature, c.answer(0), signature=bytes(63)),
        RefusalReason.MALFORMED,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_survivor_signature_is_refused_and_a_right_one_may_follow(case: str) -> None:
    cohort = signing()
    frame, reason = REFUSED[case]
    refused_by_server(cohort, 0, frame(cohort), reason)
    assert cohort.tell(0) == []
    cohort.tell_all(LOST).close()
    assert cohort.total() == [1, 1, 1, 1, 0]


def test_who_did_not_upload_signs_nothing() -> None:
    cohort = signing()
    view = cohort.view()
    text = view.survivors_text(view.bitmap(range(5)), view.bitmap(range(4)))
    frame = cohort.frame(SurvivorSignature(4, cohort.signers[4].sign(text)))
    refused_by_server(cohort, 4, frame, RefusalReason.UNKNOWN_SENDER)


def test_a_late_upload_is_refused() -> None:
    cohort = Cohort(5).advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    late = cohort.answer(4)
    for i in range(4):
        cohort.tell(i)
    cohort.close()
    refused_by_server(cohort, 4, late, RefusalReason.UNKNOWN_SENDER)
    assert cohort.total() == [1, 1, 1, 1, 0]


def test_a_signature_twice_counts_once() -> None:
    cohort = signing()
    assert cohort.tell(0) == []
    before = cohort.server.snapshot()
    assert cohort.tell(0) == []
    assert cohort.server.snapshot() == before
    assert cohort.server.progress.received == 1


def test_a_different_second_signature_is_an_offence_and_the_first_stands() -> None:
    cohort = signing()
    assert cohort.tell(0) == []
    refused_by_server(cohort, 0, signed(cohort, {0, 1, 2, 3, 4}, {0, 1, 2}), RefusalReason.EQUIVOCATION)
    cohort.tell_all(LOST).close()
    assert cohort.total() == [1, 1, 1, 1, 0]


def test_everybody_that_uploaded_and_nobody_else_is_asked_to_sign_the_one_set() -> None:
    cohort = signing()
    assert cohort.server.progress.missing == frozenset(cohort.identities[:4])
    frames = {cohort.request(i) for i in range(4)}
    assert len(frames) == 1
    assert bytes(opened(SurvivorSet, frames.pop()).survivors) == b"\x0f"


def test_one_signature_below_the_quorum_ends_the_round_and_names_the_silent() -> None:
    cohort = signing(lost={})
    assert cohort.server.progress.needed == 4
    for i in range(3):
        cohort.tell(i)
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.NO_QUORUM
    assert cohort.outcome.blamed == cohort.identities[3:]
    assert cohort.outcome.guilty == ()


def test_a_quorum_is_enough() -> None:
    cohort = signing(lost={})
    for i in range(1, 5):
        cohort.tell(i)
    assert cohort.server.progress.ready
    cohort.close()
    assert cohort.server.progress.missing == frozenset(cohort.identities[1:])
    assert cohort.total() == [1] * 5


@pytest.mark.parametrize(("clients", "corrupt"), [(n, c) for n in range(4, 13) for c in (0.1, 0.2, 0.3)])
def test_two_sets_cannot_both_reach_a_quorum(clients: int, corrupt: float) -> None:
    """Colluders sign every set, the honest one each."""
    try:
        cohort = Cohort(clients, corrupt=corrupt, dropout=0.05).advance(Phase.SHARE_KEYS)
    except ValueError:
        assert clients < 6
        return
    view = cohort.view()
    honest = clients - view.colluders
    for first in range(honest + 1):
        both = view.colluders + first, view.colluders + honest - first
        assert min(both) < view.quorum


def test_a_passive_round_has_no_consistency_check() -> None:
    cohort = Cohort(5, adversary="passive").advance(Phase.MASKED_INPUT_COLLECTION).ask_all().tell_all()
    cohort.close()
    assert cohort.server.phase is Phase.UNMASKING
    frame = cohort.frame(SurvivorSignature(0, bytes(64)))
    refused_by_server(cohort, 0, frame, RefusalReason.WRONG_PHASE)
