"""A client's place in one round: its session, its computation, and what it keeps; outlives streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from secagg.audit import AuditError, content_of, load_receipt
from secagg.audit import Round as AuditedRound
from secagg.effects import (
    Aborted,
    Completed,
    Effect,
    Frame,
    InputWanted,
    Refused,
    Send,
    SignWanted,
)
from secagg.embedding.keeping import KeptRound, Means, Question, RoundForgottenError
from secagg.errors import ConsentError
from secagg.kernels import UIntArray, VectorSource
from secagg.params import Buffer, Entropy, Identity, Phase, Policy, RoundParameters, Signer
from secagg.protocol import ClientSession
from secagg.service.context import round_context
from secagg.service.errors import StreamError
from secagg.service.hello import DEFAULT_PLACE
from secagg.service.line import read_outcome
from secagg.service.records import Record, RecordType
from secagg.store import (
    Counter,
    LedgerError,
    ParticipationLedger,
    Store,
    StoreDamagedError,
    StoreError,
)

Computed: TypeAlias = UIntArray | VectorSource
Compute: TypeAlias = Callable[[bytes, RoundParameters], Computed]
BeforeAnswer: TypeAlias = Callable[[Phase, bytes], Awaitable[None]]
# (parameters, payload, finished, survivors)
BeforeSign: TypeAlias = Callable[[RoundParameters, bytes, frozenset[Identity], frozenset[Identity]], None]


QuestionOf: TypeAlias = Callable[[bytes, RoundParameters], Question]


def context_is_subject(_payload: bytes, parameters: RoundParameters) -> Question:
    """Take every payload for a subject of its own."""
    return Question(parameters.context)


class Outlet(Protocol):
    """The way out for frames."""

    async def send(self, frame: Frame) -> None:
        """Send a frame to the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that a client brings to every round."""

    signer: Signer
    policy: Policy
    entropy: Entropy = field(repr=False)
    store: Store = field(repr=False)
    counter: Counter = field(repr=False)
    ledger: ParticipationLedger = field(repr=False)
    wall: Callable[[], float]  # seconds since 1970
    before_answer: BeforeAnswer | None
    before_sign: BeforeSign | None = None
    on_refusal: Callable[[str], None]
    place: str = DEFAULT_PLACE  # FEDERATION/RUN
    resumes: bool = False  # whether the store keeps the secrets of a round, to go on with it
    agreement: bytes = b""  # digest of what was agreed on: in the context of every round
    question_of: QuestionOf = context_is_subject  # of (payload, parameters); may raise LedgerError

    @property
    def means(self) -> Means:
        """What does not depend on the way here."""
        return Means(
            signer=self.signer,
            policy=self.policy,
            entropy=self.entropy,
            store=self.store,
            counter=self.counter,
            ledger=self.ledger,
            wall=self.wall,
            resumes=self.resumes,
        )


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """The end of a round for this client.

    survivors  S, as this client's own session proved it; nobody where it has not, whatever the server says
    """

    completed: bool  # the server says that it has the sum
    finished: bool  # there are no more rounds; `payload` is the last word
    payload: bytes
    reason: str  # of a round that did not complete
    receipt: bytes = b""  # of the server's audit log, if it keeps one; see secagg.audit.check_receipt
    survivors: frozenset[Identity] = frozenset()


class Seat:
    """One client in one round."""

    def __init__(self, settings: Settings, compute: Compute) -> None:
        self._settings = settings
        self._compute = compute
        self._payload = b""
        self._round = KeptRound(settings.means, f"seat/{settings.place}")
        self._computing: asyncio.Task[Computed] | None = None
        self._wanted = asyncio.Event()
        self._submitted = False
        self._pending: list[Effect] = []  # of a restored session
        self._survivors: frozenset[Identity] = frozenset()  # that the session proved
        self.heard = False  # anything of a round since the stream was opened
        self.receipt = b""
        self.kept: frozenset[int] = frozenset()  # phases whose frame of ours the server has on disk
        self.outcome: RoundOutcome | None = None

    def restore(self) -> None:
        """Take the round up that an earlier process of ours was in, as it was when it last sent something.

        A round that cannot be gone on with is forgotten: the counter keeps us from it.
        """
        settings, kept = self._settings, self._round
        if not settings.resumes:
            return
        try:
            payload = settings.store.get(self._payload_name)
            if payload is None:
                return
            effects = kept.restore(context=round_context(payload, settings.agreement))
            if effects is None or kept.parameters is None:
                return
            kept.subject = settings.question_of(payload, kept.parameters).subject
        except Exception as error:  # whatever our caller objects to
            if isinstance(error, StoreError) and not isinstance(error, StoreDamagedError):
                raise  # it may be there again
            settings.on_refusal(f"the round that we were in cannot be gone on with: {error}")
            self.forget()
            return
        self._payload = payload
        self._pending = [effect for effect in effects if not isinstance(effect, Send)]  # it is asked for

    @property
    def _payload_name(self) -> str:
        return f"seat/{self._settings.place}/payload"

    @property
    def tags(self) -> tuple[str, ...]:
        """Nothing beside what its caller says."""
        return ()

    @property
    def over(self) -> bool:
        """Whether the round is."""
        return self.outcome is not None

    async def on_record(self, record: Record, outlet: Outlet) -> None:
        """Take a record of the server. Raises StreamError."""
        match record.type:
            case RecordType.PAYLOAD:
                self.take_payload(bytes(record.content))
            case RecordType.FRAME:
                await self.take_frame(record.content, outlet)
            case RecordType.ENDED:
                said = read_outcome(record.content)
                self.end(said.completed, said.why)
            case RecordType.FINISHED:
                self.finish(bytes(record.content))
            case RecordType.RECEIPT:
                self.take_receipt(bytes(record.content))
            case RecordType.TAKEN:
                self.taken(bytes(record.content))
            case _:
                raise StreamError(f"record: {record.type.name} is not for us")

    async def go_on(self, outlet: Outlet) -> None:
        """Carry out what the restored session still wants."""
        pending, self._pending = self._pending, []
        session = self._round.session
        if session is None or not pending:
            return
        self._compute_for(session)
        await self._carry_out(session, pending, outlet)

    def _compute_for(self, session: ClientSession) -> None:
        """Start computing, once, where the vector is not on its way yet."""
        parameters, answered = session.parameters, session.answered_phase
        uploaded = answered is not None and answered >= Phase.MASKED_INPUT_COLLECTION
        if session.phase is None:
            return  # it has left
        if parameters is not None and self._computing is None and not uploaded:
            self._computing = asyncio.create_task(asyncio.to_thread(self._compute, self._payload, parameters))

    @property
    def round_id(self) -> bytes:
        """The round to resume, or nothing."""
        session = self._round.session
        return b"" if session is None or session.parameters is None else session.parameters.round_id

    def take_payload(self, payload: bytes) -> None:
        """Begin a round about `payload`: its digest is the context that we accept.

        A round whose end we missed is forgotten.
        """
        self.forget()
        self.heard = True
        self._payload = payload
        self.receipt = b""
        self._survivors, self.kept = frozenset(), frozenset()
        self._round.begin(round_context(payload, self._settings.agreement))

    async def take_frame(self, content: Buffer, outlet: Outlet) -> None:
        """Feed a frame of the server; start computing once the parameters are accepted."""
        session = self._round.session
        if session is None:
            raise StreamError("record: FRAME before PAYLOAD")
        self.heard = True
        effects = session.receive(content)
        if session.parameters is not None and not self._may_take_part(session.parameters):
            return
        self._compute_for(session)
        await self._carry_out(session, effects, outlet)

    def _may_take_part(self, parameters: RoundParameters) -> bool:
        """Ask the counter and the ledger, once; whether a sum came out before only the server knows."""
        if self._round.admitted:
            return True
        try:
            self._round.check_begun()
            for concern in self._round.ask_ledger(self._settings.question_of(self._payload, parameters)):
                self._settings.on_refusal(f"our ledger warns: {concern.kind}: {concern.detail}")
        except (RoundForgottenError, LedgerError) as error:
            ours = "our ledger refuses: " if isinstance(error, LedgerError) else ""
            self.leave()
            self._over(completed=False, reason=f"{ours}{error}")
            return False
        return True

    async def speak(self, outlet: Outlet) -> None:
        """Hand the vector in as soon as it is both wanted and there. Raises what `compute` raised."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._submitted or self._computing is None or self._round.session is None:
                continue
            session, computing = self._round.session, self._computing
            await asyncio.wait({computing})
            if session is not self._round.session or computing.cancelled():
                continue  # the round was left meanwhile
            vector = computing.result()
            self._submitted = True
            effects = session.submit(vector)
            await self._carry_out(session, effects, outlet)

    def forget(self) -> None:
        """Leave the round for good: nothing of it is kept but that we were in it."""
        self.leave()
        self._unkeep()

    def _unkeep(self) -> None:
        self._round.unkeep(self._payload_name)

    async def _carry_out(self, session: ClientSession, effects: list[Effect], outlet: Outlet) -> None:
        first = not self._round.released
        self._round.keep(effects, {self._payload_name: self._payload} if first else None)  # then release
        phase = session.answered_phase
        for effect in effects:
            match effect:
                case Send(frame=frame):
                    if self._settings.before_answer is not None and phase is not None:
                        await self._settings.before_answer(phase, self._payload)
                    await outlet.send(frame)
                case InputWanted():
                    self._wanted.set()
                case SignWanted(finished=finished, survivors=survivors):
                    if await self._consents(session, finished, survivors):
                        await self._carry_out(session, session.sign(), outlet)
                case Completed(survivors=survivors):
                    self._summed(session, survivors)
                case Refused(reason=reason, detail=detail):
                    self._settings.on_refusal(f"{reason}: {detail}")
                case Aborted(reason=reason, detail=detail):
                    self._over(completed=False, reason=f"{reason}: {detail}")
                case _:
                    pass

    def _summed(self, session: ClientSession, survivors: frozenset[Identity]) -> None:
        """Keep that our vector is in a sum: it is no longer one that went into a round without result."""
        self._survivors = survivors
        self._round.summed(survivors)

    async def _consents(
        self, session: ClientSession, finished: frozenset[Identity], survivors: frozenset[Identity]
    ) -> bool:
        """Ask our caller whether a sum over these survivors may be opened; leave the round if not."""
        ask, parameters = self._settings.before_sign, session.parameters
        if ask is None or parameters is None:
            return True
        try:
            await asyncio.to_thread(ask, parameters, self._payload, finished, survivors)
        except (LedgerError, ConsentError) as error:
            self.leave()
            self._over(completed=False, reason=str(error))
            return False
        return session is self._round.session  # or the round was left meanwhile

    def taken(self, content: bytes) -> None:
        """Note that our frame of a phase is on the server's disk."""
        self.heard = True
        self.kept = self.kept | frozenset(content)

    def take_receipt(self, content: bytes) -> None:
        """Keep the receipt of this round; that of another one, or of none, is not."""
        try:
            entry = content_of(load_receipt(content).entry)
        except AuditError as error:
            self._settings.on_refusal(f"the server's receipt is none: {error}")
            return
        if isinstance(entry, AuditedRound) and entry.round_id == self.round_id:
            self.receipt = content
        else:
            self._settings.on_refusal("the server's receipt is of another round")

    def end(self, completed: bool, reason: str) -> None:
        """Take the server's word about the round."""
        self._over(completed=completed, reason=reason)

    def finish(self, payload: bytes) -> None:
        """There are no more rounds."""
        self._unkeep()
        self.outcome = RoundOutcome(completed=False, finished=True, payload=payload, reason="")

    def _over(self, *, completed: bool, reason: str) -> None:
        self._unkeep()
        self.outcome = RoundOutcome(
            completed,
            finished=False,
            payload=self._payload,
            reason=reason,
            survivors=self._survivors,
            receipt=self.receipt,
        )

    def leave(self) -> None:
        """Wipe the round's secrets from memory; what was computed but not wanted is thrown away."""
        self._round.leave()
        self._forget_computation()

    def _forget_computation(self) -> None:
        if self._computing is not None:
            self._computing.add_done_callback(_look_at)
            self._computing.cancel()
        self._computing = None
        self._wanted.clear()
        self._submitted = False


def _look_at(task: asyncio.Task[Computed]) -> None:
    """Retrieve an exception that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
