"""Clients and decryptors that lie, and a server that lies to them, over the service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from secagg import Contributor, Frame, IdentityKey, OneShotPolicy, Send
from secagg.messages.oneshot import ONESHOT_FRAMES, CommitteeKey, ReviewRequest, committee_to_wire
from secagg.params_oneshot import CommitteeParameters
from secagg.service import Decryptor, MessageRefused, OneShotClient, StreamError, round_context
from secagg.service.connection import Connection
from secagg.service.hello import DEFAULT_PLACE, make_hello
from secagg.service.keys import SERVER_NAME
from secagg.service.oneshot.client import _Sitting
from secagg.service.oneshot.desks import MemberDesk
from secagg.service.oneshot.run import DECRYPTORS
from secagg.service.records import GRPC_OPTIONS, METHOD, Record, RecordType, encode_record
from secagg.store import MemoryStore
from tests.service.cohort import CREDENTIALS, PINNED, RawStream, settle
from tests.service.oneshot.cohort import PAYLOAD, OneShotCohort, oneshot_cohort

SEAL = "secagg.protocol.oneshot.dealing.seal"


@asynccontextmanager
async def raw(
    c: OneShotCohort, key: IdentityKey, place: str = DEFAULT_PLACE, *, resume: bytes = b""
) -> AsyncIterator[RawStream]:
    """A stream of a client, or with another place of a decryptor, that does what a test says."""
    credentials = grpc.ssl_channel_credentials(CREDENTIALS.certificate)
    options = (*GRPC_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
    async with grpc.aio.secure_channel(c.address, credentials, options=options) as channel:
        call = channel.stream_stream(METHOD)()
        stream = RawStream(call)
        challenge = await stream.receive()
        assert challenge is not None
        nonce = bytes(challenge.content[:32])
        hello = make_hello(key, CREDENTIALS.digest, nonce, place=place, resume=resume)
        await stream.send(RecordType.HELLO, hello)
        try:
            yield stream
        finally:
            call.cancel()


def encoded(frame: bytes) -> bytes:
    return b"".join(encode_record(RecordType.FRAME, frame))


async def broken(stream: RawStream) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(20):
            while await stream.receive() is not None:
                pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


@pytest.mark.parametrize("where", ["client", "decryptor"])
def test_what_is_too_long_or_no_frame_ends_its_stream(where: str) -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt(1, 2, 3, 4)
            running = c.round()
            await settle(lambda: bool(c.run.rounds))
            client = where == "client"
            key, place = (c.keys[0], DEFAULT_PLACE) if client else (c.members[0], DEFAULT_PLACE + DECRYPTORS)
            async with raw(c, key, place) as stream:
                await stream.send_bytes(bytes([RecordType.FRAME]) + (1 << 30).to_bytes(8, "big"))
                assert "at most" in await broken(stream)
            async with raw(c, key, place) as stream:
                await stream.send(RecordType.PAYLOAD, b"x" * 100)
                assert "FRAME is wanted" in await broken(stream)
            async with raw(c, key, place) as stream:
                await stream.send_bytes(encoded(b"x" * 100) * 30)
                assert "malformed" in await broken(stream)
            for i in range(1, 5):
                await c.contribute(i)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_frames_of_no_round_end_the_stream_of_a_decryptor() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c, raw(c, c.members[0], DEFAULT_PLACE + DECRYPTORS) as stream:
            bad = CommitteeKey(c.members[0].identity, b"k" * 32, b"", b"s" * 64)
            frame = bytes(ONESHOT_FRAMES.encode(b"n" * 16, bad))
            await stream.send_bytes(encoded(frame) * 20)
            assert "again and again" in await broken(stream)

    asyncio.run(run())


def test_a_member_that_comes_in_the_middle_hears_nothing_before_the_parameters() -> None:
    async def run() -> None:
        member = IdentityKey.from_seed(b"m" * 32).identity
        desk = MemberDesk({}, Any, [])  # type: ignore[arg-type]
        connection = desk._there[member] = Connection(member)
        driver: Any = SimpleNamespace(round_id=b"r" * 16, parameters_frame=Frame(b"parameters"))
        for frame, heard in ((b"dealings", 0), (b"parameters", 1), (b"dealings", 2)):
            desk.deal(driver, member, Frame(frame))
            assert connection.queue.qsize() == heard

    asyncio.run(run())


def test_a_candidate_whose_key_is_wrong_is_told_and_left_out() -> None:
    async def run() -> None:
        place = DEFAULT_PLACE + DECRYPTORS
        async with oneshot_cohort(form_s=1.0) as c, raw(c, c.members[0], place) as stream:
            c.decrypt(1, 2, 3, 4)
            running = c.round()
            record = await stream.receive()
            assert record is not None
            assert record.type is RecordType.ROUNDS
            record = await stream.receive()
            assert record is not None
            epoch_id = ONESHOT_FRAMES.open(bytes(record.content)).round_id
            bad = CommitteeKey(c.members[0].identity, b"k" * 32, b"", b"s" * 64)
            await stream.send(RecordType.FRAME, bytes(ONESHOT_FRAMES.encode(epoch_id, bad)))
            await settle(lambda: any(isinstance(event, MessageRefused) for event in c.events))
            async with asyncio.timeout(60):
                await asyncio.gather(*(c.contribute(i) for i in range(5)))
                c.exact(await running, range(5))
            assert "decryptor-0" not in c.committees[0].members

    asyncio.run(run())


def test_an_upload_in_anothers_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            stolen: list[bytes] = []

            original = _Sitting._sends

            def sends(self: Any, effects: Any) -> None:
                original(self, effects)
                stolen.append(bytes(self._upload))

            monkeypatch.setattr(_Sitting, "_sends", sends)
            await c.contribute(0)
            async with raw(c, c.keys[1]) as stream:
                for _ in range(3):  # payload, certificate, parameters
                    await stream.receive()
                await stream.send(RecordType.FRAME, stolen[0])
                record = await stream.receive()
                assert record is not None
                assert record.type is RecordType.REFUSED
                assert b"sender mismatch" in bytes(record.content)
            await asyncio.gather(*(c.contribute(i) for i in range(1, 5)))
            c.exact(await running, range(5))

    asyncio.run(run())


def test_a_second_upload_of_a_client_is_not_acknowledged() -> None:
    """Only what the server has is, and it has the first."""

    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            said = await c.contribute(0)
            assert c.run.epoch is not None
            async with raw(c, c.keys[0], resume=said.round_id) as stream:
                told = await stream.receive()
                assert told is not None
                session = Contributor(
                    signer=c.keys[0],
                    context=round_context(PAYLOAD),
                    policy=c.policy(),
                    entropy=os.urandom,
                )
                for frame in (c.run.epoch.certificate, told.content):
                    session.receive(frame)
                upload = session.submit(c.vectors[1])[-1]
                assert isinstance(upload, Send)
                await stream.send(RecordType.FRAME, bytes(upload.frame))
                answer = await stream.receive()
                assert answer is not None
                assert answer.type is RecordType.REFUSED
                await stream.send(RecordType.FRAME, bytes(upload.frame))
                answer = await stream.receive()
                assert answer is not None
                assert answer.type is RecordType.REFUSED
            await asyncio.gather(*(c.contribute(i) for i in range(1, 5)))
            c.exact(await running, range(5))

    asyncio.run(run())


def test_a_member_of_which_somebody_deals_wrongly_blames_it_and_the_sum_is_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client whose shares for two members are noise: reviewed, complained about, left out."""
    module, _, name = SEAL.rpartition(".")
    original = getattr(import_module(module), name)

    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            for i in range(4):
                await c.contribute(i)

            def wrong(*arguments: Any, **options: Any) -> Any:
                sealed = original(*arguments, **options)
                return bytes(len(sealed))

            monkeypatch.setattr(SEAL, wrong)
            await c.contribute(4)
            result = await running
            c.exact(result, range(4))
            assert set(result.left_out) == {c.keys[4].identity}
            assert c.keys[4].identity in {one.client for one in result.blamed}

    asyncio.run(run())


# --- a server that lies


class _Outlet:
    """Where a sitting sends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, frame: Any) -> None:
        self.sent.append(bytes(frame))


def decryptor_of(one: IdentityKey, members: list[IdentityKey], **options: Any) -> Decryptor:
    policy = OneShotPolicy(
        known=None,
        decryptors=frozenset(key.identity for key in members),
        require_post_quantum=False,
    )
    return Decryptor(address="127.0.0.1:1", credentials=PINNED, signer=one, policy=policy, **options)


def parameters_of(number: int, **changes: Any) -> bytes:
    parameters = CommitteeParameters(epoch_id=number.to_bytes(16, "big"), post_quantum=False)
    parameters = replace(parameters, **changes)
    return bytes(ONESHOT_FRAMES.encode(parameters.epoch_id, committee_to_wire(parameters)))


def test_a_server_that_asks_for_keys_again_and_again_gets_some() -> None:
    async def run() -> None:
        members = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(4)]
        store, said = MemoryStore(), list[str]()
        one = decryptor_of(members[0], members, store=store, on_refusal=said.append)
        outlet: Any = _Outlet()
        for number in range(200):
            await one.on_record(Record(RecordType.FRAME, parameters_of(number + 1)), outlet)
        assert len(outlet.sent) == 120
        assert one.epochs == 1  # those that were never announced are gone
        assert any("no more for now" in text for text in said)
        again = parameters_of(120)
        await one.on_record(Record(RecordType.FRAME, again), outlet)
        assert outlet.sent[-1] == outlet.sent[-2]  # the same key for the same epoch

    asyncio.run(run())


def test_a_decryptor_answers_nothing_that_is_none_of_its_business() -> None:
    async def run() -> None:
        members = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(4)]
        said: list[str] = []
        one = decryptor_of(members[0], members, on_refusal=said.append)
        outlet: Any = _Outlet()
        for frame in (
            b"junk",
            bytes(ONESHOT_FRAMES.encode(b"n" * 16, ReviewRequest())),
            parameters_of(1, minimum_candidates=3, minimum_committee=3),
        ):
            await one.on_record(Record(RecordType.FRAME, frame), outlet)
        assert outlet.sent == []
        assert len(said) == 3
        assert one.epochs == 0
        with pytest.raises(StreamError, match="PAYLOAD"):
            await one.on_record(Record(RecordType.PAYLOAD, b"x"), outlet)
        for content in (b"x", b'{"round": "00"}'):
            with pytest.raises(StreamError, match="ENDED"):
                await one.on_record(Record(RecordType.ENDED, content), outlet)
        not_ours = b'{"outcome": "completed", "round": "00"}'
        await one.on_record(Record(RecordType.ENDED, not_ours), outlet)

    asyncio.run(run())


def test_a_client_uploads_nothing_to_a_committee_of_strangers() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            policy = c.policy(decryptors=frozenset({c.keys[0].identity}))
            waiting = asyncio.create_task(c.contribute(0, policy=policy))
            await settle(lambda: bool(c.refusals))
            assert not c.run.rounds[0].uploaded
            waiting.cancel()
            running.cancel()
            await asyncio.gather(waiting, running, return_exceptions=True)

    asyncio.run(run())


def test_a_client_that_is_told_it_was_acknowledged_before_it_uploaded_goes_on() -> None:
    """Only of an upload that was made is an acknowledgement taken, or the end of its round."""

    async def run() -> None:
        async with oneshot_cohort() as c:
            client: OneShotClient = c.client(0)
            sitting = _Sitting(client._settings, lambda _p, _q: np.zeros(50, np.uint32))
            outlet: Any = _Outlet()
            await sitting.on_record(Record(RecordType.TAKEN, b"\0"), outlet)
            await sitting.on_record(Record(RecordType.ENDED, b'{"outcome": "completed"}'), outlet)
            await sitting.on_record(Record(RecordType.FRAME, b"junk"), outlet)
            assert not sitting.over
            await sitting.on_record(Record(RecordType.FINISHED, b"last"), outlet)
            assert sitting.outcome is not None
            assert sitting.outcome.finished
            assert not sitting.outcome.acknowledged

    asyncio.run(run())


def test_a_caller_that_goes_ends_its_round() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await settle(lambda: not c.run.rounds)
            second = c.round(b"the next model")
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await second, range(5))

    asyncio.run(run())
