"""An edge as a process: it takes uploads near the clients, and sends one sum of them on (part 2, section 7).

To its clients it is a server; to the server, the root, a party. What it acknowledges is on its disk: it goes
on with it after a restart, until the root says that the round is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from secagg.effects import Aggregate, Effect, Frame, Progress, Refused, Send, UploadTaken
from secagg.errors import LocalProtocolError, ParameterError, RemoteProtocolError, RoundAbortedError
from secagg.messages.oneshot import ONESHOT_FRAMES, OneShotParametersMessage, PackedRequest, decode_oneshot
from secagg.params import Buffer, Identity, Signer
from secagg.protocol.oneshot import CommitteeView, EdgeServer, OneShotProgress, read_parameters
from secagg.protocol.oneshot.view import sha256
from secagg.registry import Registry
from secagg.service.authority import PartyCredentials
from secagg.service.connection import Intake
from secagg.service.errors import ServiceError, StreamError
from secagg.service.events import (
    Event,
    MessageRefused,
    Observer,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    StoreFailed,
    ignore,
)
from secagg.service.hello import DEFAULT_PLACE, Hello, check_place
from secagg.service.kept import dump_failure, load_failure
from secagg.service.keys import ServerCredentials
from secagg.service.led import Entrance, Shared
from secagg.service.line import (
    BrokenStreamError,
    Line,
    Outcome,
    Stream,
    print_nothing,
    read_outcome,
    read_rounds,
)
from secagg.service.oneshot.desks import ClientDesk
from secagg.service.oneshot.driver import UploadDriver
from secagg.service.oneshot.offered import OfferedRun
from secagg.service.oneshot.plan import OneShotDeadlines, OneShotPlan, view_of
from secagg.service.oneshot.rounds import CLOSED, FramesAsPacked
from secagg.service.oneshot.run import EDGES
from secagg.service.records import Record, RecordType
from secagg.service.stored import OVER, Ended, Incoming, Services, Standing, Step, StoredRound
from secagg.service.tasks import end_tasks, on_thread
from secagg.store import LeaseLostError, StoreDamagedError, StoreError
from secagg.store.sql import Kept, KeptRound, Lease, SpoolMissingError, State

ROOT = Identity(b"")  # as the sender of a frame
_HANDED_ON = "handed on"
_DAY_S = 86_400.0
_MOST_ROUNDS = 64  # of one root at once
_MOST_ASKED = 1024  # requests of a root at work at once
_MOST_OUT = 1 << 16  # frames that wait for a root; one that does not read them loses them


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """Settings of an edge.

    root         address of the server, host:port, or several, of one database
    credentials  the root's pinned certificate, or our own of an operator's authority
    signer       the edge's identity, enrolled as an edge at the root
    registry     the clients whose uploads are taken
    place        FEDERATION/RUN, at the root and for our clients
    upload_s     how long uploads are taken, from when the root offers a round: less than at the root
    goal         uploads that are enough; 0: everybody's
    grace_s      once `goal` came, so long for the rest; None: it is not waited for
    keep_s       how long uploads are kept for a root that says nothing of their round
    linger_s     how long clients are waited for that have not heard that there are no more rounds
    patience_s   how long to try to reach the root, without a word of it
    """

    root: str | Sequence[str]
    credentials: ServerCredentials | PartyCredentials
    signer: Signer = field(repr=False)
    registry: Registry
    place: str = DEFAULT_PLACE
    upload_s: float = 60.0
    goal: int = 0
    grace_s: float | None = None
    keep_s: float = _DAY_S
    linger_s: float = 60.0
    patience_s: float = float("inf")
    observer: Observer = ignore
    on_refusal: Callable[[str], None] = print_nothing

    def __post_init__(self) -> None:
        check_place(self.place + EDGES)
        _ = self.deadlines
        if self.goal < 0:
            raise ParameterError(f"goal: must be at least 0, is {self.goal}")
        if not self.linger_s >= 0:
            raise ParameterError(f"linger_s: must be at least 0, is {self.linger_s}")
        if self.signer.identity in self.registry.identities:
            raise ParameterError("signer: is a client of the registry, and no edge")

    @property
    def deadlines(self) -> OneShotDeadlines:
        """Of each round. Raises ParameterError."""
        return OneShotDeadlines(upload_s=self.upload_s, upload_grace_s=self.grace_s, phase_s=self.keep_s)


class EdgeRound(StoredRound[EdgeServer]):
    """A round at an edge: uploads until the sum of them is sent on, and then what the root still fetches."""

    def __init__(
        self,
        plan: OneShotPlan,
        committee: CommitteeView,
        services: Services,
        payload: Buffer,
        *,
        kept: bool,
    ) -> None:
        super().__init__(plan.round_id, services, payload, kept=kept, ticket=b"")
        self._plan, self._committee = plan, committee
        self._packed = FramesAsPacked(services.journal)
        self._partial: list[Effect] = []  # once it is sent on
        self.there = False  # the root has our sum on its disk
        self.over = self.completed = False  # at the root, as it says
        self.said = ""  # why

    @property
    def progress(self) -> Progress | OneShotProgress:
        """Of the session; ready once as many came as are waited for."""
        if self._session is None:
            return OVER
        ready = len(self._session.uploads) >= (self._plan.goal or self.everybody)
        return replace(self._session.progress, ready=ready)

    @property
    def everybody(self) -> int:
        """How many uploads there can be."""
        return min(len(self._plan.admitted), self._plan.parameters.maximum_uploads)

    def _new_session(self) -> EdgeServer:
        self._packed, self._partial = FramesAsPacked(self._journal), []
        known = self._plan.admitted
        return EdgeServer(self._plan.parameters, self._committee, known=known, packed=self._packed)

    def _begin(self) -> Step:
        plan, step, session = self._plan, Step(), self._new_session()
        try:
            self._journal.announce(self._id)
            self._journal.keep(f"{self._name}.payload", self._payload)
            self._journal.begin(self._id, plan.dump(), ticket=b"", opened=self._services.clock.wall())
        except BaseException as error:
            if not (isinstance(error, StoreError) and self._is_there()):
                self.discard([f"{self._name}.payload"])
                self._recall()
                raise
        self.known, self._session = True, session
        step.events.append(RoundOpened(self._id, plan.parameters.vector_length, plan.parameters.ring_bits))
        return step

    def _resume(self, _kept: KeptRound) -> Step:
        step, session = Step(), self._new_session()
        for one in self._journal.since_checkpoint(self._id):
            if one.sender:
                step.effects += self._repeat(session, one)
            else:
                self._partial = session.send_on()
        self._session = session
        step.effects += self._partial
        return step

    def _repeat(self, session: EdgeServer, kept: Kept) -> list[Effect]:
        """Feed an upload that was taken before. Raises StoreDamagedError: it is not that one any more."""
        try:
            frame = self._frame_of(Incoming(Identity(kept.sender), kept.frame, kept.spooled))
        except SpoolMissingError as error:  # it was acknowledged: nobody can be asked for it again
            raise StoreDamagedError(f"round {self._name}: {error}") from error
        self._packed.arrives(frame, kept.spooled)
        effects = session.receive(Identity(kept.sender), frame)
        if sha256(frame) != kept.digest or not any(isinstance(one, UploadTaken) for one in effects):
            raise StoreDamagedError(f"round {self._name}: an upload is another one than was taken")
        return effects

    def take(self, batch: Sequence[Incoming]) -> Step:
        """Feed frames, see `StoredRound`; an `Incoming` without one is of the root: it gets the sum again."""
        session, step, kept = self._live, Step(), list[Kept]()
        for arrived in batch:
            if arrived.sender == ROOT:
                step.effects += session.receive(None, arrived.frame) if arrived.frame else self._partial
                step.standings.append(Standing.STANDS)
                continue
            try:
                frame = self._frame_of(arrived)
            except SpoolMissingError:
                step.standings.append(Standing.LOST)
                continue
            self._packed.arrives(frame, arrived.spooled)
            effects = session.receive(arrived.sender, frame)
            step.effects += effects
            if not any(isinstance(one, UploadTaken) and not one.again for one in effects):
                self.discard([arrived.spooled])
                refused = any(isinstance(effect, Refused) for effect in effects)
                step.standings.append(Standing.REFUSED if refused else Standing.STANDS)
                continue
            step.up += memoryview(frame).nbytes
            kind = ONESHOT_FRAMES.open(frame).kind
            kept.append(Kept(arrived.sender, kind, sha256(frame), arrived.frame, arrived.spooled))
            step.standings.append(Standing.TAKEN)
        if kept:
            self._journal.take(self._id, kept)
        return step

    def close_phase(self) -> Step:
        session, step = self._live, Step()
        if self._partial or self.over or not session.uploads:
            why = "the root says nothing of it" if session.uploads else "nobody uploaded"
            self._end(step, RoundAbortedError(_HANDED_ON, self.said if self.over else why))
            return step
        step.effects = session.send_on()
        self._journal.take(self._id, [Kept(b"", CLOSED, b"", None)])
        self._partial = step.effects
        return step

    def _end(self, step: Step, result: Aggregate | RoundAbortedError) -> None:
        """Keep whose uploads were handed on, and forget them."""
        if not isinstance(result, RoundAbortedError):
            raise LocalProtocolError("an edge has no sum of its own")
        uploads = self._live.uploads if self._handed_on else frozenset()
        step.events.append(self._told(result))
        outcome = dump_failure(result, uploads)
        with self._journal.transaction():
            self._journal.end(self._id, State.ABORTED, outcome, self._services.clock.wall())
        step.end = Ended(result)
        self._remove_rest(step)

    @property
    def _handed_on(self) -> bool:
        return self.completed and self.there and self._session is not None

    def _told(self, result: Aggregate | RoundAbortedError) -> Event:
        if self._handed_on and self._session is not None:
            return RoundCompleted(self._id, self._names(self._session.uploads), ())
        return RoundFailed(self._id, _HANDED_ON, str(result), ())

    @staticmethod
    def loaded(kept: KeptRound, total: Buffer) -> Aggregate:  # noqa: ARG004
        raise StoreDamagedError(f"round {kept.round_id.hex()}: an edge keeps no sum")

    def _released(self, result: Aggregate) -> None:
        """Tell no ledger: the root has one."""


class EdgeDriver(UploadDriver):
    """Runs a round at an edge.

    refuse   is called for what is refused of a client
    send_on  is called for what goes to the root
    """

    def __init__(
        self,
        plan: OneShotPlan,
        services: Services,
        *,
        payload: Buffer,
        refuse: Callable[[EdgeDriver, Identity, Refused], None],
        send_on: Callable[[Frame], None],
        kept: KeptRound | None = None,
    ) -> None:
        view = view_of(plan)
        self._edge = EdgeRound(plan, view.committee, services, payload, kept=kept is not None)
        super().__init__(plan, view, services, self._edge, payload=payload, ticket=b"")
        self._refuse, self._send_on = refuse, send_on
        self._opened = services.clock.wall() if kept is None else kept.opened

    def root_is_over(self, completed: bool, why: str) -> None:
        """Note that the round is over at the root: nothing is fetched any more."""
        edge = self._edge
        if edge.over:
            return
        edge.over, edge.completed = True, completed
        edge.said = why or ("the root has completed the round" if edge.there else "it came too late")
        self._changed.set()

    def root_has_it(self) -> None:
        """Note that the sum is on the root's disk."""
        self._edge.there = True

    def again(self) -> None:
        """Send the root what it must have: the stream to it is a new one."""
        self.rejoin(ROOT)

    def _time(self) -> tuple[float, float | None]:
        deadlines = self.plan.deadlines
        if self.uploading:  # also before we were started again
            gone_s = max(0.0, self._services.clock.wall() - self._opened)
            return deadlines.upload_s - gone_s, deadlines.upload_grace_s
        return deadlines.phase_s, None

    def _enough(self) -> bool:
        if self._edge.over or not self.uploading:
            return self._edge.over
        rest_is_waited_for = not self.plan.goal or self.plan.deadlines.upload_grace_s is not None
        return self.progress.received >= (self._edge.everybody if rest_is_waited_for else self.plan.goal)

    def _carry_out(self, step: Step) -> None:
        super()._carry_out(step)
        for effect in step.effects:
            match effect:
                case Send(to=None, frame=frame) if not self._edge.over:
                    self._send_on(frame)
                case Refused(sender=None, reason=reason, detail=detail):
                    self._services.observer(MessageRefused(self._id, "the root", str(reason), detail))
                case _:
                    pass

    def _send(self, client: Identity, item: Frame | Refused) -> None:
        if isinstance(item, Refused):
            self._refuse(self, client, item)


class EdgeRun(OfferedRun[EdgeDriver]):
    """The rounds of an edge; made by `AggregationServer.open_edge`. Its place is its own database's."""

    _protocol = b"edge"

    def __init__(self, settings: EdgeSettings, shared: Shared, lease: Lease) -> None:
        super().__init__(
            settings.place,
            settings.registry,
            shared,
            lease,
            observer=settings.observer,
            ledger=None,
            transcripts=None,
            keep_sums=1,
        )
        self._settings = settings
        self._clients = ClientDesk(self._rounds, self._journal, settings.registry.identities)
        self._line = Line(
            address=settings.root,
            credentials=settings.credentials,
            signer=settings.signer,
            place=settings.place + EDGES,
            clock=shared.clock,
            on_refusal=settings.on_refusal,
            patience_s=settings.patience_s,
        )
        self._upward = _Upward(self)
        self._holding: asyncio.Task[None] | None = None

    # --- what the caller does

    @property
    def connected(self) -> frozenset[Identity]:
        """The clients that have a stream at the moment."""
        return self._clients.connected

    @property
    def trouble(self) -> str | None:
        """Why there is no stream to the root at the moment; "": not known yet; None: there is one."""
        holding = self._holding
        if holding is not None and holding.done() and not holding.cancelled() and holding.exception():
            return str(holding.exception())  # for good
        return self._line.trouble

    async def finished(self) -> bytes:
        """Return the last word of the root, once there are no more rounds and our clients are told.

        raises  ConnectionLostError: with the cause; HelloError, StreamError; LeaseLostError: another process
                goes on with this edge; ServiceError: the edge was stopped
        """
        if self._holding is None:
            raise LocalProtocolError("finished: the edge is not open")
        await asyncio.wait({self._holding})
        if self._holding.cancelled():
            raise self._heart.lost or ServiceError("the edge was stopped before there were no more rounds")
        self._holding.result()
        if self._tasks:  # what the root says of them it has said
            await asyncio.wait(self._tasks.values())
        self._clients.finish(self._upward.last)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.linger_s):
                await self._clients.everybody_told()
        return self._upward.last

    # --- rounds

    @property
    def entrances(self) -> dict[str, Entrance]:
        """Where clients say hello."""
        return {self.place: Entrance(lambda: self._settings.registry.identities, self._let_in)}

    async def _let_in(self, hello: Hello, intake: Intake, context: Any) -> None:  # noqa: ANN401 - of gRPC
        self._check_leads()
        await self._clients.serve(hello, intake, context)

    async def start(self) -> None:
        """Go on with every round that the store has, and connect to the root. Raises StoreError."""
        await super().start()
        if self._heart.lost is not None:
            raise self._heart.lost
        self._holding = asyncio.create_task(self._line.hold(self._upward))
        self._holding.add_done_callback(_look_at)

    async def close(self) -> None:
        """Leave the run, and the root."""
        await self._leave_root()
        await super().close()

    async def _stop_leading(self, error: LeaseLostError) -> None:
        await self._leave_root()  # whoever leads from now on is there in our name
        await super()._stop_leading(error)

    async def _leave_root(self) -> None:
        if self._holding is not None:
            await end_tasks(self._holding)
        await self._upward.close()

    async def offered(self, payload: bytes, certificate: bytes, frame: bytes) -> None:
        """Begin a round that the root offers, unless it is known.

        raises  StreamError: it is none, or they are too many; StoreError
        """
        try:
            parameters = read_parameters(frame)
        except RemoteProtocolError as error:
            raise StreamError(f"record: FRAME: {error}") from error
        if parameters.round_id in self._rounds:
            return
        if await on_thread(self._shared.executor, self._journal.find, parameters.round_id) is not None:
            return  # it is over here
        if len(self._rounds) >= _MOST_ROUNDS:
            raise StreamError(
                f"record: FRAME: {_MOST_ROUNDS} rounds of the root go on, and it offers another"
            )
        plan = OneShotPlan(
            parameters=parameters,
            certificate=certificate,
            admitted=self._settings.registry.identities,
            deadlines=self._settings.deadlines,
            goal=self._settings.goal,
        )
        try:
            driver = self._made(plan, payload, None)
        except StoreDamagedError as error:
            raise StreamError(f"record: FRAME: {error}") from error
        self._start(driver, new=True)

    def _made(self, plan: OneShotPlan, payload: Buffer, kept: KeptRound | None) -> EdgeDriver:
        return EdgeDriver(
            plan,
            self._services,
            payload=payload,
            refuse=self._clients.refuse,
            send_on=self._upward.send,
            kept=kept,
        )

    def _driver(self, kept: KeptRound, payload: Buffer) -> EdgeDriver:
        return self._made(OneShotPlan.load(kept.header), payload, kept)

    def _result(self, kept: KeptRound) -> Ended:
        return Ended(load_failure(kept.outcome))

    def _check_same(self, kept: EdgeDriver | KeptRound, wanted: Any) -> None:  # noqa: ANN401
        """Nobody asks an edge for a round by a ticket."""

    def _offer(self, driver: EdgeDriver) -> None:
        if driver.uploading:
            self._clients.offer(driver)

    def _release(self, driver: EdgeDriver, outcome: Aggregate | Exception | None) -> None:
        self._clients.release(driver, outcome)
        if isinstance(outcome, StoreError):
            self.failed(driver.round_id, outcome)

    def failed(self, round_id: bytes, error: StoreError) -> None:
        """Tell of a round that could not be begun; it is offered again on a new stream."""
        self._observer(StoreFailed(round_id, str(error)))
        self._upward.connect_again()

    def _hang_up(self, *, at_once: bool) -> None:
        if at_once:
            self._clients.drop()
        else:
            self._clients.close()


class _Upward:
    """The edge's stream to the root."""

    def __init__(self, run: EdgeRun) -> None:
        self._run = run
        self._payload = self._certificate = b""
        self._out: asyncio.Queue[Frame | None] = asyncio.Queue()  # None: the stream must end
        self._stream: Stream | None = None  # on which we have said hello
        self._greeted = asyncio.Event()
        self._told = False  # on this stream, which rounds the root has
        self._asked: set[asyncio.Task[None]] = set()
        self.heard = False
        self.over = False
        self.last = b""
        self.round_id = b""  # the root says by itself what goes on
        self.tags: tuple[str, ...] = ()

    def send(self, frame: Frame) -> None:
        """Queue a frame for the root, once it has said which rounds it has: it gets what these need then.

        Of a round that it has no more it would take none, and end the stream.
        """
        if not self._told:
            return
        self._out.put_nowait(frame if self._out.qsize() < _MOST_OUT else None)

    def connect_again(self) -> None:
        """Leave the stream for a new one: the root offers and asks again what we could not do."""
        self.heard = False  # wait longer each time
        self._out.put_nowait(None)

    async def close(self) -> None:
        """Answer nothing any more."""
        await end_tasks(*self._asked)

    async def go_on(self, stream: Stream) -> None:
        """Forget what was queued: it is of another stream."""
        self._stream, self._told = stream, False
        while not self._out.empty():
            self._out.get_nowait()
        self._greeted.set()

    async def speak(self, stream: Stream) -> None:
        """Send what is queued, once we have said hello."""
        while self._stream is not stream:
            self._greeted.clear()
            await self._greeted.wait()
        while (frame := await self._out.get()) is not None:
            await stream.send(frame)
        raise BrokenStreamError

    async def on_record(self, record: Record, _stream: Stream) -> None:
        """Take a record of the root. Raises StreamError."""
        rounds = {driver.round_id: driver for driver in self._run.rounds}
        match record.type:
            case RecordType.ROUNDS:
                self._on_rounds(read_rounds(record.content), rounds)
            case RecordType.PAYLOAD:
                self._payload = bytes(record.content)
            case RecordType.FRAME:
                await self._on_frame(bytes(record.content), rounds)
            case RecordType.ENDED:
                self._on_end(read_outcome(record.content), rounds)
            case RecordType.TAKEN:  # vectors may be fetched until the round is over
                if (taken := rounds.get(bytes(record.content))) is not None:
                    taken.root_has_it()
            case RecordType.FINISHED:
                self.last, self.over = bytes(record.content), True
                for driver in rounds.values():
                    driver.root_is_over(False, "the root has no more rounds")
            case _:
                pass

    def _on_rounds(self, going_on: Collection[bytes], rounds: dict[bytes, EdgeDriver]) -> None:
        self.heard = self._told = True
        for driver in rounds.values():
            if driver.round_id in going_on:
                driver.again()
            else:
                driver.root_is_over(False, "the root has ended it meanwhile")

    @staticmethod
    def _on_end(said: Outcome, rounds: dict[bytes, EdgeDriver]) -> None:
        driver = rounds.get(said.round_id)
        if driver is None:
            return
        if not said.closed:
            driver.root_is_over(said.completed, said.why)
        elif driver.uploading:
            driver.root_is_over(False, "the root took no more before our sum was sent")

    async def _on_frame(self, frame: bytes, rounds: dict[bytes, EdgeDriver]) -> None:
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            message = decode_oneshot(envelope)
        except RemoteProtocolError as error:
            raise StreamError(f"record: FRAME: {error}") from error
        match message:
            case OneShotParametersMessage():
                try:
                    await self._run.offered(self._payload, self._certificate, frame)
                except StoreError as error:
                    self._run.failed(message.round_id, error)
            case PackedRequest():
                if (driver := rounds.get(envelope.round_id)) is not None:
                    await self._hand_in(driver, frame)
            case _:
                self._certificate = frame  # checked with the parameters, and by each client

    async def _hand_in(self, driver: EdgeDriver, frame: bytes) -> None:
        """Let a driver answer; the stream is read on meanwhile."""
        while len(self._asked) >= _MOST_ASKED:
            await asyncio.wait(self._asked, return_when=asyncio.FIRST_COMPLETED)
        asked = asyncio.create_task(self._answer(driver, frame))
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)

    async def _answer(self, driver: EdgeDriver, frame: bytes) -> None:
        with suppress(StreamError):  # it has asked too often for what we do not have, and is not answered
            if await driver.receive(ROOT, frame) is Standing.LOST:
                self.connect_again()


def _look_at(task: asyncio.Task[None]) -> None:
    """Retrieve an exception that nobody waits for yet; `finished` raises it."""
    if not task.cancelled():
        task.exception()
