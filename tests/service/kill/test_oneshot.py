"""SIGKILL of the server, of a decryptor and of a client of the one-upload protocol: the exact sum, once."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest

from secagg.audit import Round, content_of
from secagg.service import Contribution
from secagg.service.tasks import end_tasks
from secagg.store import MemoryStore, SealedStore
from secagg.store.sql import AuditLog, Database
from tests.service.kill import oneshot
from tests.service.kill.conftest import free_port
from tests.service.kill.oneshot import M
from tests.service.kill.test_kill import _PATIENCE_S, ended, started
from tests.service.kill.victim import LOST, RING_BITS, N, Place, vector

pytestmark = [pytest.mark.process, pytest.mark.slow]


def decryptors_of(place: Place, which: range) -> list[asyncio.Task[bytes]]:
    """Decryptors that nobody kills."""
    return [
        asyncio.create_task(oneshot.decryptor_of(place, i, SealedStore(MemoryStore(), b"k" * 32)).serve())
        for i in which
    ]


async def contribute(place: Place, i: int) -> Contribution:
    return await oneshot.client_of(place, i, MemoryStore()).contribute(lambda _p, _q: vector(i))


async def through(forkserver: ForkServerContext, place: Place, *points: int) -> list[int]:
    """Run a round whose server dies at these points, one after the other; returns the exit statuses."""
    members = decryptors_of(place, range(M))
    clients = asyncio.gather(*(contribute(place, i) for i in range(N)))
    codes = []
    try:
        for point in (*points, 0):
            server = started(forkserver, oneshot.serve, place, point)
            if point == 0:
                said = await asyncio.wait_for(clients, _PATIENCE_S)
                assert all(one.acknowledged for one in said), said
                async with asyncio.timeout(_PATIENCE_S):
                    while not list(place.folder.glob("sum-*")):
                        await asyncio.sleep(0.01)
                        if not server.is_alive() and server.exitcode == LOST:
                            server = started(forkserver, oneshot.serve, place, 0)
                (place.folder / "done").touch()
                codes.append(await ended(server))
                break
            while not server.is_alive() or not list(place.folder.glob("sum-*")):
                await asyncio.sleep(0.01)
                if not server.is_alive():
                    server.join()
                    if server.exitcode != LOST:
                        break
                    server = started(forkserver, oneshot.serve, place, point)
            else:  # the round was over before its point came
                (place.folder / "done").touch()
            codes.append(await ended(server))
            if codes[-1] == 0:
                break
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)
        await end_tasks(*members)
    return codes


def check(place: Place) -> None:
    """One sum, exact, over everybody; once in the log; nothing else left."""
    sums = list(place.folder.glob("sum-*"))
    assert sums
    for path in sums:
        content = path.read_bytes()
        members, total = list(content[:N]), np.frombuffer(content[N:], "<u4")
        assert sorted(members) == list(range(N))
        expected = np.sum([vector(i) for i in members], axis=0, dtype=np.uint64) % 2**RING_BITS
        assert np.array_equal(total, expected.astype(np.uint32))
    with Database(place.url) as database, database.connection() as db:
        log = AuditLog(database, None, database.now)
        assert len([one for one in map(content_of, log.entries(0, 99)) if isinstance(one, Round)]) == 1
        assert db.exec_driver_sql("SELECT count(*) FROM messages").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(*) FROM rounds WHERE state = 'completed'").scalar_one() == 1
    assert [path.suffix for path in (place.folder / "spool").iterdir()] == [".total"]


def test_a_round_without_a_crash(forkserver: ForkServerContext, place: Place) -> None:
    assert asyncio.run(through(forkserver, place)) == [0]
    check(place)


def servers_die(forkserver: ForkServerContext, place: Place, first: int, step: int) -> int:
    """Run a round for every `step`-th point that its server can die at; returns the last point."""
    point = first
    for point in range(first, 200, step):
        folder = place.folder / str(point)
        folder.mkdir()
        here = replace(place, folder=folder, url=str(folder / "server.db"))
        codes = asyncio.run(through(forkserver, here, point))
        check(here)
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL, 0]
    return point


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "server.db"), tmp_path, free_port(), spooled=True)


def test_a_server_that_is_killed_loses_nothing(forkserver: ForkServerContext, here: Place) -> None:
    assert servers_die(forkserver, here, 3, 7) > 20  # there were points to die at


@pytest.mark.exhaustive
@pytest.mark.parametrize("spooled", [False, True], ids=["inline", "spooled"])
def test_a_server_that_is_killed_at_any_point_loses_nothing(
    forkserver: ForkServerContext, here: Place, spooled: bool
) -> None:
    assert servers_die(forkserver, replace(here, spooled=spooled), 1, 1) > 20


def test_a_server_that_is_killed_again_and_again_loses_nothing(
    forkserver: ForkServerContext, place: Place
) -> None:
    codes = asyncio.run(through(forkserver, place, 5, 7, 9, 11))
    assert codes == [*[-signal.SIGKILL] * 4, 0]
    check(place)


async def beside(forkserver: ForkServerContext, place: Place, who: str, point: int) -> bool:
    """Run a round of which one party dies at a point and is started again; returns whether it died."""
    server = started(forkserver, oneshot.serve, place, 0)
    call = oneshot.decrypt if who == "decryptor" else oneshot.contribute
    party = started(forkserver, call, place, 0, point)
    members = decryptors_of(place, range(1 if who == "decryptor" else 0, M))
    clients = asyncio.gather(*(contribute(place, i) for i in range(1 if who == "client" else 0, N)))
    died = False
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not list(place.folder.glob("sum-*")):
                await asyncio.sleep(0.01)
                if not died and not party.is_alive() and party.exitcode == -signal.SIGKILL:
                    died = True
                    party = started(forkserver, call, place, 0, 0)
            assert all(one.acknowledged for one in await clients)
        if who == "client":
            if not died and await ended(party) != 0:
                died = True
                party = started(forkserver, call, place, 0, 0)
            if died and not (place.folder / "outcome-0").exists():
                await asyncio.sleep(0.3)
        (place.folder / "done").touch()
        assert await ended(server) == 0
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)
        await end_tasks(*members)
        server.kill()
        party.kill()
    return died


def parties_die(forkserver: ForkServerContext, tmp_path: Path, who: str, step: int) -> int:
    point = 1
    for point in range(1, 80, step):
        folder = tmp_path / str(point)
        folder.mkdir()
        place = Place(str(folder / "server.db"), folder, free_port())
        died = asyncio.run(beside(forkserver, place, who, point))
        check(place)  # the client is in the sum, and the decryptor did not spoil it
        if who == "client":
            frames = set((folder / "frames-client-0").read_text().splitlines())
            assert len(frames) == 1  # it spoke once
        if not died:
            break
    return point


@pytest.mark.parametrize(("who", "least"), [("client", 4), ("decryptor", 10)])
def test_a_party_that_is_killed_goes_on(
    forkserver: ForkServerContext, tmp_path: Path, who: str, least: int
) -> None:
    assert parties_die(forkserver, tmp_path, who, 3) >= least


@pytest.mark.exhaustive
@pytest.mark.parametrize(("who", "least"), [("client", 4), ("decryptor", 10)])
def test_a_party_that_is_killed_at_any_point_goes_on(
    forkserver: ForkServerContext, tmp_path: Path, who: str, least: int
) -> None:
    assert parties_die(forkserver, tmp_path, who, 1) >= least
