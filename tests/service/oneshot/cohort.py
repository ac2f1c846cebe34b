"""A run of the one-upload protocol in one event loop, on loopback, over real TLS and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from secagg import IdentityKey, OneShotAggregate, OneShotPolicy
from secagg.kernels import UIntArray
from secagg.service import (
    AggregationServer,
    CommitteeReady,
    Contribution,
    Decryptor,
    Event,
    OneShotClient,
    OneShotDeadlines,
    OneShotRun,
    OneShotSettings,
    Registry,
)
from secagg.service.oneshot.client import _Sitting
from secagg.service.tasks import end_tasks
from secagg.store import MemoryStore, Store
from secagg.store.sql import Database, Spool
from tests.service.cohort import CREDENTIALS, PINNED, settle

PAYLOAD = b"the model"
RING_BITS = 20
SOON = OneShotDeadlines(upload_s=100, phase_s=100)


@dataclass
class OneShotCohort:
    """Clients 0..n-1 with vectors, and decryptors; `server` is listening."""

    keys: list[IdentityKey]
    members: list[IdentityKey]
    registry: Registry
    decryptors: Registry
    server: AggregationServer
    run: OneShotRun
    vectors: list[UIntArray]
    events: list[Event]
    stores: list[Store] = field(default_factory=list)  # of clients
    refusals: list[str] = field(default_factory=list)
    tasks: dict[int, asyncio.Task[bytes]] = field(default_factory=dict)  # of decryptors

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def policy(self, **changes: Any) -> OneShotPolicy:
        settings: dict[str, Any] = {
            "known": self.registry.identities,
            "decryptors": self.decryptors.identities,
            "minimum_candidates": 4,
            "minimum_committee": 4,
            "require_post_quantum": False,
        }
        return OneShotPolicy(**(settings | changes))

    def client(self, i: int, **options: Any) -> OneShotClient:
        settings: dict[str, Any] = {
            "address": self.address,
            "credentials": PINNED,
            "signer": self.keys[i],
            "policy": self.policy(),
            "store": self.stores[i],
            "on_refusal": self.refusals.append,
            "patience_s": 60.0,
        }
        return OneShotClient(**(settings | options))

    async def contribute(self, i: int, **options: Any) -> Contribution:
        return await self.client(i, **options).contribute(lambda _payload, _parameters: self.vectors[i])

    def decryptor(self, i: int, **options: Any) -> Decryptor:
        settings: dict[str, Any] = {
            "address": self.address,
            "credentials": PINNED,
            "signer": self.members[i],
            "policy": self.policy(),
            "on_refusal": self.refusals.append,
            "patience_s": 60.0,
        }
        return Decryptor(**(settings | options))

    def decrypt(self, *which: int, **options: Any) -> None:
        """Let decryptors serve in tasks; all of them by default."""
        for i in which or range(len(self.members)):
            self.tasks[i] = asyncio.create_task(self.decryptor(i, **options).serve())

    async def lose(self, *which: int) -> None:
        """Let decryptors vanish."""
        await end_tasks(*(self.tasks.pop(i) for i in which))
        gone = {self.members[i].identity for i in which}
        await settle(lambda: not gone & self.run.decryptors)

    def round(self, payload: bytes = PAYLOAD, **options: Any) -> asyncio.Task[OneShotAggregate]:
        settings: dict[str, Any] = {
            "vector_length": len(self.vectors[0]),
            "ring_bits": RING_BITS,
            "maximum_uploads": len(self.vectors),
            "deadlines": SOON,
        }
        return asyncio.create_task(self.run.round(payload, **(settings | options)))

    def exact(self, result: OneShotAggregate, members: Collection[int]) -> None:
        """Check that the sum is that of these clients."""
        total = np.sum([self.vectors[i] for i in members], axis=0, dtype=np.uint64)
        assert np.array_equal(result.total, np.asarray(total % 2**RING_BITS, np.uint32))
        assert set(result.survivors) == {self.keys[i].identity for i in members}

    @property
    def committees(self) -> list[CommitteeReady]:
        return [event for event in self.events if isinstance(event, CommitteeReady)]


@contextmanager
def ends_heard() -> Iterator[list[bytes]]:
    """Let a test see the rounds whose ends clients have heard of: they are told over a network."""
    heard: list[bytes] = []
    original = _Sitting._over_for

    def over_for(self: _Sitting, round_id: bytes, completed: bool, reason: str) -> None:
        original(self, round_id, completed, reason)
        heard.append(round_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Sitting, "_over_for", over_for)
        yield heard


@asynccontextmanager
async def oneshot_cohort(
    n: int = 5,
    m: int = 5,
    length: int = 50,
    *,
    database: Database | None = None,
    spool: Spool | None = None,
    stores: list[Store] | None = None,
    server: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[OneShotCohort]:
    """Start a server for n clients and m decryptors; decryptors are tasks of the test."""
    keys = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(n)]
    members = [IdentityKey.from_seed(bytes([i + 101]) * 32) for i in range(m)]
    registry = Registry.of((f"client-{i}", key.identity) for i, key in enumerate(keys))
    decryptors = Registry.of((f"decryptor-{i}", key.identity) for i, key in enumerate(members))
    events: list[Event] = []
    listening = AggregationServer(
        address="127.0.0.1:0", credentials=CREDENTIALS, database=database, spool=spool, **(server or {})
    )
    rng = np.random.default_rng(7)
    vectors: list[UIntArray] = [rng.integers(0, 2**RING_BITS, length, dtype=np.uint32) for _ in range(n)]
    await listening.start()
    try:
        everything: dict[str, Any] = {
            "registry": registry,
            "decryptors": decryptors,
            "post_quantum": False,
            "observer": events.append,
            "gather_s": 0,
        }
        run = await listening.open_oneshot(OneShotSettings(**(everything | settings)))
        c = OneShotCohort(keys, members, registry, decryptors, listening, run, vectors, events)
        c.stores = stores or [MemoryStore() for _ in keys]
        try:
            yield c
        finally:
            await end_tasks(*c.tasks.values())
    finally:
        await listening.stop()
