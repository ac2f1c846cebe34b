"""The participation ledger at work, over real TLS: what is not opened, and who is told."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from secagg import Phase, RoundAbortedError
from secagg.service import Deadlines, LedgerNoted, ManualClock, RoundFailed
from secagg.service.seat import RoundOutcome
from secagg.store import DEALT, ConcernKind, LedgerError, MemoryStore, ParticipationLedger, cells
from tests.service.cohort import PAYLOAD, SOON, Cohort, cohort


async def round_of(
    c: Cohort, number: int, members: list[int], **options: Any
) -> tuple[Any, list[RoundOutcome | BaseException]]:
    """Run a round with these clients; the result or the error, and what the clients heard."""
    tasks = [asyncio.create_task(c.take_part(i)) for i in members]
    if len(members) < len(c.keys):
        running = c.run_late(c.parameters(number), Phase.ADVERTISE_KEYS, len(members), **options)
    else:
        running = c.run.round(c.parameters(number), PAYLOAD, SOON, **options)
    (result,) = await asyncio.gather(running, return_exceptions=True)
    return result, await asyncio.gather(*tasks, return_exceptions=True)


def test_a_sum_over_all_but_one_of_an_earlier_sum_is_not_opened() -> None:
    async def run() -> None:
        async with cohort(8, clock=ManualClock()) as c:
            first, _ = await round_of(c, 1, list(range(8)))
            assert np.array_equal(first.total, c.expected(list(range(8))))
            second, outcomes = await round_of(c, 2, list(range(7)))
            assert isinstance(second, RoundAbortedError)
            assert second.reason is ConcernKind.DIFFERENCING
            assert [type(e) for e in c.events if isinstance(e, RoundFailed)] == [RoundFailed]
            for outcome in outcomes:  # nobody was asked to open anything
                assert isinstance(outcome, RoundOutcome)
                assert "it could show too few members" in outcome.reason
            assert second.detail.count("by 1 members: with other sums, fewer than 3") == 1

    asyncio.run(run())


def test_a_set_that_was_asked_to_be_signed_is_presumed_opened_though_its_round_failed() -> None:
    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:

            async def stop(phase: Phase, _payload: bytes) -> None:
                if phase is Phase.UNMASKING:  # signed, and gone
                    await asyncio.Event().wait()

            tasks = [asyncio.create_task(c.take_part(i, before_answer=stop)) for i in range(6)]
            with pytest.raises(RoundAbortedError, match="too few unmasking answers"):
                await c.run_late(c.parameters(1), Phase.UNMASKING, 0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            second, _ = await round_of(c, 2, list(range(5)))
            assert isinstance(second, RoundAbortedError)
            assert second.reason is ConcernKind.DIFFERENCING
            third, _ = await round_of(c, 3, list(range(6)))
            assert np.array_equal(third.total, c.expected(list(range(6))))

    asyncio.run(run())


def test_within_a_cohort_a_whole_cell_may_stay_away_and_no_single_member() -> None:
    async def run() -> None:
        async with cohort(8, clock=ManualClock()) as c:
            subject, everybody = b"q" * 32, [key.identity for key in c.keys]
            one, two = cells(DEALT, everybody, floor=3)
            options = {"subject": subject, "cohort": everybody}
            first, _ = await round_of(c, 1, list(range(8)), **options)
            assert np.array_equal(first.total, c.expected(list(range(8))))
            staying = [i for i in range(8) if everybody[i] in two]
            second, _ = await round_of(c, 2, staying, **options)
            assert np.array_equal(second.total, c.expected(staying))
            gone = next(i for i in range(8) if everybody[i] in one)
            third, _ = await round_of(c, 3, [i for i in range(8) if i != gone], **options)
            assert isinstance(third, RoundAbortedError)
            assert third.reason is ConcernKind.DIFFERENCING
            assert "1 members are missing from 1 cells" in third.detail
            with pytest.raises(LedgerError, match="cells of 3 of 2 members"):
                await c.run.round(c.parameters(4), PAYLOAD, SOON, subject=b"r" * 32, cohort=everybody[:2])

    asyncio.run(run())


def test_the_same_members_again_are_no_difference() -> None:
    async def run() -> None:
        async with cohort() as c:
            for number in (1, 2):
                result, _ = await round_of(c, number, list(range(6)))
                assert np.array_equal(result.total, c.expected(list(range(6))))

    asyncio.run(run())


def test_a_vector_of_a_round_without_result_is_noted_by_both_sides_when_it_comes_again() -> None:
    async def run() -> None:
        async with cohort(clock=ManualClock()) as c:
            stores = [MemoryStore() for _ in range(6)]

            async def stop(phase: Phase, _payload: bytes) -> None:
                if phase is Phase.CONSISTENCY_CHECK:
                    await asyncio.Event().wait()

            tasks = [
                asyncio.create_task(c.take_part(i, store=stores[i], before_answer=stop)) for i in range(6)
            ]
            with pytest.raises(RoundAbortedError, match="no quorum"):
                await c.run_late(c.parameters(1), Phase.CONSISTENCY_CHECK, 0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks = [asyncio.create_task(c.take_part(i, store=stores[i])) for i in range(6)]
            result = await c.run.round(c.parameters(2), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks)
            (noted,) = [event for event in c.events if isinstance(event, LedgerNoted)]
            assert (noted.concern, len(noted.clients)) == (ConcernKind.REPEATED, 6)
            assert sum("our ledger warns" in text for text in c.refusals) == 6

    asyncio.run(run())


def test_a_ledger_that_refuses_repeats_starts_no_such_round_and_a_client_answers_nothing() -> None:
    async def run() -> None:
        book = ParticipationLedger(MemoryStore(), repeats="refuse")
        async with cohort(ledger=book) as c:
            book.uploaded(c.parameters().context, b"0" * 16, c.keys[3].identity, 0)
            with pytest.raises(LedgerError, match="1 clients uploaded about this subject before"):
                await c.run.round(c.parameters(1), PAYLOAD, SOON)
        async with cohort(clock=ManualClock()) as c:
            wary = ParticipationLedger(MemoryStore(), repeats="refuse")
            wary.uploaded(c.parameters().context, b"0" * 16, c.keys[3].identity, 0)
            tasks = [asyncio.create_task(c.take_part(i)) for i in (0, 1, 2, 4, 5)]
            refusing = asyncio.create_task(c.take_part(3, ledger=wary))
            result = await c.run_late(c.parameters(1), Phase.ADVERTISE_KEYS, 5)
            assert c.keys[3].identity not in result.survivors
            assert "our ledger refuses" in (await refusing).reason
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_client_that_was_in_enough_rounds_today_is_left_out_until_tomorrow() -> None:
    async def run() -> None:
        clock = ManualClock()
        book = ParticipationLedger(MemoryStore(), rounds_per_day=1)
        async with cohort(ledger=book, clock=clock) as c:
            book.uploaded(b"another" + bytes(25), b"0" * 16, c.keys[5].identity, 0)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(5)]
            result = await c.run.round(c.parameters(1), PAYLOAD, SOON)
            assert c.named(list(range(5))) == set(result.survivors)
            (noted,) = [event for event in c.events if isinstance(event, LedgerNoted)]
            assert (noted.concern, noted.clients) == (ConcernKind.TOO_OFTEN, ("party-5",))
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_the_guilty_of_an_earlier_attempt_are_left_out_when_the_caller_says_so() -> None:
    async def run() -> None:
        async with cohort() as c:
            guilty = c.keys[2].identity
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(1), PAYLOAD, Deadlines(), excluded=[guilty])
            assert c.named([0, 1, 3, 4, 5]) == set(result.survivors)
            waiting = tasks.pop(2)  # for a round that it has a part in
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())
