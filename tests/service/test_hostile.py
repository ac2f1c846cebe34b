"""Peers of the service that lie, shout, listen too little, or are strangers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from secagg import (
    IdentityKey,
    Phase,
    Policy,
    context_digest,
)
from secagg.kernels import pack
from secagg.service import (
    ConnectionLostError,
    HelloError,
    ManualClock,
    MessageRefused,
    Registry,
    ServerCredentials,
    StreamError,
)
from secagg.service import records as records_module
from secagg.service.connection import Connection, Intake
from secagg.service.line import read_outcome
from secagg.service.records import Record, RecordType, encode_record
from secagg.service.stored import Standing
from tests.service.cohort import PAYLOAD, RING_BITS, SOON, Cohort, cohort, raw_stream, settle


def test_a_stranger_is_turned_away_at_hello() -> None:
    async def run() -> None:
        async with cohort() as c:
            c.keys[0] = IdentityKey.from_seed(b"s" * 32)
            with pytest.raises(HelloError, match="not enrolled"):
                await c.take_part(0)

    asyncio.run(run())


def test_a_server_with_another_certificate_gets_nothing() -> None:
    async def run() -> None:
        async with cohort() as c:
            other = ServerCredentials(ServerCredentials.generate().certificate)
            with pytest.raises(ConnectionLostError):
                await c.take_part(0, credentials=other, patience_s=0.0)

    asyncio.run(run())


def test_a_client_refuses_strangers_in_a_roster_by_its_own_registry() -> None:
    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            small = Registry.of((f"party-{i}", c.keys[i].identity) for i in range(5))
            policy = Policy(known=small.identities, minimum_cohort=4)
            tasks = [
                asyncio.create_task(c.take_part(i, policy=policy if i == 0 else c.policy())) for i in range(6)
            ]
            result = await c.run_late(c.parameters(), Phase.SHARE_KEYS, 5)
            assert set(result.survivors) == c.named([1, 2, 3, 4, 5])
            assert any("not in our registry" in text for text in c.refusals)
            await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([(RecordType.FRAME, b"x")], grpc.StatusCode.INVALID_ARGUMENT),
        ([(RecordType.HELLO, bytes(96))], grpc.StatusCode.UNAUTHENTICATED),
        ([(RecordType.HELLO, bytes(5000))], grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_bad_beginning_ends_the_stream_with_its_code(
    records: list[tuple[RecordType, bytes]], code: grpc.StatusCode
) -> None:
    async def run() -> None:
        async with cohort() as c, raw_stream(c) as stream:
            for kind, content in records:
                await stream.send(kind, content)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await stream.receive():
                    pass
            assert caught.value.code() is code

    asyncio.run(run())


def test_garbage_frames_are_refused_and_cost_nobody_else_the_round() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.driver is not None)
            async with raw_stream(c, 0) as stream:
                await stream.send(RecordType.FRAME, b"\xff" * 40)
                await settle(lambda: any(isinstance(event, MessageRefused) for event in c.events))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 5))
            clock.advance(SOON.advertise_s + 1)
            result = await running
            assert set(result.survivors) == c.named([1, 2, 3, 4, 5])
            refused = [event for event in c.events if isinstance(event, MessageRefused)]
            assert refused[0].client == "party-0"
            assert refused[0].reason == "malformed"
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_no_message_of_the_service_carries_a_plain_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that leaves or reaches an end is recorded; no upload shows up unmasked."""
    seen: list[bytes] = []
    original = records_module.encode_record

    def recording(kind: RecordType, content: Any) -> Any:
        messages = list(original(kind, content))
        seen.append(b"".join(messages))
        return iter(messages)

    monkeypatch.setattr("secagg.service.line.encode_record", recording)
    monkeypatch.setattr("secagg.service.connection.encode_record", recording)

    async def run() -> Cohort:
        async with cohort(length=200) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            await c.run.round(c.parameters(), PAYLOAD, SOON)
            await asyncio.gather(*tasks)
            return c

    c = asyncio.run(run())
    everything = b"".join(seen)
    uploads = sum(len(pack(vector, RING_BITS)) for vector in c.vectors)
    assert len(everything) > uploads  # the recorder works: masked uploads are among it
    for vector in c.vectors:
        for plain in (bytes(pack(vector, RING_BITS)), vector.tobytes(), vector.astype(float).tobytes()):
            assert plain[:40] not in everything
            assert plain[-40:] not in everything


def test_a_flood_of_refused_frames_ends_its_stream_and_costs_nobody_else_the_round() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.driver is not None)
            junk = b"".join(encode_record(RecordType.FRAME, b"\xff" * 32)) * 5000
            async with raw_stream(c, 0) as stream:
                await stream.send_bytes(junk)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    while await stream.receive():
                        pass
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            async with raw_stream(c, 0) as again:  # it gets nothing more of this round
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(again.receive(), 0.3)
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 5))
            clock.advance(SOON.advertise_s + 1)
            result = await running
            assert set(result.survivors) == c.named([1, 2, 3, 4, 5])
            assert sum(isinstance(event, MessageRefused) for event in c.events) == 16
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_frame_longer_than_any_of_a_round_ends_its_stream_before_it_is_kept() -> None:
    async def run() -> None:
        async with cohort() as c, raw_stream(c, 0) as stream:
            await stream.send(RecordType.FRAME, bytes(10**6))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(stream.receive(), 5)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(run())


def test_a_stream_that_a_newer_one_replaced_is_not_heard() -> None:
    """What was still in it when the client came back; the newer stream's frames count."""

    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 0))
            older, newer = (Connection(c.keys[0].identity) for _ in range(2))
            older.round = newer.round = c.driver
            c.run._streams._there[c.keys[0].identity] = newer
            record = Record(RecordType.FRAME, b"\xff" * 40)
            assert await c.run._streams._hand_in(older, cast("Intake", None), record) is None
            assert await c.run._streams._hand_in(newer, cast("Intake", None), record) is Standing.REFUSED
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_a_client_that_does_not_read_loses_its_stream_and_the_round_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("secagg.service.connection._DRAIN_S", 2.0)
    payload = bytes(8 << 20)  # more than the transport buffers

    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            async with raw_stream(c, 0):
                connection = c.run._streams._there[c.keys[0].identity]
                parameters = c.parameters(context=context_digest(payload))
                result = await c.run_late(parameters, Phase.ADVERTISE_KEYS, 5, payload)
                assert set(result.survivors) == c.named([1, 2, 3, 4, 5])
                await settle(connection.dropped.is_set)
                await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"[]", b"{}", b"null", b'{"outcome": "aborted", "reason": 3}']
)
def test_an_end_that_is_no_outcome_is_a_stream_error(content: bytes) -> None:
    with pytest.raises(StreamError, match="ENDED"):
        read_outcome(content)


def test_a_slow_reader_gets_the_last_payload_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a client that reads nothing for a while loses its stream, not one that reads slowly."""
    monkeypatch.setattr("secagg.service.connection._DRAIN_S", 2.5)
    payload = bytes(24 << 20)

    async def run() -> None:
        async with cohort() as c, raw_stream(c, 0) as stream:
            c.run.finish(payload)
            record = await stream.receive(pause_s=0.2)  # 24 messages: longer than the server's patience
            assert record is not None
            assert record.type is RecordType.FINISHED
            assert bytes(record.content) == payload

    asyncio.run(run())
