"""One round on the event loop: hands messages in, keeps deadlines, carries out what the steps lead to.

What the session does and what the store writes happens on a thread, one step at a time (`DurableRound`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from secagg.effects import Aggregate, Dropped, Effect, Frame, PhaseClosed, Progress, Refused, Send
from secagg.errors import RoundAbortedError
from secagg.params import Buffer, Identity, Phase
from secagg.params_oneshot import EpochPhase, OneShotPhase
from secagg.protocol.oneshot import OneShotProgress
from secagg.service.durable import DurableRound
from secagg.service.errors import StreamError
from secagg.service.events import MessageRefused, PhaseDone, StoreFailed
from secagg.service.kept import RoundPlan
from secagg.service.stored import DAMAGED, OVER, Ended, Incoming, Services, Standing, Step, StoredRound
from secagg.service.tasks import end_tasks, first_of, on_thread
from secagg.store import LeaseLostError, StoreDamagedError, StoreError
from secagg.store.sql import KeptRound

_REFUSALS = 16  # frames of one client in one round: a client that means well needs none
_RETRY_S, _RETRY_MOST_S = 0.25, 5.0  # between two looks at a store that failed


class Plan(Protocol):
    """What a driver must know of a round; `RoundPlan`, `OneShotPlan`."""

    @property
    def round_id(self) -> bytes: ...


_Plan = TypeVar("_Plan", bound=Plan)


@dataclass(slots=True)
class _Waiting:
    """A frame in the inbox, and whoever waits to hear of it."""

    incoming: Incoming
    standing: asyncio.Future[Standing]

    def settle(self, standing: Standing) -> None:
        if not self.standing.done():
            self.standing.set_result(standing)


class Driver(ABC, Generic[_Plan]):
    """Runs one round.

    steps    what it consists of
    payload  what the round is about
    ticket   that its caller knows it by; nothing: it ends when its caller is gone
    """

    def __init__(
        self, plan: _Plan, services: Services, steps: StoredRound[Any], *, payload: Buffer, ticket: bytes
    ) -> None:
        self.plan, self.payload, self.ticket = plan, payload, ticket
        self.progress: Progress | OneShotProgress = OVER
        self.end: Ended | None = None
        self.settled = asyncio.Event()  # the store has the round and its first frames are out, or it is over
        self._services, self._round, self._id = services, steps, plan.round_id
        self._inbox: list[_Waiting] = []
        self._changed = asyncio.Event()
        self._over = False  # nobody reads the inbox any more
        self._refusals: Counter[Identity] = Counter()
        self._up = self._down = 0  # bytes of the current phase

    @property
    def round_id(self) -> bytes:
        """Of the round."""
        return self._id

    @property
    def phase(self) -> Phase | EpochPhase | OneShotPhase | None:
        """The phase that the round is in; None before it has begun and when it is over."""
        return self.progress.phase

    @property
    def known(self) -> bool:
        """Whether the store has the round."""
        return self._round.known

    # --- from the streams

    async def receive(
        self, sender: Identity, frame: bytes | None = None, spooled: str | None = None
    ) -> Standing:
        """Feed a frame of an authenticated client; returns once its fate is on disk.

        raises  StreamError when the client sent too much nonsense
        """
        if self._over:  # while the upload went to disk
            await self._discard(spooled)
            return Standing.STANDS
        if self.shuns(sender):
            await self._discard(spooled)
            raise StreamError(f"frame: {_REFUSALS} of yours were refused in this round, no more are read")
        standing: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._put(Incoming(sender, frame, spooled), standing)
        return await standing

    def _put(self, incoming: Incoming, standing: asyncio.Future[Standing]) -> None:
        self._inbox.append(_Waiting(incoming, standing))
        self._changed.set()

    def shuns(self, client: Identity) -> bool:
        """Return whether too many frames of a client were refused to say or hear any more in this round."""
        return self._refusals[client] >= _REFUSALS

    async def _discard(self, spooled: str | None) -> None:
        await on_thread(self._services.executor, self._round.discard, [spooled])

    # --- the round

    async def run(self) -> Aggregate:
        """Take the round to its end.

        raises  RoundAbortedError; LedgerError, InfeasibleParameters, StoreError: it could not be begun;
                LeaseLostError: another server goes on with it
        """
        wait_s, damaged = _RETRY_S, False
        try:
            while True:
                try:
                    if self._round.live:
                        await self._phases()
                    elif damaged:
                        await self._perform(partial(self._round.give_up, DAMAGED))
                    else:
                        damaged = not await self._open()
                        wait_s = _RETRY_S
                except LeaseLostError:
                    raise
                except StoreError as error:
                    if not self._round.known:
                        raise
                    await self._suspend(error)
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, _RETRY_MOST_S)
                if self.end is not None:
                    return _result(self.end)
        finally:
            self.progress, self._over = OVER, True
            self.settled.set()
            await on_thread(self._services.executor, self._round.leave, self._empty_inbox())

    async def give_up(self, why: str) -> None:
        """End a round that `run` has left: its caller does not wait for it any more. Raises StoreError."""
        step = await on_thread(self._services.executor, self._round.give_up, why)
        self._carry_out(step)

    async def _open(self) -> bool:
        """Begin, or go on; returns whether that is possible."""
        try:
            await self._perform(self._round.open)
        except StoreDamagedError as error:
            if not self._round.known:
                raise
            await self._suspend(error)
            return False
        self.settled.set()
        return True

    async def _phases(self) -> None:
        while self.end is None:
            started = self._services.clock.now()
            await self._collect()
            before = self.progress
            up, down = self._up, self._down
            self._up = self._down = 0
            step = await self._perform(self._round.close_phase, deliver=False)
            self._report(before, step.effects, up, down, started)
            self._carry_out(step)

    async def _collect(self) -> None:
        """Take messages until everybody asked has answered, or the phase's time is over."""
        clock = self._services.clock
        left, grace_s = self._time()
        until = clock.now() + left
        while True:
            if self._inbox:
                batch, self._inbox = self._inbox, []
                await self._take_all(batch)
            if self._enough():
                return
            if grace_s is not None and self.progress.ready:
                until, grace_s = min(until, clock.now() + grace_s), None
            left = until - clock.now()
            if left <= 0:
                return
            self._changed.clear()
            if self._inbox:
                continue
            alarm = asyncio.create_task(clock.sleep(left))
            change = asyncio.create_task(self._changed.wait())
            try:
                await first_of(alarm, change)
            finally:
                await end_tasks(alarm, change)

    @abstractmethod
    def _time(self) -> tuple[float, float | None]:
        """Return how long the phase waits for those who have not answered, and once enough have; seconds."""

    @abstractmethod
    def _enough(self) -> bool:
        """Return whether nobody is waited for: all have answered, or as many have uploaded as are wanted."""

    @abstractmethod
    def _send(self, client: Identity, item: Frame | Refused) -> None:
        """Send a frame or a refusal, where the client has a stream."""

    async def _take_all(self, batch: list[_Waiting]) -> None:
        try:
            step = await self._perform(lambda: self._round.take([one.incoming for one in batch]))
        except BaseException:
            for waiting in batch:
                waiting.settle(Standing.LOST)
            raise
        self._up += step.up
        for waiting, standing in zip(batch, step.standings, strict=True):
            if standing is Standing.REFUSED:
                self._refusals[waiting.incoming.sender] += 1
            waiting.settle(standing)

    async def _perform(self, work: Callable[[], Step], *, deliver: bool = True) -> Step:
        """Do a step on the thread, to its end even if this task is cancelled meanwhile."""
        step = await on_thread(self._services.executor, work)
        self.progress = self._round.progress
        if deliver:
            self._carry_out(step)
        return step

    def _carry_out(self, step: Step) -> None:
        """Tell observers what happened, and deliver what goes out."""
        self.end = step.end or self.end
        for event in step.events:
            self._services.observer(event)
        for effect in step.effects:
            match effect:
                case Send(to=bytes() as client, frame=frame):
                    self._down += frame.size
                    self._send(Identity(client), frame)
                case Refused(sender=bytes() as sender, reason=reason, detail=detail):
                    name = self._services.registry().name_of(sender)
                    self._services.observer(MessageRefused(self._id, name, str(reason), detail))
                    self._send(Identity(sender), effect)
                case _:
                    pass

    async def _suspend(self, error: StoreError) -> None:
        """Forget the session; the progress stays what clients know, who may come meanwhile."""
        self._services.observer(StoreFailed(self._id, str(error)))
        await on_thread(self._services.executor, self._round.leave, self._empty_inbox())

    def _empty_inbox(self) -> list[str | None]:
        """Let nobody wait; returns what was spooled."""
        batch, self._inbox = self._inbox, []
        for waiting in batch:
            waiting.settle(Standing.LOST)
        return [waiting.incoming.spooled for waiting in batch]

    def _report(
        self, before: Progress | OneShotProgress, effects: list[Effect], up: int, down: int, started: float
    ) -> None:
        if before.phase is None or not self._reported(effects):
            return
        self._services.observer(
            PhaseDone(
                self._id,
                before.phase,
                before.received,
                before.expected,
                self._names(effect.client for effect in effects if isinstance(effect, Dropped)),
                up,
                down,
                self._services.clock.now() - started,
            )
        )

    def _reported(self, effects: list[Effect]) -> bool:
        """Return whether the end of a phase is told as one that came about."""
        return any(isinstance(effect, PhaseClosed) for effect in effects)

    def _names(self, identities: Iterable[Identity]) -> tuple[str, ...]:
        registry = self._services.registry()
        return tuple(sorted(registry.name_of(identity) for identity in identities))


class RoundDriver(Driver[RoundPlan]):
    """Runs one round of the pairwise protocol.

    payload  what the round is about
    deliver  is called for every frame or refusal that goes out
    kept     the round as the store has it; None: it is a new one, of `ticket`
    latest   the last frame for each client
    """

    def __init__(
        self,
        plan: RoundPlan,
        services: Services,
        *,
        payload: Buffer,
        deliver: Callable[[RoundDriver, Identity, Frame | Refused], None],
        kept: KeptRound | None = None,
        ticket: bytes = b"",
    ) -> None:
        self.parameters = plan.parameters
        self.latest: dict[Identity, Frame] = {}
        self._deliver = deliver
        ticket = ticket if kept is None else kept.ticket
        steps = DurableRound(plan, services, payload, kept=kept is not None, ticket=ticket)
        super().__init__(plan, services, steps, payload=payload, ticket=ticket)

    def _time(self) -> tuple[float, float | None]:
        deadlines = self.plan.deadlines
        if self.phase is Phase.ADVERTISE_KEYS:
            return deadlines.advertise_s, deadlines.advertise_grace_s
        return deadlines.phase_s, deadlines.grace_s

    def _enough(self) -> bool:
        if self.progress.complete:
            return True
        uploading = self.phase is Phase.MASKED_INPUT_COLLECTION
        return uploading and 0 < self.plan.goal <= self.progress.received and self.progress.ready

    def _send(self, client: Identity, item: Frame | Refused) -> None:
        if isinstance(item, Frame):
            self.latest[client] = item
        self._deliver(self, client, item)


def _result(end: Ended) -> Aggregate:
    """Return the result of a round. Raises RoundAbortedError."""
    if isinstance(end.result, RoundAbortedError):
        raise end.result
    return end.result
