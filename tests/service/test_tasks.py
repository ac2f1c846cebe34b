"""Work on threads is done to its end, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from secagg.service import tasks
from secagg.service.tasks import on_thread


def test_a_call_on_a_thread_is_over_before_its_caller_is_however_often_that_is_cancelled() -> None:
    async def run() -> None:
        begun, may_end, over = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            may_end.wait(20)
            over.set()

        with ThreadPoolExecutor(1) as executor:
            task = asyncio.create_task(on_thread(executor, work))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not task.done()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert over.is_set()

    asyncio.run(run())


def test_what_a_call_returns_or_raises_is_its_callers() -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            assert await on_thread(executor, divmod, 7, 2) == (3, 1)
            with pytest.raises(ZeroDivisionError):
                await on_thread(executor, divmod, 7, 0)

    asyncio.run(run())


def test_a_cancellation_that_a_task_lost_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.01)

    async def run() -> None:
        lost = 0

        async def deaf() -> None:
            nonlocal lost
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    lost += 1
                    if lost == 3:
                        raise

        async def failing() -> None:
            raise LookupError

        running = [asyncio.create_task(deaf()), asyncio.create_task(failing())]
        await asyncio.sleep(0)
        await tasks.end_tasks(*running)
        await tasks.end_tasks()
        assert lost == 3
        assert running[0].cancelled()

    asyncio.run(run())
