"""Rounds of the one-upload protocol over the service: clients that vanish, decryptors that are lost."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from secagg import AbortReason, IdentityKey, ParameterError, RoundAbortedError
from secagg.errors import ConsentError
from secagg.service import (
    CommitteeFailed,
    Contribution,
    HelloError,
    ManualClock,
    OneShotDeadlines,
    OneShotSettings,
    PhaseDone,
    Registry,
    ServiceError,
    round_context,
)
from secagg.service.oneshot.driver import OneShotDriver
from secagg.store import MemoryStore, ParticipationLedger, SealedStore
from tests.service.cohort import settle
from tests.service.oneshot.cohort import PAYLOAD, SOON, OneShotCohort, ends_heard, oneshot_cohort


def driver_of(c: OneShotCohort) -> OneShotDriver:
    """The one round that goes on."""
    (driver,) = c.run.rounds
    return driver


def test_clients_upload_once_and_go_and_the_sum_is_exact() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            said = await asyncio.gather(*(c.contribute(i) for i in range(5)))
            assert said == [Contribution(True, False, PAYLOAD, one.round_id) for one in said]
            c.exact(await running, range(5))
            assert not c.refusals
            (ready,) = c.committees
            assert ready.members == tuple(f"decryptor-{i}" for i in range(5))
            phases = [event.phase.name for event in c.events if isinstance(event, PhaseDone)]
            assert phases == ["UPLOAD", "REVIEW", "AGREE", "OPEN"]

    asyncio.run(run())


def test_clients_that_never_come_cost_nothing() -> None:
    """Three of five upload, and are gone by the time the committee opens the sum."""

    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}) as c:
            c.decrypt()
            running = c.round()
            for i in (0, 2, 3):
                assert (await c.contribute(i)).acknowledged
            await settle(lambda: not c.run.connected)
            clock.advance(SOON.upload_s + 1)
            c.exact(await running, (0, 2, 3))

    asyncio.run(run())


def test_as_many_uploads_as_are_wanted_are_enough() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round(goal=3)
            for i in range(3):
                await c.contribute(i)
            c.exact(await running, range(3))

    asyncio.run(run())


def test_too_few_uploads_are_no_sum() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}) as c:
            c.decrypt()
            running = c.round()
            await c.contribute(0)
            waiting = asyncio.create_task(c.contribute(1, agreement=b"x" * 32))  # it refuses, and stays
            await settle(lambda: any("another context" in one for one in c.refusals))
            clock.advance(SOON.upload_s + 1)
            with pytest.raises(RoundAbortedError, match="1 uploads, at least 3 are needed"):
                await running
            waiting.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("phase", ["UPLOAD", "REVIEW", "AGREE", "OPEN"])
def test_a_decryptor_that_vanishes_in_a_phase_costs_nothing(
    phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of seven may be lost; it answers no more from some phase on."""
    n = 7

    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(m=n, server={"clock": clock}) as c:
            c.decrypt()
            running = c.round(deadlines=OneShotDeadlines(upload_s=100, phase_s=50))
            await settle(lambda: bool(c.run.rounds) and driver_of(c).uploading)
            lost = c.members[3].identity
            original = OneShotDriver.receive

            async def losing(self: OneShotDriver, sender: Any, *arguments: Any) -> Any:
                now = self.phase
                if sender == lost and now is not None and now.name == phase:
                    await asyncio.Event().wait()
                return await original(self, sender, *arguments)

            monkeypatch.setattr(OneShotDriver, "receive", losing)
            if phase == "UPLOAD":
                await c.lose(3)
            for i in range(5):
                await c.contribute(i)
            while not running.done():  # those that are left have answered
                await asyncio.sleep(0.01)
                if c.run.rounds and not driver_of(c).uploading:
                    progress = driver_of(c).progress
                    if progress.missing == {lost}:
                        clock.advance(51)
            result = await running
            c.exact(result, range(5))

    asyncio.run(run())


def test_a_decryptor_that_is_started_again_goes_on_with_its_epoch() -> None:
    """With its sealed store: it gets everything again, and the committee stays as it is."""

    async def run() -> None:
        stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(5)]
        async with oneshot_cohort() as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            first = c.round()
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await first, range(5))
            second = c.round(b"the next model")
            for i in range(4):
                await c.contribute(i)
            for i in range(5):
                await c.lose(i)
                c.decrypt(i, store=stores[i])
            await settle(lambda: len(c.run.decryptors) == 5)
            await c.contribute(4)
            c.exact(await second, range(5))
            assert len(c.committees) == 1
            assert not c.refusals

    asyncio.run(run())


def test_a_decryptor_without_a_sealed_store_has_forgotten_its_epoch() -> None:
    """The next round gets another committee, of those who are there."""

    async def run() -> None:
        async with oneshot_cohort(form_s=0.3) as c:
            c.decrypt()
            first = c.round()
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            await first
            await c.lose(0, 1)
            second = c.round(b"the next model")
            await settle(lambda: any(isinstance(event, CommitteeFailed) for event in c.events))
            c.decrypt(0)  # which makes four of five
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await second, range(5))
            assert [one.members for one in c.committees][1] == tuple(f"decryptor-{i}" for i in (0, 2, 3, 4))

    asyncio.run(run())


def test_an_epoch_that_is_old_is_followed_by_another_and_forgotten() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}, epoch_s=1000.0) as c:
            decryptors = [c.decryptor(i) for i in range(5)]
            tasks = [asyncio.create_task(one.serve()) for one in decryptors]
            for number in range(4):
                running = c.round(b"model %d" % number)
                await asyncio.gather(*(c.contribute(i) for i in range(5)))
                c.exact(await running, range(5))
                clock.advance(600)
            assert len(c.committees) == 2
            assert len({event.round_id for event in c.committees}) == 2
            assert [one.epochs for one in decryptors] == [1] * 5
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert [one.epochs for one in decryptors] == [0] * 5

    asyncio.run(run())


def test_a_decryptor_forgets_an_epoch_in_time_whatever_the_server_says() -> None:
    async def run() -> None:
        said: list[str] = []
        store = SealedStore(MemoryStore(), b"k" * 32)
        async with oneshot_cohort() as c:
            c.decrypt(1, 2, 3, 4)
            one = c.decryptor(0, epoch_s=0.5, on_event=said.append, store=store)
            task = asyncio.create_task(one.serve())
            running = c.round()
            await settle(lambda: one.epochs == 1)
            assert list(store.names("decryptor/"))
            await settle(lambda: one.epochs == 0)
            assert "its secrets are gone" in said[-1]
            assert not list(store.names("decryptor/"))
            running.cancel()
            task.cancel()
            await asyncio.gather(running, task, return_exceptions=True)

    asyncio.run(run())


def test_a_decryptor_that_does_not_consent_signs_nothing() -> None:
    """The others are enough."""

    async def run() -> None:
        asked: list[tuple[int, int]] = []

        def objects(parameters: Any, taken: Any, survivors: Any) -> None:
            asked.append((len(taken), len(survivors)))
            assert parameters.vector_length == 50
            raise ConsentError("not this one")

        said: list[str] = []
        clock = ManualClock()
        async with oneshot_cohort(m=7, server={"clock": clock}) as c:
            c.decrypt(*range(6))
            c.decrypt(6, before_sum=objects, on_event=said.append)
            running = c.round()
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            await settle(lambda: bool(asked))
            await settle(lambda: driver_of(c).progress.missing == {c.members[6].identity})
            clock.advance(101)
            c.exact(await running, range(5))
            assert asked == [(5, 5)]
            assert any("not signed: not this one" in one for one in said)

    asyncio.run(run())


def test_no_quorum_ends_the_round_and_its_committee() -> None:
    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}) as c:
            c.decrypt()
            first = c.round()
            for i in range(4):
                await c.contribute(i)
            await c.lose(0, 1)
            await c.contribute(4)
            await settle(lambda: len(driver_of(c).progress.missing) == 2)
            clock.advance(101)
            with pytest.raises(RoundAbortedError) as caught:
                await first
            assert caught.value.reason is AbortReason.NO_QUORUM
            c.decrypt(0, 1)
            second = c.round(b"the next model")
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await second, range(5))
            assert len(c.committees) == 2

    asyncio.run(run())


def test_a_buffer_takes_uploads_about_earlier_models() -> None:
    """Who began with the last model hands its update in to the round of the next one."""

    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(n=8, server={"clock": clock}) as c:
            c.decrypt()
            slow = asyncio.Event()
            seen: list[bytes] = []
            loop = asyncio.get_running_loop()

            def late(i: int) -> Any:
                def compute(payload: bytes, _parameters: Any) -> Any:
                    seen.append(payload)
                    asyncio.run_coroutine_threadsafe(slow.wait(), loop).result()
                    return c.vectors[i]

                return compute

            first = c.round(b"one", goal=4)
            await settle(lambda: bool(c.run.rounds))
            stragglers = [asyncio.create_task(c.client(i).contribute(late(i))) for i in range(4, 8)]
            await settle(lambda: len(seen) == 4)
            for i in range(4):
                await c.contribute(i)
            c.exact(await first, range(4))
            second = c.round(b"two", earlier=[round_context(b"one")], minimum_per_context=3)
            for i in range(4):
                await c.contribute(i)
            slow.set()
            said = await asyncio.gather(*stragglers)
            assert [one.acknowledged for one in said] == [True] * 4
            assert {one.payload for one in said} == {b"one"}
            assert seen == [b"one"] * 4
            c.exact(await second, range(8))

    asyncio.run(run())


def test_what_was_computed_when_its_round_was_over_waits_for_the_next() -> None:
    """It is not uploaded to a round that takes nothing any more: it could be summed in no other then."""

    async def run() -> None:
        async with oneshot_cohort() as c:
            lenient = c.policy(minimum_per_context=1, minimum_colluding=0)
            c.decrypt(policy=lenient)
            slow = asyncio.Event()
            seen: list[int] = []
            loop = asyncio.get_running_loop()

            def late(i: int) -> Any:
                def compute(_payload: bytes, _parameters: Any) -> Any:
                    seen.append(i)
                    asyncio.run_coroutine_threadsafe(slow.wait(), loop).result()
                    return c.vectors[i]

                return compute

            first = c.round(b"one", goal=3)
            stragglers = [
                asyncio.create_task(c.client(i, policy=lenient).contribute(late(i))) for i in (3, 4)
            ]
            await settle(lambda: sorted(seen) == [3, 4])
            with ends_heard() as heard:
                for i in range(3):
                    await c.contribute(i)
                c.exact(await first, range(3))
                await settle(lambda: len(heard) == 2)
            slow.set()
            await asyncio.sleep(0.3)
            assert not list(c.stores[3].names("uploaded/"))
            earlier = [round_context(b"one")]
            second = c.round(b"two", earlier=earlier, minimum_per_context=1, colluding=0)
            await asyncio.gather(*(c.contribute(i, policy=lenient) for i in range(3)))
            assert [one.payload for one in await asyncio.gather(*stragglers)] == [b"one"] * 2
            c.exact(await second, range(5))
            assert sorted(seen) == [3, 4]

    asyncio.run(run())


def test_a_computation_for_a_model_that_does_not_count_any_more_is_begun_anew() -> None:
    async def run() -> None:
        async with oneshot_cohort(n=4) as c:
            c.decrypt()
            seen: list[bytes] = []
            hold = asyncio.Event()
            loop = asyncio.get_running_loop()

            def late(payload: bytes, _parameters: Any) -> Any:
                seen.append(payload)
                if payload == b"one":
                    asyncio.run_coroutine_threadsafe(hold.wait(), loop).result()
                return c.vectors[3]

            first = c.round(b"one", goal=3)
            straggler = asyncio.create_task(c.client(3).contribute(late))
            await settle(lambda: seen == [b"one"])
            for i in range(3):
                await c.contribute(i)
            c.exact(await first, range(3))
            second = c.round(b"two")
            for i in range(3):
                await c.contribute(i)
            await asyncio.sleep(0.1)
            assert seen == [b"one"]  # one at a time
            hold.set()
            assert (await straggler).payload == b"two"
            c.exact(await second, range(4))

    asyncio.run(run())


@dataclass
class _Slow:
    """A vector that is not read before it may be."""

    array: Any
    length: int = 50
    entered: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)

    def read(self, start: int, out: Any) -> None:
        self.entered.set()
        self.free.wait(60)
        out[:] = self.array[start : start + len(out)]


@pytest.mark.parametrize("counts", [False, True])
def test_a_round_that_opens_while_an_upload_is_made_gets_it_or_another(counts: bool) -> None:
    """What is kept as uploaded is what leaves: for the round, and about the model, that it was made for."""

    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            slow = _Slow(c.vectors[0])
            made: list[bytes] = []

            def compute(payload: bytes, _parameters: Any) -> Any:
                made.append(payload)
                return slow if len(made) == 1 else c.vectors[0]

            first = c.round(b"one", goal=4)
            straggler = asyncio.create_task(c.client(0).contribute(compute))
            await settle(slow.entered.is_set)
            earlier = [round_context(b"one")] if counts else []
            second = c.round(b"two", earlier=earlier)
            await settle(lambda: len(c.run.rounds) == 2 and c.run.rounds[1].uploading)
            await asyncio.sleep(0.1)
            slow.free.set()
            said = await straggler
            (now,) = (one for one in c.run.rounds if one.payload == b"two")
            assert said.acknowledged
            assert said.round_id == now.round_id
            assert said.payload == made[-1] == (b"one" if counts else b"two")
            me, ledger = c.keys[0].identity, ParticipationLedger(c.stores[0])
            assert ledger.told(round_context(b"one"), me) is counts
            assert ledger.told(round_context(b"two"), me) is not counts
            first.cancel()
            second.cancel()
            await asyncio.gather(first, second, return_exceptions=True)

    asyncio.run(run())


def test_a_round_that_waits_for_its_committee_ends_with_its_server() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            running = [c.round(), c.round(ticket=b"t")]
            await asyncio.sleep(0.2)
            assert not any(one.done() for one in running)
            await c.server.stop()
            for one in running:
                with pytest.raises(ServiceError, match="before a round began"):
                    await one

    asyncio.run(run())


def test_nothing_is_uploaded_twice_about_the_same_model() -> None:
    """Two sums of the same vectors that differ in one client show its vector."""

    async def run() -> None:
        clock = ManualClock()
        async with oneshot_cohort(server={"clock": clock}) as c:
            c.decrypt()
            first = c.round()
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await first, range(5))
            second = c.round()
            waiting = asyncio.create_task(c.contribute(0))
            await settle(lambda: any("presumed summed" in one for one in c.refusals))
            waiting.cancel()
            for i in range(1, 5):  # unless their callers say so
                assert (await c.contribute(i, again=True)).acknowledged
            clock.advance(SOON.upload_s + 1)
            c.exact(await second, range(1, 5))

    asyncio.run(run())


def test_what_compute_raises_is_raised_and_nothing_was_uploaded() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()

            def failing(_payload: bytes, _parameters: Any) -> Any:
                raise ValueError("no rows")

            with pytest.raises(ValueError, match="no rows"):
                await c.client(0).contribute(failing)
            with pytest.raises(ParameterError, match=r"vector"):
                await c.client(0).contribute(lambda _p, _q: np.zeros(3, np.uint32))
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await running, range(5))

    asyncio.run(run())


def test_everybody_is_told_that_there_are_no_more_rounds() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            waiting = [asyncio.create_task(c.contribute(i)) for i in range(5)]
            await settle(lambda: len(c.run.connected) == 5 and len(c.run.decryptors) == 5)
            c.run.finish(b"the last model")
            said = await asyncio.gather(*waiting)
            assert {(one.finished, one.payload) for one in said} == {(True, b"the last model")}
            assert [await task for task in c.tasks.values()] == [b"the last model"] * 5
            await asyncio.wait_for(c.run.everybody_told(), 60)

    asyncio.run(run())


def test_who_is_enrolled_as_one_thing_does_not_pass_for_the_other() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            with pytest.raises(HelloError):
                await c.client(0, signer=c.members[0]).contribute(lambda _p, _q: c.vectors[0])
            with pytest.raises(HelloError):
                await c.decryptor(0, signer=c.keys[0]).serve()

    asyncio.run(run())


def test_who_is_revoked_is_heard_no_more() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            waiting = [asyncio.create_task(c.contribute(i)) for i in range(2)]
            await settle(lambda: len(c.run.connected) == 2 and len(c.run.decryptors) == 5)
            clients = Registry.of((f"client-{i}", c.keys[i].identity) for i in range(1, 5))
            members = Registry.of((f"decryptor-{i}", c.members[i].identity) for i in range(1, 5))
            await c.run.enrol(clients, members)
            await settle(lambda: len(c.run.connected) == 1 and len(c.run.decryptors) == 4)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_settings_that_fit_nothing_are_refused() -> None:
    one = IdentityKey.from_seed(b"1" * 32).identity
    registry = Registry.of([("a", one)])
    with pytest.raises(ParameterError, match="one name a party"):
        OneShotSettings(registry=registry, decryptors=Registry.of([("b", one)]))
    with pytest.raises(ParameterError, match="epoch_s"):
        OneShotSettings(registry=registry, decryptors=registry, epoch_s=0)
    with pytest.raises(ParameterError, match="minimum_committee"):
        OneShotSettings(registry=registry, decryptors=registry, minimum_committee=2)
    with pytest.raises(ParameterError, match="place"):
        OneShotSettings(registry=registry, decryptors=registry, place="a/" + "b" * 60)
    with pytest.raises(ParameterError, match="upload_s"):
        OneShotDeadlines(upload_s=0)
