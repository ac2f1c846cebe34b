"""One round of the one-upload protocol on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from secagg.effects import Effect, Frame, Refused, UploadTaken
from secagg.messages.oneshot import ONESHOT_FRAMES, oneshot_to_wire
from secagg.params import Buffer, Identity
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot.view import OneShotView
from secagg.service.driver import Driver
from secagg.service.oneshot.plan import OneShotPlan, view_of
from secagg.service.oneshot.rounds import OneShotRound
from secagg.service.stored import Incoming, Services, Standing, Step, StoredRound
from secagg.store.sql import KeptRound

_COMPLAINT_BYTES = 48
_DEALING_BYTES = 512  # of an upload but its vector, beside what is for the members


class UploadDriver(Driver[OneShotPlan]):
    """What clients know of a round, at a server or at an edge.

    uploaded  clients whose upload is on disk: they may vanish for ever
    """

    def __init__(
        self,
        plan: OneShotPlan,
        view: OneShotView,
        services: Services,
        steps: StoredRound[Any],
        *,
        payload: Buffer,
        ticket: bytes,
    ) -> None:
        super().__init__(plan, services, steps, payload=payload, ticket=ticket)
        self.uploaded: set[Identity] = set()
        self._rejoining: set[Identity] = set()
        self.parameters_frame = ONESHOT_FRAMES.encode(plan.round_id, oneshot_to_wire(plan.parameters))
        shares = len(view.committee.members) * (view.sealed_bytes + 32)
        self.upload_bytes = view.packed_size + view.tests_bytes + shares  # but for little

    @property
    def uploading(self) -> bool:
        """Whether uploads are taken."""
        return self.phase is OneShotPhase.UPLOAD

    def rejoin(self, party: Identity) -> None:
        """Send a party everything again that it must have: it is connected anew."""
        if self._over or party in self._rejoining:
            return  # once is enough, however often it connects meanwhile
        self._rejoining.add(party)
        standing: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        standing.add_done_callback(lambda _: self._rejoining.discard(party))
        self._put(Incoming(party, None), standing)

    def _carry_out(self, step: Step) -> None:
        self.uploaded |= {one.client for one in step.effects if isinstance(one, UploadTaken)}
        super()._carry_out(step)

    def _reported(self, _effects: list[Effect]) -> bool:
        return True


class OneShotDriver(UploadDriver):
    """Runs one round.

    payload  what the newest of its contexts is about
    deliver  is called for every frame or refusal that goes out
    closed   is called when no more uploads are taken
    kept     the round as the store has it; None: it is a new one, of `ticket`
    raises   StoreDamagedError: its committee cannot be read
    """

    def __init__(
        self,
        plan: OneShotPlan,
        services: Services,
        *,
        payload: Buffer,
        deliver: Callable[[OneShotDriver, Identity, Frame | Refused], None],
        closed: Callable[[OneShotDriver], None],
        kept: KeptRound | None = None,
        ticket: bytes = b"",
    ) -> None:
        ticket = ticket if kept is None else kept.ticket
        view = view_of(plan)
        known = kept is not None
        steps = OneShotRound(plan, view.committee, services, payload, kept=known, ticket=ticket)
        super().__init__(plan, view, services, steps, payload=payload, ticket=ticket)
        self.epoch_id = view.committee.parameters.epoch_id
        self.members = frozenset(view.committee.members)
        dealing_bytes = self.upload_bytes - view.packed_size + _DEALING_BYTES
        self.partial_bytes = view.packed_size + plan.parameters.maximum_uploads * dealing_bytes
        self.answer_bytes = view.opening_bytes + _COMPLAINT_BYTES * plan.parameters.maximum_uploads
        self._deliver, self._closed = deliver, closed
        self._taking = False  # uploads, when it was last looked at

    def _carry_out(self, step: Step) -> None:
        super()._carry_out(step)
        before, self._taking = self._taking, self.uploading
        if before and not self._taking and self.phase is not None:
            self._closed(self)

    def _time(self) -> tuple[float, float | None]:
        deadlines = self.plan.deadlines
        if self.uploading:
            return deadlines.upload_s, deadlines.upload_grace_s
        return deadlines.phase_s, deadlines.grace_s

    def _enough(self) -> bool:
        if self.uploading:
            return self.progress.received >= self.plan.enough
        return self.progress.complete

    def _send(self, client: Identity, item: Frame | Refused) -> None:
        self._deliver(self, client, item)
