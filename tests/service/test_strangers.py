"""Connections that nobody has said hello on: real sockets, of this process and of others."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest

from secagg.service import Limits, Refusal, server
from secagg.service import strangers as module
from secagg.service.strangers import Strangers
from tests.service.cohort import CREDENTIALS, PAYLOAD, SOON, cohort, raw_stream, settle


class Listener:
    """A port, and both ends of the connections that came to it."""

    def __init__(self, stack: ExitStack, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._stack = stack
        self._socket = stack.enter_context(socket.socket(family))
        self._socket.bind((address, 0))
        self._socket.listen()
        self.port: int = self._socket.getsockname()[1]

    def connect(self, source: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        """Return a client's end and the server's."""
        client = self._stack.enter_context(
            socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))
        )
        return client, self._stack.enter_context(self._socket.accept()[0])


@pytest.fixture
def listener() -> Iterator[Listener]:
    with ExitStack() as stack:
        yield Listener(stack)


def ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


@contextmanager
def greeted(strangers: Strangers, *clients: socket.socket) -> Iterator[None]:
    with ExitStack() as stack:
        for client in clients:
            host, port = client.getsockname()
            stack.enter_context(strangers.greeted(f"ipv4:{host}:{port}"))
        yield


def test_the_oldest_that_said_no_hello_are_ended(listener: Listener) -> None:
    strangers = Strangers(listener.port, 3)
    clients = [listener.connect()[0] for _ in range(8)]
    clients += [clients.pop(0)]  # of which a stream says hello
    with greeted(strangers, clients[-1]):
        assert strangers.look() == 4
        assert [ended(client) for client in clients] == [True] * 4 + [False] * 4
        assert strangers.look() == 0
    assert strangers.look() == 1  # it is a stranger's again, and the oldest


def test_an_address_with_many_loses_them_before_another_loses_one(listener: Listener) -> None:
    strangers = Strangers(listener.port, 3)
    one = listener.connect("127.0.0.2")[0]
    many = [listener.connect()[0] for _ in range(5)]
    assert strangers.look() == 3
    assert not ended(one)
    assert [ended(client) for client in many] == [True] * 3 + [False] * 2


def test_other_sockets_of_the_process_are_left_alone(listener: Listener) -> None:
    with ExitStack() as stack:
        other = Listener(stack)
        theirs = [end for _ in range(5) for end in other.connect()]
        strangers = Strangers(listener.port, 1)
        client, server = listener.connect()
        assert strangers.look() == 0
        assert not any(map(ended, [*theirs, client, server]))


def test_a_descriptor_that_is_another_connection_by_now_is_looked_at_again(listener: Listener) -> None:
    strangers = Strangers(listener.port, 1)
    ends = [listener.connect() for _ in range(2)]
    assert strangers.look() == 1
    for pair in ends:
        for end in pair:
            end.close()
    client, _server = listener.connect()  # takes a number that was used before
    assert strangers.look() == 0
    assert not ended(client)


def test_where_no_descriptor_is_left_to_list_them_with_all_are_tried(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_folder: str) -> list[str]:
        raise OSError(24, "Too many open files")

    clients = [listener.connect()[0] for _ in range(3)]
    monkeypatch.setattr(os, "listdir", exhausted)
    assert Strangers(listener.port, 1).look() == 2
    assert [ended(client) for client in clients] == [True, True, False]


def test_both_families_and_both_spellings_of_an_address() -> None:
    assert module._peer_of("ipv4:127.0.0.1:80") == ("127.0.0.1", 80)
    assert module._peer_of("ipv6:%5B::1%5D:80") == ("::1", 80)
    assert module._peer_of("ipv6:[::ffff:10.0.0.1]:80") == ("10.0.0.1", 80)
    assert module._peer_of("unix:/run/secagg") is None
    with ExitStack() as stack:
        listener = Listener(stack, "::")  # takes both
        client, server = listener.connect()
        assert module._accepted(server.fileno(), listener.port) == client.getsockname()
        assert module._accepted(client.fileno(), listener.port) is None
        assert server.fileno() >= 0  # it was only borrowed


def test_silent_connections_keep_no_party_out_and_parties_keep_theirs() -> None:
    async def run() -> None:
        with ExitStack() as silent:
            async with cohort(limits=Limits(strangers=40)) as c, raw_stream(c, 0):
                host, port = c.address.split(":")
                for _ in range(300):
                    silent.enter_context(socket.create_connection((host, int(port))))
                    await asyncio.sleep(0)
                await settle(lambda: c.server.refused[Refusal.CONNECTION] >= 260)
                assert c.keys[0].identity in c.run.connected
                tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
                result = await c.run.round(c.parameters(), PAYLOAD, SOON)
                assert np.array_equal(result.total, c.expected(list(range(6))))
                await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("option", ["grpc.server_handshake_timeout_ms", "grpc.max_connection_idle_ms"])
def test_a_connection_that_does_not_go_on_is_given_up(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never finishes its handshake, and one that never opens a stream."""
    settings = dict(server._SERVER_OPTIONS)
    assert 0 < settings[option] <= 60_000
    monkeypatch.setattr(server, "_SERVER_OPTIONS", tuple((settings | {option: 300}).items()))
    context = ssl.create_default_context(cadata=CREDENTIALS.certificate.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    secured = context if option == "grpc.max_connection_idle_ms" else None

    async def run() -> None:
        async with cohort() as c:
            reader, writer = await asyncio.open_connection("127.0.0.1", c.server.port, ssl=secured)
            if secured is not None:
                writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
            async with asyncio.timeout(20):
                with suppress(OSError):
                    while await reader.read(1000):
                        pass
            writer.close()

    asyncio.run(run())
