"""Rounds over a network that delays, throttles, cuts, stalls, changes, repeats and loses what is sent."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from secagg.service import line, server
from tests.service.cohort import PAYLOAD, SOON, cohort, settle
from tests.service.proxy import Faults, proxy_to

LENGTH = 60_000  # uploads of 150 kB: some chunks each

KINDS = {
    "delay": Faults(delay_s=0.02),
    "throttle": Faults(rate=2e6),
    "cut in the handshake": Faults(connections=12, cut_after=700),
    "cut at hello": Faults(connections=12, cut_after=3500),
    "cut in an upload": Faults(connections=12, cut_after=90_000, down=False),
    "cut in a request": Faults(connections=12, cut_after=5_000, up=False),
    "stall on the way up": Faults(connections=6, stall_after=60_000, down=False),
    "stall on the way down": Faults(connections=6, stall_after=5_000, up=False),
    "half-open from the start": Faults(connections=6, stall_after=0, up=False),
    "a bit is changed": Faults(connections=12, flip=4),
    "a chunk comes twice": Faults(connections=12, double=4),
    "a chunk is lost": Faults(connections=12, drop=4),
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients notice and come back sooner than they would."""
    monkeypatch.setattr(line, "_RETRY_S", 0.02)
    monkeypatch.setattr(line, "_RETRY_MOST_S", 0.1)
    monkeypatch.setattr(line, "_GREETING_S", 1.0)
    soon = {
        "grpc.keepalive_time_ms": 1000,
        "grpc.keepalive_timeout_ms": 500,
        "grpc.http2.ping_timeout_ms": 500,
    }
    monkeypatch.setattr(line, "CLIENT_OPTIONS", tuple((dict(line.CLIENT_OPTIONS) | soon).items()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_over_a_bad_network_gives_the_exact_sum_over_everybody(kind: str) -> None:
    async def run() -> None:
        async with cohort(6, length=LENGTH) as c, proxy_to(c.server.port, KINDS[kind]) as proxy:
            address = f"127.0.0.1:{proxy.port}"
            tasks = [asyncio.create_task(c.take_part(i, address=address)) for i in range(6)]
            async with asyncio.timeout(60):
                result = await c.run.round(c.parameters(), PAYLOAD, SOON)
                assert np.array_equal(result.total, c.expected(list(range(6))))
                await asyncio.gather(*tasks)
            if kind == "cut in a request":  # what remains of a round may fit into a bad one
                assert proxy.seen > len(tasks)
            elif kind not in {"delay", "throttle"}:
                assert proxy.seen > KINDS[kind].connections  # the bad ones were given up

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_cut_wherever_the_sum_is_exact(seed: int) -> None:
    draw = random.Random(seed)

    async def change(faults: Faults) -> None:
        while True:
            faults.cut_after = draw.randrange(1, 200_000)
            await asyncio.sleep(0.01)

    async def run() -> None:
        faults = Faults(connections=30, cut_after=draw.randrange(1, 200_000), delay_s=0.002)
        async with cohort(6, length=LENGTH) as c, proxy_to(c.server.port, faults) as proxy:

            async def part(i: int) -> None:
                await c.take_part(i, address=f"127.0.0.1:{proxy.port}")

            tasks = [asyncio.create_task(part(i)) for i in range(6)]
            changing = asyncio.create_task(change(faults))
            async with asyncio.timeout(60):
                result = await c.run.round(c.parameters(), PAYLOAD, SOON)
                assert np.array_equal(result.total, c.expected(list(range(6))))
                await asyncio.gather(*tasks)
            changing.cancel()
            await asyncio.gather(changing, return_exceptions=True)

    asyncio.run(run())


def test_who_waits_for_long_keeps_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server takes the pings of clients that ask whether it is there: unasked, gRPC calls them too many."""
    name = next(name for name, _ in server._SERVER_OPTIONS if "ping_interval" in name)
    options = dict(server._SERVER_OPTIONS) | {name: 10}
    monkeypatch.setattr(server, "_SERVER_OPTIONS", tuple(options.items()))
    soon = dict(line.CLIENT_OPTIONS) | {"grpc.keepalive_time_ms": 1000}
    monkeypatch.setattr(line, "CLIENT_OPTIONS", tuple(soon.items()))

    async def run() -> None:
        async with cohort() as c:
            waiting = asyncio.create_task(c.take_part(0))
            await settle(lambda: bool(c.run.connected))
            (connection,) = c.run._streams.idle
            await asyncio.sleep(5.5)  # the fourth ping was one too many
            assert c.run._streams.idle == [connection]
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())
