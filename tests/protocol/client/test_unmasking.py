from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import pytest

from secagg.effects import Completed, Effect, RefusalReason, Send, SignWanted
from secagg.errors import LocalProtocolError
from secagg.messages import (
    MaskedInput,
    RevealedShare,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
)
from secagg.params import Adversary, Identity, Phase
from tests.protocol.network import Cohort, changed, flipped, opened, refused_by_client

LOST = {5: Phase.SHARE_KEYS, 6: Phase.MASKED_INPUT_COLLECTION}
EXACT = [1, 1, 1, 1, 1, 0, 0, 1]
U1 = frozenset({0, 1, 2, 3, 4, 6, 7})
S = frozenset({0, 1, 2, 3, 4, 7})


def asked(adversary: Adversary = "active") -> Cohort:
    """Eight clients: 5 did not share keys, 6 did not upload; quorum 5, threshold 5."""
    return Cohort(8, adversary=adversary, dropout=0.25).advance(Phase.UNMASKING, LOST)


def unsigned() -> Cohort:
    """The same with ten clients, of which client 0 did not sign; its request is made up by the tests."""
    lost = LOST | {0: Phase.CONSISTENCY_CHECK}
    return Cohort(10, dropout=0.3).advance(Phase.UNMASKING, lost)


def request(cohort: Cohort) -> UnmaskingRequest:
    return opened(UnmaskingRequest, cohort.request(0))


def asking(cohort: Cohort, **fields: object) -> bytes:
    return changed(cohort, UnmaskingRequest, cohort.request(0), **fields)


def signed_by(
    cohort: Cohort, signers: Collection[int], survivors: Collection[int], finished: Collection[int] = U1
) -> tuple[SurvivorSignature, ...]:
    view = cohort.view()
    text = view.survivors_text(view.bitmap(finished), view.bitmap(survivors))
    return tuple(SurvivorSignature(i, cohort.signers[i].sign(text)) for i in sorted(signers))


def demanding(cohort: Cohort, survivors: Collection[int], signers: Collection[int] = range(8)) -> bytes:
    """A request for another S, with the proofs that go with it and signatures of whoever would sign."""
    names = {cohort.identities[i] for i in survivors}
    return asking(
        cohort,
        survivors=cohort.view().bitmap(survivors),
        uploads=tuple(proof for proof in request(cohort).uploads if proof.identity in names),
        signatures=signed_by(cohort, signers, survivors),
    )


def answer(cohort: Cohort, frame: bytes) -> UnmaskingResponse:
    *wanted, sent, completed = cohort.ask(0, frame)
    assert [type(effect) for effect in wanted] in ([], [SignWanted])
    assert isinstance(completed, Completed)
    assert isinstance(sent, Send)
    return opened(UnmaskingResponse, sent.frame.buffer())


def dealers(cohort: Cohort, shares: Sequence[RevealedShare]) -> set[int]:
    return {cohort.index[Identity(share.dealer)] for share in shares}


def extra_proof(cohort: Cohort, of: int) -> bytes:
    proof = replace(request(cohort).uploads[0], identity=cohort.identities[of])
    uploads = tuple(sorted((*request(cohort).uploads, proof), key=lambda p: p.identity))
    return asking(cohort, uploads=uploads)


def with_signature(cohort: Cohort, place: int, signature: bytes) -> bytes:
    signatures = list(request(cohort).signatures)
    signatures[place] = replace(signatures[place], signature=signature)
    return asking(cohort, signatures=tuple(signatures))


def index_outside(cohort: Cohort) -> bytes:
    return asking(cohort, signatures=(*request(cohort).signatures, SurvivorSignature(8, bytes(64))))


BOTH: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "a proof of a dropout": (lambda c: extra_proof(c, 6), RefusalReason.WRONG_NEIGHBORS),
    "a proof of one outside U1": (lambda c: extra_proof(c, 5), RefusalReason.WRONG_NEIGHBORS),
    "a proof of ourselves": (lambda c: extra_proof(c, 0), RefusalReason.WRONG_NEIGHBORS),
    "proofs out of order": (
        lambda c: asking(c, uploads=request(c).uploads[::-1]),
        RefusalReason.MALFORMED,
    ),
    "a set": (lambda c: c.frame(SurvivorSignature(0, bytes(64))), RefusalReason.WRONG_PHASE),
}
PASSIVE: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = BOTH | {
    "a bitmap that is too long": (lambda c: asking(c, survivors=b"\x9f\x01"), RefusalReason.MALFORMED),
    "no bitmap": (lambda c: asking(c, survivors=b""), RefusalReason.MALFORMED),
    "without us": (lambda c: demanding(c, S - {0}, ()), RefusalReason.NOT_INCLUDED),
    "with one outside U1": (lambda c: demanding(c, S | {5}, ()), RefusalReason.NOT_INCLUDED),
    "too few": (lambda c: demanding(c, {0, 1}, ()), RefusalReason.TOO_FEW_SURVIVORS),
    "signatures in a passive round": (
        lambda c: asking(c, signatures=signed_by(c, {1}, S)),
        RefusalReason.MALFORMED,
    ),
    "a dropout declared a survivor's proof left": (
        lambda c: asking(c, survivors=c.view().bitmap(S - {1})),
        RefusalReason.WRONG_NEIGHBORS,
    ),
}
ACTIVE: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = BOTH | {
    "one signature is missing": (
        lambda c: asking(c, signatures=request(c).signatures[1:]),
        RefusalReason.NO_QUORUM,
    ),
    "no signatures": (lambda c: asking(c, signatures=()), RefusalReason.NO_QUORUM),
    "one signature is wrong": (
        lambda c: with_signature(c, 2, flipped(request(c).signatures[2].signature, 8)),
        RefusalReason.NO_QUORUM,
    ),
    "one signature is another's": (
        lambda c: with_signature(c, 2, request(c).signatures[1].signature),
        RefusalReason.NO_QUORUM,
    ),
    "signatures for another S": (
        lambda c: asking(c, signatures=signed_by(c, range(8), S - {7})),
        RefusalReason.NO_QUORUM,
    ),
    "signatures for another U1": (
        lambda c: asking(c, signatures=signed_by(c, range(8), S, U1 - {6})),
        RefusalReason.NO_QUORUM,
    ),
    "a signer outside the roster": (index_outside, RefusalReason.MALFORMED),
    "the same signer twice": (
        lambda c: asking(c, signatures=(*request(c).signatures, request(c).signatures[-1])),
        RefusalReason.MALFORMED,
    ),
    "another S than the signed, with everybody's signature": (
        lambda c: demanding(c, S - {7}),
        RefusalReason.EQUIVOCATION,
    ),
}


@pytest.mark.parametrize("case", ACTIVE)
def test_a_wrong_request_is_refused_and_does_not_use_up_the_one_answer(case: str) -> None:
    cohort = asked()
    frame, reason = ACTIVE[case]
    refused_by_client(cohort, 0, frame(cohort), reason)
    assert cohort.total(LOST) == EXACT


@pytest.mark.parametrize("case", PASSIVE)
def test_a_wrong_request_is_refused_in_a_passive_round(case: str) -> None:
    cohort = asked("passive")
    frame, reason = PASSIVE[case]
    refused_by_client(cohort, 0, frame(cohort), reason)
    assert cohort.total(LOST) == EXACT


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        (S - {0}, RefusalReason.NOT_INCLUDED),
        (S | {5}, RefusalReason.NOT_INCLUDED),
        (frozenset({0, 1}), RefusalReason.TOO_FEW_SURVIVORS),
    ],
    ids=["without us", "one outside U1", "too few"],
)
def test_a_client_that_signed_nothing_checks_the_set_itself(
    survivors: frozenset[int], reason: RefusalReason
) -> None:
    cohort = unsigned()
    cohort.requests[0] = cohort.frame(
        replace(opened(UnmaskingRequest, cohort.request(1)), uploads=(), signatures=())
    )
    refused_by_client(cohort, 0, demanding(cohort, survivors), reason)


@pytest.mark.parametrize("bitmap", [b"", b"\x9f\x03\x01"], ids=["none", "too long"])
def test_a_client_that_signed_nothing_refuses_a_malformed_set(bitmap: bytes) -> None:
    cohort = unsigned()
    message = opened(UnmaskingRequest, cohort.request(1))
    frame = cohort.frame(replace(message, survivors=bitmap, uploads=()))
    refused_by_client(cohort, 0, frame, RefusalReason.MALFORMED)


def test_a_client_that_signed_nothing_answers_a_quorum() -> None:
    cohort = unsigned()
    cohort.requests[0] = cohort.frame(replace(opened(UnmaskingRequest, cohort.request(1)), uploads=()))
    message = answer(cohort, cohort.request(0))
    assert dealers(cohort, message.mask_key_shares) == {6}


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_survivors_seeds_and_dropouts_keys_are_revealed_and_never_both(adversary: Adversary) -> None:
    cohort = asked(adversary)
    message = answer(cohort, cohort.request(0))
    assert dealers(cohort, message.self_seed_shares) == S - {0}
    assert dealers(cohort, message.mask_key_shares) == {6}


def test_what_is_revealed_is_what_was_dealt() -> None:
    cohort = asked()
    message = answer(cohort, cohort.request(0))
    for share in message.self_seed_shares:
        dealer = cohort.index[Identity(share.dealer)]
        assert share.share == cohort.share_plaintexts(dealer)[0][40:]
    (share,) = message.mask_key_shares
    assert share.share == cohort.share_plaintexts(6)[0][:40]


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_an_upload_that_is_not_proved_withholds_that_share_only(adversary: Adversary) -> None:
    cohort = asked(adversary)
    message = answer(cohort, asking(cohort, uploads=request(cohort).uploads[1:]))
    assert dealers(cohort, message.self_seed_shares) == S - {0, 1}
    assert dealers(cohort, message.mask_key_shares) == {6}


def proofs(cohort: Cohort, changed_proof: UploadProof) -> bytes:
    uploads = request(cohort).uploads
    return asking(cohort, uploads=(changed_proof, *uploads[1:]))


WRONG_PROOFS: dict[str, Callable[[Cohort, UploadProof], UploadProof]] = {
    "signature": lambda _, p: replace(p, signature=flipped(p.signature, 1)),
    "digest": lambda _, p: replace(p, packed_digest=flipped(p.packed_digest, 1)),
    "another U1": lambda c, p: replace(
        p, signature=c.signers[1].sign(c.view().upload_text(c.view().bitmap(U1 - {6}), p.packed_digest))
    ),
    "signed by another": lambda c, p: replace(
        p, signature=c.signers[2].sign(c.view().upload_text(c.view().bitmap(U1), p.packed_digest))
    ),
}


@pytest.mark.parametrize("case", WRONG_PROOFS)
def test_a_wrong_proof_withholds_that_share_only(case: str) -> None:
    """A server that showed the neighbor a smaller U1 does not get its seed."""
    cohort = asked()
    proof = WRONG_PROOFS[case](cohort, request(cohort).uploads[0])
    message = answer(cohort, proofs(cohort, proof))
    assert dealers(cohort, message.self_seed_shares) == S - {0, 1}
    assert dealers(cohort, message.mask_key_shares) == {6}


def test_surplus_signatures_that_are_wrong_do_not_hurt() -> None:
    cohort = asked()
    signatures = signed_by(cohort, S, S)
    assert len(signatures) == cohort.view().quorum + 1
    spoiled = (replace(signatures[0], signature=bytes(64)), *signatures[1:])
    message = answer(cohort, asking(cohort, signatures=spoiled))
    assert dealers(cohort, message.mask_key_shares) == {6}


def test_signatures_count_whether_or_not_their_signers_are_in_the_set() -> None:
    """Distinct identities of the roster are counted, colluders outside S among them."""
    cohort = asked()
    signatures = signed_by(cohort, {0, 1, 2, 5, 6}, S)
    assert len(signatures) == cohort.view().quorum
    message = answer(cohort, asking(cohort, signatures=signatures))
    assert dealers(cohort, message.self_seed_shares) == S - {0}


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_client_answers_once_only(adversary: Adversary) -> None:
    cohort = asked(adversary)
    cohort.ask(0)
    (again,) = [e for e in cohort.clients[0].receive(cohort.request(0)) if isinstance(e, Send)]
    assert bytes(again.frame) == cohort.answer(0)
    refused_by_client(
        cohort, 0, asking(cohort, uploads=request(cohort).uploads[1:]), RefusalReason.EQUIVOCATION
    )
    other: Collection[int] = S - {7}
    refused_by_client(
        cohort,
        0,
        demanding(cohort, other, range(8) if adversary == "active" else ()),
        RefusalReason.EQUIVOCATION,
    )


def test_nothing_is_answered_before_the_upload() -> None:
    cohort = Cohort(8, dropout=0.25).advance(Phase.MASKED_INPUT_COLLECTION)
    frame = cohort.frame(UnmaskingRequest(b"\xff", (), signed_by(cohort, range(8), range(8), range(8))))
    refused_by_client(cohort, 0, frame, RefusalReason.WRONG_PHASE)


def test_a_share_that_did_not_open_is_not_revealed() -> None:
    cohort = Cohort(8, dropout=0.25).advance(Phase.SHARE_KEYS).ask_all()
    cohort.tell(2, cohort.dealt(2, {0: b"\xff" * 80}))
    cohort.tell_all().close()
    cohort.ask_all()
    assert opened(MaskedInput, cohort.answer(0)).complaints == (cohort.identities[2],)
    cohort.tell_all().close()
    cohort.ask_all().tell_all().close()
    message = answer(cohort, cohort.request(0))
    assert dealers(cohort, message.self_seed_shares) == set(range(8)) - {0, 2}


def test_the_received_shares_are_forgotten_with_the_answer() -> None:
    cohort = asked()
    held = cohort.share_plaintexts(1)[0]
    assert held in cohort.clients[0].snapshot()
    cohort.ask(0)
    kept = cohort.clients[0].snapshot()
    assert held not in kept
    assert held[:40] not in kept  # the kind that was not revealed


def test_a_completed_client_has_no_result_and_no_phase() -> None:
    cohort = asked()
    effects: list[Effect] = cohort.clients[0].receive(cohort.request(0))
    assert effects[-1] == Completed(None, frozenset(cohort.identities[i] for i in S))
    assert cohort.clients[0].phase is None
    refused_by_client(cohort, 0, cohort.frame(SurvivorSet(b"\x1f")), RefusalReason.EQUIVOCATION)
    with pytest.raises(LocalProtocolError, match="sign"):
        cohort.clients[0].sign()
