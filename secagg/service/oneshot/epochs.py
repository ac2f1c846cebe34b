"""Epochs: a committee is formed when there is none, when the last is old, and when it has lost members."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from secagg.effects import Aborted, CommitteeFormed, Effect, Frame, Refused, Send
from secagg.errors import RemoteProtocolError
from secagg.messages.oneshot import ONESHOT_FRAMES, CommitteeAnnouncement
from secagg.params import Identity
from secagg.params_oneshot import CommitteeParameters
from secagg.protocol.oneshot import ANY_COMMITTEE, CommitteeSession, CommitteeView, read_certificate
from secagg.registry import Registry
from secagg.service.errors import StreamError
from secagg.service.events import CommitteeFailed, CommitteeReady, MessageRefused
from secagg.service.kept import decoded
from secagg.service.stored import Services, Standing
from secagg.service.tasks import on_thread
from secagg.store import StoreDamagedError

_LOOK_S = 0.05  # at who is connected, and what has come
_REFUSALS = 16  # frames of one candidate in one epoch: one that means well needs none
_TAG = 24  # characters
_AGAIN_S = 1.0  # before another attempt


@dataclass(frozen=True, slots=True)
class Epoch:
    """A committee that rounds are opened with. formed: seconds since 1970."""

    certificate: bytes
    committee: CommitteeView
    formed: float


class _Kept(msgspec.Struct, array_like=True):
    certificate: bytes
    formed: float


class Members(Protocol):
    """The decryptors that are there; `MemberDesk`."""

    @property
    def connected(self) -> frozenset[Identity]: ...
    def deliver(self, member: Identity, item: Frame | Refused) -> None: ...
    def holding(self, epoch_id: bytes) -> frozenset[Identity]: ...
    def formed(self, epoch_id: bytes, members: Collection[Identity]) -> None: ...


def tag_of(epoch_id: bytes) -> str:
    """Return how decryptors name an epoch in their hello."""
    return epoch_id.hex()[:_TAG]


class Epochs:
    """The committees of a run, one after the other.

    demands   of every committee; each gets an epoch id of its own
    epoch_s   after which another one is formed: until a committee is over, T + 1 of its members can open all
              that was uploaded for it
    form_s    how long keys of candidates are waited for, and acceptances of members
    gather_s  how long the rest is waited for once enough candidates are connected
    latest    the last frame for each candidate of the epoch that begins
    """

    def __init__(
        self,
        demands: CommitteeParameters,
        services: Services,
        *,
        decryptors: Callable[[], Registry],
        epoch_s: float,
        form_s: float,
        gather_s: float,
    ) -> None:
        self._demands, self._services = demands, services
        self._decryptors, self._epoch_s = decryptors, epoch_s
        self._form_s, self._gather_s = form_s, gather_s
        self._refused: Counter[Identity] = Counter()  # frames of the epoch that begins
        self.latest: dict[Identity, Frame] = {}
        self._forming: CommitteeSession | None = None
        self._forming_id = b""
        self._current: Epoch | None = None
        self._spent = False
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Take up the epoch that the store has. Raises StoreError."""
        services = self._services
        data = await on_thread(services.executor, services.journal.noted, "epoch")
        if data is None:
            return
        try:
            kept = decoded(data, _Kept)
            committee = read_certificate(kept.certificate, ANY_COMMITTEE)
        except (StoreDamagedError, RemoteProtocolError) as error:
            services.observer(CommitteeFailed(b"", f"the one that was kept is damaged: {error}"))
            return
        if replace(committee.parameters, epoch_id=self._demands.epoch_id) == self._demands:
            self._current = Epoch(kept.certificate, committee, kept.formed)

    @property
    def current(self) -> Epoch | None:
        """The newest epoch."""
        return self._current

    def announcement(self, member: Identity, tags: Collection[str]) -> Frame | None:
        """Return what a member has missed that does not know of its committee; None: it does."""
        if self._current is None:
            return None
        view, epoch_id = self._current.committee, self._current.committee.parameters.epoch_id
        if member not in view.index or tag_of(epoch_id) in tags:
            return None
        return ONESHOT_FRAMES.encode(epoch_id, CommitteeAnnouncement(view.committee, view.keys))

    def spend(self, epoch: bytes) -> None:
        """Open no more rounds with a committee: too few of its members are left. epoch: its id."""
        if self._current is not None and self._current.committee.parameters.epoch_id == epoch:
            self._spent = True

    async def ready(self, members: Members) -> Epoch:
        """Return an epoch to open a round with; form one if need be, as often as it takes.

        raises  StoreError; InfeasibleParameters: no committee can be as it is demanded
        """
        async with self._lock:
            until = self._services.clock.now() + self._form_s
            while (epoch := self._usable(members)) is None:
                if self._fresh and self._services.clock.now() < until:
                    await asyncio.sleep(_LOOK_S)  # members that are away may be back in a moment
                else:
                    await self._form(members)
            return epoch

    @property
    def _fresh(self) -> bool:
        """Whether the committee is not spent, and not old."""
        epoch, now = self._current, self._services.clock.wall()
        return epoch is not None and not self._spent and now - epoch.formed < self._epoch_s

    def _usable(self, members: Members) -> Epoch | None:
        epoch = self._current
        if epoch is None or not self._fresh:
            return None
        committee, enrolled = epoch.committee, self._decryptors().identities
        holding = members.holding(committee.parameters.epoch_id)
        left = len(holding & frozenset(committee.members) & enrolled)
        return epoch if left >= len(committee.members) - committee.numbers.dropouts else None

    async def _gather(self, members: Members) -> bool:
        """Wait for candidates, for a while also for more than are needed; returns whether they are wanted."""
        least, began = self._demands.minimum_candidates, self._services.clock.now()
        enough_at, told = None, False
        while True:
            here, now = members.connected, self._services.clock.now()
            if self._usable(members) is not None:
                return False  # who was away came back
            if len(here) < least:
                enough_at = None
            elif enough_at is None:
                enough_at = now
            waited = enough_at is not None and now - enough_at >= self._gather_s
            if waited or here >= self._decryptors().identities:
                return True
            if enough_at is None and not told and now - began >= self._form_s:
                detail = f"{len(here)} decryptors are connected, at least {least} must be"
                self._services.observer(CommitteeFailed(b"", detail))
                told = True
            await asyncio.sleep(_LOOK_S)

    async def _form(self, members: Members) -> None:
        if not await self._gather(members):
            return
        self._refused.clear()
        parameters = replace(self._demands, epoch_id=os.urandom(16))
        session = CommitteeSession(parameters, candidates=self._decryptors().identities)
        try:
            self._forming, self._forming_id = session, parameters.epoch_id
            effects = session.start()
            while True:
                self._carry_out(effects, members)
                match effects[-1] if effects else None:
                    case CommitteeFormed(certificate=certificate):
                        epoch = await self._keep(bytes(certificate))
                        members.formed(epoch.committee.parameters.epoch_id, epoch.committee.members)
                        return
                    case Aborted(reason=reason, detail=detail):
                        self._services.observer(CommitteeFailed(parameters.epoch_id, f"{reason}: {detail}"))
                        await self._services.clock.sleep(_AGAIN_S)
                        return
                    case _:
                        await self._collect(session, members)
                        effects = session.close_phase()
        finally:
            self._forming, self._forming_id = None, b""
            self.latest.clear()

    async def _collect(self, session: CommitteeSession, members: Members) -> None:
        """Wait for those who are connected, as long as there is time."""
        clock = self._services.clock
        until = clock.now() + self._form_s
        while clock.now() < until:
            progress = session.progress
            if progress.ready and not progress.missing & members.connected:
                return
            await asyncio.sleep(_LOOK_S)

    def _carry_out(self, effects: Iterable[Effect], members: Members) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.to is not None:
                self.latest[effect.to] = effect.frame
                members.deliver(effect.to, effect.frame)

    def receive(self, sender: Identity, epoch_id: bytes, frame: bytes) -> Standing | None:
        """Feed a frame of a decryptor to the epoch that begins; None: it is of no such epoch.

        raises  StreamError when the decryptor sent too much nonsense
        """
        session = self._forming
        if session is None or epoch_id != self._forming_id:
            return None
        before = session.progress.received
        for effect in session.receive(sender, frame):
            if isinstance(effect, Refused):
                self._refused[sender] += 1
                if self._refused[sender] >= _REFUSALS:
                    raise StreamError(f"frame: {_REFUSALS} of yours were refused in this epoch")
                name = self._decryptors().name_of(sender)
                self._services.observer(MessageRefused(epoch_id, name, str(effect.reason), effect.detail))
                return Standing.REFUSED
        return Standing.TAKEN if session.progress.received > before else Standing.STANDS

    async def _keep(self, certificate: bytes) -> Epoch:
        """Keep a committee ahead of every round that it has a part in."""
        services = self._services
        committee = read_certificate(certificate, ANY_COMMITTEE)
        epoch = Epoch(certificate, committee, services.clock.wall())
        data = msgspec.msgpack.encode(_Kept(certificate, epoch.formed))
        await on_thread(services.executor, services.journal.note, "epoch", data)
        self._current, self._spent = epoch, False
        name_of = self._decryptors().name_of
        services.observer(
            CommitteeReady(
                committee.parameters.epoch_id,
                tuple(sorted(map(name_of, committee.members))),
                committee.numbers.privacy_threshold,
                committee.numbers.dropouts,
            )
        )
        return epoch
