from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from secagg.effects import Aborted, AbortReason, RefusalReason
from secagg.errors import LocalProtocolError
from secagg.messages import RevealedShare, UnmaskingRequest, UnmaskingResponse
from secagg.params import Adversary, Phase
from secagg.primitives.signatures import verify
from tests.protocol.network import Cohort, changed, opened, refused_by_server, sparse, total_of

LOST = {5: Phase.MASKED_INPUT_COLLECTION}


def revealing(adversary: Adversary = "active", lost: dict[int, Phase] | None = None) -> Cohort:
    lost = LOST if lost is None else lost
    return Cohort(6, adversary=adversary).advance(Phase.UNMASKING, lost).ask_all(lost)


def response(cohort: Cohort, i: int = 0) -> UnmaskingResponse:
    return opened(UnmaskingResponse, cohort.answer(i))


def with_shares(cohort: Cohort, **fields: Sequence[RevealedShare]) -> bytes:
    return changed(cohort, UnmaskingResponse, cohort.answer(0), **fields)


def renamed(share: RevealedShare, dealer: bytes) -> RevealedShare:
    return replace(share, dealer=dealer)


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "a seed share is missing": (
        lambda c: with_shares(c, self_seed_shares=response(c).self_seed_shares[1:]),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "the key share is missing": (
        lambda c: with_shares(c, mask_key_shares=()),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "nothing": (lambda c: c.frame(UnmaskingResponse((), ())), RefusalReason.WRONG_NEIGHBORS),
    "both kinds for a survivor": (
        lambda c: with_shares(
            c, mask_key_shares=(response(c).self_seed_shares[-1], *response(c).mask_key_shares)
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "both kinds for a dropout": (
        lambda c: with_shares(
            c, self_seed_shares=(*response(c).self_seed_shares, response(c).mask_key_shares[0])
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a share of itself": (
        lambda c: with_shares(
            c,
            self_seed_shares=(
                renamed(response(c).self_seed_shares[0], c.identities[0]),
                *response(c).self_seed_shares,
            ),
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a share of a stranger": (
        lambda c: with_shares(c, mask_key_shares=(renamed(response(c).mask_key_shares[0], b"\xff" * 32),)),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "another client's answer": (lambda c: c.answer(1), RefusalReason.WRONG_NEIGHBORS),
    "a share that is too short": (
        lambda c: with_shares(c, mask_key_shares=(replace(response(c).mask_key_shares[0], share=bytes(39)),)),
        RefusalReason.MALFORMED,
    ),
    "the request itself": (lambda c: c.request(0), RefusalReason.WRONG_PHASE),
}


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_answer_is_refused_and_a_right_one_may_follow(case: str, adversary: Adversary) -> None:
    cohort = revealing(adversary)
    frame, reason = REFUSED[case]
    refused_by_server(cohort, 0, frame(cohort), reason)
    assert cohort.tell(0) == []
    cohort.tell_all(LOST).close()
    assert cohort.outcome is not None
    assert not isinstance(cohort.outcome, Aborted)
    assert total_of(cohort.outcome) == [1, 1, 1, 1, 1, 0]


def test_who_did_not_survive_is_not_heard() -> None:
    cohort = revealing()
    refused_by_server(cohort, 5, cohort.answer(0), RefusalReason.UNKNOWN_SENDER)


def test_who_did_not_sign_is_not_asked() -> None:
    lost = {0: Phase.CONSISTENCY_CHECK}
    cohort = revealing(lost=lost)
    assert cohort.server.progress.missing == frozenset(cohort.identities[1:])
    refused_by_server(cohort, 0, cohort.frame(UnmaskingResponse((), ())), RefusalReason.UNKNOWN_SENDER)
    cohort.tell_all(lost).close()
    assert cohort.outcome is not None
    assert total_of(cohort.outcome) == [1] * 6


def test_an_answer_twice_counts_once() -> None:
    cohort = revealing()
    assert cohort.tell(0) == []
    before = cohort.server.snapshot()
    assert cohort.tell(0) == []
    assert cohort.server.snapshot() == before


def test_a_different_second_answer_is_an_offence_and_the_first_stands() -> None:
    cohort = revealing()
    assert cohort.tell(0) == []
    share = replace(response(cohort).mask_key_shares[0], share=bytes(40))
    other = with_shares(cohort, mask_key_shares=(share,))
    refused_by_server(cohort, 0, other, RefusalReason.EQUIVOCATION)
    cohort.tell_all(LOST).close()
    assert cohort.outcome is not None
    assert total_of(cohort.outcome) == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_too_few_answers_end_the_round_and_name_the_silent(adversary: Adversary) -> None:
    cohort = revealing(adversary, lost={})
    threshold = cohort.view().roster.threshold
    for i in range(threshold):
        cohort.tell(i)
    # Each that answered has one answer too few: its own does not count for itself.
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.TOO_FEW_ANSWERS
    assert cohort.outcome.blamed == cohort.identities[threshold:]
    assert cohort.server.phase is None


def test_enough_answers_are_ready_before_the_last_has_come() -> None:
    cohort = revealing(lost={})
    for i in range(cohort.view().roster.threshold + 1):
        assert not cohort.server.progress.ready
        cohort.tell(i)
    assert cohort.server.progress.ready
    assert not cohort.server.progress.complete
    cohort.close()
    assert cohort.outcome is not None
    assert total_of(cohort.outcome) == [1] * 6


def test_a_request_holds_exactly_a_quorum_of_the_lowest_index() -> None:
    cohort = revealing(lost={1: Phase.CONSISTENCY_CHECK})
    view = cohort.view()
    assert view.quorum == 4
    for i in (0, 2, 3, 4, 5):
        request = opened(UnmaskingRequest, cohort.request(i))
        assert [signature.index for signature in request.signatures] == [0, 2, 3, 4]
        text = view.survivors_text(b"\x3f", b"\x3f")
        assert all(verify(cohort.identities[s.index], text, s.signature) for s in request.signatures)


def test_a_passive_request_holds_no_signatures() -> None:
    cohort = revealing("passive")
    assert opened(UnmaskingRequest, cohort.request(0)).signatures == ()


def test_a_request_proves_the_uploads_of_the_neighbors_that_survived() -> None:
    cohort = sparse(70, "active").advance(Phase.MASKED_INPUT_COLLECTION)
    view = cohort.view()
    gone = view.graph.neighbors_of(0)[0]
    lost = {gone: Phase.MASKED_INPUT_COLLECTION}
    cohort.advance(Phase.UNMASKING, lost)
    request = opened(UnmaskingRequest, cohort.request(0))
    wanted = [cohort.identities[i] for i in view.graph.neighbors_of(0) if i != gone]
    assert [proof.identity for proof in request.uploads] == wanted
    finished = view.bitmap(range(70))
    assert all(
        verify(p.identity, view.upload_text(finished, p.packed_digest), p.signature) for p in request.uploads
    )
    assert cohort.total(lost) == cohort.sum_over(set(range(70)) - set(lost))


def test_a_round_that_is_over_takes_nothing_more() -> None:
    cohort = revealing(lost={})
    cohort.tell_all().close()
    assert cohort.server.phase is None
    (effect,) = cohort.server.receive(cohort.identities[0], cohort.answer(0))  # the same once more
    assert getattr(effect, "reason", None) is RefusalReason.WRONG_PHASE
    other = cohort.frame(UnmaskingResponse((), ()))
    (effect,) = cohort.server.receive(cohort.identities[0], other)
    assert getattr(effect, "reason", None) is RefusalReason.EQUIVOCATION
    with pytest.raises(LocalProtocolError, match="over"):
        cohort.server.close_phase()
    with pytest.raises(LocalProtocolError, match="no round"):
        cohort.server.snapshot()
    assert cohort.server.progress.phase is None
    assert cohort.server.drop(cohort.identities[0]) == []


def test_the_result_names_the_survivors_in_order_and_counts_the_bytes() -> None:
    cohort = revealing()
    cohort.tell_all(LOST).close()
    result = cohort.outcome
    assert result is not None
    assert not isinstance(result, Aborted)
    assert result.survivors == cohort.identities[:5]
    assert result.blamed == ()
    assert set(result.traffic.up) == set(result.traffic.down) == set(Phase)
    assert result.traffic.up[Phase.UNMASKING] == sum(len(cohort.answer(i)) for i in range(5))
    assert result.traffic.down[Phase.UNMASKING] == sum(len(cohort.request(i)) for i in range(5))


@pytest.mark.parametrize("ring_bits", [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64])
def test_the_sum_is_that_of_the_ring(ring_bits: int) -> None:
    cohort = Cohort(5, ring_bits=ring_bits, vector_length=3)
    total = cohort.total({1: Phase.MASKED_INPUT_COLLECTION})
    assert total == cohort.sum_over([0, 2, 3, 4])


def test_a_failure_while_masks_are_removed_can_be_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = revealing(lost={}).tell_all()

    def fails(*_arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("secagg.protocol.server.unmasking.remove_masks", fails)
        with pytest.raises(MemoryError):
            cohort.server.close_phase()
    cohort.close()
    assert cohort.outcome is not None
    assert total_of(cohort.outcome) == [1] * 6
