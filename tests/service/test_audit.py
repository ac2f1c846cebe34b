"""What the service writes into its audit log, and what parties hear of it."""

from __future__ import annotations

import asyncio

import pytest

from secagg import IdentityKey, Phase, RoundAbortedError
from secagg.audit import (
    RegistryChange,
    Round,
    RoundOutcome,
    Start,
    Withdrawal,
    check_receipt,
    content_of,
    load_receipt,
    survivors_of,
)
from secagg.service import HelloError, ManualClock, Registry, RunSettings
from secagg.store.sql import AuditLog, Database
from tests.service.cohort import PAYLOAD, SOON, cohort, settle

SERVER = IdentityKey.from_seed(b"a" * 32)


def contents(database: Database) -> list[object]:
    log = AuditLog(database, None, database.now)
    return [content_of(entry) for entry in log.entries(0, 99)]


def test_every_survivor_gets_a_receipt_that_proves_that_its_round_is_in_the_log() -> None:
    async def run() -> None:
        with Database("sqlite://") as database:
            async with cohort(database=database, auditor=SERVER) as c:
                tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
                result = await c.run.round(c.parameters(), PAYLOAD, SOON)
                for i, outcome in enumerate(await asyncio.gather(*tasks)):
                    found = check_receipt(
                        load_receipt(outcome.receipt),
                        server=SERVER.identity,
                        party=c.keys[i].identity,
                        round_id=c.parameters().round_id,
                    )
                    assert isinstance(found, Round)
                    assert set(survivors_of(found)) == set(result.survivors)
            assert [type(one) for one in contents(database)] == [Start, RegistryChange, Round]

    asyncio.run(run())


def test_a_round_without_a_sum_is_in_the_log_as_well() -> None:
    async def run() -> None:
        with Database("sqlite://") as database:
            async with cohort(database=database, auditor=SERVER, clock=ManualClock()) as c:
                tasks = [asyncio.create_task(c.take_part(i)) for i in range(3)]
                with pytest.raises(RoundAbortedError):
                    await c.run_late(c.parameters(), Phase.ADVERTISE_KEYS, 3)
                outcomes = await asyncio.gather(*tasks)
            found = contents(database)[-1]
            assert isinstance(found, Round)
            assert found.outcome == RoundOutcome.ABORTED
            assert check_receipt(load_receipt(outcomes[0].receipt), server=SERVER.identity) == found

    asyncio.run(run())


def test_whoever_leaves_the_registry_is_in_the_log_and_loses_its_stream() -> None:
    async def run() -> None:
        with Database("sqlite://") as database:
            async with cohort(database=database, auditor=SERVER) as c:
                await c.run.enrol(c.registry)  # nothing is new
                smaller = Registry({one: name for one, name in c.registry.names.items() if name != "party-3"})
                gone = c.keys[3].identity
                staying = asyncio.create_task(c.take_part(3))
                await settle(lambda: gone in c.run.connected)
                await c.run.enrol(smaller)
                await settle(lambda: gone not in c.run.connected)
                with pytest.raises(HelloError, match="not enrolled"):
                    await staying
            log = contents(database)
            assert [type(one) for one in log] == [Start, RegistryChange, RegistryChange, Withdrawal]
            assert isinstance(log[-1], Withdrawal)
            assert log[-1].identity == gone

    asyncio.run(run())


def test_runs_of_one_federation_over_other_parties_withdraw_nobody() -> None:
    async def run() -> None:
        with Database("sqlite://") as database:
            async with cohort(database=database, auditor=SERVER) as c:
                fewer = Registry({one: name for one, name in c.registry.names.items() if name != "party-3"})
                for place, registry in (
                    ("icu/one", c.registry),
                    ("icu/two", fewer),
                    ("icu/three", c.registry),
                ):
                    await c.server.open(RunSettings(place=place, registry=registry))
            assert not [one for one in contents(database) if isinstance(one, Withdrawal)]
            versions = [one.version for one in contents(database)[2:] if isinstance(one, RegistryChange)]
            assert versions == [1, 2, 3]

    asyncio.run(run())
