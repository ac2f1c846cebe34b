"""Who is asked: as many as it takes, in turns, by what they say of themselves; the others are sent away."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import Identity, ParameterError, Phase
from secagg.service import ManualClock, RoundOutcome, Selection
from secagg.service.selection import choose
from tests.service.cohort import PAYLOAD, SOON, Cohort, cohort, settle


@given(
    online=st.sets(st.binary(min_size=32, max_size=32), max_size=12),
    rounds=st.integers(1, 8),
    wanted=st.integers(0, 14),
)
def test_nobody_is_two_turns_ahead(online: set[bytes], rounds: int, wanted: int) -> None:
    here = {Identity(one) for one in online}
    served = dict.fromkeys(here, 0)
    for number in range(rounds):
        chosen = choose(here, served, wanted, bytes([number]))
        assert len(chosen) == min(wanted, len(here))
        for one in chosen:
            served[one] += 1
    if served:
        assert max(served.values()) - min(served.values()) <= 1


def test_equals_are_told_apart_by_chance_alone() -> None:
    here = [Identity(bytes([i]) * 32) for i in range(6)]
    seen = {choose(here, {}, 2, bytes([seed])) for seed in range(50)}
    assert len(seen) > 8


@pytest.mark.parametrize(
    ("name", "value"), [("goal", 0), ("over", 0.9), ("over", float("nan")), ("minimum", 9), ("wait_s", -1.0)]
)
def test_a_selection_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=name):
        Selection(**{"goal": 4} | {name: value})  # type: ignore[arg-type]


def joining(c: Cohort, members: range, **options: object) -> list[asyncio.Task[RoundOutcome]]:
    return [asyncio.create_task(c.take_part(i, **options)) for i in members]


def test_a_round_of_selected_clients_goes_on_when_its_goal_is_reached() -> None:
    async def run() -> None:
        async with cohort(12, clock=ManualClock()) as c:

            async def hang(at: Phase, _payload: bytes) -> None:
                if at is Phase.MASKED_INPUT_COLLECTION:
                    slow.append(at)
                    await asyncio.Event().wait()

            slow: list[Phase] = []
            tasks = joining(c, range(10)) + joining(c, range(10, 12), before_answer=hang)
            await settle(lambda: len(c.run.idle) == 12)
            chosen = await c.run.select(Selection(goal=10, over=1.2))
            assert len(chosen) == 12
            result = await c.run.round(c.parameters(), PAYLOAD, SOON, among=chosen, goal=10)
            assert set(result.survivors) == c.named(list(range(10)))  # no clock was turned
            assert np.array_equal(result.total, c.expected(list(range(10))))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_who_was_selected_has_its_turn_behind_it_also_after_a_restart() -> None:
    async def run() -> None:
        async with cohort(8) as c:
            tasks = joining(c, range(8))
            await settle(lambda: len(c.run.idle) == 8)
            half = Selection(goal=4, over=1.0)
            first, second = await c.run.select(half), await c.run.select(half)
            assert not first & second
            assert first | second == c.named(list(range(8)))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_tags_and_the_minimum_decide_who_and_whether() -> None:
    async def run() -> None:
        async with cohort(8) as c:
            tasks = joining(c, range(5), tags=["eu", "gpu"]) + joining(c, range(5, 8), tags=["eu"])
            await settle(lambda: len(c.run.idle) == 8)
            with_gpu = Selection(goal=5, over=1.0, tags=frozenset({"gpu"}))
            assert await c.run.select(with_gpu) == c.named(list(range(5)))
            with pytest.raises(ParameterError, match="4 are needed, 0 are online and idle"):
                await c.run.select(Selection(goal=4, over=1.0, wait_s=0.1, tags=frozenset({"us"})))
            with pytest.raises(ParameterError, match="9 are needed, 8 are"):
                await c.run.select(Selection(goal=9, over=1.0, minimum=9, wait_s=0.1))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("tags", [["a b"], [""], ["x" * 25], [str(i) for i in range(9)]])
def test_what_is_no_tag_is_refused(tags: list[str]) -> None:
    async def run() -> None:
        async with cohort() as c:
            with pytest.raises(ParameterError, match="tags: up to 8 words"):
                c.client(0, tags=tags)

    asyncio.run(run())


def test_idle_clients_are_sent_away_and_come_back() -> None:
    async def run() -> None:
        async with cohort(6) as c:
            tasks = joining(c, range(6))
            await settle(lambda: len(c.run.idle) == 6)
            began = time.monotonic()
            c.run.pace(1.0, spare=[c.keys[0].identity])
            await settle(lambda: c.run.connected == c.named([0]))
            await settle(lambda: len(c.run.idle) > 1)
            assert time.monotonic() - began >= 0.5  # nobody is back before its time, give or take a half
            await settle(lambda: len(c.run.idle) == 6)
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert len(result.survivors) == 6
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))

    asyncio.run(run())
