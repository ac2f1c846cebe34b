"""Sums by an aggregation server over sites that speak once a round."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.task import Task
from fedcore.service.sums import ServedSum
from secagg import Identity
from secagg.service import OneShotDeadlines, OneShotRun


@dataclass(slots=True, kw_only=True)
class OneShotSum(ServedSum[OneShotRun]):
    """Sums of the one-upload protocol."""

    def _asked(self, among: Sequence[str] | None) -> frozenset[Identity]:
        registry = self.options.registry
        enrolled = registry.identities - self._revoked
        return frozenset(one for one in enrolled if among is None or registry.name_of(one) in among)

    def _here(self, asked: frozenset[Identity]) -> frozenset[Identity]:
        """Return who may upload at once: through an edge, anybody, for who is at it is seen there alone."""
        return asked if self.served.edges else super(OneShotSum, self)._here(asked)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round, with everybody or some. Raises RoundAbortedError, SpoiledSumError."""
        run, encoding, asked = self.options.run, task.encoding, self._asked(among)
        ticket = self._ticket(task, among)
        known = self._known(ticket)
        round_id = os.urandom(16) if known is None else known.round_id
        self._started = True
        self.on_task(task, round_id)
        times = self.options.deadlines
        result = self._answer(
            lambda: self.served.round(
                task.encode(),
                vector_length=encoding.length,
                ring_bits=encoding.codec.ring_bits,
                maximum_uploads=max(2, len(run.members)),
                minimum_survivors=max(run.minimum_survivors, min(run.minimum_cohort, len(asked))),
                colluding=run.colluders,
                among=asked,
                deadlines=OneShotDeadlines(
                    upload_s=times.advertise_s,
                    upload_grace_s=times.grace_s,
                    phase_s=times.phase_s,
                    grace_s=times.grace_s,
                ),
                ticket=ticket,
                round_id=round_id,
            )
        )
        names = self._names_of(result.survivors)
        up, down = (sum(one.values()) for one in (result.traffic.up, result.traffic.down))
        return GroupSum.decoded(task, result.total, names, bytes_up=up, bytes_down=down, round_id=round_id)

    def deal(self, _members: Sequence[str], _groups: int) -> list[tuple[str, ...]]:
        """Deal into no groups: what was uploaded is uploaded to no other round."""
        return []
