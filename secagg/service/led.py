"""The rounds of one place, whichever protocol they speak, and the lease under which they are led."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from secagg import audit
from secagg.effects import Aggregate
from secagg.errors import InfeasibleParameters, ParameterError, RoundAbortedError
from secagg.params import Buffer, Identity
from secagg.registry import Registry
from secagg.service.clock import Clock
from secagg.service.connection import Intake
from secagg.service.driver import Driver
from secagg.service.errors import NotHereError, ServiceError
from secagg.service.events import Observer, StoreFailed, guarded
from secagg.service.heart import Heart
from secagg.service.hello import Hello
from secagg.service.kept import dump_failure
from secagg.service.stored import DAMAGED, Ended, Services, given_up
from secagg.service.tasks import end_tasks, on_thread
from secagg.service.transcripts import Transcripts
from secagg.store import LeaseLostError, LedgerError, ParticipationLedger, StoreDamagedError, StoreError
from secagg.store.sql import AuditLog, Database, Journal, KeptRound, Lease, Leases, Spool, State

_VERSION_BYTES = 8
_PROTOCOL, _PAIRWISE = "protocol", b"pairwise"  # of the rounds of a place
AnyDriver = TypeVar("AnyDriver", bound=Driver[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the runs of a server share: where everything is kept, and who does the work."""

    database: Database
    spool: Spool
    leases: Leases
    clock: Clock
    executor: Executor
    pulse: Executor  # for heartbeats
    audit: AuditLog | None


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where parties of a kind say hello. serve: holds the stream of one that proved its identity."""

    enrolled: Callable[[], frozenset[Identity]]
    serve: Callable[[Hello, Intake, Any], Awaitable[None]]


class LedRun(ABC, Generic[AnyDriver]):
    """Rounds of one place, several at once if they like.

    Every accepted message is on disk before it is acknowledged: a round that its server leaves, however that
    ends, goes on from there with the next one that opens the run.
    """

    _protocol = _PAIRWISE

    def __init__(
        self,
        place: str,
        registry: Registry,
        shared: Shared,
        lease: Lease,
        *,
        observer: Observer,
        ledger: ParticipationLedger | None,
        transcripts: Transcripts | None,
        keep_sums: int,
    ) -> None:
        self._place, self._shared, self._lease, self._keep_sums = place, shared, lease, keep_sums
        self._observer = guarded(observer)
        self._registry = registry
        self._journal = Journal(shared.database, shared.spool, shared.leases, lease)
        self._ledger = ledger or ParticipationLedger(shared.database)
        self._rounds: dict[bytes, AnyDriver] = {}
        self._tasks: dict[bytes, asyncio.Task[Aggregate]] = {}
        self._offers: set[asyncio.Task[None]] = set()  # of rounds that the store may not have yet
        self._opening = asyncio.Lock()  # of rounds by their tickets
        self._services = Services(
            registry=lambda: self._registry,
            clock=shared.clock,
            journal=self._journal,
            ledger=self._ledger,
            observer=self._observer,
            transcripts=transcripts,
            audit=shared.audit,
            executor=shared.executor,
            tidy=shared.database.forget_traces,
        )
        self._heart = Heart(
            shared.leases,
            lease,
            executor=shared.pulse,
            shared=shared.database.shared,
            on_lost=self._stop_leading,
        )

    # --- what a protocol brings

    @property
    @abstractmethod
    def entrances(self) -> dict[str, Entrance]:
        """Where parties say hello, by the place that they name."""

    @abstractmethod
    def _check_same(self, kept: AnyDriver | KeptRound, wanted: Any) -> None:  # noqa: ANN401
        """Raise ParameterError unless a round has the parameters that are wanted, but for its id."""

    @abstractmethod
    def _driver(self, kept: KeptRound, payload: Buffer) -> AnyDriver:
        """Return who goes on with a round of the store. Raises StoreDamagedError."""

    @abstractmethod
    def _result(self, kept: KeptRound) -> Ended:
        """Return how a round of the store has ended. Raises StoreDamagedError."""

    @abstractmethod
    def _attach(self, driver: AnyDriver) -> None:
        """Give those who are there a part in a new round."""

    @abstractmethod
    def _release(self, driver: AnyDriver, outcome: Aggregate | Exception | None) -> None:
        """Tell those who are there how a round ended. None: it goes on elsewhere, or later."""

    @abstractmethod
    def _hang_up(self, *, at_once: bool) -> None:
        """End every stream."""

    # --- what the caller does

    @property
    def place(self) -> str:
        """FEDERATION/RUN."""
        return self._place

    @property
    def rounds(self) -> tuple[AnyDriver, ...]:
        """The rounds that go on."""
        return tuple(self._rounds.values())

    async def close(self) -> None:
        """Leave the run: close every stream; rounds that go on stay in the store, for who opens it next."""
        await self._stop_rounds()
        self._hang_up(at_once=False)
        await self._heart.stop()

    # --- rounds

    async def start(self) -> None:
        """Go on with every round that the store has.

        raises  StoreError; ParameterError: they speak the other protocol
        """
        await on_thread(self._shared.executor, self._note_protocol)
        await on_thread(self._shared.executor, self._note_registry, self._registry)
        await on_thread(self._shared.executor, self._journal.sweep)
        for kept in await on_thread(self._shared.executor, self._journal.open_rounds):
            try:
                await self._go_on(kept)
            except StoreDamagedError as error:  # one round cannot go on: the run can
                await on_thread(self._shared.executor, self._bury, kept, str(error))

    async def _go_on(self, kept: KeptRound, payload: Buffer | None = None) -> bytes:
        """Start an open round of the store; returns its id. Raises StoreDamagedError, StoreError."""
        if payload is None:
            name = f"{kept.round_id.hex()}.payload"
            payload = await on_thread(self._shared.executor, self._journal.open, name)
        return self._start(self._driver(kept, payload), new=False)

    def _bury(self, kept: KeptRound, why: str) -> None:
        """End a round of which too little is left to go on with."""
        self._observer(StoreFailed(kept.round_id, why))
        failure = given_up(DAMAGED)
        with self._journal.transaction():
            now = self._shared.clock.wall()
            self._journal.end(kept.round_id, State.ABORTED, dump_failure(failure), now)
            if self._shared.audit is not None:
                self._shared.audit.append(audit.Round.aborted(self.place, kept.round_id, reason=str(failure)))
        self._journal.remove(self._journal.names_of(kept.round_id))
        self._shared.database.forget_traces()

    def _note_protocol(self) -> None:
        """Refuse a place whose open rounds speak another protocol: they would be taken for damaged."""
        before = self._journal.noted(_PROTOCOL) or _PAIRWISE
        if before == self._protocol:
            return
        if self._journal.open_rounds():
            raise ParameterError(
                f"place: {self.place} has open rounds of the {before.decode()} protocol: end them first"
            )
        self._journal.note(_PROTOCOL, self._protocol)

    def _note_registry(self, registry: Registry) -> None:
        """Let the audit log say that a federation has another registry, and who is not in it any more."""
        log, database = self._shared.audit, self._shared.database
        if log is None:
            return
        federation = self.place.partition("/")[0]
        count, last = f"audited/versions/{federation}", f"audited/registry/{self.place}"
        document = registry.dump().encode()
        with database.transaction():
            known = database.get(last)
            if known == document:
                return
            version = int.from_bytes(database.get(count) or b"", "big") + 1
            log.append(audit.RegistryChange.of(federation, version, document))
            before = Registry({}) if known is None else Registry.parse(known.decode())
            for identity in sorted(before.identities - registry.identities):
                log.append(audit.Withdrawal.of(federation, identity))
            database.put({count: version.to_bytes(_VERSION_BYTES, "big"), last: document})

    def _start(self, driver: AnyDriver, *, new: bool) -> bytes:
        round_id = driver.round_id
        if round_id in self._rounds:
            raise ParameterError(f"round_id: {round_id.hex()} goes on already")
        self._rounds[round_id] = driver
        if new:
            self._attach(driver)
        task = asyncio.create_task(self._run(driver))
        self._tasks[round_id] = task
        task.add_done_callback(lambda done: self._done(round_id, done))
        return round_id

    async def _run(self, driver: AnyDriver) -> Aggregate:
        outcome: Aggregate | Exception | None = None  # it goes on elsewhere, or later
        try:
            outcome = await driver.run()
        except (RoundAbortedError, LedgerError, InfeasibleParameters) as error:
            outcome = error
            raise
        except LeaseLostError:
            raise
        except StoreError as error:
            outcome = None if driver.known else error
            raise
        finally:
            del self._rounds[driver.round_id]
            self._release(driver, outcome)
            if outcome is not None:
                await self._retain()
        return outcome

    async def _wait_for(self, round_id: bytes) -> Aggregate:
        task = self._tasks[round_id]
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # it is our caller that was cancelled
                await self._give_up(round_id, task)
                raise
            raise self._heart.lost or ServiceError("the server was stopped during a round") from None

    def _done(self, round_id: bytes, task: asyncio.Task[Aggregate]) -> None:
        """Forget a task; an exception that nobody waits for is in the store as the round's outcome."""
        self._tasks.pop(round_id, None)
        if not task.cancelled():
            task.exception()

    async def _give_up(self, round_id: bytes, task: asyncio.Task[Aggregate]) -> None:
        """End a round that nobody can ask about any more."""
        driver = self._rounds.get(round_id)
        if driver is None or driver.ticket:
            return
        await end_tasks(task)
        try:
            await driver.give_up("its caller does not wait for it any more")
        except StoreError as error:  # it goes on when the run is opened again
            self._observer(StoreFailed(round_id, str(error)))

    async def _there(self, ticket: bytes, wanted: Any, payload: Buffer) -> bytes | KeptRound | None:  # noqa: ANN401
        """Return the round of a ticket: its id while it goes on, what the store has of one that ended."""
        for driver in self._rounds.values():
            if driver.ticket == ticket:
                self._check_same(driver, wanted)
                return driver.round_id
        kept = await on_thread(self._shared.executor, self._journal.by_ticket, ticket)
        if kept is None:
            return None
        self._check_same(kept, wanted)
        if kept.state is not State.OPEN:
            return kept
        if kept.round_id not in self._rounds:  # the store said that it failed when it had kept the beginning
            await self._go_on(kept, payload)
            self._attach(self._rounds[kept.round_id])
        return kept.round_id

    async def _ended(self, kept: KeptRound) -> Aggregate:
        """Return the outcome of a round that has ended. Raises RoundAbortedError, StoreDamagedError."""
        end = await on_thread(self._shared.executor, self._result, kept)
        if isinstance(end.result, RoundAbortedError):
            raise end.result
        return end.result

    async def _retain(self) -> None:
        """Remove the sums of all rounds but the newest `keep_sums`."""
        try:
            await on_thread(self._shared.executor, self._journal.retain, self._keep_sums)
        except StoreError as error:
            self._observer(StoreFailed(b"", str(error)))

    async def _stop_rounds(self) -> None:
        await end_tasks(*self._offers, *self._tasks.values())

    def _check_leads(self) -> None:
        """Raise NotHereError when another server leads by now: parties go there."""
        if self._heart.lost is not None:
            raise NotHereError("hello: this run is not here any more")

    async def _stop_leading(self, error: LeaseLostError) -> None:
        """Stop everything here: another server goes on with it."""
        self._observer(StoreFailed(b"", str(error)))
        self._hang_up(at_once=True)  # first: what the rounds wait for may not answer
        await self._stop_rounds()
