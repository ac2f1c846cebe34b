"""A client of the one-upload protocol: it gets a model and a round, speaks once, and may go for good."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from secagg.effects import Effect, Frame, InputWanted, Refused, RosterAccepted, Send
from secagg.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from secagg.kernels import UIntArray, VectorSource
from secagg.messages.oneshot import ONESHOT_FRAMES, OneShotParametersMessage, decode_oneshot
from secagg.params import Buffer, Entropy, Signer
from secagg.params_oneshot import OneShotParameters, OneShotPolicy
from secagg.protocol.oneshot import Contributor, read_parameters
from secagg.service.authority import PartyCredentials
from secagg.service.clock import Clock, SystemClock
from secagg.service.context import round_context
from secagg.service.hello import DEFAULT_PLACE
from secagg.service.keys import ServerCredentials
from secagg.service.line import RECORD_LIMIT, Line, Stream, print_nothing, read_outcome
from secagg.service.records import Record, RecordType
from secagg.service.tasks import on_thread
from secagg.store import LedgerError, MemoryStore, ParticipationLedger, Store, StoredIds

_UPLOADED = "uploaded"  # round ids
Computed: TypeAlias = UIntArray | VectorSource
Compute: TypeAlias = Callable[[bytes, OneShotParameters], Computed]
SubjectOf: TypeAlias = Callable[[bytes, bytes], bytes]


def _context(_payload: bytes, context: bytes) -> bytes:
    return context


@dataclass(frozen=True, slots=True)
class Contribution:
    """What became of a client's one upload.

    acknowledged  the server has it on disk: nothing more is asked of us
    finished      there are no more rounds; `payload` is the last word
    """

    acknowledged: bool
    finished: bool
    payload: bytes = field(repr=False)
    round_id: bytes = b""
    reason: str = ""  # of an upload that was not acknowledged


@dataclass(frozen=True, slots=True)
class _Settings:
    signer: Signer
    policy: OneShotPolicy
    entropy: Entropy
    store: Store
    ledger: ParticipationLedger
    wall: Callable[[], float]
    on_refusal: Callable[[str], None]
    subject_of: SubjectOf
    agreement: bytes
    place: str
    again: bool
    threads: int


class OneShotClient:
    """Uploads to rounds of one server.

    address, credentials, place, tags, on_refusal, patience_s, most_bytes
                 as of `AggregationClient`
    policy       what the client demands of committee and round; both registries are its own
    entropy      for the secrets of each upload
    store        keeps what was uploaded, also the upload that was not acknowledged yet: a client that was
                 killed sends the same again
    ledger       knows the vectors that were uploaded, by subject, in rounds of either protocol; default: in
                 the store
    subject_of   (payload, context) -> what the ledger knows the vector by, 32 bytes; default: the context
    again        upload about a subject that was uploaded about before: two sums that differ in one client
                 show its vector
    agreement    digest of what was agreed on before: in the context of every round
    threads      for masking
    """

    def __init__(
        self,
        *,
        address: str | Sequence[str],
        credentials: ServerCredentials | PartyCredentials,
        signer: Signer,
        policy: OneShotPolicy,
        entropy: Entropy = os.urandom,
        store: Store | None = None,
        ledger: ParticipationLedger | None = None,
        subject_of: SubjectOf = _context,
        again: bool = False,
        agreement: bytes = b"",
        place: str = DEFAULT_PLACE,
        tags: Collection[str] = (),
        clock: Clock | None = None,
        on_refusal: Callable[[str], None] = print_nothing,
        patience_s: float = 60.0,
        most_bytes: int = RECORD_LIMIT,
        threads: int = 1,
    ) -> None:
        clock = clock or SystemClock()
        self._line = Line(
            address=address,
            credentials=credentials,
            signer=signer,
            place=place,
            tags=tags,
            clock=clock,
            on_refusal=on_refusal,
            patience_s=patience_s,
            most_bytes=most_bytes,
        )
        store = store or MemoryStore()
        self._settings = _Settings(
            signer=signer,
            policy=policy,
            entropy=entropy,
            store=store,
            ledger=ledger or ParticipationLedger(store),
            wall=clock.wall,
            on_refusal=on_refusal,
            subject_of=subject_of,
            agreement=agreement,
            place=place,
            again=again,
            threads=threads,
        )

    @property
    def trouble(self) -> str | None:
        """Why there is no stream at the moment; "": not known yet; None: there is one."""
        return self._line.trouble

    async def contribute(self, compute: Compute) -> Contribution:
        """Upload once: to the next round that wants it. An upload that an earlier call left is sent first.

        compute  (payload, parameters) -> vector (d,) below 2^ring_bits, or a VectorSource of it; called in a
                 thread, once the parameters are accepted. What it raises, or the source when it is read, is
                 raised here.
        raises   ConnectionLostError: with the cause; HelloError, StreamError; StoreError: a later call sends
                 what was made
        """
        self._line.check()
        sitting = _Sitting(self._settings, compute)
        sitting.restore()
        try:
            await self._line.hold(sitting)
        finally:
            sitting.leave()
        if sitting.outcome is None:
            raise LocalProtocolError("the line is held until the upload is acknowledged")
        return sitting.outcome


class _Sitting:
    """One upload."""

    def __init__(self, settings: _Settings, compute: Compute) -> None:
        self._settings, self._compute = settings, compute
        self._newest = b""  # payload
        self._payload = b""  # that is computed for
        self._certificate: bytes | None = None
        self._parameters: bytes | None = None  # frame of the newest round
        self._newest_id = b""  # of it
        self._shape = 0, 0  # of the vector
        self._computing: asyncio.Task[Computed] | None = None
        self._one = asyncio.Lock()
        self._wanted = asyncio.Event()  # something is computed, and not submitted
        self._upload: Frame | None = None
        self._round_id = b""
        self.heard = False
        self.outcome: Contribution | None = None

    def restore(self) -> None:
        """Take up an upload that was not acknowledged. Raises StoreError."""
        settings = self._settings
        if (kept := settings.store.get(self._kept)) is None:
            return
        try:
            _, effects = Contributor.restore(kept, signer=settings.signer, policy=settings.policy)
        except ParameterError as error:
            settings.on_refusal(f"the upload that was kept cannot be sent: {error}")
            settings.store.put({self._kept: None})
            return
        self._sends(effects)

    def _sends(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case RosterAccepted(round_id=round_id):
                    self._round_id = round_id
                case Send(frame=frame):
                    self._upload = frame
                case _:
                    pass

    @property
    def _kept(self) -> str:
        return f"upload/{self._settings.place}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Nothing beside what its caller says."""
        return ()

    @property
    def over(self) -> bool:
        """Whether the upload is acknowledged, or in vain."""
        return self.outcome is not None

    @property
    def round_id(self) -> bytes:
        """The round of an upload that was not acknowledged yet."""
        return self._round_id

    async def go_on(self, _stream: Stream) -> None:
        """Wait for what the server says: of an upload that is made, whether its round still takes it."""

    async def on_record(self, record: Record, stream: Stream) -> None:
        """Take a record of the server. Raises StreamError."""
        match record.type:
            case RecordType.PAYLOAD:
                self._newest = bytes(record.content)
                self.heard = True
            case RecordType.FRAME:
                self.heard = True
                if self._upload is None:
                    self._take_frame(bytes(record.content))
                elif self._is_ours(record.content):
                    await stream.send(self._upload)
            case RecordType.TAKEN:
                if self._upload is not None:
                    self._end(acknowledged=True)
            case RecordType.ENDED:
                said = read_outcome(record.content)
                self._over_for(said.round_id, said.completed, said.why)
            case RecordType.FINISHED:
                self._end(acknowledged=False, finished=True, payload=bytes(record.content))
            case _:  # receipts are for those who stay
                pass

    def _over_for(self, round_id: bytes, completed: bool, reason: str) -> None:
        """Take the end of a round: that of our upload, or of the one that we would upload to."""
        if self._upload is None:
            if round_id == self._newest_id:
                self._parameters = None  # what is computed may count in the next round
        elif round_id == self._round_id:
            why = reason or ("summed, perhaps without us" if completed else "the round is over")
            self._end(acknowledged=False, reason=f"not acknowledged: {why}")

    def _take_frame(self, frame: bytes) -> None:
        """Take a committee's certificate, or the parameters of the newest round."""
        try:
            message = decode_oneshot(ONESHOT_FRAMES.open(frame))
            if not isinstance(message, OneShotParametersMessage):
                self._certificate = frame  # checked with the parameters
                return
            parameters = read_parameters(frame)
        except RemoteProtocolError as error:
            self._settings.on_refusal(f"{error.reason}: {error.detail}")
            return
        self._parameters, self._newest_id = frame, parameters.round_id
        counts = self._context_of(self._payload) in parameters.contexts and _shape(parameters) == self._shape
        if self._computing is not None and counts:
            self._wanted.set()  # what we compute counts in this round, too
            return
        self._forget_computation()
        self._payload, self._shape = self._newest, _shape(parameters)
        if self._contributor() is not None:
            self._computing = asyncio.create_task(self._computed(self._payload, parameters))
            self._wanted.set()

    async def _computed(self, payload: bytes, parameters: OneShotParameters) -> Computed:
        """Compute once at a time: what is not wanted any more runs to its end first."""
        async with self._one:
            return await on_thread(None, self._compute, payload, parameters)

    def _is_ours(self, frame: Buffer) -> bool:
        """Whether these are the parameters of the round that our upload is for."""
        try:
            return read_parameters(frame).round_id == self._round_id
        except RemoteProtocolError:
            return False

    def _context_of(self, payload: bytes) -> bytes:
        return round_context(payload, self._settings.agreement)

    def _contributor(self) -> Contributor | None:
        """Return a session that wants our vector for the newest round; None: it refuses."""
        settings, context = self._settings, self._context_of(self._payload)
        session = Contributor(
            signer=settings.signer,
            context=context,
            policy=settings.policy,
            entropy=settings.entropy,
            seen=StoredIds(settings.store, _UPLOADED),
            told=_Told(settings, settings.subject_of(self._payload, context)),
            again=settings.again,
            threads=settings.threads,
        )
        for frame in (self._certificate, self._parameters):
            for effect in session.receive(frame or b""):
                match effect:
                    case Refused(reason=reason, detail=detail):
                        settings.on_refusal(f"{reason}: {detail}")
                        return None
                    case InputWanted():
                        return session
                    case _:
                        pass
        return None

    async def speak(self, stream: Stream) -> None:
        """Upload as soon as the vector is there. Raises what `compute` raised."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if (computing := self._computing) is None:
                continue
            await asyncio.wait({computing})
            if computing is not self._computing or computing.cancelled():
                continue  # its model does not count any more
            vector = computing.result()
            if self._parameters is not None and (upload := await self._made(vector)) is not None:
                await stream.send(upload)

    async def _made(self, vector: Computed) -> Frame | None:
        """Return the upload, kept; None: there is none now, and nothing has left. Raises StoreError."""
        session, used = self._contributor(), self._parameters
        if session is None:
            self._computing = None
            return None  # the next round tells what it is about
        try:
            effects = await asyncio.to_thread(session.submit, vector)
        except ParameterError:  # of the vector
            raise
        except LocalProtocolError as error:  # another session of ours uploaded meanwhile
            if used is self._parameters:
                self._computing = None  # else it is about another model by now
            self._settings.on_refusal(str(error))
            return None
        if used is not self._parameters:  # another round takes it by now, or none
            if self._parameters is not None:
                self._wanted.set()
            return None
        self._computing = None
        if not self._keep(session, effects):
            self._settings.on_refusal("another session of ours uploaded about this meanwhile")
            return None
        self._sends(effects)
        return self._upload

    def _keep(self, session: Contributor, effects: Collection[Effect]) -> bool:
        """Keep the upload, and that it was made, before it leaves. Raises StoreError.

        returns  whether it may leave: another session of this identity may have been faster
        """
        settings = self._settings
        (round_id,) = (one.round_id for one in effects if isinstance(one, RosterAccepted))
        subject = settings.subject_of(self._payload, self._context_of(self._payload))
        me, uploaded = settings.signer.identity, StoredIds(settings.store, _UPLOADED)
        with settings.store.transaction():
            if round_id in uploaded:
                return False
            try:
                settings.ledger.spend(subject, round_id, me, settings.wall(), again=settings.again)
            except LedgerError:
                return False
            settings.store.put({uploaded.name(round_id): b"\1", self._kept: session.snapshot()})
        return True

    def _end(
        self, *, acknowledged: bool, finished: bool = False, payload: bytes = b"", reason: str = ""
    ) -> None:
        self._settings.store.put({self._kept: None})
        self.outcome = Contribution(acknowledged, finished, payload or self._payload, self._round_id, reason)

    def leave(self) -> None:
        """Throw away what was computed and not uploaded."""
        self._forget_computation()

    def _forget_computation(self) -> None:
        if self._computing is not None:
            self._computing.add_done_callback(_look_at)
            self._computing.cancel()
        self._computing = None
        self._wanted.clear()


def _shape(parameters: OneShotParameters) -> tuple[int, int]:
    return parameters.vector_length, parameters.ring_bits


def _look_at(task: asyncio.Task[Computed]) -> None:
    """Retrieve an exception that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


class _Told:
    """Whether the context that is asked about has a subject that was uploaded about before."""

    def __init__(self, settings: _Settings, subject: bytes) -> None:
        self._settings, self._subject = settings, subject

    def __contains__(self, _context: object) -> bool:
        return self._settings.ledger.told(self._subject, self._settings.signer.identity)
