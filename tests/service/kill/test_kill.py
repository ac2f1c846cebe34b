"""SIGKILL of the server, and of a client, at every boundary of a round: the exact sum, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg.audit import RegistryChange, Round, Start, check_receipt, content_of, load_receipt
from secagg.service import RoundOutcome, line
from secagg.store.sql import AuditLog, Database
from secagg.transcript import verify
from tests.postgresql import Cluster
from tests.service.kill import victim
from tests.service.kill.conftest import free_port
from tests.service.kill.victim import RING_BITS, N, Place

pytestmark = [pytest.mark.process, pytest.mark.slow]
_PATIENCE_S = 40


def started(forkserver: ForkServerContext, call: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = forkserver.Process(target=call, args=arguments)
    process.start()
    return process


async def ended(process: BaseProcess) -> int:
    async with asyncio.timeout(_PATIENCE_S):
        while process.is_alive():
            await asyncio.sleep(0.01)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


async def part(place: Place, i: int) -> RoundOutcome:
    return await victim.client_of(place, i).take_part(lambda _p, _q: victim.vector(i))


async def through(forkserver: ForkServerContext, place: Place, *points: int) -> list[int]:
    """Run a round whose server dies at these points, one after the other; returns the exit statuses."""
    clients = asyncio.gather(*(part(place, i) for i in range(N)))
    clients.add_done_callback(lambda _: (place.folder / "done").touch())
    codes = []
    try:
        for point in (*points, 0):
            # A lease as short as ours is lost where the machine is busy: then the next server goes on.
            while (code := await ended(started(forkserver, victim.serve, place, point))) == victim.LOST:
                pass
            codes.append(code)
            if code == 0:
                break
        outcomes = await asyncio.wait_for(clients, _PATIENCE_S)
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)
    assert all(outcome.completed for outcome in outcomes), [outcome.reason for outcome in outcomes]
    assert len({outcome.receipt for outcome in outcomes}) == 1
    check_receipt(
        load_receipt(outcomes[0].receipt), server=victim.SERVER.identity, party=victim.KEYS[0].identity
    )
    return codes


def check(place: Place) -> None:
    """One sum, exact, over everybody; a transcript that is right; nothing else left."""
    for path in place.folder.glob("sum-*"):
        content = path.read_bytes()
        members, total = list(content[:N]), np.frombuffer(content[N:], "<u4")
        assert sorted(members) == list(range(N))
        expected = np.sum([victim.vector(i) for i in members], axis=0, dtype=np.uint64) % 2**RING_BITS
        assert np.array_equal(total, expected.astype(np.uint32))
    assert list(place.folder.glob("sum-*"))
    (transcript,) = (place.folder / "transcripts").iterdir()
    with transcript.open("rb") as file:
        report = verify(file, server=victim.SERVER.identity)
    assert report.ok, report.findings
    with Database(place.url) as database, database.connection() as db:
        log = AuditLog(database, None, database.now)
        kinds = [type(content_of(entry)) for entry in log.entries(0, 99)]
        assert kinds == [Start, RegistryChange, Round]  # once, whatever happened
        assert db.exec_driver_sql("SELECT count(*) FROM messages").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(*) FROM rounds WHERE state = 'completed'").scalar_one() == 1
    left = [path.name for path in (place.folder / "spool").iterdir()]
    assert left == [f"{victim.parameters().round_id.hex()}.total"]


def test_a_round_without_a_crash(forkserver: ForkServerContext, place: Place) -> None:
    assert asyncio.run(through(forkserver, place)) == [0]
    check(place)


def die_everywhere(forkserver: ForkServerContext, place: Place, step: int) -> int:
    """Run a round for every `step`-th point that its server can die at; returns the last point."""
    point = 1
    for point in range(1, 300, step):
        folder = place.folder / str(point)
        folder.mkdir()
        url = place.url if "://" in place.url else str(folder / "server.db")
        here = replace(place, folder=folder, url=url)
        codes = asyncio.run(through(forkserver, here, point))
        check(here)
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL, 0]
        if "://" in url:
            with Database(url) as database, database.connection() as db:
                for table in ("rounds", "messages", "entries", "leases", "audit"):
                    db.exec_driver_sql(f"DELETE FROM {table}")
    return point


def test_a_server_that_is_killed_loses_nothing(forkserver: ForkServerContext, place: Place) -> None:
    place = replace(place, spooled="://" not in place.url)
    assert die_everywhere(forkserver, place, 5) > 20  # there were points to die at


@pytest.mark.exhaustive
@pytest.mark.parametrize("spooled", [False, True], ids=["inline", "spooled"])
def test_a_server_that_is_killed_at_any_point_loses_nothing(
    forkserver: ForkServerContext, place: Place, spooled: bool
) -> None:
    assert die_everywhere(forkserver, replace(place, spooled=spooled), 1) > 20


def test_a_server_that_is_killed_again_and_again_loses_nothing(
    forkserver: ForkServerContext, place: Place
) -> None:
    codes = asyncio.run(through(forkserver, place, 7, 9, 11, 13, 15))
    assert codes == [*[-signal.SIGKILL] * 5, 0]
    check(place)


async def beside(forkserver: ForkServerContext, place: Place, point: int) -> tuple[int, str]:
    """Run a round of which one client dies at a point and is started again; its exit, what it heard."""
    server = started(forkserver, victim.serve, place, 0)
    client = started(forkserver, victim.take_part, place, 0, point)
    clients = asyncio.gather(*(part(place, i) for i in range(1, N)))
    heard = place.folder / "outcome-0"
    try:
        code = await ended(client)
        if code != 0:
            client = started(forkserver, victim.take_part, place, 0, 0)
        assert all(outcome.completed for outcome in await asyncio.wait_for(clients, _PATIENCE_S))
        # Who was killed when it had heard of the end knows of no round, and waits for the next one.
        for _ in range(30):
            if not client.is_alive():
                break
            await asyncio.sleep(0.05)
        (place.folder / "done").touch()
        assert await ended(server) == 0
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)
        server.kill()
        client.kill()
    return code, heard.read_text() if heard.exists() else ""


def clients_die(forkserver: ForkServerContext, tmp_path: Path, step: int) -> None:
    point, silent = 1, 0
    for point in range(1, 80, step):
        folder = tmp_path / str(point)
        folder.mkdir()
        place = Place(str(folder / "server.db"), folder, free_port())
        code, heard = asyncio.run(beside(forkserver, place, point))
        check(place)  # it is in the sum, exactly
        silent += not heard
        assert not heard or heard.startswith("True")
        frames = [line.split() for line in (folder / "frames-0").read_text().splitlines()]
        assert len({kind for kind, _ in frames}) == len({tuple(line) for line in frames}) == 5
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert point > 20
    assert silent <= 2  # killed before and after it forgot the round


def test_a_client_that_is_killed_goes_on_with_its_round(
    forkserver: ForkServerContext, tmp_path: Path
) -> None:
    clients_die(forkserver, tmp_path, 3)


@pytest.mark.exhaustive
def test_a_client_that_is_killed_at_any_point_goes_on_with_its_round(
    forkserver: ForkServerContext, tmp_path: Path
) -> None:
    clients_die(forkserver, tmp_path, 1)


@pytest.fixture
def pair(postgresql: Cluster, tmp_path: Path) -> tuple[Place, Place]:
    """Two servers of one database."""
    first, second = free_port(), free_port()
    one = Place(postgresql.new_database(), tmp_path, first, others=(second,), lease_s=2.0)
    return one, replace(one, port=second, others=(first,))


async def takeover(
    forkserver: ForkServerContext, pair: tuple[Place, Place], point: int, stopped: bool
) -> tuple[int, int]:
    """Let the leader die at a point, or stop in a phase and go on later; the other takes the round over."""
    leader = started(forkserver, victim.serve, pair[0], point)
    clients = asyncio.gather(*(part(pair[0], i) for i in range(N)))
    clients.add_done_callback(lambda _: (pair[0].folder / "done").touch())
    follower: BaseProcess | None = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not (pair[0].folder / "leads").exists():
                await asyncio.sleep(0.01)
            follower = started(forkserver, victim.serve, pair[1], 0)
            if stopped:
                assert leader.pid is not None
                while not (pair[0].folder / "stopped").exists():
                    await asyncio.sleep(0.01)
            assert all(outcome.completed for outcome in await clients)
            if stopped:
                os.kill(leader.pid or 0, signal.SIGCONT)
        return await ended(leader), await ended(follower)
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)
        for process in (leader, follower):
            if process is not None:
                process.kill()


@pytest.mark.parametrize("point", [8, 14, 20, 26, 32, 38])
def test_another_server_takes_over_the_round_of_one_that_is_killed(
    forkserver: ForkServerContext, pair: tuple[Place, Place], point: int
) -> None:
    assert asyncio.run(takeover(forkserver, pair, point, stopped=False)) == (-signal.SIGKILL, 0)
    check(pair[0])
    assert len(list(pair[0].folder.glob("sum-*"))) == 1


@pytest.mark.parametrize("point", [-14, -20, -32])
def test_a_server_that_was_stopped_while_another_took_over_writes_nothing_any_more(
    forkserver: ForkServerContext,
    pair: tuple[Place, Place],
    point: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It wakes up in the middle of a step, and learns at its next write that it does not lead."""
    soon = {f"grpc.{name}": 500 for name in ("keepalive_timeout_ms", "http2.ping_timeout_ms")}
    soon["grpc.keepalive_time_ms"] = 2000
    monkeypatch.setattr("secagg.service.line._GREETING_S", 2.0)
    monkeypatch.setattr(
        "secagg.service.line.CLIENT_OPTIONS", tuple((dict(line.CLIENT_OPTIONS) | soon).items())
    )
    codes = asyncio.run(takeover(forkserver, pair, point, stopped=True))
    assert codes[1] == 0
    assert codes[0] == victim.LOST
    check(pair[0])
    assert len(list(pair[0].folder.glob("sum-*"))) == 1
