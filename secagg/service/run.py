"""A run of a federation on this server: its registry, its rounds, and the lease under which it is led."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from secagg import audit
from secagg.effects import Aggregate
from secagg.errors import InfeasibleParameters, ParameterError, RoundAbortedError
from secagg.params import Buffer, Identity, RoundParameters
from secagg.service.clock import Clock
from secagg.service.connection import Intake
from secagg.service.context import round_context
from secagg.service.driver import RoundDriver
from secagg.service.durable import DAMAGED, Services, ended, given_up
from secagg.service.errors import ServiceError
from secagg.service.events import LedgerNoted, Observer, StoreFailed, guarded, ignore
from secagg.service.heart import Heart
from secagg.service.hello import DEFAULT_PLACE, Hello, check_place
from secagg.service.kept import Deadlines, RoundPlan, dump_failure
from secagg.service.registry import Registry
from secagg.service.selection import Selection, choose
from secagg.service.streams import Streams
from secagg.service.tasks import end_tasks, on_thread
from secagg.service.transcripts import Transcripts
from secagg.store import LeaseLostError, LedgerError, ParticipationLedger, StoreDamagedError, StoreError
from secagg.store.sql import AuditLog, Database, Journal, KeptRound, Lease, Leases, Spool, State

_VERSION_BYTES = 8
_LOOK_S = 0.1  # at who is online
_MOST_PACE_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Settings of a run.

    place        FEDERATION/RUN: clients name it in their hello
    registry     the enrolled parties; strangers are refused at hello
    agreement    digest of what all parties agreed on before: in the context of every round
    observer     is told the public facts of each round
    ledger       who was summed with whom; None: in the server's database
    transcripts  where to record the rounds; None: nowhere
    keep_sums    sums that stay in the store, the newest; what opened them never does
    """

    registry: Registry
    place: str = DEFAULT_PLACE
    agreement: bytes = b""
    observer: Observer = ignore
    ledger: ParticipationLedger | None = field(default=None, repr=False)
    transcripts: Transcripts | None = None
    keep_sums: int = 1

    def __post_init__(self) -> None:
        check_place(self.place)
        if self.keep_sums < 1:
            raise ParameterError(f"keep_sums: must be at least 1, is {self.keep_sums}")


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


class ServedRun:
    """Rounds of one run, several at once if they like; made by `AggregationServer.open`.

    Every accepted message is on disk before it is acknowledged: a round that its server leaves, however that
    ends, goes on from there with the next one that opens the run.
    """

    def __init__(self, settings: RunSettings, shared: Shared, lease: Lease) -> None:
        self._settings, self._shared = settings, shared
        self._observer = guarded(settings.observer)
        self._registry = settings.registry
        self._journal = Journal(shared.database, shared.spool, shared.leases, lease)
        self._ledger = settings.ledger or ParticipationLedger(shared.database)
        self._rounds: dict[bytes, RoundDriver] = {}
        self._tasks: dict[bytes, asyncio.Task[Aggregate]] = {}
        self._opening = asyncio.Lock()  # of rounds by their tickets
        self._streams = Streams(
            self._rounds, self._journal, shared.audit, shared.executor, settings.registry.identities
        )
        self._services = Services(
            registry=lambda: self._registry,
            clock=shared.clock,
            journal=self._journal,
            ledger=self._ledger,
            observer=self._observer,
            transcripts=settings.transcripts,
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

    # --- what the caller does

    @property
    def place(self) -> str:
        """FEDERATION/RUN."""
        return self._settings.place

    @property
    def registry(self) -> Registry:
        """The enrolled parties."""
        return self._registry

    async def enrol(self, registry: Registry) -> None:
        """Take another registry from now on: who is not in it any more loses its stream.

        A round that goes on keeps those it began with, but hears the revoked no more. The audit log takes the
        change first.

        raises  StoreError: nothing has changed
        """
        await on_thread(self._shared.executor, self._note_registry, registry)
        before, self._registry = self._registry, registry
        self._streams.enrolled(before.identities, registry.identities)

    @property
    def connected(self) -> frozenset[Identity]:
        """The clients that have a stream at the moment."""
        return self._streams.connected

    @property
    def idle(self) -> frozenset[Identity]:
        """The clients that have a stream, and no part in a round."""
        return frozenset(one.identity for one in self._streams.idle)

    @property
    def rounds(self) -> tuple[RoundDriver, ...]:
        """The rounds that go on."""
        return tuple(self._rounds.values())

    async def round(
        self,
        parameters: RoundParameters,
        payload: Buffer,
        deadlines: Deadlines | None = None,
        *,
        ticket: bytes = b"",
        excluded: Collection[Identity] = (),
        among: Collection[Identity] | None = None,
        subject: bytes | None = None,
        cohort: Collection[Identity] | None = None,
        floor: int = 0,
        goal: int = 0,
    ) -> Aggregate:
        """Run one round about `payload`, whose digest is the round's context; others may go on meanwhile.

        ticket    names the round for its caller: of the same ticket there is one round, whatever happens to
                  the server; it is gone on with, or its outcome returned. Nothing: it is a new round
        excluded  enrolled parties that have no part in it: the guilty of an earlier attempt
        among     who may have a part in it; None: all that are enrolled
        subject   what the ledger is to know the round by; default: its context
        cohort    among whom the subject is summed, in whole cells (`ParticipationLedger.join`)
        floor     fewest members that sums may tell apart; 0: A + 2 of the cohort, or of the round's roster
        goal      uploads that are enough: the round goes on without the others; 0: everybody is waited for

        raises  RoundAbortedError; LedgerError; InfeasibleParameters; ParameterError when the context or the
                ticket is of another round, or too few may take part; StoreError: it could not be begun;
                StoreDamagedError: its outcome is not there any more; LeaseLostError; ServiceError when the
                server is stopped: the round goes on with the next one
        """
        if parameters.context != round_context(bytes(payload), self._settings.agreement):
            raise ParameterError("parameters.context: must be round_context(payload, agreement)")
        if self._heart.lost is not None:
            raise self._heart.lost
        admitted = self._registry.identities - frozenset(excluded)
        if among is not None:
            admitted &= frozenset(among)
        plan = RoundPlan(
            parameters=parameters,
            admitted=admitted,
            deadlines=deadlines or Deadlines(),
            subject=parameters.context if subject is None else subject,
            cohort=None if cohort is None else frozenset(cohort),
            floor=floor,
            goal=goal,
        )
        if not ticket:
            return await self._wait_for(self._start(await self._checked(plan), payload))
        async with self._opening:
            there = await self._there(ticket, parameters, payload)
            if isinstance(there, KeptRound):
                return await self._ended(there)
            round_id = there or self._start(await self._checked(plan), payload, ticket=ticket)
        return await self._wait_for(round_id)

    async def known(self, ticket: bytes) -> RoundParameters | None:
        """Return the parameters of the round of a ticket, if the store knows it. Raises StoreError."""
        kept = await on_thread(self._shared.executor, self._journal.by_ticket, ticket)
        return None if kept is None else RoundPlan.load(kept.header).parameters

    async def select(self, selection: Selection) -> frozenset[Identity]:
        """Select whom to ask (`round(among=...)`), in fair turns, once enough are online and idle.

        raises  ParameterError: after `wait_s` fewer than the minimum are here; StoreError
        """
        clock, began = self._shared.clock, self._shared.clock.now()
        while True:
            here = {one.identity for one in self._streams.idle if selection.tags <= one.tags}
            left = selection.wait_s - (clock.now() - began)
            if len(here) >= selection.asked or left <= 0:
                break
            await clock.sleep(min(left, _LOOK_S))
        if len(here) < selection.minimum:
            raise ParameterError(
                f"selection.minimum: {selection.minimum} are needed, {len(here)} are online and idle"
            )
        return await on_thread(self._shared.executor, self._turns, here, selection.asked)

    def _turns(self, here: Collection[Identity], wanted: int) -> frozenset[Identity]:
        """Choose, and keep whose turn it was."""
        database = self._shared.database
        with database.transaction():
            served = {
                one: int.from_bytes(database.get(f"turns/{self.place}/{one.hex()}") or b"", "big")
                for one in here
            }
            chosen = choose(here, served, wanted, os.urandom(16))
            database.put(
                {
                    f"turns/{self.place}/{one.hex()}": (served[one] + 1).to_bytes(_VERSION_BYTES, "big")
                    for one in chosen
                }
            )
        return chosen

    def pace(self, seconds: float, *, spare: Collection[Identity] = ()) -> None:
        """Tell idle clients, but for some, to leave and come back in about so many seconds."""
        if not 0 <= seconds < _MOST_PACE_S:
            raise ParameterError(f"seconds: must be at least 0 and below {_MOST_PACE_S}, is {seconds}")
        self._streams.pace(seconds, spare)

    def finish(self, payload: Buffer) -> None:
        """Tell everybody, now or when it next connects, that there are no more rounds."""
        self._streams.finish(payload)

    @property
    def telling(self) -> int:
        """To how many the last payload of `finish` is on its way."""
        return self._streams.telling

    async def everybody_told(self) -> None:
        """Return when every party of the registry has been sent the last payload of `finish`."""
        await self._streams.everybody_told()

    async def serve(self, hello: Hello, intake: Intake, context: Any) -> None:  # noqa: ANN401 - of gRPC
        """Hold the stream of a client that proved its identity, until it ends."""
        await self._streams.serve(hello, intake, context)

    async def close(self) -> None:
        """Leave the run: close every stream; rounds that go on stay in the store, for who opens it next."""
        await self._stop_rounds()
        self._streams.close()
        await self._heart.stop()

    # --- rounds

    async def start(self) -> None:
        """Go on with every round that the store has. Raises StoreError."""
        await on_thread(self._shared.executor, self._note_registry, self._registry)
        await on_thread(self._shared.executor, self._journal.sweep)
        for kept in await on_thread(self._shared.executor, self._journal.open_rounds):
            try:
                await self._go_on(kept)
            except StoreDamagedError as error:  # one round cannot go on: the run can
                await on_thread(self._shared.executor, self._bury, kept, str(error))

    async def _go_on(self, kept: KeptRound, payload: Buffer | None = None) -> bytes:
        """Start an open round of the store; returns its id. Raises StoreDamagedError, StoreError."""
        plan = RoundPlan.load(kept.header)
        if payload is None:
            name = f"{kept.round_id.hex()}.payload"
            payload = await on_thread(self._shared.executor, self._journal.open, name)
        return self._start(plan, payload, kept=kept)

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

    def _start(
        self, plan: RoundPlan, payload: Buffer, *, kept: KeptRound | None = None, ticket: bytes = b""
    ) -> bytes:
        round_id = plan.parameters.round_id
        if round_id in self._rounds:
            raise ParameterError(f"round_id: {round_id.hex()} goes on already")
        driver = RoundDriver(
            plan, self._services, payload=payload, deliver=self._streams.deliver, kept=kept, ticket=ticket
        )
        self._rounds[round_id] = driver
        if kept is None:
            self._streams.attach(driver)
        task = asyncio.create_task(self._run(driver))
        self._tasks[round_id] = task
        task.add_done_callback(lambda done: self._done(round_id, done))
        return round_id

    async def _run(self, driver: RoundDriver) -> Aggregate:
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
            del self._rounds[driver.parameters.round_id]
            self._streams.release(driver, outcome)
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

    async def _there(
        self, ticket: bytes, wanted: RoundParameters, payload: Buffer
    ) -> bytes | KeptRound | None:
        """Return the round of a ticket: its id while it goes on, what the store has of one that ended."""
        for driver in self._rounds.values():
            if driver.ticket == ticket:
                _check_same(driver.parameters, wanted)
                return driver.parameters.round_id
        kept = await on_thread(self._shared.executor, self._journal.by_ticket, ticket)
        if kept is None:
            return None
        _check_same(RoundPlan.load(kept.header).parameters, wanted)
        if kept.state is not State.OPEN:
            return kept
        if kept.round_id not in self._rounds:  # the store said that it failed when it had kept the beginning
            await self._go_on(kept, payload)
            self._streams.attach(self._rounds[kept.round_id])
        return kept.round_id

    async def _ended(self, kept: KeptRound) -> Aggregate:
        """Return the outcome of a round that has ended. Raises RoundAbortedError, StoreDamagedError."""
        parameters = RoundPlan.load(kept.header).parameters
        end = await on_thread(
            self._shared.executor, ended, kept, parameters, self._journal, self._shared.audit
        )
        if isinstance(end.result, RoundAbortedError):
            raise end.result
        return end.result

    async def _checked(self, plan: RoundPlan) -> RoundPlan:
        """Leave out who was in too many rounds."""
        admitted = await on_thread(
            self._shared.executor, self._not_too_often, plan.admitted, plan.parameters.round_id
        )
        return replace(plan, admitted=admitted)

    def _not_too_often(self, admitted: frozenset[Identity], round_id: bytes) -> frozenset[Identity]:
        for concern in self._ledger.too_often(admitted, self._shared.clock.wall()):
            clients = frozenset(map(Identity, concern.clients))
            names = tuple(sorted(map(self._registry.name_of, clients)))
            self._observer(LedgerNoted(round_id, str(concern.kind), concern.detail, names))
            admitted -= clients
        return admitted

    async def _retain(self) -> None:
        """Remove the sums of all rounds but the newest `keep_sums`."""
        try:
            await on_thread(self._shared.executor, self._journal.retain, self._settings.keep_sums)
        except StoreError as error:
            self._observer(StoreFailed(b"", str(error)))

    async def _stop_rounds(self) -> None:
        await end_tasks(*self._tasks.values())

    async def _stop_leading(self, error: LeaseLostError) -> None:
        """Stop everything here: another server goes on with it."""
        self._observer(StoreFailed(b"", str(error)))
        self._streams.drop()  # first: what the rounds wait for may not answer
        await self._stop_rounds()


def _check_same(there: RoundParameters, wanted: RoundParameters) -> None:
    """Raise ParameterError unless two rounds are the same but for their ids."""
    if replace(there, round_id=wanted.round_id) != wanted:
        raise ParameterError("ticket: is of a round with other parameters")
