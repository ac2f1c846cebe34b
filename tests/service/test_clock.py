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
