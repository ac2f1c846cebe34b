"""The member of a committee: an epoch and its rounds (PROTOCOL.md, part 2, sections 3 and 5)."""

from __future__ import annotations

from collections.abc import Container
from typing import NoReturn, Self, cast

from secagg.effects import (
    Breach,
    CommitteeAccepted,
    Completed,
    Effect,
    Frame,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Acceptance,
    CommitteeAnnouncement,
    CommitteeKey,
    CommitteeParametersMessage,
    Dealings,
    OneShotMessage,
    OneShotParametersMessage,
    OpenRequest,
    ReviewRequest,
    SumProposal,
    committee_from_wire,
    decode_oneshot,
    oneshot_from_wire,
)
from secagg.params import Buffer, Entropy, Signer, require
from secagg.params_oneshot import OneShotParameters, OneShotPolicy
from secagg.protocol.oneshot import snapshot as snapshots
from secagg.protocol.oneshot.phases import (
    DecryptorPhase,
    EpochSecrets,
    Idle,
    KeySent,
    Member,
    MemberRound,
    Over,
)
from secagg.protocol.oneshot.policy import check_committee_policy, check_round_policy
from secagg.protocol.oneshot.review import (
    check_quorum,
    check_sum,
    open_sum,
    read_proposal,
    review,
    sign_sum,
    take_dealing,
)
from secagg.protocol.oneshot.view import (
    CommitteeView,
    OneShotView,
    committee_parameters_digest,
    key_text,
    sum_digest,
)
from secagg.protocol.round import no_entropy, refuse


class DecryptorSession:
    """One epoch of a decryptor, with its rounds. Owns no socket, clock, thread, file or randomness.

    signer   the decryptor's identity
    policy   what it demands of committees and rounds; `known` are the clients that it lets into sums
    entropy  called for 32 bytes, and for 64 with post_quantum, when the keys are sent, and never again
    epochs   epoch ids in which this identity accepted a committee (the caller keeps them)
    rounds   round ids that this identity accepted as a member in other epochs (clients keep their own)

    What must be kept ahead of the effects that are released, in this order: the snapshot; then `releases`,
    when it has grown, where nobody can set it back.
    """

    def __init__(
        self,
        *,
        signer: Signer,
        policy: OneShotPolicy,
        entropy: Entropy,
        epochs: Container[bytes] = (),
        rounds: Container[bytes] = (),
    ) -> None:
        self._signer = signer
        self._policy = policy
        self._entropy = entropy
        self._epochs, self._seen = epochs, rounds
        self._phase: DecryptorPhase = Idle()
        self._epoch_id = b""
        self._rounds: dict[bytes, MemberRound] = {}
        self._releases = 0
        self._silent = False

    @property
    def view(self) -> CommitteeView | None:
        """The committee that we are a member of."""
        return self._phase.view if isinstance(self._phase, Member) else None

    @property
    def rounds(self) -> frozenset[bytes]:
        """The ids of the rounds of this epoch, closed ones too: none of them is taken again."""
        return frozenset(self._rounds)

    @property
    def open_rounds(self) -> frozenset[bytes]:
        """The ids of the rounds of this epoch that were not closed."""
        return frozenset(round_id for round_id, state in self._rounds.items() if not state.closed)

    def parameters(self, round_id: bytes) -> OneShotParameters | None:
        """Return the parameters of a round that was accepted."""
        state = self._rounds.get(round_id)
        return None if state is None else state.view.parameters

    @property
    def releases(self) -> int:
        """The number of steps made that must not be made twice; it never falls. See `restore`."""
        return self._releases

    @property
    def silent(self) -> bool:
        """Return whether it signs nothing more in this epoch: it may have sent more than it remembers."""
        return self._silent

    @property
    def over(self) -> bool:
        """Return whether the epoch is closed, or we are no member."""
        return isinstance(self._phase, Over)

    def receive(self, frame: Buffer) -> list[Effect]:
        """Feed one frame of the server. Never raises for its bytes: what fails its checks becomes Refused."""
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            return self._on_message(envelope.round_id, decode_oneshot(envelope))
        except RemoteProtocolError as error:
            breaches = cast("tuple[Breach, ...]", error.breaches)
            return [Refused(None, RefusalReason(str(error.reason)), error.detail, breaches)]

    def sign(self, round_id: bytes) -> list[Effect]:
        """Consent to the sum that SignWanted named. Raises LocalProtocolError when none is open."""
        state, phase = self._rounds.get(round_id), self._phase
        if state is None or not isinstance(phase, Member) or not state.asked or self._silent:
            raise LocalProtocolError("sign: takes one call after SignWanted")
        sum_hash = sum_digest(state.proposal)
        if not state.view.committee.active:
            return self._open(state, phase, sum_hash)
        signed = self._signature(state, phase, sum_hash)
        state.signed, state.asked = sum_hash, False
        self._releases += 1
        return [signed]

    def close_round(self, round_id: bytes) -> None:
        """Forget a round and overwrite its shares; its id is taken no more."""
        if (state := self._rounds.get(round_id)) is not None:
            state.wipe()
            state.closed, state.asked = True, False
            state.opening = b""  # or an epoch would grow by it with every round

    def forget_round(self, round_id: bytes) -> None:
        """Close a round whose id the caller keeps in `rounds`: nothing of it is kept here any more."""
        self.close_round(round_id)
        self._rounds.pop(round_id, None)

    def close(self) -> None:
        """Close the epoch: overwrite every secret that is left."""
        if isinstance(self._phase, KeySent | Member):
            self._phase.secrets.wipe()
        for state in self._rounds.values():
            state.wipe()
        self._rounds.clear()
        self._phase = Over()
        self._entropy = no_entropy

    def snapshot(self) -> bytes:
        """Return the state as bytes. They hold the epoch's secrets: seal them, keep the newest only.

        Dealings are not in it: a restarted member gets them again.
        raises  LocalProtocolError before keys were sent, and when the epoch is closed
        """
        if not isinstance(self._phase, KeySent | Member):
            raise LocalProtocolError("snapshot: there is no epoch to keep")
        return snapshots.save_decryptor(
            snapshots.DecryptorState(
                self._signer.identity, self._phase, self._rounds, self._releases, self._silent
            )
        )

    @classmethod
    def restore(
        cls,
        data: bytes,
        *,
        signer: Signer,
        policy: OneShotPolicy,
        epochs: Container[bytes] = (),
        rounds: Container[bytes] = (),
        releases: int | None,
    ) -> tuple[Self, list[Effect]]:
        """Continue from a snapshot: the session, and what it must send, or keep, again.

        releases  the newest count that was kept where it cannot be set back (`secagg.store.Counter`); None:
                  there is no such place, and the snapshot may be a backup. A session that may have sent more
                  than it remembers signs nothing more in this epoch; see `silent`.
        raises    ParameterError: not a snapshot, another identity's, or against the policy
        """
        state = snapshots.load_decryptor(data, policy)
        if state.identity != signer.identity:
            state.phase.secrets.wipe()
        require(state.identity == signer.identity, "signer", "the snapshot's identity", signer.identity.hex())
        session = cls(signer=signer, policy=policy, entropy=no_entropy, epochs=epochs, rounds=rounds)
        session._phase = state.phase
        session._rounds = state.rounds
        session._releases = state.releases
        session._silent = state.silent or releases is None or releases > state.releases
        effects: list[Effect] = []
        if isinstance(state.phase, KeySent):
            session._epoch_id = state.phase.parameters.epoch_id
            effects.append(session._send(state.phase.own))
        else:
            session._epoch_id = state.phase.view.parameters.epoch_id
            effects.append(CommitteeAccepted(session._epoch_id, member=True))
            effects += [RosterAccepted(round_id) for round_id in sorted(state.rounds)]
        return session, effects

    def _on_message(self, round_id: bytes, message: OneShotMessage) -> list[Effect]:
        match self._phase, message:
            case Idle(), CommitteeParametersMessage():
                return self._on_parameters(round_id, message)
            case KeySent() as phase, CommitteeParametersMessage():
                if committee_from_wire(message) != phase.parameters or round_id != self._epoch_id:
                    raise refuse(RefusalReason.EQUIVOCATION, "other CommitteeParameters were answered before")
                return [self._send(phase.own)]
            case KeySent() as phase, CommitteeAnnouncement():
                return self._on_committee(round_id, phase, message)
            case Member() as phase, CommitteeAnnouncement():
                return self._on_committee_again(round_id, phase, message)
            case Member() as phase, OneShotParametersMessage():
                return self._on_round(round_id, phase, message)
            case Member() as phase, Dealings() | ReviewRequest() | SumProposal() | OpenRequest():
                if (state := self._rounds.get(round_id)) is None:
                    raise refuse(
                        RefusalReason.WRONG_ROUND, f"Frame.round_id: {round_id.hex()} is no round of ours"
                    )
                return self._in_round(state, phase, message)
            case _:
                where = _WHERE[type(self._phase)]
                raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__}: {where}")

    def _on_parameters(self, epoch_id: bytes, message: CommitteeParametersMessage) -> list[Effect]:
        parameters = committee_from_wire(message)
        if parameters.epoch_id != epoch_id:
            raise refuse(RefusalReason.WRONG_ROUND, "CommitteeParameters.epoch_id is not the frame's")
        if epoch_id in self._epochs:
            raise refuse(RefusalReason.ROUND_REUSED, f"epoch {epoch_id.hex()} was accepted before")
        check_committee_policy(parameters, self._policy)
        secrets = EpochSecrets.draw(self._entropy, post_quantum=parameters.post_quantum)
        try:
            agreement_key, kem_key = secrets.public
            unsigned = CommitteeKey(self._signer.identity, agreement_key, kem_key, b"")
            text = key_text(committee_parameters_digest(parameters), unsigned)
            own = CommitteeKey(self._signer.identity, agreement_key, kem_key, self._signer.sign(text))
        except BaseException:  # of the signer
            secrets.wipe()
            raise
        self._epoch_id, self._entropy = epoch_id, no_entropy
        self._phase = KeySent(parameters, own, secrets)
        self._releases += 1
        return [self._send(own)]

    def _on_committee(self, epoch_id: bytes, phase: KeySent, message: CommitteeAnnouncement) -> list[Effect]:
        if epoch_id != self._epoch_id:
            raise refuse(RefusalReason.WRONG_ROUND, "Frame.round_id: not our epoch")
        if epoch_id in self._epochs:  # another session of ours may have accepted one meanwhile
            raise refuse(RefusalReason.ROUND_REUSED, f"epoch {epoch_id.hex()} was accepted before")
        view = CommitteeView.check(phase.parameters, message.committee, message.keys, self._policy)
        me = view.index.get(self._signer.identity)
        if me is None:
            if self._signer.identity not in view.candidates:
                raise refuse(RefusalReason.NOT_INCLUDED, "Committee.candidates: we are not among them")
            self.close()
            return [CommitteeAccepted(epoch_id, member=False)]
        if view.keys[me] != phase.own:
            raise refuse(RefusalReason.NOT_INCLUDED, "keys: ours are others")
        self._phase = Member(view, me, phase.secrets)
        self._releases += 1
        return self._accepted(self._phase)

    def _on_committee_again(
        self, epoch_id: bytes, phase: Member, message: CommitteeAnnouncement
    ) -> list[Effect]:
        if epoch_id != self._epoch_id:
            raise refuse(RefusalReason.WRONG_ROUND, "Frame.round_id: not our epoch")
        if (message.committee, tuple(message.keys)) != (phase.view.committee, phase.view.keys):
            raise refuse(RefusalReason.EQUIVOCATION, "another committee of this epoch was accepted")
        return self._accepted(phase)

    def _accepted(self, phase: Member) -> list[Effect]:
        effects: list[Effect] = [CommitteeAccepted(self._epoch_id, member=True)]
        if phase.view.active and not self._silent:
            signature = self._signer.sign(phase.view.acceptance_text())
            effects.append(self._send(Acceptance(phase.me, signature)))
        return effects

    def _on_round(self, round_id: bytes, phase: Member, message: OneShotParametersMessage) -> list[Effect]:
        parameters = oneshot_from_wire(message)
        if parameters.round_id != round_id:
            raise refuse(RefusalReason.WRONG_ROUND, "OneShotParameters.round_id is not the frame's")
        if (known := self._rounds.get(round_id)) is not None:
            if known.view.parameters != parameters:
                raise refuse(
                    RefusalReason.EQUIVOCATION, "other OneShotParameters of this round were accepted"
                )
            return []
        if round_id in self._seen:
            raise refuse(RefusalReason.ROUND_REUSED, f"round {round_id.hex()} was accepted before")
        if parameters.committee_digest != phase.view.committee_digest:
            raise refuse(
                RefusalReason.WEAK_PARAMETERS, "committee_digest: not the committee that we accepted"
            )
        check_round_policy(parameters, self._policy)
        self._rounds[round_id] = MemberRound(OneShotView.build(parameters, phase.view))
        return [RosterAccepted(round_id)]

    def _in_round(
        self,
        state: MemberRound,
        phase: Member,
        message: Dealings | ReviewRequest | SumProposal | OpenRequest,
    ) -> list[Effect]:
        if state.closed:
            raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in a round that we closed")
        if state.opening and isinstance(message, Dealings | ReviewRequest):
            raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} after the opening")
        match message:
            case Dealings():
                return self._on_dealings(state, phase, message)
            case ReviewRequest():
                if state.signed:
                    raise refuse(RefusalReason.WRONG_PHASE, "ReviewRequest after the signature")
                return [self._send(review(state), state)]
            case SumProposal():
                return self._on_proposal(state, phase, message)
            case OpenRequest():
                return self._on_request(state, phase, message)

    def _on_dealings(self, state: MemberRound, phase: Member, message: Dealings) -> list[Effect]:
        refused: list[Effect] = []
        for dealing in message.dealings:
            try:
                take_dealing(state, phase.me, dealing, phase.secrets, self._policy.known)
            except RemoteProtocolError as error:  # of one: the others count
                refused.append(Refused(None, RefusalReason(str(error.reason)), error.detail))
        return refused

    def _on_request(self, state: MemberRound, phase: Member, message: OpenRequest) -> list[Effect]:
        if not state.view.committee.active:
            raise refuse(RefusalReason.WRONG_PHASE, "OpenRequest in a passive round")
        if not state.signed:
            raise refuse(RefusalReason.WRONG_PHASE, "OpenRequest before we signed a sum")
        check_quorum(state.view, state.signed, tuple(message.signatures))
        return self._open(state, phase, state.signed)

    def _on_proposal(self, state: MemberRound, phase: Member, message: SumProposal) -> list[Effect]:
        uploads = read_proposal(state.view, message)
        if state.signed:  # once per round id
            if sum_digest(uploads) != state.signed:
                raise refuse(RefusalReason.EQUIVOCATION, "SumProposal: another sum of this round was signed")
            state.proposal = uploads
            if not state.view.committee.active:
                return self._open(state, phase, state.signed)
            return [] if self._silent else [self._signature(state, phase, state.signed)]
        if self._silent:
            raise refuse(
                RefusalReason.POLICY,
                "our state may be older than what we sent: we sign nothing in this epoch",
            )
        if state.asked:  # the caller consents to what it was asked about, and to nothing else
            if uploads != state.proposal:
                raise refuse(RefusalReason.EQUIVOCATION, "SumProposal: another sum waits for consent")
            return []
        dealings = check_sum(state, uploads)
        state.proposal, state.asked = uploads, True
        taken = frozenset(one.identity for one in state.taken.values())
        survivors = frozenset(one.identity for one in dealings)
        return [SignWanted(taken, survivors, state.view.parameters.round_id)]

    def _signature(self, state: MemberRound, phase: Member, sum_hash: bytes) -> Send:
        return self._send(sign_sum(state.view, phase.me, sum_hash, self._signer), state)

    def _open(self, state: MemberRound, phase: Member, sum_hash: bytes) -> list[Effect]:
        round_id = state.view.parameters.round_id
        if not state.opening:
            if sum_digest(state.proposal) != sum_hash:  # we were restarted: what it is over was forgotten
                raise refuse(RefusalReason.WRONG_PHASE, "OpenRequest before the SumProposal came again")
            opening = open_sum(state, phase.me, self._signer)
            survivors = frozenset(state.taken[digest].identity for digest in state.proposal)
            state.opening = bytes(ONESHOT_FRAMES.encode(round_id, opening))
            state.signed, state.asked = sum_hash, False
            state.wipe()
            self._releases += 1
            return [Send(None, Frame(state.opening)), Completed(None, survivors)]
        return [Send(None, Frame(state.opening))]

    def _send(self, message: object, state: MemberRound | None = None) -> Send:
        round_id = self._epoch_id if state is None else state.view.parameters.round_id
        return Send(None, ONESHOT_FRAMES.encode(round_id, message))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DecryptorSession is not pickled: it holds secrets; see snapshot()")

    def __repr__(self) -> str:
        return f"DecryptorSession(phase={type(self._phase).__name__}, rounds={len(self._rounds)})"


_WHERE = {
    Idle: "no committee was accepted; a session goes on from its snapshot",
    KeySent: "the committee is not formed yet",
    Member: "not sent to members",
    Over: "the epoch is closed, or we are not in its committee",
}
