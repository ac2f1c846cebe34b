"""What an attacker of the service tried: servers, clients and decryptors that use its seams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from secagg import IdentityKey, OneShotParameters, ThreatModel
from secagg.messages.oneshot import ONESHOT_FRAMES, CommitteeKey, Opening
from secagg.service import ManualClock, OneShotDeadlines, ServiceError, StreamError
from secagg.service.hello import DEFAULT_PLACE as PLACE
from secagg.service.oneshot.client import _Sitting
from secagg.service.oneshot.plan import OneShotPlan
from secagg.service.oneshot.run import DECRYPTORS
from secagg.service.records import Record, RecordType
from secagg.store import MemoryStore, SealedStore, SqliteStore, StoreError
from secagg.store.sql import Database, spool_of
from tests.service.cohort import settle
from tests.service.oneshot.cohort import ends_heard, oneshot_cohort
from tests.service.oneshot.test_hostile import _Outlet, broken, decryptor_of, parameters_of, raw

MEMBERS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(4)]


def test_of_two_sessions_of_one_client_at_once_one_uploads() -> None:
    """Both were told of the round, and neither had uploaded: the second finds that out before it sends."""

    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round(goal=5)
            meet = threading.Barrier(2, timeout=30)

            def both(_payload: bytes, _parameters: Any) -> Any:
                meet.wait()
                return c.vectors[0]

            store = MemoryStore()
            other = c.client(0, store=store)
            other._settings = type(other._settings)(
                **{name: getattr(other._settings, name) for name in other._settings.__slots__}
                | {"place": "default/other"}
            )
            one = asyncio.create_task(c.client(0, store=store).contribute(both))
            await settle(lambda: bool(c.run.connected))
            sitting = _Sitting(other._settings, both)
            outlet: Any = _Outlet()
            for record in (
                Record(RecordType.PAYLOAD, b"the model"),
                *(Record(RecordType.FRAME, frame) for frame in await _round_of(c)),
            ):
                await sitting.on_record(record, outlet)
            speaking = asyncio.create_task(sitting.speak(outlet))
            await settle(lambda: one.done() or bool(outlet.sent))
            await asyncio.sleep(0.3)
            assert one.done() + len(outlet.sent) == 1
            for task in (one, speaking, running):
                task.cancel()
            await asyncio.gather(one, speaking, running, return_exceptions=True)

    asyncio.run(run())


async def _round_of(c: Any) -> tuple[bytes, bytes]:
    await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
    driver = c.run.rounds[0]
    return driver.plan.certificate, bytes(driver.parameters_frame)


def test_a_decryptor_makes_no_second_key_for_an_epoch_that_it_has_forgotten(tmp_path: Path) -> None:
    """It was started again without a sealed store; its server goes on with the same epoch."""

    async def run() -> None:
        with SqliteStore(tmp_path / "store") as store:
            outlet: Any = _Outlet()
            for made in (1, 0):
                said: list[str] = []
                one = decryptor_of(MEMBERS[0], MEMBERS, store=store, on_refusal=said.append)
                await one.on_record(Record(RecordType.FRAME, parameters_of(7)), outlet)
                assert len(outlet.sent) == 1
                assert one.epochs == made
                assert any("forgotten" in text for text in said) is not bool(made)

    asyncio.run(run())


def test_an_opening_that_comes_when_its_round_is_over_costs_nothing() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c, raw(c, c.members[0], PLACE + DECRYPTORS) as stream:
            await stream.receive()
            late = bytes(ONESHOT_FRAMES.encode(b"n" * 16, Opening(0, bytes(12_800), bytes(64))))
            await stream.send(RecordType.FRAME, late)
            await asyncio.sleep(0.2)
            assert c.members[0].identity in c.run.decryptors

    asyncio.run(run())


class _Failing(MemoryStore):
    """Fails at the first attempt to remove an epoch."""

    failed = False

    def put(self, values: Mapping[str, bytes | None]) -> None:
        if not self.failed and any(k.startswith("decryptor/") and v is None for k, v in values.items()):
            self.failed = True
            raise StoreError("disk: an error, once")
        super().put(values)


def test_an_epoch_that_the_store_did_not_forget_is_tried_again() -> None:
    async def run() -> None:
        beneath = _Failing()
        async with oneshot_cohort() as c:
            one = c.decryptor(0, store=SealedStore(beneath, b"k" * 32), epoch_s=1.0)
            serving = asyncio.create_task(one.serve())
            c.decrypt(1, 2, 3, 4)
            running = c.round()
            await settle(lambda: beneath.failed)
            await settle(lambda: not list(beneath.names("decryptor/")))
            assert not serving.done()
            running.cancel()
            serving.cancel()
            await asyncio.gather(running, serving, return_exceptions=True)

    asyncio.run(run())


def test_a_committee_of_other_demands_is_not_gone_on_with(tmp_path: Path) -> None:
    stores = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]

    async def run(payload: bytes, formed: int, **settings: Any) -> None:
        with Database(tmp_path / "server.db") as database:
            async with oneshot_cohort(database=database, spool=spool_of(database), **settings) as c:
                for i in range(5):
                    c.decrypt(i, store=stores[i])
                running = c.round(payload)
                await asyncio.gather(*(c.contribute(i) for i in range(5)))
                c.exact(await running, range(5))
                assert len(c.committees) == formed

    asyncio.run(run(b"one", 1))
    asyncio.run(run(b"two", 1, threat_model=ThreatModel(corrupt=0.2, dropout=0.0)))


def test_more_decryptors_than_are_needed_are_waited_for_a_while() -> None:
    """Else the first that connect were the committee of a day."""

    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}, gather_s=10.0) as c:
            c.decrypt(0, 1, 2, 3)
            running = c.round()
            await settle(lambda: len(c.run.decryptors) == 4)
            await asyncio.sleep(0.3)
            assert not c.committees
            c.decrypt(4)
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await running, range(5))
            assert len(c.committees[0].members) == 5

    asyncio.run(run())


def test_large_junk_leaves_nothing_in_the_spool(tmp_path: Path) -> None:
    async def run() -> None:
        with Database(tmp_path / "server.db") as database:
            async with oneshot_cohort(length=40_000, database=database, spool=spool_of(database)) as c:
                c.decrypt()
                running = c.round()
                await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
                for _ in range(3):
                    async with raw(c, c.keys[0]) as stream:
                        for _ in range(3):  # payload, certificate, parameters
                            await stream.receive()
                        await stream.send(RecordType.FRAME, b"x" * 100_000)
                        assert "malformed" in await broken(stream)
                left = [name for name in c.server._shared.spool.names() if ".upload" in name]
                assert not left
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_a_round_that_a_newer_one_drew_clients_from_gets_them_when_that_is_over() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            first = c.round(b"one", goal=3, minimum_survivors=3)
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            free = threading.Event()

            def slow(i: int) -> Any:
                return lambda _payload, _parameters: (free.wait(60), c.vectors[i])[1]

            waiting = [asyncio.create_task(c.client(i).contribute(slow(i))) for i in (0, 1)]
            await settle(lambda: len(c.run.connected) == 2)
            second = c.round(b"two", goal=3)
            await settle(lambda: len(c.run.rounds) == 2 and c.run.rounds[1].uploading)
            with ends_heard() as heard:
                await asyncio.gather(*(c.contribute(i) for i in (2, 3, 4)))
                c.exact(await second, (2, 3, 4))
                await settle(lambda: len(heard) == 2)
            free.set()
            await asyncio.gather(*waiting, c.contribute(2))
            c.exact(await first, (0, 1, 2))

    asyncio.run(run())


def test_a_caller_that_waits_for_rounds_of_the_last_epoch_ends_with_its_server() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}, epoch_s=1000.0) as c:
            c.decrypt()
            patient = OneShotDeadlines(upload_s=5000, phase_s=5000)
            first = c.round(b"one", deadlines=patient)
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            clock.advance(1001)
            second = c.round(b"two")
            await settle(lambda: len(c.committees) == 2)
            await c.server.stop()
            for running in (first, second):
                with pytest.raises(ServiceError):
                    await asyncio.wait_for(running, 20)

    asyncio.run(run())


def test_a_member_that_connects_again_and_again_is_sent_everything_once() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            driver = c.run.rounds[0]
            for _ in range(50):
                driver.rejoin(c.members[0].identity)
            assert len(driver._inbox) == 1
            await settle(lambda: not driver._inbox and not driver._rejoining)
            driver.rejoin(c.members[0].identity)
            assert len(driver._inbox) == 1
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("content", [b"", bytes(200)])
def test_a_pace_that_is_none_ends_the_stream_and_nothing_else(content: bytes) -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            client = c.client(0)
            sitting = _Sitting(client._settings, lambda _p, _q: c.vectors[0])
            outlet: Any = _Outlet()
            with pytest.raises(StreamError, match="PACE has 8 bytes"):
                await client._line._on_record(sitting, outlet, Record(RecordType.PACE, content))

    asyncio.run(run())


def test_a_decryptor_forgets_the_shares_of_rounds_whose_end_it_missed() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            decryptors = [c.decryptor(i) for i in range(5)]
            serving = [asyncio.create_task(one.serve()) for one in decryptors]
            first = c.round(b"one")
            await c.contribute(0)
            await settle(lambda: all(_open(one) == 1 for one in decryptors))
            first.cancel()  # which closes the streams: nobody hears of an end
            await asyncio.gather(first, return_exceptions=True)
            await settle(lambda: all(_open(one) == 0 for one in decryptors))
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    asyncio.run(run())


def _open(decryptor: Any) -> int:
    return sum(len(epoch.session.open_rounds) for epoch in decryptor._epochs.values())


def test_a_decryptor_takes_part_in_so_many_rounds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secagg.service.oneshot.decryptor._ROUNDS_AT_ONCE", 2)

    async def run() -> None:
        async with oneshot_cohort() as c:
            said: list[str] = []
            c.decrypt(0, on_refusal=said.append)
            c.decrypt(1, 2, 3, 4)
            running = [c.round(b"%d" % i) for i in range(3)]
            await settle(lambda: any("OneShotParametersMessage" in text for text in said))
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(run())


def test_a_goal_below_what_a_sum_needs_is_no_goal() -> None:
    parameters = OneShotParameters(
        round_id=bytes(16),
        committee_digest=bytes(32),
        vector_length=1,
        ring_bits=8,
        contexts=(bytes(32),),
        maximum_uploads=8,
    )
    admitted = frozenset(key.identity for key in (*MEMBERS, IdentityKey.from_seed(b"x" * 32)))
    for goal, enough in ((0, 5), (2, 3), (4, 4), (9, 5)):
        plan = OneShotPlan(
            parameters=parameters,
            certificate=b"",
            admitted=admitted,
            deadlines=OneShotDeadlines(),
            goal=goal,
        )
        assert plan.enough == enough


def test_a_candidate_that_is_refused_again_and_again_loses_its_stream() -> None:
    async def run() -> None:
        async with oneshot_cohort(form_s=5.0) as c, raw(c, c.members[0], PLACE + DECRYPTORS) as stream:
            c.decrypt(1, 2, 3, 4)
            running = c.round()
            await stream.receive()
            record = await stream.receive()
            assert record is not None
            epoch_id = ONESHOT_FRAMES.open(bytes(record.content)).round_id
            bad = CommitteeKey(c.members[0].identity, b"k" * 32, b"", b"s" * 64)
            frame = bytes(ONESHOT_FRAMES.encode(epoch_id, bad))
            for _ in range(16):
                await stream.send(RecordType.FRAME, frame)
            assert "were refused in this epoch" in await broken(stream)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_an_upload_that_waits_is_not_ended_by_the_end_of_another_round() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            sitting = _Sitting(c.client(0)._settings, lambda _p, _q: c.vectors[0])
            sitting._upload, sitting._round_id = Any, b"r" * 16  # type: ignore[assignment]
            outlet: Any = _Outlet()
            other, own = (
                f'{{"outcome": "completed", "round": "{one.hex()}"}}' for one in (b"o" * 16, b"r" * 16)
            )
            await sitting.on_record(Record(RecordType.ENDED, other.encode()), outlet)
            assert not sitting.over
            await sitting.on_record(Record(RecordType.ENDED, own.encode()), outlet)
            assert sitting.over

    asyncio.run(run())
