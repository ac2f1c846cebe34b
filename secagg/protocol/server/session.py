"""The server session: decode, let the phase decide, count, change state last."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from secagg.effects import (
    Aborted,
    Completed,
    Dropped,
    DropReason,
    Effect,
    PhaseClosed,
    Progress,
    RefusalReason,
    Refused,
    Send,
    Traffic,
)
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.messages import KINDS, Envelope, MaskedInput, Message, decode_body, open_frame
from secagg.params import Buffer, Identity, Phase, RoundParameters, require
from secagg.primitives.bounds import choose_for
from secagg.primitives.kem import require_kem
from secagg.primitives.signatures import check_identity
from secagg.protocol.round import RoundEnded, listed, refuse
from secagg.protocol.server import snapshot as snapshots
from secagg.protocol.server.advertise_keys import AdvertiseKeys
from secagg.protocol.server.consistency_check import ConsistencyCheck
from secagg.protocol.server.masked_input_collection import MaskedInputCollection
from secagg.protocol.server.phase import Result, ServerPhase, check_kind
from secagg.protocol.server.share_keys import ShareKeys
from secagg.protocol.server.unmasking import Unmasking
from secagg.protocol.snapshot import parts_must_fit


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken.

    kind         its place in the protocol, from 0
    fingerprint  tells it from every other message of its sender and kind, 32 bytes; of an upload without
                 reading the vector again
    """

    sender: Identity
    kind: int
    fingerprint: bytes


class ServerSession:
    """One round, server side. Deterministic: it draws nothing and owns no socket, clock, thread or file.

    parameters  of the round
    admitted    the enrolled identities that may take part
    threads     for agreements and masks, when the masks are removed

    The caller authenticates senders, and decides with `progress` when to close a phase.
    """

    def __init__(
        self, parameters: RoundParameters, *, admitted: Collection[Identity], threads: int = 1
    ) -> None:
        require(threads >= 1, "threads", "at least 1", threads)
        self._threads = threads
        self._parameters = parameters
        self._admitted = frozenset(check_identity(identity) for identity in admitted)
        require(
            len(self._admitted) >= parameters.minimum_cohort,
            "admitted",
            f"at least minimum_cohort = {parameters.minimum_cohort} identities",
            len(self._admitted),
        )
        self._phase: ServerPhase | None = None
        self._started = False
        self._gone: set[Identity] = set()
        self._refused: set[Identity] = set()  # sent something that was refused in this phase
        self._up: Counter[Phase] = Counter()
        self._down: Counter[Phase] = Counter()
        self._taken: dict[tuple[Identity, int], bytes] = {}  # (sender, kind) -> fingerprint
        self._newest: Taken | None = None

    @property
    def parameters(self) -> RoundParameters:
        """The parameters of the round."""
        return self._parameters

    @property
    def phase(self) -> Phase | None:
        """The phase that the round is in; None before start() and after the end."""
        return None if self._phase is None else self._phase.phase

    @property
    def progress(self) -> Progress:
        """The standing of the current phase, to decide about close_phase() by."""
        phase = self._phase
        if phase is None:
            return Progress(None, 0, 0, 0, ready=False, missing=frozenset())
        missing = phase.asked - phase.answered - self._gone
        answered = phase.answered - _left(phase)
        return Progress(
            phase.phase,
            expected=len(missing) + len(answered),
            received=len(answered),
            needed=phase.needed,
            ready=phase.ready,
            missing=missing,
        )

    @property
    def admitted(self) -> frozenset[Identity]:
        """The identities that may take part."""
        return self._admitted

    @property
    def taken(self) -> int:
        """The number of messages taken so far."""
        return len(self._taken)

    @property
    def roster(self) -> int:
        """The number of clients in the round's roster; 0 while they advertise, and when it is over."""
        match self._phase:
            case ConsistencyCheck(masked=masked) | Unmasking(masked=masked):
                return masked.view.clients
            case ShareKeys(view=view) | MaskedInputCollection(view=view):
                return view.clients
            case _:
                return 0

    @property
    def newest(self) -> Taken | None:
        """The message that was taken last; None before the first, and after `restore`."""
        return self._newest

    @property
    def survivors(self) -> frozenset[Identity]:
        """The set S, from the end of MaskedInputCollection to that of the round."""
        match self._phase:
            case ConsistencyCheck(masked=masked) | Unmasking(masked=masked):
                return masked.view.named(masked.survivors)
            case _:
                return frozenset()

    def start(self) -> list[Effect]:
        """Open the round: everybody admitted gets the parameters.

        raises  LocalProtocolError when called twice; InfeasibleParameters when the smallest cohort allowed
                could not be protected; ParameterError: there is no ML-KEM here, and the suite has it
        """
        if self._started:
            raise LocalProtocolError("start: the round has been started")
        choose_for(self._parameters.minimum_cohort, self._parameters.threat_model)
        if self._parameters.hybrid:
            require_kem()
        self._started = True
        self._phase = AdvertiseKeys(self._parameters, self._admitted)
        return self._requests(self._phase)

    def receive(self, sender: Identity, frame: Buffer) -> list[Effect]:
        """Feed one frame of an authenticated sender. Never raises for a peer's bytes.

        A frame that fails its checks becomes a Refused effect and counts as not sent. An identical
        retransmission gets the request that the sender has not answered yet; an older one than the newest
        that was taken is refused when there is none.
        """
        try:
            if sender not in self._admitted:
                raise refuse(RefusalReason.UNKNOWN_SENDER, "sender: not admitted to this round")
            envelope = open_frame(frame)
            if (round_id := envelope.round_id) != self._parameters.round_id:
                raise refuse(RefusalReason.WRONG_ROUND, f"Frame.round_id: {round_id.hex()} is not this round")
            key = sender, envelope.kind
            if key in self._taken:
                same = self._taken[key] == _fingerprint(decode_body(envelope), frame)
                return self._repeat(*key, identical=same)
            phase = self._asking(sender)
            _check_size(phase, envelope)
            message = decode_body(envelope)
            digest = phase.accept(sender, message)
        except RemoteProtocolError as error:
            if sender in self._admitted:
                self._refused.add(sender)
            return [Refused(sender, RefusalReason(str(error.reason)), error.detail)]
        self._taken[key] = fingerprint = _fingerprint(message, frame, digest)
        self._newest = Taken(*key, fingerprint)
        self._up[phase.phase] += memoryview(frame).nbytes
        return []

    def drop(self, client: Identity) -> list[Effect]:
        """Give a client up: it is not waited for and not asked again; what it sent stays."""
        if self._phase is None or client not in self._phase.asked or client in self._gone:
            return []
        self._gone.add(client)
        return [Dropped(client, DropReason.GIVEN_UP)]

    def close_phase(self) -> list[Effect]:
        """Leave the current phase with what has come. Raises LocalProtocolError outside a round."""
        phase = self._phase
        if phase is None:
            raise LocalProtocolError("close_phase: the round is over or has not begun")
        answered, left = phase.answered, _left(phase)
        effects: list[Effect] = [
            Dropped(client, DropReason.REFUSED if client in self._refused else DropReason.SILENT)
            for client in sorted(phase.asked - answered - self._gone)
        ]
        effects += [Dropped(client, DropReason.LEFT) for client in sorted(left - self._gone)]
        self._refused.clear()
        if isinstance(phase, Unmasking):
            phase.threads = self._threads
        try:
            following = phase.close()
        except RoundEnded as end:
            self._phase = None
            return [*effects, Aborted(end.reason, end.blamed, end.detail, end.guilty, end.likely)]
        effects.append(PhaseClosed(phase.phase, answered - left - self._gone))
        if isinstance(following, Result):
            self._phase = None
            traffic = Traffic.of(self._up, self._down)
            result = replace(following.aggregate, traffic=traffic)
            return [*effects, Completed(result, frozenset(result.survivors))]
        self._phase = following
        return effects + self._requests(following)

    def snapshot(self) -> bytes:
        """Return the state as bytes. Raises LocalProtocolError outside a round.

        It holds public values, the masked sum and, of the clients' secrets, the shares they revealed.
        """
        if self._phase is None:
            raise LocalProtocolError("snapshot: there is no round to keep")
        return snapshots.save(
            snapshots.ServerState(
                self._parameters,
                self._admitted,
                self._phase,
                self._gone,
                self._refused,
                self._up,
                self._down,
                self._taken,
            )
        )

    @classmethod
    def restore(cls, data: bytes, *, threads: int = 1) -> tuple[Self, list[Effect]]:
        """Continue from a snapshot: the session, and the requests of the phase to send again.

        raises  ParameterError
        """
        with parts_must_fit():
            return cls._restored(data, threads)

    @classmethod
    def _restored(cls, data: bytes, threads: int) -> tuple[Self, list[Effect]]:
        state = snapshots.load(data)
        if state.parameters.hybrid:
            require_kem()
        session = cls(state.parameters, admitted=state.admitted, threads=threads)
        return session, session._adopt(state)

    def _adopt(self, state: snapshots.ServerState) -> list[Effect]:
        """Take a state over; returns the requests to send again."""
        self._started = True
        self._phase = state.phase
        self._gone, self._refused = state.gone, state.refused
        self._up, self._down = state.up, state.down
        self._taken = state.taken
        waiting = state.phase.asked - state.phase.answered - state.gone
        return [Send(client, state.phase.request(client)) for client in sorted(waiting)]

    def _requests(self, phase: ServerPhase) -> list[Effect]:
        effects: list[Effect] = []
        for client in sorted(phase.asked - self._gone):
            frame = phase.request(client)
            self._down[phase.phase] += frame.size
            effects.append(Send(client, frame))
        return effects

    def _asking(self, sender: Identity) -> ServerPhase:
        """Return the phase, if it hears this sender. Raises RemoteProtocolError."""
        phase = self._phase
        if phase is None:
            raise refuse(RefusalReason.WRONG_PHASE, "the round is over or has not begun")
        if sender in self._gone or sender not in phase.asked:
            raise refuse(RefusalReason.UNKNOWN_SENDER, f"sender: was not asked in {phase.phase.name}")
        return phase

    def _repeat(self, sender: Identity, kind: int, *, identical: bool) -> list[Effect]:
        """Send the current request again for the same message; another one of its kind is an offence."""
        if not identical:
            raise refuse(RefusalReason.EQUIVOCATION, "a different message of this kind was taken before")
        phase = self._asking(sender)
        if sender not in phase.answered:
            return [Send(sender, phase.request(sender))]
        if any((sender, later) in self._taken for later in range(kind + 1, len(KINDS))):
            name = KINDS[kind].__name__
            raise refuse(RefusalReason.WRONG_PHASE, f"{name}: was taken before, and so was a newer message")
        return []  # it stands; what it gets is the next request

    def __repr__(self) -> str:
        phase = None if self._phase is None else self._phase.phase.name
        return f"ServerSession(phase={phase}, admitted={len(self._admitted)}, gone={listed(self._gone)})"


def _left(phase: ServerPhase) -> frozenset[Identity]:
    """Return who answered that it leaves the round."""
    return phase.left if isinstance(phase, MaskedInputCollection) else frozenset()


def _check_size(phase: ServerPhase, envelope: Envelope) -> None:
    """Refuse before decoding what cannot be right: long lists of nothing cost us, not their sender."""
    kind, size = KINDS[envelope.kind], memoryview(envelope.body).nbytes
    check_kind(phase, kind)
    if size > phase.largest:
        raise refuse(
            RefusalReason.WRONG_LENGTH,
            f"{kind.__name__}: must have at most {phase.largest} bytes, has {size}",
        )


def _fingerprint(message: Message, frame: Buffer, packed_digest: bytes | None = None) -> bytes:
    """Tell messages apart; of an upload the packed vector stands by its digest."""
    if isinstance(message, MaskedInput):
        digest = packed_digest or hashlib.sha256(message.packed).digest()
        said = (digest, message.signature, *message.complaints)
        if message.unopened:
            said += (b"unopened", *message.unopened)
        return hashlib.sha256(b"".join(said)).digest()
    return hashlib.sha256(frame).digest()
