"""A member's own rules: what it is asked, what it consented to, what it wipes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from secagg.effects import (
    Completed,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages.oneshot import Complaint, Dealings, SumProposal, committee_to_wire
from secagg.params import Adversary, Entropy, ThreatModel
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import DecryptorSession
from secagg.protocol.oneshot.phases import EpochSecrets, Member
from tests.attacks.oneshot.liar import dealing
from tests.protocol.network import CounterEntropy
from tests.protocol.oneshot.network import Round, changed, form, framed, message_of


def reviewed() -> tuple[Round, DecryptorSession]:
    """A round whose members have reviewed six uploads; the first member."""
    one = Round(6, 4)
    one.start()
    one.lost = dict.fromkeys(one.epoch.members, OneShotPhase.AGREE)
    one.close(until=OneShotPhase.AGREE)
    return one, one.epoch.decryptors[one.epoch.members[0]]


def proposal(one: Round, uploads: int) -> bytes:
    digests = one.server._chosen().uploads[:uploads]
    return framed(one.parameters.round_id, SumProposal(b"".join(digests)))


def test_the_caller_is_asked_about_a_sum_and_nothing_is_sent_before() -> None:
    one, member = reviewed()
    before = member.snapshot(), member.releases
    (wanted,) = member.receive(proposal(one, 6))
    everybody = frozenset(signer.identity for signer in one.signers)
    assert wanted == SignWanted(everybody, everybody, one.parameters.round_id)
    assert (member.snapshot(), member.releases) == before
    (sent,) = member.sign(one.parameters.round_id)
    assert isinstance(sent, Send)
    assert member.releases == before[1] + 1
    with pytest.raises(LocalProtocolError, match="takes one call after SignWanted"):
        member.sign(one.parameters.round_id)
    with pytest.raises(LocalProtocolError, match="takes one call after SignWanted"):
        member.sign(bytes(16))


def test_no_other_sum_takes_the_place_of_one_that_waits_for_consent() -> None:
    one, member = reviewed()
    first, second = proposal(one, 6), proposal(one, 4)
    (wanted,) = member.receive(first)
    assert isinstance(wanted, SignWanted)
    (refused,) = member.receive(second)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusalReason.EQUIVOCATION
    assert member.receive(first) == []
    (sent,) = member.sign(one.parameters.round_id)
    assert isinstance(sent, Send)
    assert member.receive(first) == [sent]
    (refused,) = member.receive(second)
    assert isinstance(refused, Refused)


def test_an_open_request_before_the_proposal_is_refused_after_a_restart() -> None:
    one = Round(5, 4)
    one.start()
    member = one.epoch.members[1]
    requests: list[bytes] = []

    def change(to: bytes, frame: bytes) -> list[bytes]:
        if to == member and type(message_of(frame)).__name__ == "OpenRequest":
            requests.append(frame)
            return []
        return [frame]

    one.change = change
    one.close(until=OneShotPhase.OPEN)
    session = one.epoch.decryptors[member]
    signer = next(s for s in one.epoch.signers if s.identity == member)
    again, _ = DecryptorSession.restore(
        session.snapshot(), signer=signer, policy=one.epoch.policy, releases=session.releases
    )
    one.epoch.decryptors[member] = again
    (refused,) = again.receive(requests[0])
    assert isinstance(refused, Refused)
    assert refused.reason is RefusalReason.WRONG_PHASE
    one.change = lambda _, frame: [frame]
    one.carry(one.server.resend(member))
    assert not one.server.progress.missing
    one.close()
    one.exact(range(5))


def test_a_round_that_is_closed_opens_nothing() -> None:
    one = Round(5, 4)
    one.start()
    one.close(until=OneShotPhase.AGREE)
    session = one.epoch.decryptors[one.epoch.members[0]]
    session.close_round(one.parameters.round_id)
    assert session.rounds == {one.parameters.round_id}  # it is taken no more
    one.close()
    one.exact(range(5))
    assert any("OpenRequest in a round that we closed" in refused.detail for refused in one.refused)


def test_what_is_wiped_is_gone() -> None:
    one = Round(5, 4, epoch_changes={"post_quantum": True})
    one.start()
    session = one.epoch.decryptors[one.epoch.members[0]]
    phase = session._phase
    assert isinstance(phase, Member)
    secrets, state = phase.secrets, session._rounds[one.parameters.round_id]
    one.carry(one.server.deal())
    shares = [dealing.share for dealing in state.taken.values()]
    assert all(share is not None and share.any() for share in shares)
    one.close()
    assert not state.taken
    assert all(share is not None and not share.any() for share in shares)
    assert any(secrets.agreement)
    session.close()
    assert session.over
    assert not any(secrets.agreement)
    assert not any(secrets.kem_seed)
    assert secrets.kem is None
    with pytest.raises(LocalProtocolError, match="there is no epoch to keep"):
        session.snapshot()
    (refused,) = session.receive(bytes(one.server.parameters_frame))
    assert isinstance(refused, Refused)


def test_candidates_that_are_no_members_forget_everything() -> None:
    model = ThreatModel(corrupt=0.01, dropout=0.0, grinding_bits=0, correctness_bits=1)
    epoch = form(
        40, committee_size=12, minimum_committee=12, threat_model=model, policy={"minimum_grinding_bits": 0}
    )
    assert len(epoch.members) == 12
    for identity, session in epoch.decryptors.items():
        assert session.over == (identity not in epoch.members)


def test_secrets_do_not_show_and_sessions_are_not_pickled() -> None:
    one, member = reviewed()
    assert repr(member) == "DecryptorSession(phase=Member, rounds=1)"
    phase = member._phase
    assert isinstance(phase, Member)
    assert bytes(phase.secrets.agreement).hex() not in repr(phase)
    assert repr(bytes(phase.secrets.agreement)) not in repr(phase)
    for secret in (member, one.contributor(0)):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(secret)


def test_an_epoch_is_accepted_in_order_and_kept_before_anything_follows() -> None:
    one = Round(3, 4)
    signer = one.epoch.signers[0]
    session = DecryptorSession(signer=signer, policy=one.epoch.policy, entropy=CounterEntropy("again"))
    (refused,) = session.receive(one.epoch.certificate)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusalReason.WRONG_PHASE
    member = one.epoch.decryptors[one.epoch.members[0]]
    effects = member.receive(bytes(one.server.parameters_frame))
    assert effects == [RosterAccepted(one.parameters.round_id)]
    assert member.receive(bytes(one.server.parameters_frame)) == []
    assert member.view is not None
    assert member.rounds == {one.parameters.round_id}


def test_a_complaint_without_a_reason_is_no_complaint() -> None:
    one = Round(4, 4)
    one.start()
    liar = one.epoch.members[0]

    def change(member: bytes, frame: bytes) -> list[bytes]:
        if member != liar or type(message_of(frame)).__name__ != "Review":
            return [frame]
        digest = next(iter(one.server._uploads.values())).digest
        return [changed(frame, lambda said: type(said)(said.count, said.digest, (Complaint(digest, 0),)))]

    one.change_answer = change
    one.close()
    one.exact(range(4))
    assert any("Complaint.reason" in refused.detail for refused in one.refused)


def test_who_opened_is_told_over_whom() -> None:
    one, member = reviewed()
    one.lost = {}
    one.carry(one.server._requests_again())
    requests = {effect.to: effect for effect in one.server.close_phase() if isinstance(effect, Send)}
    effects = member.receive(bytes(requests[one.epoch.members[0]].frame))
    assert Completed(None, frozenset(signer.identity for signer in one.signers)) in effects


def test_a_member_takes_no_more_dealings_than_there_may_be_uploads_twice() -> None:
    one = Round(12, 4, changes={"maximum_uploads": 5})
    one.carry(one.server.start())
    session = one.epoch.decryptors[one.epoch.members[0]]
    refused = []
    for client in range(12):
        frame = framed(one.parameters.round_id, Dealings((dealing(one, one.upload(client), 0),)))
        refused += session.receive(frame)
    assert [effect.reason for effect in refused if isinstance(effect, Refused)] == 2 * [
        RefusalReason.OUT_OF_RANGE
    ]


def test_where_there_is_no_kem_a_post_quantum_committee_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Round(4, 4, epoch_changes={"post_quantum": True})
    monkeypatch.setattr("secagg.primitives.kem.AVAILABLE", False)
    (refused,) = one.contributor(0).receive(one.epoch.certificate)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusalReason.POLICY
    assert "no ML-KEM-768 here" in refused.detail


def test_a_member_says_where_it_is_when_a_message_does_not_fit() -> None:
    one = Round(5, 4)
    parameters, member = bytes(one.server.parameters_frame), one.epoch.decryptors[one.epoch.members[0]]
    fresh = DecryptorSession(
        signer=one.epoch.signers[0], policy=one.epoch.policy, entropy=CounterEntropy("fresh")
    )
    member.close()
    for session, said in (
        (fresh, "no committee was accepted; a session goes on from its snapshot"),
        (member, "the epoch is closed"),
    ):
        (refused,) = session.receive(parameters)
        assert isinstance(refused, Refused)
        assert said in refused.detail


def test_whether_a_member_is_silent_is_seen_when_it_is_restored() -> None:
    one = Round(5, 4)
    one.start()
    session = one.epoch.decryptors[one.epoch.members[0]]
    for releases, silent in ((session.releases, False), (session.releases + 1, True), (None, True)):
        again, _ = DecryptorSession.restore(
            session.snapshot(), signer=one.epoch.signers[0], policy=one.epoch.policy, releases=releases
        )
        assert again.silent is silent
    assert not session.silent


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_closed_round_is_not_consented_to(adversary: Adversary) -> None:
    """Its caller had been asked when it gave the round up."""
    one = Round(5, 4, adversary)
    one.start()
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    one.change = lambda to, frame: [] if to == member and is_proposal(frame) else [frame]
    proposal: list[bytes] = []

    def is_proposal(frame: bytes) -> bool:
        found = isinstance(message_of(frame), SumProposal)
        proposal.extend([frame] * found)
        return found

    one.close(until=OneShotPhase.AGREE if adversary == "active" else OneShotPhase.OPEN)
    (wanted,) = session.receive(proposal[0])
    assert isinstance(wanted, SignWanted)
    releases = session.releases
    session.close_round(one.parameters.round_id)
    with pytest.raises(LocalProtocolError, match="takes one call after SignWanted"):
        session.sign(one.parameters.round_id)
    assert session.releases == releases


def fails(*_: object) -> bytes:
    raise OSError(5, "the device is gone")


def test_a_signer_or_entropy_that_fails_leaves_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    one, drawn = Round(5, 4, epoch_changes={"post_quantum": True}), list[EpochSecrets]()
    frame = framed(one.epoch.parameters.epoch_id, committee_to_wire(one.epoch.parameters))
    signer, policy = one.epoch.signers[0], one.epoch.policy
    draw = EpochSecrets.draw

    def watched(entropy: Entropy, *, post_quantum: bool) -> EpochSecrets:
        drawn.append(draw(entropy, post_quantum=post_quantum))
        return drawn[-1]

    monkeypatch.setattr(EpochSecrets, "draw", watched)
    monkeypatch.setattr(type(signer), "sign", fails)
    session = DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy("fails"))
    with pytest.raises(OSError, match="device"):
        session.receive(frame)
    assert not any(drawn[0].agreement)
    assert not any(drawn[0].kem_seed)
    given = [bytes(range(1, 33))]
    with pytest.raises(OSError, match="device"):
        draw(lambda size: given.pop() if given else fails(size), post_quantum=True)


def test_a_snapshot_of_another_or_against_the_policy_leaves_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    one, wiped = Round(5, 4), list[EpochSecrets]()
    data = one.epoch.decryptors[one.epoch.members[0]].snapshot()
    wipe = EpochSecrets.wipe

    def watched(secrets: EpochSecrets) -> None:
        wipe(secrets)
        wiped.append(secrets)

    monkeypatch.setattr(EpochSecrets, "wipe", watched)
    for signer, policy in (
        (one.epoch.signers[1], one.epoch.policy),
        (one.epoch.signers[0], replace(one.epoch.policy, decryptors=frozenset())),
    ):
        with pytest.raises(ParameterError):
            DecryptorSession.restore(data, signer=signer, policy=policy, releases=0)
    assert len(wiped) == 2
    assert not any(any(secrets.agreement) for secrets in wiped)
