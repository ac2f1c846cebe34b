"""A server that lies to members and clients: who notices, and what happens then.

"refused": a typed reason, nothing changed, and the right message is taken afterwards. A committee of 16 has
T = 6, rho = 2 and a quorum of 12; one of 4 T = rho = 1 and a quorum of 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from secagg.effects import (
    Aborted,
    AbortReason,
    Breach,
    CommitteeAccepted,
    InputWanted,
    OneShotAggregate,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Acceptance,
    CommitteeAnnouncement,
    CommitteeKey,
    Dealing,
    Dealings,
    OpenRequest,
    ReviewRequest,
    SumSignature,
    committee_to_wire,
    oneshot_to_wire,
)
from secagg.params import Identity, ThreatModel
from secagg.params_oneshot import CommitteeParameters, OneShotParameters, OneShotPhase, OneShotPolicy
from secagg.primitives.bitmap import to_bitmap
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.oneshot import Contributor, DecryptorSession
from secagg.protocol.oneshot.view import (
    CommitteeView,
    OneShotView,
    candidate_of,
    committee_parameters_digest,
    key_text,
)
from tests.attacks.oneshot.liar import (
    OTHER,
    Lies,
    acceptance,
    at,
    certificate,
    dealing,
    deliver,
    digest_of,
    flipped,
    lying_opening,
    lying_upload,
    member_refuses,
    proposal,
    request,
    shifted,
    signature,
    standing_at,
    state_of,
    with_epoch,
)
from tests.protocol.network import CONTEXT, CounterEntropy
from tests.protocol.oneshot.network import (
    EPOCH_ID,
    ROUND_ID,
    Epoch,
    Round,
    changed,
    committee_parameters_of,
    form,
    framed,
    keys,
    message_of,
    policy_of,
    reasons,
)

R = RefusalReason


def taken(one: Round) -> list[bytes]:
    """The digests of all uploads that the server has, ascending."""
    return sorted(upload.digest for upload in one.server._uploads.values())


# --- sums


def test_two_sums_for_two_halves_of_the_committee_get_no_quorum_even_with_colluders() -> None:
    one = Round(6, 16)
    held = standing_at(one, "SumProposal")
    first, second = taken(one), taken(one)[1:]
    honest = one.epoch.members[6:]
    signatures: dict[bool, list[SumSignature]] = {False: [], True: []}
    for place, member in enumerate(honest):
        shown = proposal(one, second if place % 2 else first)
        for answer in one.answers(member, shown):
            signatures[bool(place % 2)].append(message_of(answer))
    quorum = one.committee.numbers.quorum
    for half, uploads in ((False, first), (True, second)):
        colluding = [signature(one, member, uploads) for member in range(6)]
        signatures[half] = sorted(colluding + signatures[half], key=lambda one: one.index)
        assert len(signatures[half]) == quorum - 1
        for place, member in enumerate(honest):
            session = one.epoch.decryptors[member]
            if bool(place % 2) is half:
                member_refuses(session, request(one, signatures[half]), R.NO_QUORUM)
    mixed = {one.index: one for one in (*signatures[False], *signatures[True])}
    for member in honest:
        session = one.epoch.decryptors[member]
        borrowed = request(one, [mixed[index] for index in sorted(mixed)[:quorum]])
        member_refuses(session, borrowed, R.BAD_SIGNATURE)
    deliver(one, held)  # an honest server comes too late now: one round, one sum
    assert set(reasons(one.refused)) == {R.EQUIVOCATION}
    one.close()
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.NO_QUORUM
    assert one.outcome.guilty == ()


def after_the_signatures(one: Round) -> None:
    one.close(until=OneShotPhase.AGREE)


def after_the_opening(one: Round) -> None:
    one.close()
    one.exact(range(5))


def after_failed_checks(one: Round) -> None:
    one.server._total.lanes[-1] += 1 << 15  # of an upload that was added wrongly
    one.close()
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.CHECK_FAILED


def after_wrong_openings(one: Round) -> None:
    def change(member: Identity, frame: bytes) -> list[bytes]:
        if one.server.phase is not OneShotPhase.OPEN:
            return [frame]
        index = one.committee.index[member]
        return [lying_opening(one, index, frame, shifted(7**index))]

    one.change_answer = change
    one.close()
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.DECODE_FAILED


@pytest.mark.parametrize(
    "when", [after_the_signatures, after_the_opening, after_failed_checks, after_wrong_openings]
)
def test_whoever_signed_a_sum_signs_no_other_one_of_that_round(when: Callable[[Round], None]) -> None:
    one = Round(5, 4)
    one.start()
    uploads = taken(one)
    when(one)
    for index, member in enumerate(one.epoch.members):
        session = one.epoch.decryptors[member]
        member_refuses(session, proposal(one, uploads[1:]), R.EQUIVOCATION)
        (again,) = session.receive(proposal(one, uploads))
        assert isinstance(again, Send)
        assert message_of(bytes(again.frame)) == signature(one, index, uploads)
        other = [signature(one, member, uploads[1:]) for member in range(3)]
        member_refuses(session, request(one, other), R.BAD_SIGNATURE)
        with pytest.raises(LocalProtocolError):
            session.sign(ROUND_ID)


WRONG_PROPOSALS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], RefusalReason]] = {
    "none": (lambda _: [], R.TOO_FEW_SURVIVORS),
    "one": (lambda uploads: uploads[:1], R.TOO_FEW_SURVIVORS),
    "one less than the effective minimum": (lambda uploads: uploads[:3], R.TOO_FEW_SURVIVORS),
    "more than maximum_uploads": (
        lambda uploads: sorted([*uploads, bytes(32), bytes(31) + b"1"]),
        R.OUT_OF_RANGE,
    ),
    "descending": (lambda uploads: uploads[::-1], R.MALFORMED),
    "one twice": (lambda uploads: [uploads[0], *uploads], R.MALFORMED),
    "one cut": (lambda uploads: [*uploads[:-1], uploads[-1][:31]], R.MALFORMED),
    "one unknown": (lambda uploads: [bytes(32), *uploads[1:]], R.NOT_INCLUDED),
}  # fmt: skip


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("wrong", WRONG_PROPOSALS)
def test_a_wrong_proposal_is_refused_and_the_right_one_signed(wrong: str, adversary: Any) -> None:
    one = Round(5, 4, adversary, changes={"colluding": 2})
    change, reason = WRONG_PROPOSALS[wrong]
    held = standing_at(one, "SumProposal")
    for member in held:
        member_refuses(one.epoch.decryptors[member], proposal(one, change(taken(one))), reason)
    deliver(one, held)
    one.close()
    one.exact(range(5))


def test_a_context_of_one_victim_and_colluders_is_not_signed() -> None:
    one = Round(7, 4, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 1, "colluding": 2})
    one.carry(one.server.start())
    for client in range(7):
        context = OTHER if client in {0, 1, 2} else CONTEXT  # 0 is the victim, 1 and 2 collude
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client, context=context)))
    held = standing_at(one, "SumProposal")
    for member in held:
        session = one.epoch.decryptors[member]
        member_refuses(session, proposal(one, taken(one)), R.TOO_FEW_SURVIVORS)
        alone = [upload.digest for upload in one.server._order if upload.dealing.context == OTHER]
        member_refuses(session, proposal(one, sorted(alone)), R.TOO_FEW_SURVIVORS)
    deliver(one, held)
    one.close()
    one.exact([3, 4, 5, 6])


def test_two_uploads_of_one_client_are_not_in_one_sum() -> None:
    one = Round(5, 4, changes={"maximum_uploads": 6})
    second = lying_upload(one, 4, entropy="another")
    held = standing_at(one, "SumProposal")
    for index, member in enumerate(one.epoch.members):
        session = one.epoch.decryptors[member]
        assert session.receive(framed(ROUND_ID, Dealings((dealing(one, second, index),)))) == []
        both = sorted([*taken(one), digest_of(one, second)])
        member_refuses(session, proposal(one, both), R.EQUIVOCATION)
    deliver(one, held)
    one.close()
    one.exact(range(5))


def test_either_upload_of_a_client_can_be_in_the_sum_and_only_once() -> None:
    one = Round(5, 4)
    second = lying_upload(one, 4, entropy="another")
    standing_at(one, "SumProposal")
    others = [upload.digest for upload in one.server._order if upload.identity != one.signers[4].identity]
    for index, member in enumerate(one.epoch.members):
        session = one.epoch.decryptors[member]
        session.receive(framed(ROUND_ID, Dealings((dealing(one, second, index),))))
        assert len(one.answers(member, proposal(one, sorted([*others, digest_of(one, second)])))) == 1
        member_refuses(session, proposal(one, taken(one)), R.EQUIVOCATION)


def strangers_are_unknown_to(one: Round, members: range, client: int) -> None:
    known = frozenset(signer.identity for signer in one.signers) - {one.signers[client].identity}
    for member in members:
        session = one.epoch.decryptors[one.epoch.members[member]]
        session._policy = replace(session._policy, known=known)


def test_a_stranger_is_out_of_the_sum_and_not_guilty() -> None:
    one = Round(5, 4)
    strangers_are_unknown_to(one, range(4), 2)
    one.play()
    one.exact([0, 1, 3, 4])
    assert isinstance(one.outcome, OneShotAggregate)
    assert [(blame.client, blame.guilty) for blame in one.outcome.blamed] == [
        (one.signers[2].identity, False)
    ]


def test_a_sum_with_a_stranger_is_signed_by_nobody_who_does_not_know_it() -> None:
    one = Round(5, 4)
    strangers_are_unknown_to(one, range(4), 2)
    held = standing_at(one, "SumProposal")
    for member in held:
        member_refuses(one.epoch.decryptors[member], proposal(one, taken(one)), R.UNKNOWN_IDENTITY)
    deliver(one, held)
    one.close()
    one.exact([0, 1, 3, 4])


def test_a_member_whose_registry_lags_costs_its_signature_only() -> None:
    one = Round(5, 8)
    strangers_are_unknown_to(one, range(1), 2)
    one.play()
    one.exact(range(5))
    assert reasons(one.refused) == [R.UNKNOWN_IDENTITY]


def test_strangers_are_not_opened() -> None:
    one = Round(5, 4)
    strangers_are_unknown_to(one, range(1), 2)
    session = one.epoch.decryptors[one.epoch.members[0]]
    one.carry(one.server.start())
    session.receive(framed(ROUND_ID, Dealings((dealing(one, one.upload(2), 0),))))
    (found,) = session._rounds[ROUND_ID].taken.values()
    assert (found.reason, found.share) == (5, None)


# --- requests to open


def wrong_requests(one: Round) -> dict[str, tuple[bytes, RefusalReason]]:
    uploads = taken(one)
    right = [signature(one, member, uploads) for member in range(4)]
    stranger = SumSignature(1, keys("nobody", 1)[0].sign(b"sum"))
    return {
        "short": (request(one, right[:2]), R.NO_QUORUM),
        "long": (request(one, right), R.NO_QUORUM),
        "none": (request(one, []), R.NO_QUORUM),
        "one twice": (request(one, [right[0], right[0], right[1]]), R.MALFORMED),
        "descending": (request(one, right[2::-1]), R.MALFORMED),
        "another's, in its name": (
            request(one, [right[0], signature(one, 1, uploads, by=0), right[2]]),
            R.BAD_SIGNATURE,
        ),
        "a stranger's": (request(one, [right[0], stranger, right[2]]), R.BAD_SIGNATURE),
        "no member's": (request(one, [*right[:2], SumSignature(4, right[3].signature)]), R.NO_QUORUM),
        "of another sum": (
            request(one, [*right[:2], signature(one, 2, uploads[1:])]),
            R.BAD_SIGNATURE,
        ),
    }


def test_wrong_requests_open_nothing_and_the_right_one_is_answered() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    for frame, reason in wrong_requests(one).values():
        for member in held:
            member_refuses(one.epoch.decryptors[member], frame, reason)
    deliver(one, held)
    one.close()
    one.exact(range(5))


def test_any_quorum_of_right_signatures_opens_and_the_opening_is_the_same() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    highest = request(one, [signature(one, index, taken(one)) for index in (1, 2, 3)])
    (sent,) = one.answers(member, highest)
    assert one.answers(member, held[member]) == [sent]


def test_a_member_that_did_not_sign_opens_nothing() -> None:
    one = Round(5, 4)
    held = standing_at(one, "SumProposal")
    quorum = request(one, [signature(one, member, taken(one)) for member in range(3)])
    session = one.epoch.decryptors[one.epoch.members[3]]
    member_refuses(session, quorum, R.WRONG_PHASE)  # before it saw the sum
    (asked,) = session.receive(held[one.epoch.members[3]])
    assert isinstance(asked, SignWanted)
    member_refuses(session, quorum, R.WRONG_PHASE)  # before its caller consented
    session.sign(ROUND_ID)
    assert len(one.answers(one.epoch.members[3], quorum)) == 1


def test_a_member_that_complained_about_an_upload_does_not_open_a_sum_with_it() -> None:
    one = Round(4, 4)
    bad = lying_upload(one, 3, Lies(shares=lambda shares: shares_changed(shares, 0)))
    one.start(range(3))
    one.carry(one.server.receive(one.signers[3].identity, bad))
    standing_at(one, "SumProposal")
    session = one.epoch.decryptors[one.epoch.members[0]]
    assert len(one.answers(one.epoch.members[0], proposal(one, taken(one)))) == 1  # it signs
    quorum = request(one, [signature(one, member, taken(one)) for member in range(3)])
    refused = member_refuses(session, quorum, R.NOT_INCLUDED)
    assert "was complained about" in refused.detail


def shares_changed(shares: Any, *members: int) -> Any:
    for member in members:
        shares[member, 0] ^= 1
    return shares


def test_a_passive_round_has_no_requests_and_no_sum_with_a_complaint() -> None:
    one = Round(4, 4, "passive")
    bad = lying_upload(one, 3, Lies(shares=lambda shares: shares_changed(shares, 0)))
    one.start(range(3))
    one.carry(one.server.receive(one.signers[3].identity, bad))
    held = standing_at(one, "SumProposal")
    session = one.epoch.decryptors[one.epoch.members[0]]
    member_refuses(session, proposal(one, taken(one)), R.NOT_INCLUDED)
    member_refuses(session, framed(ROUND_ID, OpenRequest(())), R.WRONG_PHASE)
    deliver(one, held)
    one.close()
    one.exact(range(3))


# --- messages out of order


def test_a_member_takes_nothing_of_a_round_that_it_does_not_know() -> None:
    one = Round(5, 4)
    one.start()
    one.carry(one.server.deal())
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    elsewhere = bytes(16)
    for frame in [*one.sent[member][1:], proposal(one, taken(one)), request(one, [])]:
        moved = framed(elsewhere, message_of(frame))
        member_refuses(session, moved, R.WRONG_ROUND)
    member_refuses(session, framed(elsewhere, message_of(one.sent[member][0])), R.WRONG_ROUND)
    member_refuses(session, one.upload(0), R.WRONG_PHASE)
    member_refuses(session, one.epoch.certificate, R.WRONG_PHASE)
    one.close()
    one.exact(range(5))


def test_after_the_opening_a_member_takes_and_says_nothing_new() -> None:
    one = Round(5, 4)
    one.play()
    session = one.epoch.decryptors[one.epoch.members[0]]
    fresh = framed(ROUND_ID, Dealings((dealing(one, lying_upload(one, 0, entropy="new"), 0),)))
    for frame in (fresh, framed(ROUND_ID, ReviewRequest())):
        member_refuses(session, frame, R.WRONG_PHASE)
    assert not session._rounds[ROUND_ID].taken


def test_whoever_signed_reviews_no_more() -> None:
    one = Round(5, 4)
    standing_at(one, "OpenRequest")
    for member in one.epoch.members:
        member_refuses(one.epoch.decryptors[member], framed(ROUND_ID, ReviewRequest()), R.WRONG_PHASE)


def test_a_decryptor_of_no_committee_answers_nothing_but_parameters() -> None:
    one = Round(5, 4)
    one.start()
    signer = one.epoch.signers[0]
    session = DecryptorSession(signer=signer, policy=one.epoch.policy, entropy=CounterEntropy("0"))
    frames = [*one.sent[signer.identity], proposal(one, taken(one)), request(one, [])]
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(one.committee.committee, one.committee.keys))
    for frame in [*frames, announcement, one.epoch.certificate]:
        member_refuses(session, frame, R.WRONG_PHASE)
    session.receive(framed(EPOCH_ID, committee_to_wire(one.epoch.parameters)))
    for frame in frames:
        member_refuses(session, frame, R.WRONG_PHASE)
    closed = one.epoch.decryptors[signer.identity]
    closed.close()
    for frame in [*frames, announcement]:
        member_refuses(closed, frame, R.WRONG_PHASE)


# --- the same again


def given(one: Round, session: Contributor, parameters: bytes | None = None) -> list[Any]:
    assert session.receive(one.epoch.certificate) == []
    return session.receive(bytes(one.server.parameters_frame) if parameters is None else parameters)


def test_the_same_vector_is_not_given_to_the_next_round() -> None:
    one = Round(5, 4)
    (refused,) = given(one, one.contributor(0, told={CONTEXT}))
    assert refused.reason is R.CONTEXT_REPEATED
    assert given(one, one.contributor(0, told={OTHER})) == [InputWanted(5, 16)]
    assert given(one, one.contributor(0, told={CONTEXT}, again=True)) == [InputWanted(5, 16)]


def test_a_client_uploads_once_under_a_round_id_whatever_its_caller_says_of_contexts() -> None:
    one = Round(5, 4)
    for again in (False, True):
        session = one.contributor(0, seen={ROUND_ID}, again=again)
        (refused,) = given(one, session)
        assert refused.reason is R.ROUND_REUSED
        with pytest.raises(LocalProtocolError):
            session.submit(one.vector(0))


def test_a_client_that_uploaded_takes_no_other_round() -> None:
    one = Round(5, 4)
    session = one.contributor(0)
    given(one, session)
    effects = session.submit(one.vector(0))
    assert effects[0] == RosterAccepted(ROUND_ID)
    restored, _ = Contributor.restore(session.snapshot(), signer=one.signers[0], policy=one.epoch.policy)
    other = replace(one.parameters, round_id=bytes(16))
    for client in (session, restored):
        client.receive(one.epoch.certificate)
        for parameters in (one.parameters, other):
            frame = framed(parameters.round_id, oneshot_to_wire(parameters))
            (refused,) = client.receive(frame)
            assert isinstance(refused, Refused)
            assert refused.reason in {R.WRONG_PHASE, R.WEAK_PARAMETERS}
        with pytest.raises(LocalProtocolError):
            client.submit(one.vector(0))


@pytest.mark.parametrize("rounds", ["one round, two sessions", "two rounds at once"])
def test_of_two_sessions_of_a_client_only_one_gives_a_vector_for_a_context(rounds: str) -> None:
    one = Round(5, 4)
    seen: set[bytes] = set()
    told: set[bytes] = set()
    first, second = (one.contributor(0, seen=seen, told=told) for _ in range(2))
    other = one.parameters if rounds.startswith("one") else replace(one.parameters, round_id=bytes(16))
    given(one, first)
    given(one, second, framed(other.round_id, oneshot_to_wire(other)))
    first.submit(one.vector(0))
    seen.add(ROUND_ID)
    told.add(CONTEXT)
    with pytest.raises(LocalProtocolError):
        second.submit(one.vector(0))


def test_a_member_takes_no_round_and_no_committee_a_second_time() -> None:
    one = Round(5, 4)
    signer = one.epoch.signers[0]
    entropy = CounterEntropy("again")
    session = DecryptorSession(
        signer=signer, policy=one.epoch.policy, entropy=entropy, epochs={EPOCH_ID}, rounds={ROUND_ID}
    )
    member_refuses(session, framed(EPOCH_ID, committee_to_wire(one.epoch.parameters)), R.ROUND_REUSED)
    assert entropy.drawn == 0
    member = one.epoch.decryptors[signer.identity]
    member._seen = {ROUND_ID}
    member_refuses(member, bytes(one.server.parameters_frame), R.ROUND_REUSED)


def test_a_committee_that_another_session_accepted_meanwhile_is_refused() -> None:
    one = Round(5, 4)
    signer, epochs = one.epoch.signers[0], set[bytes]()
    session = DecryptorSession(
        signer=signer, policy=one.epoch.policy, entropy=CounterEntropy("round/0"), epochs=epochs
    )
    session.receive(framed(EPOCH_ID, committee_to_wire(one.epoch.parameters)))
    epochs.add(EPOCH_ID)
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(one.committee.committee, one.committee.keys))
    member_refuses(session, announcement, R.ROUND_REUSED)


# --- other parameters for some


def test_a_member_takes_one_set_of_parameters_under_a_round_id() -> None:
    one = Round(5, 4)
    one.start()
    session = one.epoch.decryptors[one.epoch.members[0]]
    for change in (
        {"minimum_survivors": 3},
        {"contexts": (OTHER,)},
        {"vector_length": 6},
        {"maximum_uploads": 6},
        {"committee_digest": bytes(32)},
    ):
        other = replace(one.parameters, **change)
        member_refuses(session, framed(ROUND_ID, oneshot_to_wire(other)), R.EQUIVOCATION)
    assert session.receive(bytes(one.server.parameters_frame)) == []
    moved = framed(bytes(16), oneshot_to_wire(one.parameters))
    member_refuses(session, moved, R.WRONG_ROUND)
    foreign = replace(one.parameters, round_id=bytes(16), committee_digest=bytes(32))
    member_refuses(session, framed(bytes(16), oneshot_to_wire(foreign)), R.WEAK_PARAMETERS)
    one.close()
    one.exact(range(5))


def test_a_client_takes_one_set_of_parameters_and_only_of_a_committee_that_it_checked() -> None:
    one = Round(5, 4)
    session = one.contributor(0)
    parameters = bytes(one.server.parameters_frame)
    (refused,) = session.receive(parameters)
    assert isinstance(refused, Refused)
    assert refused.reason is R.WEAK_PARAMETERS
    assert given(one, session) == [InputWanted(5, 16)]
    for change, reason in (
        ({"minimum_survivors": 3}, R.EQUIVOCATION),
        ({"contexts": (OTHER,)}, R.EQUIVOCATION),
        ({"committee_digest": bytes(32)}, R.EQUIVOCATION),
    ):
        other = replace(one.parameters, **change)
        (refused,) = session.receive(framed(ROUND_ID, oneshot_to_wire(other)))
        assert isinstance(refused, Refused)
        assert refused.reason is reason
    (refused,) = session.receive(framed(bytes(16), oneshot_to_wire(one.parameters)))
    assert isinstance(refused, Refused)
    assert refused.reason is R.WRONG_ROUND
    (refused,) = one.contributor(1, context=OTHER).receive(one.epoch.certificate) or given(
        one, one.contributor(1, context=OTHER)
    )
    assert isinstance(refused, Refused)
    assert refused.reason is R.CONTEXT_MISMATCH
    assert session.receive(parameters) == [InputWanted(5, 16)]
    effects = session.submit(one.vector(0))
    assert bytes(effects[1].frame) == one.upload(0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [{"minimum_survivors": 3}, {"colluding": 1}, {"contexts": (OTHER, CONTEXT)}, {"maximum_uploads": 6}],
)
def test_uploads_for_other_parameters_are_in_no_sum(change: dict[str, Any]) -> None:
    one = Round(5, 4)
    if "contexts" in change:
        change = {"contexts": tuple(sorted(change["contexts"]))}
    shown = replace(one.parameters, **change)
    one.start(range(3))
    for client in (3, 4):
        session = one.contributor(client)
        given(one, session, framed(ROUND_ID, oneshot_to_wire(shown)))
        sent = session.submit(one.vector(client))[1]
        assert isinstance(sent, Send)
        frame = bytes(sent.frame)
        one.carry(one.server.receive(one.signers[client].identity, frame))
        lied = replace_view(one, OneShotView.build(shown, one.committee), frame)
        for index, member in enumerate(one.epoch.members):
            deal = framed(ROUND_ID, Dealings((lied[index],)))
            member_refuses(one.epoch.decryptors[member], deal, R.BAD_SIGNATURE)
    assert set(reasons(one.refused)) == {R.BAD_SIGNATURE}
    one.close()
    one.exact(range(3))


def replace_view(one: Round, view: OneShotView, frame: bytes) -> list[Dealing]:
    """Dealings of an upload that is right in another view."""
    right, one.view = one.view, view
    dealings = [dealing(one, frame, member) for member in range(len(one.epoch.members))]
    one.view = right
    return dealings


# --- dealings


FIELDS: dict[str, tuple[Callable[[Dealing], Dealing], RefusalReason]] = {
    "identity": (lambda d: replace(d, identity=flipped(d.identity)), R.BAD_SIGNATURE),
    "context": (lambda d: replace(d, context=OTHER), R.BAD_SIGNATURE),
    "a context of no round": (lambda d: replace(d, context=bytes(32)), R.MALFORMED),
    "packed_digest": (lambda d: replace(d, packed_digest=flipped(d.packed_digest)), R.BAD_SIGNATURE),
    "ephemeral_key": (lambda d: replace(d, ephemeral_key=flipped(d.ephemeral_key)), R.BAD_SIGNATURE),
    "ephemeral_key 0": (lambda d: replace(d, ephemeral_key=bytes(32)), R.MALFORMED),
    "tests": (lambda d: replace(d, tests=flipped(bytes(d.tests))), R.BAD_SIGNATURE),
    "tests out of range": (lambda d: replace(d, tests=b"\xff" * len(d.tests)), R.MALFORMED),
    "signature": (lambda d: replace(d, signature=flipped(d.signature)), R.BAD_SIGNATURE),
    "sealed": (lambda d: replace(d, sealed=flipped(bytes(d.sealed))), R.BAD_SIGNATURE),
    "leaf": (lambda d: replace(d, path=flipped(bytes(d.path))), R.BAD_SIGNATURE),
    "path": (lambda d: replace(d, path=bytes(d.path)[:32] + flipped(bytes(d.path)[32:])), R.BAD_SIGNATURE),
    "sealed_path": (lambda d: replace(d, sealed_path=flipped(bytes(d.sealed_path))), R.BAD_SIGNATURE),
    "tests short": (lambda d: replace(d, tests=bytes(d.tests)[:-1]), R.MALFORMED),
    "sealed long": (lambda d: replace(d, sealed=bytes(d.sealed) + b"0"), R.MALFORMED),
    "sealed none": (lambda d: replace(d, sealed=b""), R.MALFORMED),
    "path short": (lambda d: replace(d, path=bytes(d.path)[:-32]), R.MALFORMED),
    "path none": (lambda d: replace(d, path=b""), R.MALFORMED),
    "path long": (lambda d: replace(d, path=bytes(d.path) + bytes(32)), R.MALFORMED),
    "sealed_path long": (lambda d: replace(d, sealed_path=bytes(d.sealed_path) + bytes(32)), R.MALFORMED),
    "sealed_path none": (lambda d: replace(d, sealed_path=b""), R.MALFORMED),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_dealing_changed_in_any_field_counts_as_not_sent(name: str) -> None:
    one = Round(5, 4, contexts=(CONTEXT, OTHER))
    change, reason = FIELDS[name]
    one.carry(one.server.start())
    right = dealing(one, one.upload(0), 2)
    session = one.epoch.decryptors[one.epoch.members[2]]
    member_refuses(session, framed(ROUND_ID, Dealings((change(right),))), reason)
    assert session.receive(framed(ROUND_ID, Dealings((right,)))) == []
    assert [one.reason for one in session._rounds[ROUND_ID].taken.values()] == [0]


def test_a_wrong_dealing_costs_the_others_in_its_frame_nothing() -> None:
    one = Round(5, 4)
    one.carry(one.server.start())
    dealings = [dealing(one, one.upload(client), 1) for client in range(5)]
    dealings[2] = replace(dealings[2], signature=bytes(64))
    session = one.epoch.decryptors[one.epoch.members[1]]
    (refused,) = session.receive(framed(ROUND_ID, Dealings(tuple(dealings))))
    assert isinstance(refused, Refused)
    assert len(session._rounds[ROUND_ID].taken) == 4
    assert session.receive(framed(ROUND_ID, Dealings(tuple(dealings[:2])))) == []
    assert len(session._rounds[ROUND_ID].taken) == 4


def test_a_dealing_for_another_member_is_refused() -> None:
    for members in (4, 5):  # 5: the trees are padded
        one = Round(4, members)
        one.carry(one.server.start())
        for index, member in enumerate(one.epoch.members):
            for other in set(range(members)) - {index}:
                frame = framed(ROUND_ID, Dealings((dealing(one, one.upload(0), other),)))
                member_refuses(one.epoch.decryptors[member], frame, R.BAD_SIGNATURE)


def test_a_dealing_of_another_round_or_epoch_is_refused() -> None:
    one, epoch = Round(4, 4), Round(4, 4, epoch_changes={"epoch_id": bytes(16)})
    later = Round(4, 4, changes={"round_id": bytes(16)})
    assert later.committee.committee_digest == one.committee.committee_digest
    one.carry(one.server.start())
    for other in (epoch, later):
        for index, member in enumerate(one.epoch.members):
            deal = framed(ROUND_ID, Dealings((dealing(other, other.upload(0), index),)))
            member_refuses(one.epoch.decryptors[member], deal, R.BAD_SIGNATURE)


def test_withheld_dealings_are_noticed_by_the_proposal() -> None:
    one = Round(5, 4)
    deaf = one.epoch.members[1]
    withheld = one.signers[3].identity

    def change(member: Identity, frame: bytes) -> list[bytes]:
        message = message_of(frame)
        if member != deaf or not isinstance(message, Dealings):
            return [frame]
        return [framed(ROUND_ID, Dealings(tuple(d for d in message.dealings if d.identity != withheld)))]

    one.change = change
    one.play()
    one.exact(range(5))  # three of four are a quorum
    assert R.NOT_INCLUDED in reasons(one.refused)  # its review is not of what was sent
    session = one.epoch.decryptors[deaf]
    member_refuses(session, proposal(one, taken(one)), R.NOT_INCLUDED)


@pytest.mark.parametrize("known", [True, False])
def test_a_dealing_that_comes_again_changes_nothing(known: bool) -> None:
    one = Round(5, 4)
    if not known:
        strangers_are_unknown_to(one, range(4), 0)
    one.start()
    one.carry(one.server.deal())
    for index, member in enumerate(one.epoch.members):
        session = one.epoch.decryptors[member]
        before = state_of(session)
        assert session.receive(framed(ROUND_ID, Dealings((dealing(one, one.upload(0), index),)))) == []
        assert state_of(session) == before


# --- committees


def candidates(members: int = 4, size: int = 256, **changes: Any) -> tuple[Any, ...]:
    """Sessions that sent their keys, their keys, the parameters and the committee that is right."""
    signers = keys("candidates", members)
    model = ThreatModel(dropout=0.0)
    given = {"committee_size": size, "minimum_committee": 3, "threat_model": model, "minimum_candidates": 4}
    parameters = committee_parameters_of(members, **{**given, **changes})
    policy = policy_of(signers, [])
    sessions, sent = [], []
    for i, signer in enumerate(signers):
        session = DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy(f"candidate/{i}"))
        (effect,) = session.receive(framed(EPOCH_ID, committee_to_wire(parameters)))
        assert isinstance(effect, Send)
        sessions.append(session)
        sent.append(message_of(bytes(effect.frame)))
    return signers, sessions, sent, parameters, CommitteeView.form(parameters, sent)


def resigned(parameters: CommitteeParameters, signer: IdentityKey, key: CommitteeKey) -> CommitteeKey:
    """A candidate's keys with its signature."""
    return replace(key, signature=signer.sign(key_text(committee_parameters_digest(parameters), key)))


Announced = tuple[Any, tuple[CommitteeKey, ...]]


def other_members(view: CommitteeView, sent: list[CommitteeKey]) -> Announced:
    index = [i for i, key in enumerate(sent) if key.identity in view.index]
    spare = next(i for i in range(len(sent)) if i not in index)
    chosen = sorted([*index[1:], spare])
    committee = replace(view.committee, members=to_bitmap(chosen, len(sent)))
    return committee, tuple(sent[i] for i in chosen)


def with_numbers(threshold: int, packing: int) -> Callable[[CommitteeView, list[CommitteeKey]], Announced]:
    def change(view: CommitteeView, _: list[CommitteeKey]) -> Announced:
        committee = replace(
            view.committee,
            privacy_threshold=view.committee.privacy_threshold + threshold,
            packing=view.committee.packing + packing,
        )
        return committee, view.keys

    return change


def with_keys(
    change: Callable[[tuple[CommitteeKey, ...]], tuple[CommitteeKey, ...]], *, digests: bool = False
) -> Callable[[CommitteeView, list[CommitteeKey]], Announced]:
    """Change the members' keys; digests: the candidates' digests with them."""

    def changed(view: CommitteeView, _: list[CommitteeKey]) -> Announced:
        others = change(view.keys)
        found = {key.identity: candidate_of(key) for key in others}
        listed = tuple(found.get(one.identity, one) for one in view.committee.candidates)
        return replace(view.committee, candidates=listed) if digests else view.committee, others

    return changed


def swap_agreement(keys: tuple[CommitteeKey, ...]) -> tuple[CommitteeKey, ...]:
    first, second, *rest = keys
    return (
        replace(first, agreement_key=second.agreement_key),
        replace(second, agreement_key=first.agreement_key),
        *rest,
    )


def a_right_one_of_three(view: CommitteeView, sent: list[CommitteeKey]) -> Announced:
    fewer = CommitteeView.form(view.parameters, sent[:3])
    return fewer.committee, fewer.keys


COMMITTEES: dict[str, tuple[int, Callable[[CommitteeView, list[CommitteeKey]], Announced], RefusalReason]] = {
    "fewer than minimum_candidates": (256, a_right_one_of_three, R.WEAK_PARAMETERS),
    "threshold lower": (256, with_numbers(-1, 0), R.WEAK_PARAMETERS),
    "threshold higher": (256, with_numbers(1, 0), R.WEAK_PARAMETERS),
    "packing higher": (256, with_numbers(0, 1), R.WEAK_PARAMETERS),
    "both moved": (256, with_numbers(-1, 1), R.WEAK_PARAMETERS),
    "members chosen": (4, other_members, R.WEAK_PARAMETERS),
    "bitmap longer": (
        256,
        lambda view, _: (
            replace(view.committee, members=bytes(view.committee.members) + b"\0"),
            view.keys,
        ),
        R.WEAK_PARAMETERS,
    ),
    "bitmap with spare bits": (
        256,
        lambda view, _: (replace(view.committee, members=b"\xff"), view.keys),
        R.WEAK_PARAMETERS,
    ),
    "no members": (256, lambda view, _: (replace(view.committee, members=b""), ()), R.WEAK_PARAMETERS),
    "a member's keys missing": (256, with_keys(lambda keys: keys[1:]), R.MALFORMED),
    "a member's keys twice": (256, with_keys(lambda keys: (keys[0], *keys)), R.MALFORMED),
    "keys swapped": (256, with_keys(swap_agreement), R.MALFORMED),
    "keys swapped with their digests": (256, with_keys(swap_agreement, digests=True), R.BAD_SIGNATURE),
    "a key of small order": (
        256,
        with_keys(lambda keys: (replace(keys[0], agreement_key=bytes(32)), *keys[1:]), digests=True),
        R.BAD_SIGNATURE,
    ),
    "a KEM key that nobody asked for": (
        256,
        with_keys(lambda keys: (replace(keys[0], kem_key=bytes(1184)), *keys[1:]), digests=True),
        R.WRONG_LENGTH,
    ),
    "a signature of nothing": (
        256,
        with_keys(lambda keys: (replace(keys[0], signature=bytes(64)), *keys[1:])),
        R.BAD_SIGNATURE,
    ),
}


@pytest.mark.parametrize("name", COMMITTEES)
def test_a_committee_formed_against_the_rules_is_refused_by_members_and_clients(name: str) -> None:
    size, change, reason = COMMITTEES[name]
    signers, sessions, sent, parameters, view = candidates(6, size)
    committee, keys_ = change(view, sent)
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(committee, keys_))
    for session in sessions:
        member_refuses(session, announcement, reason)
    wire = committee_to_wire(parameters)
    signatures = tuple(Acceptance(i, bytes(64)) for i in range(view.numbers.quorum))
    message = replace(
        message_of(certificate(epoch_of_view(view, signers), view, ())),
        committee=committee,
        keys=keys_,
        parameters=wire,
        acceptances=signatures,
    )
    assert isinstance(message.parameters, type(wire))
    client = Contributor(
        signer=signers[0], context=CONTEXT, policy=policy_of(signers, []), entropy=CounterEntropy("")
    )
    (refused,) = client.receive(framed(EPOCH_ID, message))
    assert isinstance(refused, Refused)
    assert refused.reason is reason
    assert not client._committees
    right = framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys))
    for session in sessions:
        assert isinstance(session.receive(right)[0], CommitteeAccepted)


def epoch_of_view(view: CommitteeView, signers: tuple[IdentityKey, ...]) -> Epoch:
    return Epoch(view.parameters, signers, policy_of(signers, []), {}, b"", view)


def test_a_candidate_notices_that_it_was_left_out_or_given_other_keys() -> None:
    signers, sessions, sent, parameters, _ = candidates(5)
    left = CommitteeView.form(parameters, sent[1:])
    member_refuses(
        sessions[0], framed(EPOCH_ID, CommitteeAnnouncement(left.committee, left.keys)), R.NOT_INCLUDED
    )
    earlier = resigned(parameters, signers[0], replace(sent[0], agreement_key=sent[1].agreement_key))
    other = CommitteeView.form(parameters, [earlier, *sent[1:]])
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(other.committee, other.keys))
    member_refuses(sessions[0], announcement, R.NOT_INCLUDED)
    assert isinstance(sessions[1].receive(announcement)[0], CommitteeAccepted)  # it cannot know


def test_a_candidate_that_may_be_no_decryptor_is_refused() -> None:
    signers, sessions, sent, parameters, view = candidates(5)
    policy = policy_of(signers[1:], [])
    sessions[1]._policy = policy
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys))
    member_refuses(sessions[1], announcement, R.UNKNOWN_IDENTITY)
    client = Contributor(signer=signers[0], context=CONTEXT, policy=policy, entropy=CounterEntropy(""))
    epoch = epoch_of_view(view, signers)
    signatures = [acceptance(epoch, view, i) for i in range(view.numbers.quorum)]
    (refused,) = client.receive(certificate(epoch, view, signatures))
    assert isinstance(refused, Refused)
    assert refused.reason is R.UNKNOWN_IDENTITY
    assert isinstance(sessions[2].receive(announcement)[0], CommitteeAccepted)
    assert parameters.minimum_candidates == 4
    assert len(sent) == 5


def test_candidates_that_are_no_members_wipe_their_secrets() -> None:
    _, sessions, _, _, view = candidates(6, 4)
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys))
    for session in sessions:
        secrets = session._phase.secrets
        (accepted, *_) = session.receive(announcement)
        member = session._signer.identity in view.index
        assert accepted == CommitteeAccepted(EPOCH_ID, member=member)
        assert any(secrets.agreement) is member
        assert session.over is not member


def test_other_committee_parameters_of_one_epoch_id_get_no_keys() -> None:
    _, sessions, sent, parameters, _ = candidates(4)
    for change in ({"minimum_committee": 4}, {"committee_size": 8}):
        other = framed(EPOCH_ID, committee_to_wire(replace(parameters, **change)))
        member_refuses(sessions[0], other, R.EQUIVOCATION)
    elsewhere = replace(parameters, epoch_id=bytes(16))
    member_refuses(sessions[0], framed(bytes(16), committee_to_wire(elsewhere)), R.EQUIVOCATION)
    member_refuses(sessions[0], framed(EPOCH_ID, committee_to_wire(elsewhere)), R.EQUIVOCATION)
    (again,) = sessions[0].receive(framed(EPOCH_ID, committee_to_wire(parameters)))
    assert message_of(bytes(again.frame)) == sent[0]


def test_a_member_accepts_one_committee_of_an_epoch_id() -> None:
    _, sessions, sent, parameters, view = candidates(5)
    first = framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys))
    smaller = CommitteeView.form(parameters, sent[:4])
    second = framed(EPOCH_ID, CommitteeAnnouncement(smaller.committee, smaller.keys))
    before = sessions[0].receive(first)
    member_refuses(sessions[0], second, R.EQUIVOCATION)
    assert sessions[0].receive(first) == before


def test_two_committees_of_one_epoch_id_are_harmless() -> None:
    """Their members are others; each takes part in its own, and opens no upload for the other."""
    clients = keys("round/clients", 5)
    rounds = [Round(5, 4), with_epoch(Round(5, 4), form(4, clients, seed="other"))]
    assert rounds[0].epoch.parameters == rounds[1].epoch.parameters
    digests = {one.committee.committee_digest for one in rounds}
    assert len(digests) == 2
    both = policy_of([*rounds[0].epoch.signers, *rounds[1].epoch.signers], clients)
    for one, other in (rounds, rounds[::-1]):
        client = Contributor(
            signer=one.signers[0], context=CONTEXT, policy=both, entropy=CounterEntropy("both")
        )
        for epoch in (one.epoch, other.epoch):
            assert client.receive(epoch.certificate) == []
        assert client.receive(bytes(one.server.parameters_frame)) == [InputWanted(5, 16)]
        (refused,) = client.receive(bytes(other.server.parameters_frame))
        assert isinstance(refused, Refused)
        assert refused.reason is R.EQUIVOCATION
    first, second = rounds
    first.start()
    for member in second.epoch.members:
        session = second.epoch.decryptors[member]
        member_refuses(session, bytes(first.server.parameters_frame), R.WEAK_PARAMETERS)
    second.carry(second.server.start())
    moved = [dealing(first, first.upload(0), index) for index in range(4)]
    for index, member in enumerate(second.epoch.members):
        frame = framed(ROUND_ID, Dealings((moved[index],)))
        member_refuses(second.epoch.decryptors[member], frame, R.BAD_SIGNATURE)
    first.close()
    first.exact(range(5))


# --- certificates


def test_only_a_certificate_with_exactly_a_quorum_of_right_acceptances_counts() -> None:
    one = Round(5, 8)
    view, epoch = one.committee, one.epoch
    quorum = view.numbers.quorum
    right = [acceptance(epoch, view, member) for member in range(8)]
    wrong: dict[str, tuple[list[Acceptance], RefusalReason]] = {
        "one short": (right[: quorum - 1], R.NO_QUORUM),
        "one too many": (right[: quorum + 1], R.NO_QUORUM),
        "none": ([], R.NO_QUORUM),
        "one twice": ([right[0], *right[: quorum - 1]], R.MALFORMED),
        "another's": ([acceptance(epoch, view, 0, by=1), *right[1:quorum]], R.BAD_SIGNATURE),
        "of nothing": ([Acceptance(0, bytes(64)), *right[1:quorum]], R.BAD_SIGNATURE),
        "no member's": ([*right[: quorum - 1], Acceptance(8, right[7].signature)], R.NO_QUORUM),
    }
    for acceptances, reason in wrong.values():
        client = one.contributor(0)
        (refused,) = client.receive(certificate(epoch, view, acceptances))
        assert isinstance(refused, Refused)
        assert refused.reason is reason
        assert not client._committees
    client = one.contributor(0)
    assert client.receive(certificate(epoch, view, right[-quorum:])) == []
    moved = framed(bytes(16), message_of(epoch.certificate))
    (refused,) = one.contributor(0).receive(moved)
    assert isinstance(refused, Refused)
    assert refused.reason is R.WRONG_ROUND


def test_acceptances_of_another_committee_certify_nothing() -> None:
    one, other = Round(5, 4), Round(5, 4, epoch_changes={"epoch_id": bytes(16)})
    signatures = [acceptance(other.epoch, other.committee, member) for member in range(3)]
    (refused,) = one.contributor(0).receive(certificate(one.epoch, one.committee, signatures))
    assert isinstance(refused, Refused)
    assert refused.reason is R.BAD_SIGNATURE


def test_a_passive_certificate_has_no_acceptances_and_no_active_client_takes_it() -> None:
    one = Round(4, 4, "passive")
    signed = certificate(one.epoch, one.committee, [acceptance(one.epoch, one.committee, 0)])
    (refused,) = one.contributor(0).receive(signed)
    assert isinstance(refused, Refused)
    assert refused.reason is R.NO_QUORUM
    active = Contributor(
        signer=one.signers[0],
        context=CONTEXT,
        policy=replace(one.epoch.policy, adversary="active"),
        entropy=CounterEntropy(""),
    )
    (refused,) = active.receive(one.epoch.certificate)
    assert isinstance(refused, Refused)
    assert refused.breaches == (Breach("adversary", "active", "passive"),)


# --- policies


DEMANDS: list[tuple[dict[str, Any], Breach]] = [
    ({"minimum_candidates": 5}, Breach("minimum_candidates", 5, 4)),
    ({"minimum_committee": 4}, Breach("minimum_committee", 4, 3)),
    ({"minimum_corrupt": 0.2}, Breach("corrupt_ppm", 200_000, 100_000)),
    ({"minimum_security_bits": 41}, Breach("security_bits", 41, 40)),
    ({"minimum_grinding_bits": 41}, Breach("grinding_bits", 41, 40)),
    ({"require_post_quantum": True}, Breach("post_quantum", "set", "not")),
]


def strict(one: Round, **demands: Any) -> OneShotPolicy:
    if "minimum_committee" in demands:
        demands = {"minimum_candidates": 4, **demands}
    return replace(one.epoch.policy, **demands)


@pytest.mark.parametrize(("demand", "breach"), DEMANDS)
def test_a_committee_against_the_policy_gets_no_keys_and_no_uploads(
    demand: dict[str, Any], breach: Breach
) -> None:
    one = Round(4, 4)
    policy = strict(one, **demand)
    client = Contributor(signer=one.signers[0], context=CONTEXT, policy=policy, entropy=CounterEntropy(""))
    (refused,) = client.receive(one.epoch.certificate)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.breaches) == (R.POLICY, (breach,))
    assert not client._committees
    entropy = CounterEntropy("")
    session = DecryptorSession(signer=one.epoch.signers[0], policy=policy, entropy=entropy)
    frame = framed(EPOCH_ID, committee_to_wire(one.epoch.parameters))
    assert member_refuses(session, frame, R.POLICY).breaches == (breach,)
    assert entropy.drawn == 0


ROUND_DEMANDS: list[tuple[dict[str, Any], Breach]] = [
    ({"minimum_survivors": 3}, Breach("minimum_survivors", 3, 2)),
    ({"minimum_per_context": 3}, Breach("minimum_per_context", 3, 2)),
    ({"minimum_colluding": 1}, Breach("colluding", 1, 0)),
    ({"maximum_vector_length": 3}, Breach("vector_length", 3, 4)),
    ({"maximum_ring_bits": 15}, Breach("ring_bits", 15, 16)),
    ({"maximum_uploads": 3}, Breach("maximum_uploads", 3, 4)),
]


@pytest.mark.parametrize(("demand", "breach"), ROUND_DEMANDS)
def test_a_round_against_the_policy_is_refused(demand: dict[str, Any], breach: Breach) -> None:
    one = Round(4, 4)
    policy = strict(one, **demand)
    client = Contributor(signer=one.signers[0], context=CONTEXT, policy=policy, entropy=CounterEntropy(""))
    (refused,) = given(one, client)
    assert (refused.reason, refused.breaches) == (R.POLICY, (breach,))
    with pytest.raises(LocalProtocolError):
        client.submit(one.vector(0))
    session = one.epoch.decryptors[one.epoch.members[0]]
    session._policy = policy
    frame = bytes(one.server.parameters_frame)
    assert member_refuses(session, frame, R.POLICY).breaches == (breach,)
    assert session.rounds == frozenset()


def test_all_breaches_are_named_at_once() -> None:
    one = Round(4, 4)
    policy = replace(one.epoch.policy, minimum_survivors=3, minimum_colluding=1, maximum_ring_bits=15)
    client = Contributor(signer=one.signers[0], context=CONTEXT, policy=policy, entropy=CounterEntropy(""))
    (refused,) = given(one, client)
    assert [breach.field for breach in refused.breaches] == ["minimum_survivors", "colluding", "ring_bits"]


@pytest.mark.parametrize(
    "change",
    [
        {"vector_length": 0},
        {"vector_length": 2**27 + 1},
        {"ring_bits": 41},
        {"ring_bits": 0},
        {"contexts": ()},
        {"maximum_uploads": 1},
        {"maximum_uploads": 2**20 + 1},
        {"maximum_uploads": 2**20, "ring_bits": 30},
        {"minimum_survivors": 1},
        {"minimum_per_context": 0},
        {"minimum_per_context": 7},
        {"colluding": 6},
    ],
)
def test_parameters_out_of_range_are_malformed(change: dict[str, Any]) -> None:
    one = Round(4, 4)
    message = replace(oneshot_to_wire(one.parameters), **change)
    with pytest.raises(ParameterError):
        OneShotParameters(**{**as_arguments(one.parameters), **change, "minimum_per_context": 9})
    frame = framed(ROUND_ID, message)
    (refused,) = given(one, one.contributor(0), frame)
    assert refused.reason is R.MALFORMED
    member_refuses(one.epoch.decryptors[one.epoch.members[0]], frame, R.MALFORMED)


def as_arguments(parameters: OneShotParameters) -> dict[str, Any]:
    return {name: getattr(parameters, name) for name in OneShotParameters.__slots__}


@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_version_is_not_guessed_at(version: int) -> None:
    one = Round(4, 4)
    message = replace(oneshot_to_wire(one.parameters), version=version)
    (refused,) = given(one, one.contributor(0), framed(ROUND_ID, message))
    assert refused.reason is R.UNSUPPORTED_VERSION
    member = one.epoch.decryptors[one.epoch.members[0]]
    member_refuses(member, framed(ROUND_ID, message), R.UNSUPPORTED_VERSION)


# --- findings


def test_consent_is_to_the_sum_that_the_caller_was_asked_about() -> None:
    one = Round(5, 4)
    held = standing_at(one, "SumProposal")
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    session.receive(held[member])
    member_refuses(session, proposal(one, taken(one)[:2]), R.EQUIVOCATION)  # the caller still thinks
    assert session.receive(held[member]) == []
    (sent,) = session.sign(ROUND_ID)
    assert isinstance(sent, Send)
    assert message_of(bytes(sent.frame)) == signature(one, 0, taken(one))


def test_a_closed_round_is_over() -> None:
    one = Round(5, 4)
    held = standing_at(one, "SumProposal")
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    session.receive(held[member])
    session.close_round(ROUND_ID)  # the caller does not consent
    frames = [frame for frame in one.sent[member] if isinstance(message_of(frame), Dealings)]
    for frame in [*frames, held[member]]:
        (refused,) = session.receive(frame)
        assert isinstance(refused, Refused)


def test_a_closed_round_opens_nothing() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    session.close_round(ROUND_ID)
    member_refuses(session, held[member], R.WRONG_PHASE)


def test_the_committee_again_under_another_epoch_id_is_refused() -> None:
    _, sessions, _, _, view = candidates(5)
    announcement = CommitteeAnnouncement(view.committee, view.keys)
    member_refuses(sessions[0], framed(bytes(16), announcement), R.WRONG_ROUND)  # so it does as a candidate
    sessions[0].receive(framed(EPOCH_ID, announcement))
    member_refuses(sessions[0], framed(bytes(16), announcement), R.WRONG_ROUND)


def test_a_committee_does_not_lie_in_the_caller_s_buffer() -> None:
    _, sessions, _, _, view = candidates(5)
    frame = bytearray(framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys)))
    session = sessions[0]
    session.receive(memoryview(frame))
    frame[:] = bytes(len(frame))
    DecryptorSession.restore(
        session.snapshot(), signer=session._signer, policy=session._policy, releases=session.releases
    )


def test_an_upload_does_not_lie_in_the_caller_s_buffer() -> None:
    one = Round(6, 4, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 3})
    one.carry(one.server.start())
    for client in range(6):
        context = OTHER if client in {1, 2} else CONTEXT  # these are left out, and subtracted again
        frame = bytearray(one.upload(client, context=context))
        one.carry(one.server.receive(one.signers[client].identity, memoryview(frame)))
        frame[:] = bytes(len(frame))
    one.close()
    one.exact([0, 3, 4, 5])


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_signer_that_fails_changes_nothing(adversary: Any) -> None:
    one = Round(5, 4, adversary)
    held = standing_at(one, "SumProposal")
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    session.receive(held[member])
    before, signer = state_of(session), session._signer

    class Unplugged:
        identity = signer.identity

        def sign(self, text: bytes) -> bytes:
            raise OSError("not plugged in")

    session._signer = Unplugged()
    with pytest.raises(OSError, match="not plugged in"):
        session.sign(ROUND_ID)
    assert state_of(session) == before
    session._signer = signer
    assert isinstance(session.sign(ROUND_ID)[0], Send)


def test_a_leaf_of_a_box_that_was_changed_by_the_server_is_no_complaint() -> None:
    """A server cannot make a member complain about an honest client: all that opens is signed."""
    one = Round(5, 4)
    one.start()
    frame = one.upload(0)
    lied = changed(frame, lambda upload: replace(upload, sealed=flipped(bytes(upload.sealed))))
    session = one.epoch.decryptors[one.epoch.members[0]]
    right = dealing(one, frame, 0)
    box = at([0], flipped)([bytes(right.sealed)])[0]
    assert bytes(message_of(lied).sealed)[: len(box)] == box
    wrong = framed(ROUND_ID, Dealings((replace(right, sealed=box),)))
    member_refuses(session, wrong, R.BAD_SIGNATURE)


def test_frames_of_the_pairwise_protocol_are_another_version() -> None:
    one = Round(4, 4)
    frame = bytearray(one.server.parameters_frame.buffer())
    assert ONESHOT_FRAMES.version == frame[1] == 2
    frame[1] = 1
    (refused,) = one.contributor(0).receive(bytes(frame))
    assert isinstance(refused, Refused)
    assert refused.reason is R.UNSUPPORTED_VERSION
    member_refuses(one.epoch.decryptors[one.epoch.members[0]], bytes(frame), R.UNSUPPORTED_VERSION)
