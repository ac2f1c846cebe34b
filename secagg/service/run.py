"""A run of a federation on this server: its registry, its rounds, and the lease under which it is led."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from secagg.effects import Aggregate
from secagg.errors import ParameterError
from secagg.params import Buffer, Identity, RoundParameters
from secagg.registry import Registry
from secagg.service.connection import Intake
from secagg.service.context import round_context
from secagg.service.driver import RoundDriver
from secagg.service.durable import DurableRound
from secagg.service.events import LedgerNoted, Observer, ignore
from secagg.service.hello import DEFAULT_PLACE, Hello, check_place
from secagg.service.kept import Deadlines, RoundPlan
from secagg.service.led import Entrance, LedRun, Shared
from secagg.service.selection import Selection, choose
from secagg.service.stored import Ended, ended
from secagg.service.streams import Streams
from secagg.service.tasks import on_thread
from secagg.service.transcripts import Transcripts
from secagg.store import ParticipationLedger
from secagg.store.sql import KeptRound, Lease

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


class ServedRun(LedRun[RoundDriver]):
    """Rounds of one run, several at once if they like; made by `AggregationServer.open`.

    Every accepted message is on disk before it is acknowledged: a round that its server leaves, however that
    ends, goes on from there with the next one that opens the run.
    """

    def __init__(self, settings: RunSettings, shared: Shared, lease: Lease) -> None:
        super().__init__(
            settings.place,
            settings.registry,
            shared,
            lease,
            observer=settings.observer,
            ledger=settings.ledger,
            transcripts=settings.transcripts,
            keep_sums=settings.keep_sums,
        )
        self._settings = settings
        self._streams = Streams(
            self._rounds, self._journal, shared.audit, shared.executor, settings.registry.identities
        )

    # --- what the caller does

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
            return await self._wait_for(self._start(self._new(await self._checked(plan), payload), new=True))
        async with self._opening:
            there = await self._there(ticket, parameters, payload)
            if isinstance(there, KeptRound):
                return await self._ended(there)
            round_id = there or self._start(
                self._new(await self._checked(plan), payload, ticket=ticket), new=True
            )
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
        self._check_leads()
        await self._streams.serve(hello, intake, context)

    # --- rounds

    @property
    def entrances(self) -> dict[str, Entrance]:
        """Where clients say hello."""
        return {self.place: Entrance(lambda: self._registry.identities, self.serve)}

    def _check_same(self, kept: RoundDriver | KeptRound, wanted: RoundParameters) -> None:
        there = (kept if isinstance(kept, RoundDriver) else RoundPlan.load(kept.header)).parameters
        if replace(there, round_id=wanted.round_id) != wanted:
            raise ParameterError("ticket: is of a round with other parameters")

    def _new(self, plan: RoundPlan, payload: Buffer, *, ticket: bytes = b"") -> RoundDriver:
        return RoundDriver(
            plan, self._services, payload=payload, deliver=self._streams.deliver, ticket=ticket
        )

    def _driver(self, kept: KeptRound, payload: Buffer) -> RoundDriver:
        plan = RoundPlan.load(kept.header)
        return RoundDriver(plan, self._services, payload=payload, deliver=self._streams.deliver, kept=kept)

    def _result(self, kept: KeptRound) -> Ended:
        return ended(kept, self._journal, self._shared.audit, DurableRound.loaded)

    def _attach(self, driver: RoundDriver) -> None:
        self._streams.attach(driver)

    def _release(self, driver: RoundDriver, outcome: Aggregate | Exception | None) -> None:
        self._streams.release(driver, outcome)

    def _hang_up(self, *, at_once: bool) -> None:
        if at_once:
            self._streams.drop()
        else:
            self._streams.close()

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
