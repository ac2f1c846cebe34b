"""The service over real TLS on loopback: whole rounds, broken streams, deadlines, strangers."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import numpy as np
import pytest

from secagg import (
    AbortReason,
    Frame,
    InfeasibleParameters,
    ParameterError,
    Phase,
    RoundAbortedError,
    Send,
    ServerSession,
    context_digest,
)
from secagg.kernels import UIntArray
from secagg.service import (
    AggregationServer,
    Deadlines,
    ManualClock,
    PhaseDone,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    ServiceError,
    UploadTaken,
)
from secagg.service.seat import Seat, Settings
from secagg.store import MemoryStore, ParticipationLedger, StoredCounter
from tests.service.cohort import CREDENTIALS, PAYLOAD, PINNED, SOON, cohort, settle


def lax() -> ParticipationLedger:
    """For rounds about one payload over cohorts that differ by one client."""
    return ParticipationLedger(MemoryStore(), differencing="warn")


def test_a_round_gives_the_exact_sum_to_the_server_and_tells_the_clients() -> None:
    async def run() -> None:
        async with cohort() as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            for outcome in await asyncio.gather(*tasks):
                assert outcome.completed
                assert outcome.payload == PAYLOAD
            phases = [event.phase for event in c.events if isinstance(event, PhaseDone)]
            assert phases == list(Phase)
            assert any(isinstance(event, RoundCompleted) for event in c.events)

    asyncio.run(run())


def test_two_rounds_one_after_the_other_and_then_the_end() -> None:
    async def run() -> None:
        async with cohort() as c:
            clients = [c.client(i) for i in range(6)]

            async def stay(i: int) -> list[bool]:
                outcomes: list[bool] = []
                while True:
                    outcome = await clients[i].take_part(lambda _p, _q: c.vectors[i])
                    if outcome.finished:
                        assert outcome.payload == b"the end"
                        return outcomes
                    outcomes.append(outcome.completed)

            tasks = [asyncio.create_task(stay(i)) for i in range(6)]
            for number in (1, 2):
                result = await c.run.round(c.parameters(number), PAYLOAD, SOON)
                assert np.array_equal(result.total, c.expected(list(range(6))))
            c.run.finish(b"the end")
            assert await asyncio.gather(*tasks) == [[True, True]] * 6

    asyncio.run(run())


@pytest.mark.parametrize("phase", list(Phase))
def test_a_broken_stream_is_no_dropout_and_the_client_resumes(phase: Phase) -> None:
    """The stream breaks when an answer is about to go out, the client connects again and goes on."""

    async def run() -> None:
        async with cohort() as c:
            broken: list[Phase] = []

            async def before(at: Phase, _payload: bytes) -> None:
                if at is phase and not broken:
                    broken.append(at)
                    c.run._streams._there[c.keys[0].identity].close()
                    await asyncio.sleep(0.2)  # the answer goes into a closed stream

            tasks = [
                asyncio.create_task(c.take_part(i, before_answer=before if i == 0 else None))
                for i in range(6)
            ]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert broken == [phase]
            assert set(result.survivors) == c.named(list(range(6)))
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_the_deadline_of_the_injected_clock_makes_a_silent_client_a_dropout() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:

            async def hang(at: Phase, _payload: bytes) -> None:
                if at is Phase.MASKED_INPUT_COLLECTION:
                    await asyncio.Event().wait()

            tasks = [
                asyncio.create_task(c.take_part(i, before_answer=hang if i == 2 else None)) for i in range(6)
            ]
            running = asyncio.create_task(
                c.run.round(c.parameters(), PAYLOAD, Deadlines(advertise_s=60, phase_s=30))
            )
            await settle(lambda: sum(isinstance(event, UploadTaken) for event in c.events) == 5)
            await asyncio.sleep(0.1)
            assert not running.done()  # real time decides nothing
            clock.advance(29)
            await asyncio.sleep(0.1)
            assert not running.done()
            clock.advance(2)
            result = await running
            assert set(result.survivors) == c.named([0, 1, 3, 4, 5])
            assert np.array_equal(result.total, c.expected([0, 1, 3, 4, 5]))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_grace_begins_when_enough_have_answered() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(5)]  # one never comes
            deadlines = Deadlines(advertise_s=1000, phase_s=1000, advertise_grace_s=5)
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, deadlines))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 5))
            # the grace begins when the round's loop has seen the fifth answer
            await settle(lambda: any(until <= 5 for until, _ in clock._sleepers))
            clock.advance(6)
            result = await running
            assert clock.now() < 1000
            assert set(result.survivors) == c.named([0, 1, 2, 3, 4])
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_too_few_clients_abort_the_round_and_everybody_hears_why() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(3)]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 3))
            clock.advance(SOON.advertise_s + 1)
            with pytest.raises(RoundAbortedError, match="minimum_cohort: 4 are needed, 3") as caught:
                await running
            assert caught.value.reason is AbortReason.COHORT_TOO_SMALL
            assert any(isinstance(event, RoundFailed) for event in c.events)
            for outcome in await asyncio.gather(*tasks):
                assert not outcome.completed
                assert "cohort too small" in outcome.reason

    asyncio.run(run())


def test_a_client_that_connects_during_a_round_waits_for_the_next_one() -> None:
    async def run() -> None:
        async with cohort(ledger=lax(), clock=ManualClock()) as c:
            late: list[asyncio.Task[Any]] = []

            async def before(at: Phase, _payload: bytes) -> None:
                if at is Phase.SHARE_KEYS and not late:
                    late.append(asyncio.create_task(c.take_part(5)))
                    await settle(lambda: c.keys[5].identity in c.run.connected)

            first = [
                asyncio.create_task(c.take_part(i, before_answer=before if i == 0 else None))
                for i in range(5)
            ]
            result = await c.run_late(c.parameters(1), Phase.ADVERTISE_KEYS, 5)
            assert set(result.survivors) == c.named([0, 1, 2, 3, 4])
            await asyncio.gather(*first)
            assert not late[0].done()
            again = [asyncio.create_task(c.take_part(i)) for i in range(5)]
            result = await c.run.round(c.parameters(2), PAYLOAD, SOON)
            assert set(result.survivors) == c.named(list(range(6)))
            await asyncio.gather(*again, *late)

    asyncio.run(run())


def test_a_compute_that_raises_costs_only_its_client_the_round() -> None:
    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:

            def fail(_payload: bytes, _parameters: object) -> UIntArray:
                raise ParameterError("no data today")

            broken = asyncio.create_task(c.client(3).take_part(fail))
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6) if i != 3]
            result = await c.run_late(c.parameters(), Phase.MASKED_INPUT_COLLECTION, 5)
            assert set(result.survivors) == c.named([0, 1, 2, 4, 5])
            with pytest.raises(ParameterError, match="no data today"):
                await broken
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_an_accepted_round_id_is_kept_and_not_accepted_again() -> None:
    """A server that forgot its rounds, or says so, comes with the same id once more."""
    store = MemoryStore()

    async def once(members: list[int]) -> list[str]:
        async with cohort(ledger=lax(), clock=ManualClock()) as c:
            tasks = [asyncio.create_task(c.take_part(i, store=store if i == 0 else None)) for i in range(6)]
            result = await c.run_late(c.parameters(), Phase.ADVERTISE_KEYS, len(members))
            assert set(result.survivors) == c.named(members)
            await asyncio.gather(*tasks)
            return c.refusals

    assert asyncio.run(once([0, 1, 2, 3, 4, 5])) == []
    assert store.names("accepted/") == [f"accepted/{hashlib.sha256(b'1').digest()[:16].hex()}"]
    assert store.names("rounds/") == []  # the round's secrets are gone
    assert any("accepted before" in text for text in asyncio.run(once([1, 2, 3, 4, 5])))


@pytest.mark.parametrize("phase", [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT_COLLECTION])
def test_a_process_killed_after_its_answer_comes_back_and_waits_for_the_next_round(phase: Phase) -> None:
    """Its secrets are gone: the new process has no part in the round, and is not disturbed by it."""

    async def run() -> None:
        async with cohort(ledger=lax(), clock=ManualClock()) as c:
            order = list(Phase)
            following = order[order.index(phase) + 1]
            again: list[asyncio.Task[Any]] = []

            async def die(at: Phase, _payload: bytes) -> None:
                if at is following and not again:
                    again.append(asyncio.create_task(c.take_part(0)))
                    old.cancel()  # the old process is gone
                    await asyncio.Event().wait()

            old = asyncio.create_task(c.client(0, before_answer=die).take_part(lambda _p, _q: c.vectors[0]))
            others = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            result = await c.run_late(c.parameters(1), following, 5)
            uploaded = phase is Phase.MASKED_INPUT_COLLECTION
            assert set(result.survivors) == c.named(list(range(0 if uploaded else 1, 6)))
            await asyncio.gather(old, *others, return_exceptions=True)
            assert not again[0].done()
            others = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            result = await c.run.round(c.parameters(2), PAYLOAD, SOON)
            assert set(result.survivors) == c.named(list(range(6)))
            await asyncio.gather(*again, *others)

    asyncio.run(run())


def test_grace_never_makes_a_phase_longer() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with cohort(clock=clock) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(5)]
            deadlines = Deadlines(advertise_s=10, phase_s=1000, advertise_grace_s=500)
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, deadlines))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 5))
            clock.advance(11)
            result = await running
            assert set(result.survivors) == c.named([0, 1, 2, 3, 4])
            await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("name", ["advertise_s", "phase_s", "grace_s", "advertise_grace_s"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_are_no_times_are_refused(name: str, seconds: float) -> None:
    with pytest.raises(ParameterError, match=f"{name}: must be positive and finite"):
        Deadlines(**{name: seconds})


def test_misuse_by_the_caller_raises() -> None:
    async def run() -> None:
        async with cohort() as c:
            with pytest.raises(ParameterError, match="parameters.context"):
                await c.run.round(c.parameters(context=context_digest(b"other")), PAYLOAD)
            with pytest.raises(InfeasibleParameters, match="3 clients cannot meet"):
                await c.run.round(c.parameters(minimum_cohort=3), PAYLOAD)

    asyncio.run(run())


def test_an_address_that_cannot_be_used_is_named() -> None:
    async def run() -> None:
        server = AggregationServer(address="256.0.0.1:1", credentials=CREDENTIALS)
        with pytest.raises(ParameterError, match=r"256\.0\.0\.1:1"):
            await server.start()
        await server.stop()

    asyncio.run(run())


def test_a_server_without_its_private_key_is_refused() -> None:
    with pytest.raises(ParameterError, match="private key"):
        AggregationServer(address="127.0.0.1:0", credentials=PINNED)


def test_a_client_that_missed_the_end_of_a_round_hears_of_it_and_takes_part_in_the_next() -> None:
    """It resumes a round that is over, is told so, and computes afresh for the next one."""

    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            computed: list[bytes] = []

            def compute(_payload: bytes, parameters: Any) -> UIntArray:
                computed.append(parameters.round_id)
                return c.vectors[0]

            async def vanish(at: Phase, _payload: bytes) -> None:
                if at is Phase.UNMASKING and len(computed) == 1:
                    connection = c.run._streams._there.pop(c.keys[0].identity)
                    connection.close()
                    await settle(lambda: any(isinstance(event, RoundCompleted) for event in c.events))

            missing = c.client(0, before_answer=vanish)
            first = asyncio.create_task(missing.take_part(compute))
            others = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            one, two = c.parameters(1), c.parameters(2)
            result = await c.run_late(one, Phase.UNMASKING, 5)
            assert len(result.survivors) == 6
            await asyncio.gather(*others)
            assert (await first).completed
            others = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            second = asyncio.create_task(missing.take_part(compute))
            result = await c.run.round(two, PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            assert computed == [one.round_id, two.round_id]
            assert (await second).completed
            await asyncio.gather(*others)

    asyncio.run(run())


def test_a_stop_leaves_the_round_in_the_store() -> None:
    async def run() -> None:
        async with cohort() as c:
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.answered(Phase.ADVERTISE_KEYS, 0))
            await c.server.stop()
            with pytest.raises(ServiceError, match="stopped"):
                await running

    asyncio.run(run())


def test_the_same_round_id_is_no_second_round() -> None:
    async def run() -> None:
        async with cohort() as c:
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.driver is not None)
            with pytest.raises(ParameterError, match="goes on already"):
                await c.run.round(c.parameters(), PAYLOAD, SOON)
            running.cancel()

    asyncio.run(run())


def test_a_cancelled_round_leaves_no_task_behind() -> None:
    async def run() -> None:
        async with cohort() as c:
            before = asyncio.all_tasks()
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: any(isinstance(event, RoundOpened) for event in c.events))
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert asyncio.all_tasks() <= before

    asyncio.run(run())


def test_a_seat_forgets_the_session_of_a_round_when_the_next_begins() -> None:
    async def run() -> None:
        async with cohort() as c:
            store = MemoryStore()
            seat = Seat(
                Settings(
                    signer=c.keys[0],
                    policy=c.policy(),
                    entropy=os.urandom,
                    counter=StoredCounter(store),
                    ledger=ParticipationLedger(store),
                    wall=lambda: 0.0,
                    store=store,
                    before_answer=None,
                    on_refusal=c.refusals.append,
                ),
                lambda _p, _q: c.vectors[0],
            )

            class Nowhere:
                async def send(self, frame: Frame) -> None:
                    assert frame.size

            sessions: list[Any] = []
            for number in range(3):
                seat.take_payload(PAYLOAD)
                opening = ServerSession(c.parameters(number), admitted=c.registry.identities).start()[0]
                assert isinstance(opening, Send)
                await seat.take_frame(opening.frame.buffer(), Nowhere())
                assert all(session.phase is None for session in sessions)
                assert seat._round.session is not None
                sessions.append(seat._round.session)
                assert sessions[-1].phase is Phase.ADVERTISE_KEYS
            seat.leave()
            assert sessions[-1].phase is None

    asyncio.run(run())


def test_who_connects_the_moment_a_round_begins_takes_part() -> None:
    """Before the store has the round, and before its first frames are out."""

    async def run() -> None:
        async with cohort() as c:
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            while c.driver is None:
                await asyncio.sleep(0)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await running
            assert len(result.survivors) == 6
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_vector_that_is_ready_when_its_round_is_left_goes_nowhere() -> None:
    """The computation has finished, the next round begins before the vector is handed in."""

    async def run() -> None:
        async with cohort() as c:
            store = MemoryStore()
            settings = Settings(
                signer=c.keys[0],
                policy=c.policy(),
                entropy=os.urandom,
                counter=StoredCounter(store),
                ledger=ParticipationLedger(store),
                wall=lambda: 0.0,
                store=store,
                before_answer=None,
                on_refusal=c.refusals.append,
            )
            seat = Seat(settings, lambda _p, _q: c.vectors[0])
            sent: list[Frame] = []

            class Outlet:
                async def send(self, frame: Frame) -> None:
                    sent.append(frame)

            outlet = Outlet()
            submitting = asyncio.create_task(seat.speak(outlet))
            for number in range(2):
                seat.take_payload(PAYLOAD)
                opening = ServerSession(c.parameters(number), admitted=c.registry.identities).start()[0]
                assert isinstance(opening, Send)
                await seat.take_frame(opening.frame.buffer(), outlet)
                assert seat._computing is not None
                seat._wanted.set()
                await asyncio.wait({seat._computing})
                seat.take_payload(PAYLOAD)  # before the waiting task has had its turn
                await asyncio.sleep(0.01)
                assert not submitting.done()
            assert len(sent) == 2  # the advertisements
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)

    asyncio.run(run())
