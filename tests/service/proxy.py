"""A TCP proxy on loopback that does to connections what networks do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK = 1 << 14


@dataclass
class Faults:
    """What happens to a connection, each way. up: from the client.

    connections  so many are bad, those after them are good
    delay_s      before every chunk; cut_after: bytes, then both ends are closed; stall_after: bytes, then
                 nothing is carried any more and nobody is told; rate: bytes a second; flip, double, drop:
                 the chunk at which one bit is changed, or that comes twice, or not at all (from 0)
    """

    connections: int = 10**9
    delay_s: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None
    rate: float | None = None
    flip: int | None = None
    double: int | None = None
    drop: int | None = None
    up: bool = True
    down: bool = True


@dataclass
class Proxy:
    """Carries bytes to a server, badly."""

    target: int
    faults: Faults
    port: int = 0
    seen: int = 0  # connections
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen += 1
        bad = self.seen <= self.faults.connections
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except BaseException:
            writer.close()
            raise
        ways = (
            self._carry(reader, back, bad=bad and self.faults.up),
            self._carry(there, writer, bad=bad and self.faults.down),
        )
        pumps = [asyncio.create_task(way) for way in ways]
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._tasks.difference_update(pumps)
            for one in (writer, back):
                one.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, bad: bool) -> None:
        faults, carried, chunks = self.faults, 0, 0
        while data := await reader.read(_CHUNK):
            if bad:
                await asyncio.sleep(faults.delay_s * self._random.random() * 2)
                if faults.rate is not None:
                    await asyncio.sleep(len(data) / faults.rate)
                if faults.cut_after is not None and carried + len(data) > faults.cut_after:
                    writer.write(data[: faults.cut_after - carried])
                    return
                if faults.stall_after is not None and carried + len(data) > faults.stall_after:
                    await asyncio.Event().wait()
                if chunks == faults.flip:
                    at = self._random.randrange(len(data))
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                if chunks == faults.double:
                    writer.write(data)
            if not (bad and chunks == faults.drop):
                writer.write(data)
            await writer.drain()
            carried += len(data)
            chunks += 1


@asynccontextmanager
async def proxy_to(port: int, faults: Faults) -> AsyncIterator[Proxy]:
    """Listen on a free port of loopback."""
    proxy = Proxy(port, faults)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        for task in list(proxy._tasks):
            task.cancel()
        server.close()
