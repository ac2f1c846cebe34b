"""A run of the one-upload protocol: its clients, its decryptors, their epochs, and its rounds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from secagg.effects import AbortReason, Aggregate, Frame, OneShotAggregate, Refused
from secagg.errors import ParameterError, RoundAbortedError
from secagg.params import ROUND_ID_BYTES, Buffer, Identity, ThreatModel
from secagg.params_oneshot import CommitteeParameters, OneShotParameters
from secagg.registry import Registry
from secagg.service.connection import Intake
from secagg.service.context import round_context
from secagg.service.desk import Desk
from secagg.service.errors import ServiceError
from secagg.service.events import Observer, ignore
from secagg.service.hello import DEFAULT_PLACE, Hello, check_place
from secagg.service.led import Entrance, Shared
from secagg.service.oneshot.desks import ClientDesk, EdgeDesk, MemberDesk
from secagg.service.oneshot.driver import OneShotDriver
from secagg.service.oneshot.epochs import Epoch, Epochs
from secagg.service.oneshot.offered import OfferedRun
from secagg.service.oneshot.plan import OneShotDeadlines, OneShotPlan
from secagg.service.oneshot.rounds import OneShotRound
from secagg.service.stored import Ended, ended
from secagg.service.tasks import end_tasks, on_thread
from secagg.service.transcripts import Transcripts
from secagg.store import ParticipationLedger
from secagg.store.sql import KeptRound, Lease

DECRYPTORS, EDGES = ".decryptors", ".edges"  # behind a place: where they say hello
_DAY_S = 86_400.0
_SPENT = {AbortReason.NO_QUORUM, AbortReason.TOO_FEW_OPENINGS}  # too few members were left


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotSettings:
    """Settings of a run.

    place        FEDERATION/RUN: clients name it in their hello
    registry     the enrolled clients
    decryptors   the enrolled decryptors; who is both has the same name in both
    edges        the enrolled edges, which are no clients: whose partial sums are taken
    threat_model, minimum_candidates, minimum_committee, committee_size, post_quantum
                 of every committee (`CommitteeParameters`); clients and decryptors have demands of their own
    epoch_s      after which the next round gets another committee
    form_s       how long keys of candidates are waited for, and acceptances of members
    gather_s     how long more decryptors are waited for once as few as may be are connected
    agreement    digest of what all parties agreed on before: in the context of every round
    observer     is told the public facts of each round
    ledger       who was summed with whom; None: in the server's database
    transcripts  where to record the rounds; None: nowhere
    keep_sums    sums that stay in the store, the newest; what opened them never does
    """

    registry: Registry
    decryptors: Registry
    place: str = DEFAULT_PLACE
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    minimum_candidates: int = 4
    minimum_committee: int = 4
    committee_size: int = 256
    post_quantum: bool = True
    epoch_s: float = _DAY_S
    form_s: float = 30.0
    gather_s: float = 10.0
    edges: Registry = field(default_factory=lambda: Registry({}))
    agreement: bytes = b""
    observer: Observer = ignore
    ledger: ParticipationLedger | None = field(default=None, repr=False)
    transcripts: Transcripts | None = None
    keep_sums: int = 1

    def __post_init__(self) -> None:
        check_place(self.place)
        for behind in (DECRYPTORS, EDGES):
            check_place(self.place + behind)
        if self.keep_sums < 1:
            raise ParameterError(f"keep_sums: must be at least 1, is {self.keep_sums}")
        for name in ("epoch_s", "form_s"):
            if not getattr(self, name) > 0:
                raise ParameterError(f"{name}: must be above 0, is {getattr(self, name)}")
        if not self.gather_s >= 0:
            raise ParameterError(f"gather_s: must be at least 0, is {self.gather_s}")
        _ = self.demands, self.everybody

    @property
    def demands(self) -> CommitteeParameters:
        """Of every committee, with an epoch id that is none."""
        return CommitteeParameters(
            epoch_id=bytes(16),
            threat_model=self.threat_model,
            minimum_candidates=self.minimum_candidates,
            minimum_committee=self.minimum_committee,
            committee_size=self.committee_size,
            post_quantum=self.post_quantum,
        )

    @property
    def everybody(self) -> Registry:
        """The enrolled parties. Raises ParameterError: one has two names; RegistryError: two have one."""
        names = {**self.registry.names, **self.decryptors.names, **self.edges.names}
        if both := self.registry.identities & self.edges.identities:
            raise ParameterError(f"edges: {self.registry.name_of(min(both))!r} is a client, and no edge")
        for identity, name in self.registry.names.items():
            if names[identity] != name:
                raise ParameterError(
                    f"decryptors: {name!r} of the registry is {names[identity]!r} there: one name a party"
                )
        return Registry.of((name, identity) for identity, name in names.items())


class OneShotRun(OfferedRun[OneShotDriver]):
    """Rounds of one run, several at once if they like; made by `AggregationServer.open_oneshot`.

    Every accepted message is on disk before it is acknowledged. A client whose upload is acknowledged may
    vanish for ever.
    """

    _protocol = b"one-shot"

    def __init__(self, settings: OneShotSettings, shared: Shared, lease: Lease) -> None:
        super().__init__(
            settings.place,
            settings.everybody,
            shared,
            lease,
            observer=settings.observer,
            ledger=settings.ledger,
            transcripts=settings.transcripts,
            keep_sums=settings.keep_sums,
        )
        self._settings = settings
        self._epochs = Epochs(
            settings.demands,
            self._services,
            decryptors=lambda: self._settings.decryptors,
            epoch_s=settings.epoch_s,
            form_s=settings.form_s,
            gather_s=settings.gather_s,
        )
        self._clients = ClientDesk(self._rounds, self._journal, settings.registry.identities)
        self._members = MemberDesk(self._rounds, self._epochs, settings.decryptors.identities)
        self._edges = EdgeDesk(self._rounds, self._journal, settings.edges.identities)
        self._stopped = False
        self._forming: set[asyncio.Task[Epoch]] = set()  # what rounds that are to begin wait for

    # --- what the caller does

    @property
    def connected(self) -> frozenset[Identity]:
        """The clients that have a stream at the moment."""
        return self._clients.connected

    @property
    def decryptors(self) -> frozenset[Identity]:
        """The decryptors that have a stream at the moment."""
        return self._members.connected

    @property
    def edges(self) -> frozenset[Identity]:
        """The edges that have a stream at the moment."""
        return self._edges.connected

    @property
    def epoch(self) -> Epoch | None:
        """The newest epoch."""
        return self._epochs.current

    async def round(
        self,
        payload: Buffer,
        *,
        vector_length: int,
        ring_bits: int,
        maximum_uploads: int,
        earlier: Collection[bytes] = (),
        minimum_survivors: int = 3,
        minimum_per_context: int = 0,
        colluding: int = 1,
        goal: int = 0,
        among: Collection[Identity] | None = None,
        deadlines: OneShotDeadlines | None = None,
        ticket: bytes = b"",
        round_id: bytes = b"",
    ) -> OneShotAggregate:
        """Run one round about `payload`; others may go on meanwhile. Forms a committee if there is none.

        earlier   contexts of earlier payloads whose uploads still count: a buffer. A client that began with
                  one of those hands its upload in here
        goal      uploads that are enough; 0: everybody's
        among     who may upload; None: all that are enrolled
        ticket    names the round for its caller: of the same ticket there is one round, whatever happens to
                  the server; it is gone on with, or its outcome returned. Nothing: it is a new one
        round_id  of a new round, 16 random bytes; nothing: they are drawn
        others    as in `OneShotParameters`

        raises  RoundAbortedError; ParameterError; InfeasibleParameters; StoreError: it could not be begun;
                StoreDamagedError: its outcome is not there any more; LeaseLostError; ServiceError when the
                server is stopped: the round goes on with the next one
        """
        if self._heart.lost is not None:
            raise self._heart.lost
        contexts = {round_context(bytes(payload), self._settings.agreement), *earlier}
        parameters = OneShotParameters(
            round_id=round_id or os.urandom(ROUND_ID_BYTES),
            committee_digest=bytes(32),
            vector_length=vector_length,
            ring_bits=ring_bits,
            contexts=tuple(sorted(contexts)),
            maximum_uploads=maximum_uploads,
            minimum_survivors=minimum_survivors,
            minimum_per_context=minimum_per_context,
            colluding=colluding,
        )
        admitted = self._settings.registry.identities
        if among is not None:
            admitted &= frozenset(among)
        plan = OneShotPlan(
            parameters=parameters,
            certificate=b"",
            admitted=admitted,
            deadlines=deadlines or OneShotDeadlines(),
            goal=goal,
            edges=self._settings.edges.identities,
        )
        if not ticket:
            return _summed(await self._wait_for(await self._begin(plan, payload, ticket)))
        async with self._opening:
            there = await self._there(ticket, parameters, payload)
            if isinstance(there, KeptRound):
                return _summed(await self._ended(there))
            round_id = there or await self._begin(plan, payload, ticket)
        return _summed(await self._wait_for(round_id))

    async def known(self, ticket: bytes) -> OneShotParameters | None:
        """Return the parameters of the round of a ticket, if the store knows it. Raises StoreError."""
        kept = await on_thread(self._shared.executor, self._journal.by_ticket, ticket)
        return None if kept is None else OneShotPlan.load(kept.header).parameters

    @property
    def registry(self) -> Registry:
        """The enrolled clients."""
        return self._settings.registry

    async def enrol(self, registry: Registry, decryptors: Registry | None = None) -> None:
        """Take other registries from now on: who is not in them any more loses its stream.

        A round that goes on keeps the clients that it began with, but hears the revoked no more; a committee
        that has lost too many members gets no more rounds. The audit log takes the change first.

        raises  ParameterError, RegistryError: as for settings; StoreError: nothing has changed
        """
        decryptors = self._settings.decryptors if decryptors is None else decryptors
        settings = replace(self._settings, registry=registry, decryptors=decryptors)
        await on_thread(self._shared.executor, self._note_registry, settings.everybody)
        before, self._settings, self._registry = self._settings, settings, settings.everybody
        self._clients.enrolled(before.registry.identities, registry.identities)
        self._members.enrolled(before.decryptors.identities, decryptors.identities)

    def finish(self, payload: Buffer) -> None:
        """Tell everybody, now or when it next connects, that there are no more rounds."""
        for desk in self._desks:
            desk.finish(payload)

    @property
    def telling(self) -> int:
        """To how many the last payload of `finish` is on its way."""
        return sum(desk.telling for desk in self._desks)

    async def everybody_told(self) -> None:
        """Return when everybody who is enrolled has been sent the last payload of `finish`."""
        await asyncio.gather(*(desk.everybody_told() for desk in self._desks))

    @property
    def _desks(self) -> tuple[Desk, ...]:
        return self._clients, self._members, self._edges

    # --- rounds

    @property
    def entrances(self) -> dict[str, Entrance]:
        """Where clients, decryptors and edges say hello."""
        return {
            self.place: Entrance(
                lambda: self._settings.registry.identities, partial(self._let_in, self._clients)
            ),
            self.place + DECRYPTORS: Entrance(
                lambda: self._settings.decryptors.identities, partial(self._let_in, self._members)
            ),
            self.place + EDGES: Entrance(
                lambda: self._settings.edges.identities, partial(self._let_in, self._edges)
            ),
        }

    async def _let_in(self, desk: Desk, hello: Hello, intake: Intake, context: Any) -> None:  # noqa: ANN401
        self._check_leads()
        await desk.serve(hello, intake, context)

    async def start(self) -> None:
        """Go on with the epoch and every round that the store has. Raises StoreError."""
        await self._epochs.start()
        await super().start()

    async def _begin(self, plan: OneShotPlan, payload: Buffer, ticket: bytes) -> bytes:
        """Open a round with the committee of now; returns its id."""
        if len(plan.admitted) < (least := plan.parameters.effective_minimum):
            raise ParameterError(
                f"among: {len(plan.admitted)} enrolled clients, at least {least} must upload"
            )
        epoch = await self._ready()
        # Decryptors leave an epoch behind when they are asked for a sum in the next one.
        while before := self._others(epoch.committee.parameters.epoch_id):
            await asyncio.wait([self._tasks[one.round_id] for one in before])
            epoch = await self._ready()
        self._check_led()
        plan = replace(
            plan,
            certificate=epoch.certificate,
            parameters=replace(plan.parameters, committee_digest=epoch.committee.committee_digest),
        )
        return self._start(self._made(plan, payload, None, ticket), new=True)

    async def _ready(self) -> Epoch:
        """Return an epoch to open a round with; as long as this run is led."""
        self._check_led()
        forming = asyncio.create_task(self._epochs.ready(self._members))
        self._forming.add(forming)
        try:
            return await forming
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # it is our caller that was cancelled
                raise
            raise self._no_more() from None
        finally:
            self._forming.discard(forming)

    def _check_led(self) -> None:
        if self._stopped:
            raise self._no_more()

    def _no_more(self) -> Exception:
        return self._heart.lost or ServiceError("the server was stopped before a round began")

    async def _stop_rounds(self) -> None:
        self._stopped = True
        await end_tasks(*self._forming)
        await super()._stop_rounds()

    def _others(self, epoch_id: bytes) -> list[OneShotDriver]:
        return [one for one in self._rounds.values() if one.epoch_id != epoch_id]

    def _deliver(self, driver: OneShotDriver, party: Identity, item: Frame | Refused) -> None:
        self._members.deal(driver, party, item)
        self._edges.deliver(driver, party, item)
        if isinstance(item, Refused):
            self._clients.refuse(driver, party, item)

    def _driver(self, kept: KeptRound, payload: Buffer) -> OneShotDriver:
        return self._made(OneShotPlan.load(kept.header), payload, kept)

    def _made(
        self, plan: OneShotPlan, payload: Buffer, kept: KeptRound | None, ticket: bytes = b""
    ) -> OneShotDriver:
        return OneShotDriver(
            plan,
            self._services,
            payload=payload,
            deliver=self._deliver,
            closed=self._edges.closed,
            kept=kept,
            ticket=ticket,
        )

    def _result(self, kept: KeptRound) -> Ended:
        return ended(kept, self._journal, self._shared.audit, OneShotRound.loaded)

    def _check_same(self, kept: OneShotDriver | KeptRound, wanted: OneShotParameters) -> None:
        there = (kept.plan if isinstance(kept, OneShotDriver) else OneShotPlan.load(kept.header)).parameters
        same = replace(wanted, round_id=there.round_id, committee_digest=there.committee_digest)
        if same != there:
            raise ParameterError("ticket: is of a round with other parameters")

    def _offer(self, driver: OneShotDriver) -> None:
        self._edges.offer(driver)
        if driver.uploading:
            self._clients.offer(driver)

    def _release(self, driver: OneShotDriver, outcome: Aggregate | Exception | None) -> None:
        if isinstance(outcome, RoundAbortedError) and outcome.reason in _SPENT:
            self._epochs.spend(driver.epoch_id)
        self._clients.release(driver, outcome)
        self._members.release(driver, outcome)
        self._edges.release(driver, outcome)

    def _hang_up(self, *, at_once: bool) -> None:
        for desk in self._desks:
            if at_once:
                desk.drop()
            else:
                desk.close()


def _summed(result: Aggregate) -> OneShotAggregate:
    if not isinstance(result, OneShotAggregate):
        raise TypeError("a round of this run has a OneShotAggregate")
    return result
