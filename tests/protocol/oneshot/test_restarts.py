"""Every party may die between any two frames and go on from what it kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

import pytest

from secagg.effects import Effect, OneShotAggregate, RosterAccepted, Send
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import decode, encode
from secagg.messages.oneshot import committee_to_wire
from secagg.params import Identity
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import Contributor, DecryptorSession, EdgeServer, OneShotServer, server_snapshot
from secagg.protocol.oneshot.uploads import MemoryPacked
from secagg.protocol.snapshot import checked_body, with_digest
from tests.protocol.network import CounterEntropy
from tests.protocol.oneshot.network import Round, framed, message_of


class Restarting(Round):
    """A round whose server is made anew from its snapshot ahead of every frame and every close."""

    def again(self) -> None:
        if self.server.phase is None:
            return
        kept = self.server.snapshot()
        packed = self.server._packed
        progress = self.server.progress
        self.server, _ = OneShotServer.restore(kept, packed=packed)
        assert self.server.progress == progress

    def carry(self, effects: Iterable[Effect]) -> None:
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, Send) and effect.to in self.epoch.decryptors:
                for answer in self.answers(effect.to, bytes(effect.frame)):
                    self.again()
                    waiting.extend(self.server.receive(effect.to, answer))
            else:
                super().carry([effect])

    def close(self, *, until: OneShotPhase | None = None) -> None:
        while self.outcome is None and self.server.phase is not until:
            self.again()
            self.carry(self.server.close_phase())


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_server_that_is_made_anew_all_the_time_comes_to_the_same_sum(adversary: str) -> None:
    one = Restarting(6, 8, adversary)  # type: ignore[arg-type]
    one.play(clients=[0, 1, 3, 5])
    one.exact([0, 1, 3, 5])
    same = Round(6, 8, adversary)  # type: ignore[arg-type]
    same.play(clients=[0, 1, 3, 5])
    assert isinstance(one.outcome, OneShotAggregate)
    assert isinstance(same.outcome, OneShotAggregate)
    assert one.outcome.traffic.up == same.outcome.traffic.up


@pytest.mark.parametrize("phase", list(OneShotPhase)[1:])
def test_a_restored_server_asks_again_whom_it_waits_for(phase: OneShotPhase) -> None:
    one = Round(5, 4)
    one.start()
    if phase is OneShotPhase.FETCH:
        return
    one.lost = dict.fromkeys(one.epoch.members, phase)
    one.close(until=phase)
    one.lost = {}
    one.server, requests = OneShotServer.restore(one.server.snapshot(), packed=one.server._packed)
    assert sorted(effect.to for effect in requests if isinstance(effect, Send)) == sorted(one.epoch.members)  # type: ignore[type-var]
    one.carry(requests)
    one.close()
    one.exact(range(5))


def restarted(one: Round, member: Identity, *, releases: int | None = -1) -> list[Effect]:
    """Kill a member and start it again from its snapshot; by default its count was kept."""
    session = one.epoch.decryptors[member]
    signer = next(s for s in one.epoch.signers if s.identity == member)
    count = session.releases if releases == -1 else releases
    session, effects = DecryptorSession.restore(
        session.snapshot(), signer=signer, policy=one.epoch.policy, releases=count
    )
    one.epoch.decryptors[member] = session
    return effects


@pytest.mark.parametrize("phase", [OneShotPhase.REVIEW, OneShotPhase.AGREE, OneShotPhase.OPEN])
def test_a_member_that_was_killed_gets_everything_again_and_goes_on(phase: OneShotPhase) -> None:
    one = Round(5, 4)
    one.start()
    member = one.epoch.members[1]
    one.lost = {member: phase}
    one.close(until=phase)
    one.lost = {}
    effects = restarted(one, member)
    assert RosterAccepted(one.parameters.round_id) in effects
    one.carry(one.server.resend(member))
    assert not one.server.progress.missing
    one.close()
    one.exact(range(5))


def test_a_member_restarted_after_its_opening_sends_the_same_bytes() -> None:
    one = Round(5, 4)
    one.play()
    member = one.epoch.members[0]
    request = one.sent[member][-1]
    assert type(message_of(request)).__name__ == "OpenRequest"
    before = one.answers(member, request)
    restarted(one, member)
    assert one.answers(member, request) == before


def test_a_member_whose_state_may_be_old_signs_nothing_more() -> None:
    for releases in (None, 1000):
        one = Round(5, 4)
        one.start()
        old = one.epoch.members[2]
        one.carry(one.server.deal())
        restarted(one, old, releases=releases)
        one.carry(one.server.resend(old))
        one.close(until=OneShotPhase.OPEN)
        assert old in one.server._gone or one.committee.index[old] not in one.server._signatures
        assert any("sign nothing in this epoch" in refused.detail for refused in one.refused)
        one.close()
        one.exact(range(5))
        with pytest.raises(LocalProtocolError, match="sign: takes one call after SignWanted"):
            one.epoch.decryptors[old].sign(one.parameters.round_id)


def test_a_candidate_that_was_killed_sends_the_same_keys_again() -> None:
    one = Round(3, 4)
    signer = one.epoch.signers[0]
    entropy = CounterEntropy("a candidate")
    session = DecryptorSession(signer=signer, policy=one.epoch.policy, entropy=entropy)
    with pytest.raises(LocalProtocolError, match="there is no epoch to keep"):
        session.snapshot()

    frame = framed(one.epoch.parameters.epoch_id, committee_to_wire(one.epoch.parameters))
    (sent,) = session.receive(frame)
    again, (repeated,) = DecryptorSession.restore(
        session.snapshot(), signer=signer, policy=one.epoch.policy, releases=session.releases
    )
    assert repeated == sent
    assert again.receive(frame) == [sent]


def test_an_upload_is_kept_as_it_was_sent() -> None:
    one = Round(4, 4)
    session = one.contributor(2)
    for frame in (one.epoch.certificate, bytes(one.server.parameters_frame)):
        session.receive(frame)
    with pytest.raises(LocalProtocolError, match="there is no upload to keep"):
        session.snapshot()
    effects = session.submit(one.vector(2))
    again, repeated = Contributor.restore(session.snapshot(), signer=one.signers[2], policy=one.epoch.policy)
    assert repeated == effects
    assert again.uploaded
    with pytest.raises(LocalProtocolError, match="takes one vector"):
        again.submit(one.vector(2))
    with pytest.raises(ParameterError, match="signer"):
        Contributor.restore(session.snapshot(), signer=one.signers[1], policy=one.epoch.policy)


def test_damaged_snapshots_are_refused() -> None:
    one = Round(4, 4)
    one.start()
    server, member = one.server.snapshot(), one.epoch.decryptors[one.epoch.members[0]].snapshot()
    signer = one.epoch.signers[0]
    for place in (0, 40, -40, -1):
        for data in (server, member):
            cut = bytearray(data)
            cut[place] ^= 1
            with pytest.raises(ParameterError, match="snapshot"):
                if data is server:
                    OneShotServer.restore(bytes(cut), packed=MemoryPacked())
                else:
                    DecryptorSession.restore(
                        bytes(cut), signer=signer, policy=one.epoch.policy, releases=None
                    )


def test_a_snapshot_in_which_members_speak_for_one_another_is_refused() -> None:
    one = Round(4, 4)
    one.start()
    one.close(until=OneShotPhase.OPEN)
    kept = decode(server_snapshot._Server, checked_body(one.server.snapshot()))
    for name in ("signature", "opening"):
        members = list(kept.members)
        members[0] = replace(members[0], **{name: getattr(members[1], name)})
        wrong = with_digest(encode(replace(kept, members=tuple(members))))
        with pytest.raises(ParameterError, match=f"snapshot.{name}"):
            OneShotServer.restore(wrong, packed=MemoryPacked())


def test_a_server_with_edges_is_made_anew_while_it_fetches() -> None:
    one = Round(6, 4)
    edge_key = Identity(bytes(31) + b"\7")
    one.server = OneShotServer(
        one.parameters,
        one.committee,
        known=[signer.identity for signer in one.signers],
        edges=[edge_key],
    )
    edge = EdgeServer(one.parameters, one.committee, known=None)
    one.carry(one.server.start())
    frames = [one.upload(client) for client in range(6)]
    for client in (0, 1, 2):
        one.server.receive(one.signers[client].identity, frames[client])
    for client in (2, 3, 4, 5):  # client 2 spoke twice
        edge.receive(one.signers[client].identity, frames[client])
    (sent,) = edge.send_on()
    assert isinstance(sent, Send)
    one.server.receive(edge_key, bytes(sent.frame))
    one.close(until=OneShotPhase.FETCH)
    kept, packed = one.server.snapshot(), one.server._packed
    one.server, (request,) = OneShotServer.restore(kept, packed=packed)
    assert isinstance(request, Send)
    (answer,) = edge.receive(None, bytes(request.frame))
    assert isinstance(answer, Send)
    assert one.server.receive(edge_key, bytes(answer.frame)) == []
    one.server, requests = OneShotServer.restore(one.server.snapshot(), packed=packed)
    assert requests == []
    one.close()
    one.exact(range(6))
