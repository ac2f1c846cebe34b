"""Ending tasks, and waiting for threads, without losing a cancellation of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

_T = TypeVar("_T")
_AGAIN_S = 10.0  # longer than what a task does when it is cancelled


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they are over, whatever they raise.

    A cancellation can be lost, where it meets the end of a library's call: it is repeated.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # nobody asks for it any more


async def on_thread(
    executor: Executor | None,
    call: Callable[..., _T],
    *arguments: Any,  # noqa: ANN401
) -> _T:
    """Do what waits for the disk on a thread, to its end. None: on one of the loop's."""
    return await to_end(asyncio.get_running_loop().run_in_executor(executor, call, *arguments))


async def to_end(running: asyncio.Future[_T]) -> _T:
    """Wait for what must not be cut off in the middle: a cancellation of ours is raised after it."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # nobody asks for it any more
        raise cancelled
    try:
        return running.result()
    finally:
        del running  # whose error would lead to this frame, and back


async def first_of(*tasks: asyncio.Task[Any], timeout_s: float | None = None) -> set[asyncio.Task[Any]]:
    """Wait until one of these is over; returns those that are."""
    done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return done
