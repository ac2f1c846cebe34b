"""Bytes that a stranger or a party can send to a running server, changed: it goes on, and takes no memory."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from secagg.effects import Frame
from secagg.service import ServiceError, line
from secagg.service.keys import SERVER_NAME
from secagg.service.records import MESSAGE_BYTES, METHOD, RecordType, encode_record
from tests.fuzz.targets import TARGETS
from tests.service.kill import soaker, victim
from tests.service.kill.conftest import free_port
from tests.service.kill.test_kill import ended, started
from tests.service.kill.test_soak import check_rest, check_sums
from tests.service.kill.victim import N, Place

pytestmark = [pytest.mark.process, pytest.mark.slow]
_STUCK_S = 90.0
_MOST_KIB = 300 * 1024  # of the server; it begins with about 100
_GROWTH_KIB = 60 * 1024


class Changes:
    """What happens to the bytes of a stream, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sent = 0

    def changed(self, data: bytes) -> bytes:
        """Return other bytes, most of them the same."""
        out, draw = bytearray(data), self.random
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            at = draw.randrange(len(out) + 1)
            match draw.randrange(6):
                case 0 if out:
                    out[min(at, len(out) - 1)] ^= 1 << draw.randrange(8)
                case 1:
                    del out[at : at + draw.randrange(1, 40)]
                case 2:
                    out[at:at] = draw.randbytes(draw.choice((1, 3, 9, 1000)))
                case 3:
                    out[at : at + 8] = draw.choice((0, 1, 2**16, 2**32, 2**63)).to_bytes(8, "big")
                case 4:
                    out[at:at] = out[: draw.randrange(1, 200)]
                case _:
                    out *= draw.choice((1, 2, 3))
        return bytes(out)

    def messages(self, data: bytes) -> Iterator[bytes]:
        """Cut bytes into messages, anywhere."""
        at = 0
        while at < len(data):
            size = self.random.choice((1, 7, 100, 1 << 16, MESSAGE_BYTES))
            yield data[at : at + size]
            at += size
            self.sent += 1


def lying(monkeypatch: pytest.MonkeyPatch, changes: Changes) -> None:
    """Let our clients change every few records that they send, of every kind and in every phase."""

    async def write(stream: Any, kind: RecordType, content: Any) -> None:
        frame = content if isinstance(content, Frame) else Frame(content)
        data = b"".join(encode_record(kind, frame))
        if changes.random.random() < 0.4:
            data = changes.changed(data)
        async with stream._writing:
            try:
                for message in changes.messages(data):
                    await stream._call.write(message)
            except asyncio.InvalidStateError as error:
                raise line.BrokenStreamError from error

    monkeypatch.setattr(line.Stream, "write", write)


async def be_a_party(place: Place) -> None:
    """Take part, and lie, again and again."""
    while True:
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(5):
                await victim.client_of(place, 0).take_part(lambda _p, _q: victim.vector(0))


async def be_a_stranger(place: Place, changes: Changes) -> None:
    """Open streams, and send anything that decoders know, changed."""
    seeds = [seed for one in TARGETS if one.name in {"hello", "records", "frame"} for seed in one.seeds()]
    credentials = grpc.ssl_channel_credentials(place.credentials.certificate)
    options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1))
    while True:
        async with grpc.aio.secure_channel(place.address, credentials, options=options) as channel:
            for _ in range(20):
                kind = changes.random.choice((RecordType.HELLO, RecordType.HELLO, RecordType.FRAME))
                seed = changes.random.choice(seeds)
                data = changes.random.choice((seed, b"".join(encode_record(kind, seed))))
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                    async with asyncio.timeout(1):
                        call = channel.stream_stream(METHOD)()
                        for message in changes.messages(changes.changed(data)):
                            await call.write(message)
                        while await call.read() is not grpc.aio.EOF:
                            pass


async def be_no_client(place: Place, changes: Changes) -> None:
    """Send bytes that are no TLS, and bytes in TLS that are no gRPC."""
    context = ssl.create_default_context(cadata=place.credentials.certificate.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    beginning = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    hello = bytes.fromhex("1603010200010001fc0303")
    while True:
        inside = changes.random.random() < 0.7
        with suppress(OSError, TimeoutError, ssl.SSLError):
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", place.port, ssl=context if inside else None
                )
                try:
                    head = beginning if inside else hello
                    for _ in range(changes.random.randrange(1, 6)):
                        writer.write(changes.changed(head + changes.random.randbytes(200)))
                        await writer.drain()
                    await reader.read(1000)
                finally:
                    writer.close()
        await asyncio.sleep(0.01)


async def fuzz(forkserver: ForkServerContext, place: Place, rounds: int, changes: Changes) -> None:
    """Let a server run rounds of honest parties while all of these talk to it."""
    with ExitStack() as stack:
        server = started(forkserver, soaker.serve, place, rounds, 1.0)
        honest = [started(forkserver, soaker.take_part, place, i) for i in range(1, N)]
        for process in (server, *honest):
            stack.callback(process.kill)
        loops = [be_a_party(place), be_a_stranger(place, changes), be_no_client(place, changes)]
        tasks = [asyncio.create_task(loop) for loop in loops]
        seen, since = 0, asyncio.get_running_loop().time()
        try:
            while seen < rounds:
                await asyncio.sleep(0.1)
                now = len(list(place.folder.glob("outcomes/*")))
                if now > seen:
                    seen, since = now, asyncio.get_running_loop().time()
                assert asyncio.get_running_loop().time() - since < _STUCK_S
                assert server.is_alive()
                assert not [task for task in tasks if task.done() and task.exception()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for process in honest:
            assert await ended(process) == 0
        (place.folder / "done").touch()
        assert await ended(server) == 0


def fuzzed(forkserver: ForkServerContext, place: Place, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Changes(rounds)
    lying(monkeypatch, changes)
    asyncio.run(fuzz(forkserver, place, rounds, changes))
    outcomes = [
        json.loads((place.folder / "outcomes" / str(number)).read_bytes()) for number in range(1, rounds + 1)
    ]
    # A machine that stalls for longer than the grace costs an honest party its round; a liar would cost many.
    stalled = [one for one in outcomes if not {1, 2, 3, 4} <= set(one.get("members", ()))]
    assert len(stalled) <= rounds // 10, stalled
    assert check_sums(outcomes) >= rounds - len(stalled)
    check_rest(place, rounds)
    assert changes.sent > 100
    assert max(one["rss"] for one in outcomes) < _MOST_KIB
    assert outcomes[-1]["rss"] - outcomes[0]["rss"] < _GROWTH_KIB
    assert outcomes[-1]["fds"] < 200
    sizes = [(one["rss"], one["fds"]) for one in (outcomes[0], outcomes[-1])]
    print(f"{rounds} rounds beside {changes.sent} messages; KiB and descriptors: {sizes}")  # noqa: T201


def test_a_server_goes_on_while_strangers_and_a_party_send_it_anything(
    forkserver: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzzed(forkserver, Place(str(tmp_path / "server.db"), tmp_path, free_port()), 10, monkeypatch)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_a_server_goes_on_for_long_while_strangers_and_a_party_send_it_anything(
    forkserver: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = max(10, int(os.environ.get("FUZZ_SECONDS", "60")) // 2)
    place = Place(str(tmp_path / "server.db"), tmp_path, free_port(), spooled=True)
    fuzzed(forkserver, place, rounds, monkeypatch)
