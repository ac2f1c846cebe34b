"""Suite "oneshot": the one-upload protocol beside its primitives and beside the pairwise protocol.

All parties are real, and in this process, one after the other; each one's seconds are taken apart. Uploads
are thrown away once they are in the total, as nobody is left out of the sum.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bench.harness import FULL, TINY, Effort, measure
from bench.suites.cohort import Cohort, Workload
from secagg import (
    CommitteeParameters,
    Contributor,
    Identity,
    IdentityKey,
    OneShotAggregate,
    OneShotParameters,
    OneShotPolicy,
    OneShotServer,
)
from secagg.costs_oneshot import OneShotCosts
from secagg.effects import Completed, Effect, Send, SignWanted
from secagg.kernels import UIntArray, ring_mask
from secagg.local_oneshot import LocalEpoch, form_committee
from secagg.params import Buffer
from secagg.planning_oneshot import load_of, plan_oneshot
from secagg.primitives.labels import context_digest

T = TypeVar("T")
RING_BITS = 18
CONTEXT = context_digest(b"bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One round. `dropout` is the share of the clients that never upload."""

    clients: int
    length: int
    members: int = 64
    dropout: float = 0.0
    post_quantum: bool = False
    ring_bits: int = RING_BITS


class _Nothing:
    """A PackedStore for rounds in which nobody is left out."""

    def put(self, digest: bytes, packed: Buffer) -> None:
        pass

    def get(self, digest: bytes) -> Buffer:
        raise LookupError(digest.hex())

    def clear(self) -> None:
        pass


class Round:
    """Runs one round. Afterwards: seconds of each `client`, by `member`, of the `server` in all."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.client: list[float] = []
        self.member: dict[Identity, float] = defaultdict(float)
        self.server = 0.0
        self.upload_bytes = 0
        self.vector = np.random.default_rng(1).integers(0, 2**work.ring_bits, work.length, np.uint64)
        self.vector = self.vector.astype(np.uint32)
        self.keys = [IdentityKey.generate(os.urandom) for _ in range(work.clients)]
        self.epoch = self._epoch([IdentityKey.generate(os.urandom) for _ in range(work.members)])
        self.parameters = OneShotParameters(
            round_id=os.urandom(16),
            committee_digest=self.epoch.committee.committee_digest,
            vector_length=work.length,
            ring_bits=work.ring_bits,
            contexts=(CONTEXT,),
            maximum_uploads=work.clients,
        )
        known = [key.identity for key in self.keys]
        self.session = OneShotServer(self.parameters, self.epoch.committee, known=known, packed=_Nothing())

    def _epoch(self, members: list[IdentityKey]) -> LocalEpoch:
        policy = OneShotPolicy(
            known=frozenset(key.identity for key in self.keys),
            decryptors=frozenset(key.identity for key in members),
            require_post_quantum=self.work.post_quantum,
        )
        parameters = CommitteeParameters(
            epoch_id=os.urandom(16),
            minimum_candidates=self.work.members,
            post_quantum=self.work.post_quantum,
        )
        return form_committee(parameters, members, policy, os.urandom)

    def run(self) -> UIntArray:
        """Run the round; returns the sum. Raises RuntimeError when it is wrong or ends early."""
        self._carry(self._timed(self.session.start))
        gone = int(self.work.clients * self.work.dropout)
        frames = [self.epoch.certificate, bytes(self.session.parameters_frame)]
        for key in self.keys[gone:]:
            upload = self._upload(key, frames)
            self._timed(lambda upload=upload, key=key: self.session.receive(key.identity, upload))  # type: ignore[misc]
            if self.session.progress.received % 64 == 0:
                self._carry(self._timed(self.session.deal))
        while True:
            for effect in (effects := self._timed(self.session.close_phase)):
                if isinstance(effect, Completed) and isinstance(effect.result, OneShotAggregate):
                    return self._checked(effect.result, self.work.clients - gone)
            if self.session.phase is None:
                raise RuntimeError(f"the round ended without a result: {effects}")
            self._carry(effects)

    def _upload(self, key: IdentityKey, frames: list[bytes]) -> bytes:
        client = Contributor(signer=key, context=CONTEXT, policy=self.epoch.policy, entropy=os.urandom)
        if not self.client:  # a client checks a certificate once an epoch: only the first one here does
            client.receive(frames[0])
            self._committees = client._committees  # noqa: SLF001
        client._committees = self._committees  # noqa: SLF001
        client.receive(frames[1])
        began = time.perf_counter()
        (sent,) = (effect for effect in client.submit(self.vector) if isinstance(effect, Send))
        frame = bytes(sent.frame)
        self.client.append(time.perf_counter() - began)
        self.upload_bytes = len(frame)
        return frame

    def _carry(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Send) or effect.to is None:
                continue
            data, decryptor = bytes(effect.frame), self.epoch.decryptors[effect.to]
            began = time.perf_counter()
            answers: list[Effect] = decryptor.receive(data)
            if any(isinstance(answer, SignWanted) for answer in answers):
                answers = decryptor.sign(self.parameters.round_id)
            self.member[effect.to] += time.perf_counter() - began
            for answer in answers:
                if isinstance(answer, Send):
                    frame, to = bytes(answer.frame), effect.to
                    self._timed(lambda frame=frame, to=to: self.session.receive(to, frame))  # type: ignore[misc]

    def _timed(self, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        out = call()
        self.server += time.perf_counter() - began
        return out

    def _checked(self, result: OneShotAggregate, uploads: int) -> UIntArray:
        expected = self.vector.astype(np.uint64) * np.uint64(uploads) & np.uint64(
            ring_mask(self.work.ring_bits)
        )
        if not np.array_equal(result.total, expected) or len(result.survivors) != uploads:
            raise RuntimeError("the sum is wrong")
        return result.total


def run(effort: Effort) -> dict[str, Any]:
    """Return the figures of clients, members and the server."""
    clients, length, members = (1000, 1_000_000, (64, 128)) if effort != TINY else (6, 3000, (8,))
    few = max(clients // 40, 4)  # clients that are timed where only one of them is of interest
    return {
        "clients": clients,
        "length": length,
        "ring_bits": RING_BITS,
        "uploads": [
            _one_upload(few, length, count, post_quantum=post_quantum, effort=effort)
            for count in members
            for post_quantum in (False, True)
        ],
        "rounds": _rounds(clients, length // 10, members[0]),
        "pairwise": [] if effort == TINY else _pairwise(clients, length // 10),
        "crowd": _crowd() if effort == FULL else None,
    }


def _one_upload(
    clients: int, length: int, members: int, *, post_quantum: bool, effort: Effort
) -> dict[str, Any]:
    one = Round(Work(clients=clients, length=length, members=members, post_quantum=post_quantum))
    one.run()
    planned = plan_oneshot(
        clients=clients,
        decryptors=members,
        vector_length=length,
        value_bits=RING_BITS - (clients - 1).bit_length(),
        post_quantum=post_quantum,
    )
    load = load_of(planned)

    def timer(call: Callable[[], object], calls: int) -> float:
        return measure(call, effort, calls=calls).median

    costs = OneShotCosts.measured(timer, load)
    seconds = statistics.median(one.client)
    per_dealing = statistics.median(one.member.values()) / clients
    return {
        "members": members,
        "post_quantum": post_quantum,
        "client_ms": seconds * 1e3,
        "of_primitives": seconds / costs.client_seconds(load),
        "decryptor_us_a_dealing": per_dealing * 1e6,
        "decryptor_of_primitives": per_dealing * clients / costs.decryptor_seconds(load),
        "upload_bytes": one.upload_bytes,
        "bytes_beside_entries": one.upload_bytes - one.parameters.upload_bits * length // 8,
        "lattice_ns_an_entry": costs.lattice_entry * 1e9,
    }


def _rounds(clients: int, length: int, members: int) -> list[dict[str, Any]]:
    """Whole rounds of which a part of the clients never uploads."""
    rows = []
    for dropout in (0.0, 0.1, 0.3):
        one = Round(Work(clients=clients, length=length, members=members, dropout=dropout))
        one.run()
        uploads = len(one.client)
        rows.append(
            {
                "dropout": dropout,
                "uploads": uploads,
                "server_s": one.server,
                "server_us_an_upload": one.server / uploads * 1e6,
                "client_ms": statistics.median(one.client) * 1e3,
                "decryptor_us_a_dealing": statistics.median(one.member.values()) / uploads * 1e6,
            }
        )
    return rows


def _pairwise(clients: int, length: int) -> list[dict[str, Any]]:
    """Server seconds of the pairwise protocol for the same sums."""
    rows = []
    for dropout in (0.05, 0.1, 0.3):
        cohort = Cohort(Workload(clients=clients, length=length, dropout=dropout))
        cohort.run()
        client = sum(statistics.median(one.values()) for one in cohort.account.client.values())
        rows.append(
            {"dropout": dropout, "server_s": sum(cohort.account.server.values()), "client_ms": client * 1e3}
        )
    return rows


def _crowd() -> dict[str, Any]:
    """10^4 clients, of which 30 % vanish, everybody in this process."""
    began = time.perf_counter()
    one = Round(Work(clients=10_000, length=100_000, dropout=0.3))
    one.run()
    return {"clients": 10_000, "length": 100_000, "dropout": 0.3, "seconds": time.perf_counter() - began}
