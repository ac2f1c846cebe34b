"""Sums by an aggregation server: whom to ask, what the members' ledgers would refuse, whom to leave out."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Generic, TypeAlias, TypeVar

from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.task import Task
from fedcore.service.options import ServeOptions
from secagg import Aggregate, Identity, RoundAbortedError, RoundParameters, context_digest
from secagg.service import OneShotRun, ServedRun, ServiceError, round_context
from secagg.store import (
    Advice,
    ConcernKind,
    LeaseLostError,
    LedgerError,
    ParticipationLedger,
    StoreDamagedError,
    StoreError,
)

_LOOK_S = 0.05  # between two looks at who is connected
_SETTLES_S = 2.0  # clients come and go between rounds: what lasts is told
QUIET_S = 60.0  # after which it is told again
_STORE_S = 1.0  # between two looks at a store that failed
_T = TypeVar("_T")
_STRIKES = 3  # rounds running in which a site is silent or suspect, before it is asked last

OnWaiting: TypeAlias = Callable[[list[str], list[str], int], None]


_Served = TypeVar("_Served", ServedRun, OneShotRun)


@dataclass(slots=True, kw_only=True)
class ServedSum(ABC, Generic[_Served]):
    """A SumAggregator whose sites are clients of an aggregation server. Called outside its event loop.

    instance    tells this run from another one with the same agreement
    on_task     told of every round that is asked for: its task, its id
    on_warning  told what the server's console should say
    on_waiting  told who is there, who is missing and how many are needed, when that changes and every minute
    """

    served: _Served
    loop: asyncio.AbstractEventLoop
    options: ServeOptions
    instance: bytes
    on_task: Callable[[Task, bytes], None]
    on_waiting: OnWaiting = lambda _here, _missing, _needed: None
    on_warning: Callable[[str], None] = lambda _text: None
    _over: threading.Event = field(default_factory=threading.Event)
    _started: bool = False
    _revoked: frozenset[Identity] = frozenset()  # of another thread, replaced as a whole

    @abstractmethod
    def _asked(self, among: Sequence[str] | None) -> frozenset[Identity]:
        """Return who is asked."""

    def _here(self, asked: frozenset[Identity]) -> frozenset[Identity]:
        """Return who of those may answer at once."""
        return asked & self.served.connected

    @property
    def names(self) -> Sequence[str]:
        """All sites, ascending."""
        registry = self.options.registry
        return sorted(registry.name_of(identity) for identity in registry.identities)

    def ready(self, among: Sequence[str] | None = None) -> None:
        """Return when enough are connected for an attempt: one without them would be spent for nothing.

        The first also waits for the rest, but not for ever, and so do sums of some of the sites.
        raises  ServiceError: the server was stopped
        """
        asked = self._asked(among)
        needed = min(self.options.run.minimum_cohort, len(asked))
        enough_at: float | None = None
        told, when = frozenset(asked), time.monotonic()
        began = when
        while True:
            here, now = self._here(asked), time.monotonic()
            if len(here) < needed:
                enough_at = None
                if among is not None and now - began >= self.options.deadlines.advertise_s:
                    return
            elif self._started or here == asked:
                return
            else:
                enough_at = now if enough_at is None else enough_at
                if now - enough_at >= self.options.start_s:
                    return
            if (here != told and now - when >= _SETTLES_S) or now - when >= QUIET_S:
                told, when = here, now
                self.on_waiting(self._names_of(here), self._names_of(asked - here), needed)
            if self._over.wait(_LOOK_S):
                raise ServiceError("the server was stopped while it waited")

    def leave_out(self, revoked: frozenset[Identity]) -> None:
        """Ask these no more; from any thread."""
        self._revoked = revoked

    def close(self) -> None:
        """End a wait, whoever is missing."""
        self._over.set()

    def _names_of(self, identities: Iterable[Identity]) -> list[str]:
        return sorted(map(self.options.registry.name_of, identities))

    def known(self, task: Task, among: Sequence[str] | None) -> bool:
        """Return whether a round about a task was begun before this server was started again."""
        return self._known(self._ticket(task, among)) is not None

    def _known(self, ticket: bytes) -> Any:  # noqa: ANN401  # of its protocol
        """Return the parameters of the round of a ticket, if the store knows it."""
        return self._answer(lambda: self.served.known(ticket))

    def _ticket(self, task: Task, among: Sequence[str] | None) -> bytes:
        place = b"%d/%d/%d" % (task.step, task.attempt, task.group)
        return context_digest(self.instance, place, *(name.encode() for name in sorted(among or ())))

    def _answer(self, asking: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Wait for an answer of the server; where its store fails, until that is over."""
        while True:
            try:
                return asyncio.run_coroutine_threadsafe(asking(), self.loop).result()
            except (LeaseLostError, StoreDamagedError):  # waiting does not mend these
                raise
            except StoreError as error:
                self.on_warning(f"waits for the store: {error}")
                if self._over.wait(_STORE_S):
                    raise


@dataclass(slots=True, kw_only=True)
class ServiceSum(ServedSum[ServedRun]):
    """Sums of the pairwise protocol.

    gone        who dropped out of a round
    """

    gone: Mapping[bytes, set[str]]
    subjects: Subjects
    ledger: ParticipationLedger
    _guilty: set[Identity] = field(default_factory=set)  # left out from then on
    _likely: set[Identity] = field(default_factory=set)  # left out of the next attempt, if that is allowed
    _strikes: Counter[Identity] = field(default_factory=Counter)
    _resting: dict[Identity, int] = field(default_factory=dict)  # rounds for which a site is asked last
    _away: frozenset[Identity] = frozenset()  # who dropped out of the last round
    _cells: tuple[frozenset[bytes], ...] = ()  # of the last sum

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round, with everybody or some. Raises RoundAbortedError, SpoiledSumError."""
        options, encoding = self.options, task.encoding
        subject = None if encoding.noise is not None else self.subjects.of(task)
        asked = self._asked(among)
        cohort = None
        ticket = self._ticket(task, among)
        known = self._known(ticket)
        if subject is not None:
            if options.run.regroups:
                cohort, task = self._cohort(subject, asked, task, wait=known is None)
            if known is None:
                asked = self._allowed(subject, asked, task)
        self._likely.clear()
        payload = task.encode()
        parameters = known or options.parameters(
            vector_length=encoding.length,
            ring_bits=encoding.codec.ring_bits,
            context=round_context(payload, options.run.digest),
            sites=None if among is None and cohort is None else len(asked),
        )
        self._started = True
        self.on_task(task, parameters.round_id)
        try:
            result = self._answer(
                lambda: self.served.round(
                    parameters,
                    payload,
                    options.deadlines,
                    ticket=ticket,
                    excluded=options.registry.identities - asked,
                    subject=subject,
                    cohort=cohort,
                    floor=options.run.floor if cohort is None else options.run.cell,
                )
            )
        except RoundAbortedError as error:
            self._guilty.update(map(Identity, error.guilty))
            self._likely.update(map(Identity, error.likely))
            self._silent(parameters, asked, frozenset(map(Identity, error.blamed)))
            if apart := self._names_of(asked & self.served.connected & self._away):
                said = "connected, and took no part: their logs say why, such as another agreement"
                self.on_warning(f"{', '.join(apart)}: {said}")
            raise
        except LedgerError as error:
            raise RoundAbortedError(error.concerns[0].kind, str(error)) from error
        return self._counted(task, parameters, asked, result)

    def _counted(
        self, task: Task, parameters: RoundParameters, asked: frozenset[Identity], result: Aggregate
    ) -> GroupSum:
        registry = self.options.registry
        self._guilty.update(blame.client for blame in result.blamed if blame.guilty)
        self._silent(parameters, asked, frozenset(blame.client for blame in result.blamed))
        names = sorted(registry.name_of(identity) for identity in result.survivors)
        up, down = (sum(one.values()) for one in (result.traffic.up, result.traffic.down))
        return GroupSum.decoded(
            task, result.total, names, bytes_up=up, bytes_down=down, round_id=parameters.round_id
        )

    # --- whom to ask

    def _asked(self, among: Sequence[str] | None) -> frozenset[Identity]:
        """Return who is asked: not the guilty; those who keep silent only where the others are too few."""
        registry, run = self.options.registry, self.options.run
        asked = frozenset(
            identity
            for identity in registry.identities - self._guilty - self._revoked
            if among is None or registry.name_of(identity) in among
        )
        awake = asked - self._resting.keys()
        fewest = run.minimum_cohort if among is None else len(among)
        return awake if len(awake) >= fewest else asked

    def _silent(
        self, parameters: RoundParameters, asked: frozenset[Identity], suspects: frozenset[Identity]
    ) -> None:
        """Count who was silent or suspect once more; who was so in three rounds running is asked last."""
        for identity, left in list(self._resting.items()):
            if left > 1:
                self._resting[identity] = left - 1
            else:
                del self._resting[identity]
        gone, registry = self.gone.get(parameters.round_id, set()), self.options.registry
        self._away = frozenset(one for one in registry.identities if registry.name_of(one) in gone)
        for identity in asked:
            if identity in self._away or identity in suspects:
                self._strikes[identity] += 1
            else:
                del self._strikes[identity]
            if self._strikes[identity] >= _STRIKES:
                self._resting[identity] = self._strikes[identity]

    # --- what the members' ledgers allow

    def _cohort(
        self, subject: bytes, asked: frozenset[Identity], task: Task, *, wait: bool
    ) -> tuple[frozenset[Identity], Task]:
        """Return among whom a subject is summed, settled by its first attempt, and the task that says so."""
        run = self.options.run
        if wait:
            self._wait_for(asked - self._away)
        if (settled := self.ledger.cohort(subject)) is None:
            here = asked & self.served.connected
            cohort = here if len(here) >= max(run.minimum_cohort, run.cell) else asked
            self.ledger.join(subject, cohort=cohort, floor=run.cell)
        else:
            cohort = frozenset(map(Identity, settled))
        self._cells = self.ledger.cells(subject)
        return cohort, replace(task, cohort=run.cohort_bits(cohort))

    def _wait_for(self, expected: frozenset[Identity]) -> None:
        """Wait until these are connected: clients come back after each round, first ones are starting."""
        longest = self.options.deadlines.advertise_s if self._started else self.options.start_s
        until = time.monotonic() + longest
        while not expected <= self.served.connected and time.monotonic() < until:
            time.sleep(_LOOK_S)

    def _allowed(self, subject: bytes, asked: frozenset[Identity], task: Task) -> frozenset[Identity]:
        """Return who may be asked beside the earlier sums of a subject: other ledgers would refuse.

        raises  RoundAbortedError: the members of the earlier sum must be waited for
        """
        options = self.options
        here = (asked & self.served.connected or asked) if options.run.regroups else asked
        advice: Advice | None = None
        unsuspected = here - self._likely
        if len(unsuspected) < min(options.run.minimum_cohort, len(here)):
            unsuspected = here
        for candidates in (unsuspected, here, asked):
            advice = self.ledger.advice(subject, candidates, floor=options.run.floor)
            if not advice.wait:
                return frozenset(map(Identity, advice.members))
        said = "" if advice is None else advice.sentence(lambda one: options.registry.name_of(Identity(one)))
        raise RoundAbortedError(ConcernKind.DIFFERENCING, f"{task.name}: {said}")

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        """Deal those of the last sum into groups of whole cells; nothing where their ledgers sign one set."""
        registry = self.options.registry
        names = [tuple(sorted(registry.name_of(one) for one in cell)) for cell in self._cells]
        whole = [cell for cell in names if set(cell) <= set(members)]
        if not self.options.run.regroups or len(whole) < groups:
            return []
        bounds = [i * len(whole) // groups for i in range(groups + 1)]
        parts = (whole[first:last] for first, last in pairwise(bounds))
        return [tuple(sorted(name for cell in part for name in cell)) for part in parts]
