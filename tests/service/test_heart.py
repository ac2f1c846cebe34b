"""A lease is held as long as it is renewed in time, and given up when nobody can tell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from secagg.service.heart import Heart
from secagg.store import LeaseLostError, StoreGoneError
from secagg.store.sql import Database, Lease, Leases


class Scripted(Leases):
    """Renews as a test says."""

    def __init__(self, database: Database, renew: Callable[[], None]) -> None:
        super().__init__(database, holder="me", lease_s=0.3)
        self._renew = renew

    def renew(self, lease: Lease) -> None:
        self._renew()


async def beat(
    renew: Callable[[], None], *, shared: bool, until: Callable[[Heart, list[Any]], bool]
) -> Heart:
    lost: list[LeaseLostError] = []

    async def on_lost(error: LeaseLostError) -> None:
        lost.append(error)

    with Database("sqlite://") as database, ThreadPoolExecutor(1) as executor:
        leases = Scripted(database, renew)
        lease = leases.take("icu/first")
        assert lease is not None
        heart = Heart(leases, lease, executor=executor, shared=shared, on_lost=on_lost)
        async with asyncio.timeout(30):
            while not until(heart, lost):
                await asyncio.sleep(0.01)
        if lost:
            assert lost == [heart.lost]
        await heart.stop()
    return heart


def test_a_database_that_falls_silent_costs_the_lease() -> None:
    """Another server leads by then: clients that stay here would hear of nothing."""
    silent = threading.Event()

    def until(_heart: Heart, lost: list[Any]) -> bool:
        if lost:
            silent.set()  # the thread ends, long after
        return bool(lost)

    heart = asyncio.run(beat(lambda: (silent.wait(30), None)[1], shared=True, until=until))
    assert "does not answer" in str(heart.lost)


def test_a_database_that_fails_for_as_long_as_the_lease_costs_it() -> None:
    def failing() -> None:
        raise StoreGoneError("the database: cannot be reached")

    heart = asyncio.run(beat(failing, shared=True, until=lambda _heart, lost: bool(lost)))
    assert "could not be renewed" in str(heart.lost)


def test_nobody_else_can_have_the_file_of_sqlite_meanwhile() -> None:
    calls: list[int] = []

    def failing() -> None:
        calls.append(1)
        raise StoreGoneError("the disk: does not answer")

    heart = asyncio.run(beat(failing, shared=False, until=lambda _heart, _lost: len(calls) > 6))
    assert heart.lost is None


@pytest.mark.parametrize("shared", [False, True])
def test_whoever_hears_that_another_leads_stops(shared: bool) -> None:
    def lost() -> None:
        raise LeaseLostError("icu/first: another server leads here by now")

    heart = asyncio.run(beat(lost, shared=shared, until=lambda _heart, lost_: bool(lost_)))
    assert heart.lost is not None
