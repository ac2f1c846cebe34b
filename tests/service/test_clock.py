import asyncio

from secagg.service import ManualClock, SystemClock


def test_a_manual_clock_wakes_only_those_whose_time_has_come() -> None:
    async def run() -> list[str]:
        clock, woken = ManualClock(), []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(name)

        tasks = [asyncio.create_task(sleeper(name, s)) for name, s in (("late", 10), ("soon", 2), ("now", 0))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.advance(5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert woken == ["now", "soon"]
        clock.advance(5)
        await asyncio.gather(*tasks)
        assert clock.now() == 10
        return woken

    assert asyncio.run(run()) == ["now", "soon", "late"]


def test_the_system_clock_goes_on() -> None:
    clock = SystemClock()
    before = clock.now()
    asyncio.run(clock.sleep(0.01))
    assert clock.now() > before


def test_time_that_passes_before_a_sleeping_task_has_begun_counts() -> None:
    """Of a deadline that is set, and passes, in one step of the loop."""

    async def run() -> None:
        clock = ManualClock()
        alarm = asyncio.create_task(clock.sleep(100.0))
        clock.advance(101.0)
        await asyncio.wait_for(alarm, 10.0)
        early = asyncio.create_task(clock.sleep(100.0))
        clock.advance(99.0)
        await asyncio.sleep(0)
        assert not early.done()
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        clock.advance(2.0)  # wakes nobody

    asyncio.run(run())
