"""Sums by an aggregation server over sites that speak once a round."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.task import Task
from fedcore.service.options import ServeOptions
from fedcore.service.sums import answered, ticket_of
from secagg import Identity
from secagg.service import OneShotDeadlines, OneShotRun


@dataclass(slots=True)
class OneShotSum:
    """A SumAggregator whose sites are clients of the one-upload protocol. Called outside its event loop.

    instance    tells this run from another one with the same agreement
    on_task     told of every round that is asked for: its task, its id
    on_warning  told what the server's console should say
    """

    served: OneShotRun
    loop: asyncio.AbstractEventLoop
    options: ServeOptions
    instance: bytes
    on_task: Callable[[Task, bytes], None]
    on_warning: Callable[[str], None] = lambda _text: None
    _over: threading.Event = field(default_factory=threading.Event)
    _revoked: frozenset[Identity] = frozenset()  # of another thread, replaced as a whole

    @property
    def names(self) -> Sequence[str]:
        """All sites, ascending."""
        registry = self.options.registry
        return sorted(registry.name_of(identity) for identity in registry.identities)

    def ready(self, _among: Sequence[str] | None = None) -> None:
        """Return at once: sites come when they like, and a round waits for as many as it needs."""

    def leave_out(self, revoked: frozenset[Identity]) -> None:
        """Ask these no more; from any thread."""
        self._revoked = revoked

    def close(self) -> None:
        """Wait for a failed store no more."""
        self._over.set()

    def known(self, task: Task, among: Sequence[str] | None) -> bool:
        """Return whether a round about a task was begun before this server was started again."""
        ticket = ticket_of(self.instance, task, among)
        asking = lambda: self.served.known(ticket)  # noqa: E731 - asked anew when the store heals
        return answered(asking, self.loop, self._over, self.on_warning) is not None

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round, with everybody or some. Raises RoundAbortedError, SpoiledSumError."""
        options, run, encoding = self.options, self.options.run, task.encoding
        registry = options.registry
        asked = frozenset(
            identity
            for identity in registry.identities - self._revoked
            if among is None or registry.name_of(identity) in among
        )
        ticket = ticket_of(self.instance, task, among)
        known = answered(lambda: self.served.known(ticket), self.loop, self._over, self.on_warning)
        round_id = os.urandom(16) if known is None else known.round_id
        self.on_task(task, round_id)
        fewest = max(run.minimum_survivors, min(run.minimum_cohort, len(asked)))
        result = answered(
            lambda: self.served.round(
                task.encode(),
                vector_length=encoding.length,
                ring_bits=encoding.codec.ring_bits,
                maximum_uploads=max(2, len(run.members)),
                minimum_survivors=fewest,
                colluding=run.colluders,
                among=asked,
                deadlines=OneShotDeadlines(
                    upload_s=options.deadlines.advertise_s,
                    upload_grace_s=options.deadlines.grace_s,
                    phase_s=options.deadlines.phase_s,
                    grace_s=options.deadlines.grace_s,
                ),
                ticket=ticket,
                round_id=round_id,
            ),
            self.loop,
            self._over,
            self.on_warning,
        )
        names = sorted(registry.name_of(identity) for identity in result.survivors)
        up, down = (sum(one.values()) for one in (result.traffic.up, result.traffic.down))
        return GroupSum.decoded(task, result.total, names, bytes_up=up, bytes_down=down, round_id=round_id)

    def deal(self, _members: Sequence[str], _groups: int) -> list[tuple[str, ...]]:
        """Deal into no groups: what was uploaded is uploaded to no other round."""
        return []
