"""A server that is not reached: the cause is named at once where waiting does not mend it."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from secagg import IdentityKey, ParameterError, Policy
from secagg.service import AggregationClient, ConnectionLostError, ManualClock, ServerCredentials
from secagg.service.reach import host_and_port, obstacle, outdated, printable, proxy_of
from secagg.service.records import METHOD, RecordType
from tests.service.cohort import CREDENTIALS, PINNED, cohort, settle

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def client_of(address: str, patience_s: float = math.inf) -> AggregationClient:
    signer = IdentityKey.from_seed(bytes(32))
    policy = Policy(known=frozenset({signer.identity}), minimum_cohort=3)
    return AggregationClient(
        address=address, credentials=PINNED, signer=signer, policy=policy, patience_s=patience_s
    )


async def refused(address: str) -> str:
    """Whatever the patience is: the error that ends a client at once."""
    with pytest.raises(ConnectionLostError) as caught:
        async with asyncio.timeout(30):
            await client_of(address).take_part(lambda _p, _q: pytest.fail("no round"))
    return str(caught.value)


async def _listening(context: ssl.SSLContext | None) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)


def test_a_server_with_another_certificate_is_refused_at_once() -> None:
    async def run() -> None:
        async with cohort() as c:
            other = ServerCredentials(ServerCredentials.generate().certificate)
            with pytest.raises(ConnectionLostError, match="has another certificate than the one given"):
                await c.take_part(0, credentials=other, patience_s=math.inf)

    asyncio.run(run())


@pytest.mark.parametrize(("tls", "cause"), [(False, "does not speak TLS"), (True, "but not gRPC")])
def test_what_else_listens_there_is_named(tls: bool, cause: str, tmp_path: Path) -> None:
    async def run() -> None:
        context = None
        if tls:
            CREDENTIALS.write(tmp_path / "crt", tmp_path / "key")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
        server = await _listening(context)
        async with server:
            assert cause in await refused(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

    asyncio.run(run())


def test_a_host_that_is_not_there_is_named() -> None:
    assert "there is no such host name" in asyncio.run(refused("no-such-host.invalid:7443"))


def test_a_proxy_that_is_in_the_way_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://user:password@127.0.0.1:{free.getsockname()[1]}")
    said = asyncio.run(refused("192.0.2.1:7443"))
    assert "by the proxy http://127.0.0.1:" in said
    assert "nothing listens there" in said
    assert "password" not in said


def test_a_server_on_this_machine_is_reached_whatever_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def run() -> None:
        async with cohort() as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            assert len((await c.run.round(c.parameters(), b"what the round is about")).survivors) == 6
            await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("environment", "address", "proxy"),
    [
        ({}, "server.example:1", ""),
        ({"http_proxy": "http://p:8"}, "server.example:1", "http://p:8"),
        ({"http_proxy": "http://p:8", "grpc_proxy": "http://q:8"}, "server.example:1", "http://q:8"),
        ({"https_proxy": "http://p:8", "no_proxy": "b.org, .example"}, "server.example:1", ""),
        ({"https_proxy": "http://p:8", "no_proxy": "10.0.0.0/8"}, "10.1.2.3:1", ""),
        ({"https_proxy": "http://p:8", "no_proxy": "10.0.0.0/8"}, "11.1.2.3:1", "http://p:8"),
        ({"https_proxy": "http://p:8", "no_proxy": ""}, "server.example:1", "http://p:8"),
        ({"https_proxy": "http://u:secret@p:8"}, "server.example:1", "http://p:8"),
        ({"https_proxy": "rubbish"}, "server.example:1", "rubbish"),
        ({"https_proxy": "http://p:8"}, "localhost:1", ""),
        ({"https_proxy": "http://p:8"}, "[::1]:1", ""),
    ],
)
def test_the_proxy_of_an_address(
    environment: dict[str, str], address: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(address) == proxy


def test_a_clock_outside_of_the_certificate_is_named_before_anything_is_sent() -> None:
    now = dt.datetime.now(dt.UTC).timestamp()
    assert not outdated(PINNED, now)
    for wrong in (0.0, now - 3600, now + 900 * 86_400):
        assert "set the clock" in outdated(PINNED, wrong)

    class Wrong:
        def wall(self) -> float:
            return 0.0

    client = client_of("127.0.0.1:1")
    client._line._clock = Wrong()  # type: ignore[assignment]
    with pytest.raises(ConnectionLostError, match="by this machine's clock it is 1970-01-01 00:00"):
        asyncio.run(client.take_part(lambda _p, _q: pytest.fail("no round")))


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "host:", "host:65536", "host:-1", "host:1e3", " host:1", "::1:1"]
)
@pytest.mark.parametrize("make", [client_of, host_and_port])
def test_an_address_is_a_host_and_a_port(address: str, make: Callable[[str], object]) -> None:
    with pytest.raises(ParameterError, match="address: must be host:port with a port in 0..65535"):
        make(address)
    assert host_and_port("[::1]:65535") == ("::1", 65535)


def test_a_server_that_is_not_up_yet_is_waited_for() -> None:
    async def run() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        client = client_of(f"127.0.0.1:{port}")
        waiting = asyncio.create_task(client.take_part(lambda _p, _q: pytest.fail("no round")))
        await settle(lambda: bool(client.trouble))
        assert client.trouble == f"127.0.0.1:{port}: nothing listens there (yet)"
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    asyncio.run(run())


def test_once_reached_every_obstacle_may_pass() -> None:
    async def run() -> None:
        async with cohort() as c:
            client = c.client(0, patience_s=math.inf)
            waiting = asyncio.create_task(client.take_part(lambda _p, _q: pytest.fail("no round")))
            await settle(lambda: client.trouble is None)
            await c.server.stop()
            await settle(lambda: bool(client.trouble))
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(run())


def test_what_grpc_says_in_words_of_its_own_may_pass() -> None:
    found = obstacle("something new", "server.example:1")
    assert (found.cause, found.passes) == ("server.example:1: something new", True)


@pytest.mark.parametrize(
    "words",
    ["\x1b[2J\x1b]0;owned\x07line\nrun is over", "WRONG_VERSION_NUMBER " + "x" * 5000, "\u202edesrever"],
)
def test_a_peers_words_are_one_short_line(words: str) -> None:
    for said in (obstacle(words, "server.example:1").cause, printable(words)):
        assert said.isprintable()
        assert len(said) < 400
    assert "line run is over" in printable("line\n\x1brun is over")


def test_what_a_server_says_of_itself_decides_nothing() -> None:
    async def run() -> None:
        async def refuse(_messages: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            await context.abort(grpc.StatusCode.INTERNAL, "WRONG_VERSION_NUMBER, no such host name\x1b[2J")

        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(refuse)
        service, method = METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        pair = (CREDENTIALS.private_key, CREDENTIALS.certificate)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        await server.start()
        client = client_of(f"127.0.0.1:{port}")
        waiting = asyncio.create_task(client.take_part(lambda _p, _q: pytest.fail("no round")))
        await settle(lambda: bool(client.trouble))
        assert not waiting.done()
        assert client.trouble == f"127.0.0.1:{port}: WRONG_VERSION_NUMBER, no such host name [2J"
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await server.stop(0)

    asyncio.run(run())


def test_a_second_process_with_one_identity_is_told_to_the_first() -> None:
    async def run() -> None:
        async with cohort() as c:
            first = asyncio.create_task(c.take_part(0))
            await settle(lambda: bool(c.run.connected))
            second = asyncio.create_task(c.take_part(0))
            await settle(lambda: bool(c.refusals))
            assert c.refusals[0] == "another process is connected with this identity by now"
            for task in (first, second):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)

    asyncio.run(run())


def test_patience_counts_from_the_last_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was connected and idle for an hour has not lost its server for an hour."""
    monkeypatch.setattr("secagg.service.line._RETRY_S", 0.01)

    class Clock(ManualClock):
        def wall(self) -> float:
            return time.time()  # certificates hold

    async def run() -> None:
        clock = Clock()
        async with cohort() as c:
            client = c.client(0, clock=clock, patience_s=60.0)
            taking = asyncio.create_task(client.take_part(lambda _p, _q: pytest.fail("no round")))
            ticking = asyncio.create_task(tick(clock))
            there, me = c.run._streams._there, c.keys[0].identity
            before: list[object] = [None]
            for _ in range(4):  # it is cut off, and comes back
                await settle(lambda: there.get(me) not in before, 30)
                before.append(there[me])
                clock.advance(3600)
                there[me].dropped.set()
            assert not taking.done()
            for task in (taking, ticking):
                task.cancel()
            await asyncio.gather(taking, ticking, return_exceptions=True)

    async def tick(clock: ManualClock) -> None:
        while True:
            await asyncio.sleep(0.01)
            clock.advance(0.01)

    asyncio.run(run())


def test_a_server_that_refuses_again_and_again_fills_no_log() -> None:
    said: list[str] = []

    async def run() -> None:
        async with cohort() as c:
            taking = asyncio.create_task(
                c.client(0, on_refusal=said.append).take_part(lambda _p, _q: pytest.fail("no round"))
            )
            await settle(lambda: c.keys[0].identity in c.run.connected)
            connection = c.run._streams._there[c.keys[0].identity]
            for _ in range(200):
                connection.queue.put_nowait((RecordType.REFUSED, b"again"))
            await settle(lambda: connection.queue.empty() and len(said) == 64)
            assert not taking.done()  # who is told little else, for days, keeps its stream
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    asyncio.run(run())
    assert len(said) == 64
    assert said[-1] == "again (no more are shown within the hour)"
