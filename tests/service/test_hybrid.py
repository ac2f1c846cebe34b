"""Rounds of the hybrid suite over TLS: the sum, a server that is started again, a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg import Identity, Phase, RoundAbortedError, RoundParameters, ThreatModel
from secagg.effects import AbortReason
from secagg.messages import Advertisement, SealedContribution
from secagg.params import HYBRID
from secagg.primitives import kem
from secagg.protocol.client import share_keys
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.round import RoundView
from secagg.service import UploadTaken
from secagg.store import MemoryStore, ParticipationLedger, SealedStore, StoredCounter
from secagg.store.sql import Database, spool_of
from tests.protocol.network import flipped
from tests.service.cohort import PAYLOAD, SOON, Cohort, cohort, settle

N = 6
pytestmark = pytest.mark.skipif(not kem.AVAILABLE, reason="needs ML-KEM of cryptography >= 48")


def parameters(c: Cohort, **changes: Any) -> RoundParameters:
    return c.parameters(suite=HYBRID, threat_model=ThreatModel(dropout=0.3), minimum_cohort=N, **changes)


def test_a_round_gives_the_exact_sum() -> None:
    async def run() -> None:
        async with cohort(N) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(N)]
            result = await c.run.round(parameters(c), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(N))))
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))

    asyncio.run(run())


@pytest.mark.parametrize("phase", list(Phase))
def test_a_server_that_is_started_again_in_any_phase_goes_on(tmp_path: Path, phase: Phase) -> None:
    async def run() -> None:
        with Database(tmp_path / "server.db") as database:
            async with cohort(N, database=database, spool=spool_of(database)) as c:
                running = asyncio.create_task(c.run.round(parameters(c), PAYLOAD, SOON, ticket=b"one"))
                stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(N)]
                early = [asyncio.create_task(c.take_part(i, **durable(stores[i]))) for i in range(4)]
                await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 4))
                late = [asyncio.create_task(c.take_part(i, **durable(stores[i]))) for i in range(4, N)]
                await settle(lambda: c.driver is not None and (c.driver.phase or 0) >= phase)
                await c.server.stop()
                await asyncio.gather(running, return_exceptions=True)
                for task in (*early, *late):
                    task.cancel()
                await asyncio.gather(*early, *late, return_exceptions=True)
            async with cohort(N, database=database, spool=spool_of(database)) as c:
                tasks = [asyncio.create_task(c.take_part(i, **durable(stores[i]))) for i in range(N)]
                result = await c.run.round(parameters(c), PAYLOAD, SOON, ticket=b"one")
                assert np.array_equal(result.total, c.expected(list(range(N))))
                await asyncio.gather(*tasks)

    asyncio.run(run())


def durable(store: SealedStore) -> dict[str, Any]:
    return {"store": store, "counter": StoredCounter(store), "ledger": ParticipationLedger(store)}


def spoil(monkeypatch: pytest.MonkeyPatch, liar: Identity, victim: Identity) -> None:
    """Let one client send another a contribution that does not open."""
    original = share_keys._contributions

    def lying(
        view: RoundView, neighbors: Sequence[Advertisement], secrets: Secrets, me: Identity, threads: int
    ) -> Iterable[SealedContribution]:
        sent = original(view, neighbors, secrets, me, threads)
        if me != liar:
            return sent
        return [
            replace(one, ciphertext=flipped(one.ciphertext, 3)) if one.peer == victim else one for one in sent
        ]

    monkeypatch.setattr(share_keys, "_contributions", lying)


def test_a_client_that_leaves_has_not_uploaded_and_who_made_it_leave_is_guilty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        store = MemoryStore()
        async with cohort(N, ledger=ParticipationLedger(store)) as c:
            order = sorted(range(N), key=lambda i: c.keys[i].identity)
            liar, victim = order[0], order[3]
            spoil(monkeypatch, c.keys[liar].identity, c.keys[victim].identity)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(N)]
            with pytest.raises(RoundAbortedError) as caught:
                await c.run.round(parameters(c), PAYLOAD, SOON)
            assert caught.value.reason is AbortReason.BAD_CONTRIBUTION
            assert caught.value.guilty == (c.keys[liar].identity,)
            await asyncio.gather(*tasks)
            assert c.outcomes[victim].reason.startswith(AbortReason.BAD_CONTRIBUTION)
            uploads = {event.client for event in c.events if isinstance(event, UploadTaken)}
            assert uploads == {f"party-{i}" for i in range(N) if i != victim}
            ledger, context = ParticipationLedger(store), parameters(c).context
            assert ledger.check_clients(context, [c.keys[order[1]].identity])
            assert not ledger.check_clients(context, [c.keys[victim].identity])

    asyncio.run(run())
