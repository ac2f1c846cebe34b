"""What strangers and parties may take of a server, with an honest round going on beside them."""

from __future__ import annotations

import asyncio
import gc
import resource
import weakref
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from secagg import IdentityKey, ParameterError, Phase
from secagg.messages import encode_frame
from secagg.protocol.client.advertise_keys import Secrets, advertise
from secagg.service import Limits, ManualClock, PartyCredentials, Refusal
from secagg.service.connection import Intake
from secagg.service.keys import SERVER_NAME
from secagg.service.records import METHOD, Record, RecordReader, RecordType, encode_record
from secagg.service.server import _Greeting, _least_worthy
from secagg.service.tasks import end_tasks
from secagg.store.sql import Database, spool_of
from tests.service.cohort import PAYLOAD, SOON, Cohort, RawStream, cohort, raw_stream, settle
from tests.service.test_admission import AUTHORITY, SERVER, credentials_of
from tests.service.test_durable import stopping_before


async def ending_of(stream: RawStream) -> tuple[list[Record], grpc.StatusCode]:
    """Read to the end of a stream that the server ends; returns what came, and the code."""
    received = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(20):
            while (record := await stream.receive()) is not None:
                received.append(record)
    return received, caught.value.code()


async def code_of(stream: RawStream) -> grpc.StatusCode:
    """Read to the end of a stream that the server ends."""
    return (await ending_of(stream))[1]


def advertisement(c: Cohort, i: int) -> bytes:
    """A right first frame of a party."""
    secrets = Secrets.draw(lambda size: bytes([i + 1]) * size)
    return bytes(encode_frame(c.parameters().round_id, advertise(c.parameters(), c.keys[i], secrets)))


def test_who_says_no_hello_in_time_is_turned_away_and_counted() -> None:
    """As late, not as a stranger: a client whose network was slow comes back."""

    async def run() -> None:
        async with cohort(limits=Limits(hello_s=0.2)) as c, raw_stream(c) as stream:
            assert await code_of(stream) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert c.server.refused[Refusal.LATE] == 1

    asyncio.run(run())


def test_strangers_who_wait_give_way_to_newer_ones_and_a_party_always_gets_in() -> None:
    async def run() -> None:
        async with cohort(limits=Limits(greeting=5)) as c, AsyncExitStack() as stack:
            strangers = [await stack.enter_async_context(raw_stream(c)) for _ in range(30)]
            for stranger in strangers:
                with suppress(grpc.aio.AioRpcError):
                    await stranger.receive()
            await settle(lambda: c.server.refused[Refusal.GREETING] == 25)
            assert len(c.server._greeting) == 5
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_stream_that_gives_way_before_its_challenge_is_out_ends_with_a_code() -> None:
    """Whom nobody tells waits for ever: a party that comes in a crowd would never come back."""

    async def run() -> None:
        async with cohort(limits=Limits(greeting=1)) as c, AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(raw_stream(c)) for _ in range(64)]
            ended = [asyncio.create_task(code_of(one)) for one in crowd]
            await settle(lambda: sum(one.done() for one in ended) == len(ended) - 1, 20)
            codes = [one.result() for one in ended if one.done()]
            assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            await end_tasks(*ended)

    asyncio.run(run())


def test_a_party_that_comes_again_and_again_is_told_to_come_later() -> None:
    async def run() -> None:
        async with cohort(limits=Limits(hellos=3)) as c:
            for _ in range(3):
                async with raw_stream(c, 0):
                    pass
                await settle(lambda: not c.run.connected)
            async with raw_stream(c) as stream:
                challenge = await stream.receive()
                assert challenge is not None
                from secagg.service.hello import make_hello
                from tests.service.cohort import CREDENTIALS

                nonce = bytes(challenge.content[:32])
                await stream.send(RecordType.HELLO, make_hello(c.keys[0], CREDENTIALS.digest, nonce))
                assert await code_of(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert c.server.refused[Refusal.TOO_OFTEN] == 1
            async with raw_stream(c, 1):  # which costs the others nothing
                pass

    asyncio.run(run())


def test_more_connections_than_the_system_has_descriptors_for_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (300, 1000))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: raised.append(limits))
    with pytest.raises(ParameterError, match=r"need 1266 open files, the system allows 1000"):
        Limits(connections=1000, strangers=10).raise_descriptors()
    assert raised == []
    Limits(connections=500, strangers=10).raise_descriptors()  # and for strangers that come in a burst
    Limits(connections=500, strangers=200).raise_descriptors()  # as far as the system lets it
    Limits(connections=10, strangers=1).raise_descriptors()  # what is there is enough
    assert raised == [(806, 1000), (1000, 1000)]


@pytest.mark.parametrize("name", ["connections", "strangers", "greeting", "hellos", "streams", "hello_s"])
def test_limits_that_let_nobody_in_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=name):
        Limits(**{name: 0})


def test_a_frame_that_is_repeated_is_answered_by_nothing_and_ends_its_stream() -> None:
    """A small frame is not to be answered by a large one, however often it comes."""

    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 0))
            async with raw_stream(c, 0) as stream:
                one = b"".join(encode_record(RecordType.FRAME, advertisement(c, 0)))
                await stream.send_bytes(one * 50)
                received, code = await ending_of(stream)
                assert code is grpc.StatusCode.INVALID_ARGUMENT
                assert (
                    sum(len(record.content) for record in received) < 2000
                )  # the payload, the parameters, one acknowledgement
            assert c.answered(Phase.ADVERTISE_KEYS, 1)  # the first of them stands
            running.cancel()

    asyncio.run(run())


def test_a_frame_that_is_repeated_while_more_is_wanted_is_answered_by_nothing_either() -> None:
    """Who was sent the request of a later phase, and repeats an older frame, is not sent it again."""

    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            hold = stopping_before(Phase.SHARE_KEYS)
            parties = [asyncio.create_task(c.take_part(i, before_answer=hold)) for i in range(1, 6)]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 5))
            async with raw_stream(c, 0) as stream:
                one = b"".join(encode_record(RecordType.FRAME, advertisement(c, 0)))
                await stream.send_bytes(one)
                await settle(lambda: c.answered(Phase.SHARE_KEYS, 0))
                await stream.send_bytes(one * 50)
                received, code = await ending_of(stream)
                assert code is grpc.StatusCode.INVALID_ARGUMENT
            frames = [record for record in received if record.type is RecordType.FRAME]
            assert len(frames) <= 2  # the parameters, the roster
            await end_tasks(*parties, running)

    asyncio.run(run())


def test_half_sent_uploads_leave_one_at_most_of_each_party(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1000)

    async def run() -> None:
        with Database(tmp_path / "server.db") as database:
            spool = spool_of(database)
            async with cohort(length=100_000, database=database, spool=spool, limits=Limits(hellos=100)) as c:

                async def hold(at: Phase, _payload: bytes) -> None:
                    if at is Phase.MASKED_INPUT_COLLECTION:
                        await go.wait()

                go = asyncio.Event()
                tasks = [
                    asyncio.create_task(c.take_part(i, before_answer=hold if i else None)) for i in range(6)
                ]
                running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
                await settle(lambda: c.answered(Phase.MASKED_INPUT_COLLECTION, 1))
                c.keys[0], mine = c.keys[1], c.keys[0]
                head = bytes([RecordType.FRAME]) + (250_000).to_bytes(8, "big") + bytes(100_000)
                for _ in range(20):
                    async with raw_stream(c, 0) as stream:
                        with suppress(grpc.aio.AioRpcError):
                            await stream.send_bytes(head)
                folder = tmp_path / "server.db.spool"
                await settle(lambda: len(list(folder.glob("*.partial"))) == 0)
                c.keys[0] = mine
                go.set()
                result = await running
                assert np.array_equal(result.total, c.expected(list(range(6))))
                await asyncio.gather(*tasks)

    asyncio.run(run())


def test_four_hundred_streams_of_a_stranger_take_little_and_hold_up_nobody() -> None:
    """Each sends as much as it can before it has said who it is."""

    async def run() -> None:
        async with cohort(limits=Limits(greeting=16)) as c, AsyncExitStack() as stack:
            c.keys.append(IdentityKey.from_seed(b"s" * 32))

            async def knock() -> None:
                stream = await stack.enter_async_context(raw_stream(c))
                with suppress(grpc.aio.AioRpcError):
                    await stream.send_bytes(b"\xff" * (1 << 20))

            knocking = [asyncio.create_task(knock()) for _ in range(400)]
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            async with asyncio.timeout(60):
                result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks, *knocking)
            await settle(lambda: sum(c.server.refused.values()) > 150)

    asyncio.run(run())


SHUT = (("grpc.http2.lookahead_bytes", 5), ("grpc.http2.bdp_probe", 0))  # a window of 5 bytes


def test_streams_whose_window_is_shut_are_counted_from_the_beginning() -> None:
    """They do not even take the challenge: the time for a hello is over for them as well."""

    async def run() -> None:
        async with cohort(limits=Limits(hello_s=1.0, greeting=4)) as c, AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(raw_stream(c, options=SHUT)) for _ in range(12)]
            await settle(lambda: c.server.refused.total() == 12)
            assert c.server.refused[Refusal.GREETING] == 8
            assert c.server.refused[Refusal.LATE] == 4
            assert not c.server._greeting
            assert len(streams) == 12

    asyncio.run(run())


def test_a_party_whose_window_is_shut_loses_its_stream_and_nobody_else_the_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Long enough for those who do read, on a machine with other work.
    monkeypatch.setattr("secagg.service.connection._DRAIN_S", 4.0)

    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            async with raw_stream(c, 0, options=SHUT):
                result = await c.run_late(c.parameters(), Phase.ADVERTISE_KEYS, 5)
                assert set(result.survivors) == c.named([1, 2, 3, 4, 5])
                await settle(lambda: c.keys[0].identity not in c.run.connected)
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_of_a_crowd_it_is_who_has_most_that_gives_way() -> None:
    """However fast somebody opens streams: who has one keeps it, for its hello may be on the way."""
    crowd = [_Greeting("attacker", "a:1") for _ in range(3)] + [_Greeting("attacker", "a:2")]
    party = _Greeting("party", "p:1")
    assert _least_worthy([party, *crowd]) is crowd[0]
    assert _least_worthy([party, crowd[3], crowd[0]]) is crowd[3]  # oldest, of two connections
    behind = [_Greeting("proxy", f"q:{i % 2}") for i in (0, 1, 1, 1)]
    assert _least_worthy(behind) is behind[1]  # the same address: of the connection with most


def test_a_crowd_of_one_party_keeps_no_other_party_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that opens streams faster than an honest hello can come."""

    async def run() -> None:
        limits = Limits(greeting=8, streams=8)
        async with cohort(credentials=SERVER, authority=AUTHORITY.certificate, limits=limits) as c:
            mine, theirs = credentials_of(c, 0), credentials_of(c, 1)
            crowding = [asyncio.create_task(_crowd(c, mine)) for _ in range(3)]
            await settle(lambda: c.server.refused[Refusal.GREETING] >= 50)
            client = c.client(1, credentials=theirs)
            original = client._line._say_hello

            async def late(*arguments: Any) -> None:
                await asyncio.sleep(0.3)  # a long way
                await original(*arguments)

            monkeypatch.setattr(client._line, "_say_hello", late)
            taking = asyncio.create_task(client.take_part(lambda _p, _q: c.vectors[1]))
            await settle(lambda: c.keys[1].identity in c.run.connected, 30)
            for task in (taking, *crowding):
                task.cancel()
            await asyncio.gather(taking, *crowding, return_exceptions=True)

    asyncio.run(run())


async def _crowd(c: Cohort, own: PartyCredentials) -> None:
    credentials = grpc.ssl_channel_credentials(own.authority, own.private_key, own.certificate)
    options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(c.address, credentials, options=options) as channel:

        async def one() -> None:
            while True:
                call = channel.stream_stream(METHOD)()
                with suppress(grpc.aio.AioRpcError):
                    while await call.read() is not grpc.aio.EOF:
                        pass

        await asyncio.gather(*(one() for _ in range(8)))


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_record_that_is_too_short_to_be_anything_ends_its_stream(length: int) -> None:
    """A message is full of them: each would cost the loop as much as a frame."""

    async def run() -> None:
        async with cohort() as c:
            for greeter in (None, 0):
                async with raw_stream(c, greeter) as stream:
                    tiny = b"".join(encode_record(RecordType.FRAME, bytes(length)))
                    await stream.send_bytes((tiny * (1 << 17))[: 1 << 20])
                    with pytest.raises(grpc.aio.AioRpcError, match="at least 32 bytes, announces"):
                        while await stream.receive():
                            pass

    asyncio.run(run())


def test_a_message_full_of_records_is_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get their turn, and of what follows nonsense nothing is even looked at."""
    parsed = 0
    original = RecordReader._complete

    def counting(self: RecordReader) -> Record:
        nonlocal parsed
        parsed += 1
        return original(self)

    async def run() -> None:
        async with cohort() as c, raw_stream(c, 0) as stream:
            monkeypatch.setattr(RecordReader, "_complete", counting)
            small = b"".join(encode_record(RecordType.FRAME, bytes(32)))
            await stream.send_bytes((small * (1 << 15))[: 1 << 20])
            with pytest.raises(grpc.aio.AioRpcError):
                await stream._call.read()
            monkeypatch.undo()

    asyncio.run(run())
    assert 0 < parsed < 20


@pytest.mark.parametrize("greeter", [None, 0])
def test_what_a_stream_that_was_ended_has_sent_is_let_go_at_once(
    greeter: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the collector of circles, which counts objects and not their bytes."""
    original, intakes = Intake.__init__, list[weakref.ref[Intake]]()

    def noting(self: Intake, *arguments: Any) -> None:
        original(self, *arguments)
        intakes.append(weakref.ref(self))

    monkeypatch.setattr(Intake, "__init__", noting)
    heads = (bytes([RecordType.FRAME]) + bytes(8), bytes([RecordType.FRAME]) + b"\xff" * 8, b"\xff" * 9)

    async def run() -> None:
        async with cohort() as c:
            for head in heads:
                async with raw_stream(c, greeter) as stream:
                    with suppress(grpc.aio.AioRpcError):
                        await stream.send_bytes(head + b"\xff" * 1_000_000)
                        while await stream.receive():
                            pass
            await settle(lambda: c.server.refused.total() == len(heads))
            await settle(lambda: not any(intake() for intake in intakes), 20)

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
    assert len(intakes) == len(heads)
