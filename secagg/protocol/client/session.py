"""The client session: decode, let the phase decide, change state last."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import NoReturn, Self, cast

import numpy as np

from secagg.effects import (
    Aborted,
    AbortReason,
    Breach,
    Completed,
    Effect,
    Frame,
    InputWanted,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.errors import LocalProtocolError, RemoteProtocolError, StaleSnapshotError
from secagg.kernels import UIntArray, VectorSource, check_entries, lane_dtype
from secagg.messages import (
    KINDS,
    MaskedInput,
    Message,
    RosterAnnouncement,
    RoundParametersMessage,
    ShareDelivery,
    SurvivorSet,
    UnmaskingRequest,
    decode,
    decode_frame,
    encode,
    encode_frame,
    parameters_from_wire,
)
from secagg.params import Buffer, Entropy, Identity, Phase, Policy, RoundParameters, Signer, require
from secagg.primitives.kem import KemSecret, require_kem
from secagg.protocol.client import snapshot as snapshots
from secagg.protocol.client.advertise_keys import Secrets, advertise
from secagg.protocol.client.consistency_check import check_set, sign_survivors
from secagg.protocol.client.masked_input_collection import (
    ArraySource,
    check_delivery,
    checked_source,
    departure,
    open_contributions,
    open_shares,
    upload,
)
from secagg.protocol.client.phases import (
    AdvertiseKeys,
    ClientPhase,
    Idle,
    MaskedInputCollection,
    Over,
    ShareKeys,
    Uploaded,
    answered_phase,
    public_phase,
    wipe,
)
from secagg.protocol.client.policy import check_policy, check_unseen
from secagg.protocol.client.share_keys import check_roster, share_keys
from secagg.protocol.client.unmasking import Demand, answer, check_request
from secagg.protocol.client.vault import Vault
from secagg.protocol.round import RoundEnded, listed, no_entropy, refuse


class ClientSession:
    """One round, client side. Owns no socket, clock, thread, file or randomness. Not thread-safe.

    signer   the client's identity
    context  32 bytes, computed by the client from what it was given; another round is refused. None: it is
             told with the vector, as where a host sends the model late (`submit`)
    policy   what it demands of a round
    entropy  called four times for 32 bytes when the client advertises, in the hybrid suite then for 64, and
             never again: what ML-KEM-768 encapsulates is the library's randomness
    seen     round ids in which this identity accepted a roster (the caller keeps them)
    threads  for masking
    """

    def __init__(
        self,
        *,
        signer: Signer,
        context: bytes | None,
        policy: Policy,
        entropy: Entropy,
        seen: Container[bytes] = (),
        threads: int = 1,
    ) -> None:
        require(context is None or len(context) == 32, "context", "32 bytes", len(context or b""))
        require(threads >= 1, "threads", "at least 1", threads)
        self._signer = signer
        self._context = context
        self._policy = policy
        self._entropy: Entropy | None = entropy
        self._seen = seen
        self._threads = threads
        self._phase: ClientPhase = Idle()
        self._parameters: RoundParameters | None = None
        self._vector: ArraySource | None = None  # our copy
        self._submitted = False
        self._answered: dict[int, bytes] = {}  # kind of a message taken -> digest of its frame
        self._last: tuple[Effect, ...] = ()  # what an identical retransmission gets
        self._lost = b""  # digest of the upload that it would get, and that was not kept
        self._releases = 0

    @property
    def phase(self) -> Phase | None:
        """The phase that the client takes part in; None before the round and after it."""
        return public_phase(self._phase)

    @property
    def parameters(self) -> RoundParameters | None:
        """The round's parameters, once accepted."""
        return self._parameters

    @property
    def answered_phase(self) -> Phase | None:
        """The phase that the session's newest frame belongs to; None before the first and after close()."""
        return answered_phase(self._phase)

    @property
    def roster(self) -> int:
        """The number of clients in the roster; 0 before one was accepted, and when the round is over."""
        return 0 if isinstance(self._phase, Idle | AdvertiseKeys | Over) else self._phase.view.clients

    @property
    def upload(self) -> Frame | None:
        """The frame of the masked vector, as long as the server may ask for it again.

        Snapshots have its digest only: keep it beside them, once, or lose the round if the server asks.
        """
        if not isinstance(self._phase, Uploaded) or self._phase.signed is not None:
            return None
        return next((effect.frame for effect in self._last if isinstance(effect, Send)), None)

    @property
    def releases(self) -> int:
        """The number of steps made that must not be made twice; it never falls. See `restore`.

        Steps are the frames that it makes, the questions that it asks (InputWanted, SignWanted), and a vector
        that it takes before it wants it.
        """
        return self._releases

    def receive(self, frame: Buffer) -> list[Effect]:
        """Feed one frame of the server. The first must hold RoundParameters.

        Never raises for the server's bytes: a frame that fails its checks becomes a Refused effect and
        changes nothing, one that ends the round becomes Aborted.
        """
        try:
            round_id, message = decode_frame(frame)
            if self._parameters is not None and round_id != self._parameters.round_id:
                raise refuse(RefusalReason.WRONG_ROUND, f"Frame.round_id: {round_id.hex()} is not our round")
            kind = KINDS.index(type(message))
            fingerprint = hashlib.sha256(frame).digest()
            if kind in self._answered:
                return self._repeat(kind, fingerprint)
            effects = self._on_message(round_id, message)
        except RemoteProtocolError as error:
            breaches = cast("tuple[Breach, ...]", error.breaches)
            return [Refused(None, RefusalReason(str(error.reason)), error.detail, breaches)]
        except RoundEnded as end:
            return self._end(end)
        self._answered[kind] = fingerprint
        self._last, self._lost = _repeatable(effects), b""
        return effects

    def submit(self, vector: UIntArray | VectorSource, *, context: bytes | None = None) -> list[Effect]:
        """Give the vector to be summed: once, from RoundParameters on, up to phase 2.

        vector  (d,), unsigned integers, every value below 2^ring_bits, or a VectorSource. Before phase 2 it
                is copied; when the session wants it (InputWanted) it is read and masked chunk by chunk
        context what the vector is about, 32 bytes, computed by the client; must be given where the session
                has none. A round about something else is left: Aborted
        raises  LocalProtocolError (a second vector, wrong phase, no context), ParameterError (shape, type,
                range), what a source raises
        """
        if self._parameters is None or isinstance(self._phase, Uploaded | Over) or self._submitted:
            raise LocalProtocolError("submit: takes one vector per round, up to phase 2")
        about = self._context if context is None else context
        if about is None:
            raise LocalProtocolError("submit: needs a context, the session was made without")
        if about != self._parameters.context:
            return self._end(RoundEnded(AbortReason.CONTEXT_MISMATCH, "the round is not about our vector"))
        source = checked_source(vector, self._parameters.vector_length, self._parameters.ring_bits)
        effects: list[Effect] = []
        if isinstance(self._phase, MaskedInputCollection):
            effects = self._upload(self._phase, source)
            self._last = tuple(effects)
        else:
            self._vector = _copied(source, self._parameters.ring_bits)
            self._releases += 1  # of two sessions of one snapshot only one takes a vector
        self._submitted, self._context = True, about
        return effects

    def sign(self) -> list[Effect]:
        """Consent to a sum over the survivors that SignWanted named.

        returns  the signature under S to send, or, where S was asked about with the unmasking request, the
                 answer to that
        raises   LocalProtocolError when no SignWanted is open, what the signer raises
        """
        phase = self._phase
        if not isinstance(phase, Uploaded) or phase.asked is None:
            raise LocalProtocolError("sign: takes one call after SignWanted")
        if isinstance(phase.asked, SurvivorSet):
            survivors = bytes(phase.asked.survivors)
            signature = sign_survivors(phase.view, survivors, phase.finished, self._signer)
            phase.signed, phase.asked = survivors, None
            effects: list[Effect] = [self._send(signature)]
        else:
            effects = self._answer(phase, self._checked(phase, phase.asked))
        self._last = _repeatable(effects)
        return effects

    def snapshot(self) -> bytes:
        """Return the session's state as bytes. They hold its secrets: seal them, keep the newest only.

        They do not hold the upload, see there.

        raises  LocalProtocolError before RoundParameters were accepted
        """
        if self._parameters is None:
            raise LocalProtocolError("snapshot: there is no round to keep")
        frame = self.upload
        return snapshots.save(
            snapshots.ClientState(
                self._signer.identity,
                self._phase,
                self._parameters,
                None if self._vector is None else self._vector.array,
                self._answered,
                self._last,
                self._releases,
                self._lost if frame is None else _digest(frame),
                self._context is None,
            )
        )

    @classmethod
    def restore(
        cls,
        data: bytes,
        *,
        signer: Signer,
        policy: Policy,
        seen: Container[bytes] = (),
        threads: int = 1,
        releases: int = 0,
        upload: Buffer | None = None,
    ) -> tuple[Self, list[Effect]]:
        """Continue from the newest snapshot: the session, and its last frame to send again.

        upload  the frame that was kept beside snapshots of the session once it had uploaded. Without it the
                session goes on, but a server that asks for it again is told that it is lost: Refused

        It never draws new secrets and never masks a second vector. An older snapshot would: it forgot what
        it masked, signed or revealed. So keep the session's `releases` where it cannot be set back
        (`secagg.store.Counter`), after the snapshot and before the effects, and hand it in here. A counter
        that refuses what is not above its last value also tells two sessions of one snapshot apart: the
        second one finds its step taken, at the latest when it wants, or takes, a vector.

        returns  also RosterAccepted, InputWanted, SignWanted and Completed, as far as they are not settled
        raises  StaleSnapshotError: the snapshot has fewer releases than were counted;
                ParameterError: not a snapshot, or another identity's; another upload; it needs ML-KEM, and
                there is none here
        """
        state = snapshots.load(data)
        if state.parameters.hybrid:
            require_kem()
        if state.releases < releases:
            raise StaleSnapshotError(
                f"snapshot: must be the newest, after {releases} releases, has {state.releases}"
            )
        require(state.identity == signer.identity, "signer", "the snapshot's identity", signer.identity.hex())
        last = state.last
        if state.upload and upload is not None:
            digest = hashlib.sha256(upload).digest()
            require(digest == state.upload, "upload", "the frame that the session made", digest.hex())
            last = (Send(None, Frame(upload)),)
        session = cls(
            signer=signer,
            context=None if state.open_context else state.parameters.context,
            policy=policy,
            entropy=no_entropy,
            seen=seen,
            threads=threads,
        )
        session._entropy = None
        session._phase = state.phase
        session._parameters = state.parameters
        if state.vector is not None:
            session._vector = ArraySource(state.vector, state.parameters.ring_bits)
        session._submitted = state.vector is not None or isinstance(state.phase, Uploaded | Over)
        session._answered = state.answered
        session._last, session._lost = last, b"" if last else state.upload
        session._releases = state.releases
        accepted: list[Effect] = []
        if KINDS.index(RosterAnnouncement) in state.answered:  # the caller may not have kept it yet
            accepted.append(RosterAccepted(state.parameters.round_id))
        completed: list[Effect] = []
        if isinstance(state.phase, Over) and state.phase.survivors:
            completed.append(Completed(None, state.phase.survivors))
        return session, [*accepted, *last, *completed]

    def _on_message(self, round_id: bytes, message: Message) -> list[Effect]:
        match self._phase, message:
            case Idle(), RoundParametersMessage():
                return self._on_parameters(round_id, message)
            case AdvertiseKeys() as phase, RosterAnnouncement():
                return self._on_roster(phase, message)
            case ShareKeys() as phase, ShareDelivery():
                return self._on_delivery(phase, message)
            case Uploaded(signed=None) as phase, SurvivorSet() if phase.view.active:
                me = phase.view.index[self._signer.identity]
                members = check_set(phase.view, bytes(message.survivors), phase.finished, me)
                return self._ask(phase, message, members)
            case Uploaded() as phase, UnmaskingRequest():
                return self._on_request(phase, message)
            case _:
                raise refuse(
                    RefusalReason.WRONG_PHASE,
                    f"{type(message).__name__} in {type(self._phase).__name__}",
                )

    def _on_parameters(self, round_id: bytes, message: RoundParametersMessage) -> list[Effect]:
        parameters = parameters_from_wire(message)
        if parameters.round_id != round_id:
            raise refuse(RefusalReason.WRONG_ROUND, "RoundParameters.round_id is not the frame's")
        check_policy(parameters, self._policy, self._context, self._seen)
        if self._entropy is None:
            raise LocalProtocolError("a restored session takes no new round")
        secrets = Secrets.draw(self._entropy, hybrid=parameters.hybrid)
        own = advertise(parameters, self._signer, secrets)
        self._parameters = parameters
        self._phase = AdvertiseKeys(parameters, own, secrets)
        return [self._send(own)]

    def _on_roster(self, phase: AdvertiseKeys, message: RosterAnnouncement) -> list[Effect]:
        check_unseen(phase.parameters, self._seen)  # another session of ours may have accepted one meanwhile
        advertisements = tuple(message.neighbors)
        view = check_roster(phase.parameters, message.roster, advertisements, phase.own, self._policy)
        shared, opening = share_keys(view, advertisements, phase.secrets, self._signer, self._threads)
        phase.secrets.wipe("share_seed", "agreement")
        neighbors = {Identity(neighbor.identity): neighbor for neighbor in advertisements}
        self._phase = ShareKeys(view, neighbors, phase.secrets, opening)
        return [RosterAccepted(phase.parameters.round_id), self._send(shared)]

    def _on_delivery(self, phase: ShareKeys, message: ShareDelivery) -> list[Effect]:
        view, me = phase.view, self._signer.identity
        check_delivery(view, message, phase.neighbors, me)
        finished = view.members("ShareDelivery.finished", bytes(message.finished))
        contributions, unopened = open_contributions(view, message, phase.neighbors, phase.secrets, me)
        if unopened:
            for opened in contributions.values():
                opened[:] = bytes(len(opened))
            return self._leave(departure(view, finished, unopened, self._signer))
        kem = KemSecret(phase.secrets.kem) if view.hybrid else None
        vault = Vault(open_shares(view, message, phase.opening, me, kem))
        collecting = MaskedInputCollection(
            view, phase.neighbors, phase.secrets, finished, vault, contributions
        )
        if self._vector is None:
            effects: list[Effect] = [InputWanted(view.parameters.vector_length, view.parameters.ring_bits)]
            self._releases += 1  # of two sessions of one snapshot only one asks for a vector
            self._phase = collecting
        else:
            effects = self._upload(collecting, self._vector)
        phase.wipe_opening()
        return effects

    def _leave(self, message: MaskedInput) -> list[Effect]:
        """Say whose contributions do not open, and leave the round: our mask would not cancel."""
        blamed = tuple(map(Identity, message.unopened))
        effects: list[Effect] = [self._send(message)]
        detail = f"the contributions of {listed(blamed)} do not open"
        return [*effects, *self._end(RoundEnded(AbortReason.BAD_CONTRIBUTION, detail, blamed))]

    def _upload(self, phase: MaskedInputCollection, source: VectorSource) -> list[Effect]:
        """Mask and pack; nothing has changed when the source or the signer fails."""
        view = phase.view
        complaints = tuple(
            dealer
            for dealer in phase.neighbors
            if view.index[dealer] in phase.finished and dealer not in phase.vault
        )
        message = upload(
            view,
            source,
            phase.finished,
            complaints,
            phase.neighbors,
            phase.secrets,
            phase.contributions,
            self._signer,
            self._threads,
        )
        self._forget_vector()
        phase.secrets.wipe("mask", "self_seed")
        phase.wipe_contributions()
        self._phase = Uploaded(view, tuple(phase.neighbors), phase.finished, phase.vault)
        return [self._send(message)]

    def _forget_vector(self) -> None:
        if self._vector is not None:
            self._vector.array[:] = 0
        self._vector = None

    def _on_request(self, phase: Uploaded, message: UnmaskingRequest) -> list[Effect]:
        survivors = bytes(message.survivors)
        if phase.signed is not None and phase.signed != survivors:
            raise refuse(RefusalReason.EQUIVOCATION, "UnmaskingRequest.survivors: not the set that we signed")
        if phase.asked is not None and bytes(phase.asked.survivors) != survivors:
            raise refuse(
                RefusalReason.EQUIVOCATION, "UnmaskingRequest.survivors: not the set that we were to sign"
            )
        demand = self._checked(phase, message)
        if phase.signed is None:  # passive, or nobody asked us to sign: the caller has not consented
            return self._ask(phase, message, demand.members)
        return self._answer(phase, demand)

    def _ask(
        self, phase: Uploaded, message: SurvivorSet | UnmaskingRequest, members: frozenset[int]
    ) -> list[Effect]:
        """Keep a right message about S until the caller has consented to it."""
        phase.asked = decode(type(message), encode(message))  # the caller's buffer is not ours to keep
        self._releases += 1
        return [SignWanted(phase.view.named(phase.finished), phase.view.named(members))]

    def _checked(self, phase: Uploaded, message: UnmaskingRequest) -> Demand:
        return check_request(
            phase.view, message, phase.finished, phase.neighbors, phase.vault, self._signer.identity
        )

    def _answer(self, phase: Uploaded, demand: Demand) -> list[Effect]:
        response = answer(demand, phase.vault)
        phase.vault.wipe()
        survivors = phase.view.named(demand.members)
        self._phase = Over(survivors)
        return [self._send(response), Completed(None, survivors)]

    def _send(self, message: Message) -> Send:
        if self._parameters is None:
            raise LocalProtocolError("nothing is sent before RoundParameters")
        self._releases += 1
        return Send(None, encode_frame(self._parameters.round_id, message))

    def _repeat(self, kind: int, fingerprint: bytes) -> list[Effect]:
        """Answer a message of a kind that was answered before."""
        if self._answered[kind] != fingerprint:
            raise refuse(
                RefusalReason.EQUIVOCATION, f"a second, different {KINDS[kind].__name__} in this round"
            )
        if kind == max(self._answered) and self._lost:
            raise refuse(
                RefusalReason.UPLOAD_LOST, "restored without the masked vector, which was sent before"
            )
        if kind != max(self._answered) or not self._last:
            raise refuse(
                RefusalReason.WRONG_PHASE,
                f"{KINDS[kind].__name__}: was answered before, the round went on",
            )
        return list(self._last)

    def _end(self, end: RoundEnded) -> list[Effect]:
        self.close()
        return [Aborted(end.reason, end.blamed, end.detail)]

    def close(self) -> None:
        """Leave the round and overwrite every secret that is left; the session takes nothing any more."""
        wipe(self._phase)
        self._phase = Over()
        self._forget_vector()
        self._last, self._lost = (), b""
        self._entropy = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ClientSession is not pickled: it holds secrets; see snapshot()")

    def __repr__(self) -> str:
        return f"ClientSession(phase={self.phase!r})"


def _repeatable(effects: list[Effect]) -> tuple[Effect, ...]:
    """Return what an identical retransmission gets."""
    return tuple(effect for effect in effects if isinstance(effect, Send | InputWanted | SignWanted))


def _digest(frame: Frame) -> bytes:
    state = hashlib.sha256()
    for part in frame.chunks(1 << 24):
        state.update(part)
    return state.digest()


def _copied(source: VectorSource, ring_bits: int) -> ArraySource:
    """Read everything now: what is kept must not change, or fail, later."""
    out = np.empty(source.length, lane_dtype(ring_bits))
    source.read(0, out)
    check_entries(out, ring_bits)
    return ArraySource(out, ring_bits)
