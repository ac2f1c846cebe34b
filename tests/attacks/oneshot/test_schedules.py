"""A lying server says anything to honest members in any order: it opens one sum of a round.

The model is what the server and its members can compute: they have their own shares of every upload, and what
honest members sent. An opening is a sum of shares over the set that its signature names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from secagg.effects import CommitteeAccepted, RosterAccepted, Send, SignWanted
from secagg.messages.oneshot import OpenRequest, SumProposal, SumSignature, oneshot_to_wire
from secagg.params import Identity
from secagg.primitives.signatures import verify
from secagg.protocol.oneshot import DecryptorSession
from secagg.protocol.oneshot.view import sha256, sum_digest
from tests.protocol.network import CONTEXT
from tests.protocol.oneshot.network import Round, framed, message_of

CLIENTS, MEMBERS, OTHER = 8, 8, bytes(31) + b"\1"
MINE = (0, 1, 2)  # members of the server: as many as may collude
HONEST = range(len(MINE), MEMBERS)
FRIENDS = (0,)  # clients of the server


class LyingServer(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.one = Round(
            CLIENTS,
            MEMBERS,
            contexts=(CONTEXT, OTHER),
            changes={"colluding": len(FRIENDS), "minimum_per_context": 1},
        )
        assert self.one.committee.numbers.privacy_threshold == len(MINE)
        self.one.carry(self.one.server.start())
        for client in range(CLIENTS):
            context = OTHER if client in {0, 5, 6, 7} else CONTEXT
            frame = self.one.upload(client, context=context)
            self.one.carry(self.one.server.receive(self.one.signers[client].identity, frame))
        self.one.carry(self.one.server.deal())
        self.digests = sorted(upload.digest for upload in self.one.server._order)
        self.contexts = {upload.digest: upload.dealing.context for upload in self.one.server._order}
        self.friends = {
            upload.digest
            for upload in self.one.server._order
            if upload.identity in {self.one.signers[i].identity for i in FRIENDS}
        }
        self.signed: dict[int, set[bytes]] = {i: set() for i in range(MEMBERS)}
        self.signatures: dict[bytes, dict[int, bytes]] = {}
        self.opened: dict[int, set[bytes]] = {i: set() for i in range(MEMBERS)}
        self.sets: dict[bytes, tuple[bytes, ...]] = {}

    # --- what the server can do

    def member(self, index: int) -> DecryptorSession:
        return self.one.epoch.decryptors[self.one.epoch.members[index]]

    def tell(self, index: int, message: Any) -> None:
        """Send a member anything; its caller consents to whatever it is asked."""
        effects = list(self.member(index).receive(framed(self.one.parameters.round_id, message)))
        for effect in effects:
            if isinstance(effect, SignWanted):
                self.hear(index, self.member(index).sign(effect.round_id))
        self.hear(index, effects)

    def hear(self, index: int, effects: list[Any]) -> None:
        view = self.one.view
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            said = message_of(bytes(effect.frame))
            name = type(said).__name__
            for digest in self.sets:
                if name == "SumSignature" and verify(self.who(index), view.sum_text(digest), said.signature):
                    self.signed[index].add(digest)
                    self.signatures.setdefault(digest, {})[index] = said.signature
                text = view.opening_text(digest, sha256(said.values)) if name == "Opening" else b""
                if name == "Opening" and verify(self.who(index), text, said.signature):
                    self.opened[index].add(digest)

    def who(self, index: int) -> Identity:
        return self.one.epoch.members[index]

    def mine(self, digest: bytes) -> None:
        """Let the server's own members sign."""
        for index in MINE:
            signer = next(s for s in self.one.epoch.signers if s.identity == self.who(index))
            signature = signer.sign(self.one.view.sum_text(digest))
            self.signatures.setdefault(digest, {})[index] = signature

    @rule(data=st.data(), members=st.sets(st.sampled_from(HONEST), min_size=1))
    def propose(self, data: st.DataObject, members: set[int]) -> None:
        chosen = data.draw(st.sets(st.sampled_from(self.digests), min_size=0) | st.just(set(self.digests)))
        uploads = tuple(sorted(chosen))
        digest = sum_digest(uploads)
        self.sets[digest] = uploads
        self.mine(digest)
        for index in sorted(members):
            self.tell(index, SumProposal(b"".join(uploads)))

    @precondition(lambda self: bool(self.signatures))
    @rule(data=st.data(), members=st.sets(st.sampled_from(HONEST), min_size=1))
    def ask_to_open(self, data: st.DataObject, members: set[int]) -> None:
        digest = data.draw(st.sampled_from(sorted(self.signatures)))
        there = sorted(self.signatures[digest].items())
        quorum = self.one.committee.numbers.quorum
        few = data.draw(st.integers(0, 1))
        signatures = tuple(SumSignature(i, signature) for i, signature in there[: quorum - few])
        for index in sorted(members):
            self.tell(index, OpenRequest(signatures))

    @rule(index=st.sampled_from(HONEST))
    def kill(self, index: int) -> None:
        """A member starts again from what it kept, and gets its Dealings again."""
        identity = self.who(index)
        session = self.member(index)
        signer = next(s for s in self.one.epoch.signers if s.identity == identity)
        again, effects = DecryptorSession.restore(
            session.snapshot(), signer=signer, policy=self.one.epoch.policy, releases=session.releases
        )
        assert all(isinstance(effect, CommitteeAccepted | RosterAccepted) for effect in effects)
        self.one.epoch.decryptors[identity] = again
        for effect in self.one.server._deal_to({index: 0}, CLIENTS):
            assert isinstance(effect, Send)
            again.receive(bytes(effect.frame))

    @rule(index=st.sampled_from(HONEST), survivors=st.integers(2, 4))
    def show_other_parameters(self, index: int, survivors: int) -> None:
        other = replace(self.one.parameters, minimum_survivors=survivors, minimum_per_context=1)
        self.tell(index, oneshot_to_wire(other))

    # --- what it learns

    @invariant()
    def nobody_signs_two_sums(self) -> None:
        if hasattr(self, "signed"):
            assert all(len(digests) <= 1 for digests in self.signed.values())
            assert all(len(digests) <= 1 for digests in self.opened.values())

    @invariant()
    def one_sum_is_opened_and_it_hides(self) -> None:
        if not hasattr(self, "opened"):
            return
        opened = set().union(*self.opened.values())
        assert len(opened) <= 1
        for digest in opened:
            uploads = self.sets[digest]
            honest = [upload for upload in uploads if upload not in self.friends]
            assert len(honest) >= 2
            for context in {self.contexts[upload] for upload in uploads}:
                assert sum(self.contexts[upload] == context for upload in honest) >= 2


def test_no_schedule_of_a_lying_server_opens_a_second_sum_or_one_that_does_not_hide() -> None:
    run_state_machine_as_test(
        LyingServer, settings=settings(max_examples=25, stateful_step_count=20, deadline=None)
    )


def test_the_machine_can_open_a_sum() -> None:
    """What the invariants are about does happen."""
    machine = LyingServer()
    machine.begin()
    uploads = tuple(machine.digests)
    digest = sum_digest(uploads)
    machine.sets[digest] = uploads
    machine.mine(digest)
    for index in HONEST:
        machine.tell(index, SumProposal(b"".join(uploads)))
    quorum = machine.one.committee.numbers.quorum
    there = sorted(machine.signatures[digest].items())[:quorum]
    for index in HONEST:
        machine.tell(index, OpenRequest(tuple(SumSignature(i, s) for i, s in there)))
    assert sum(bool(digests) for digests in machine.opened.values()) == len(HONEST)
    machine.nobody_signs_two_sums()
    machine.one_sum_is_opened_and_it_hides()
