"""Time as a value that is handed in: deadlines are decided by a clock that a test can turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol


class Clock(Protocol):
    """Seconds of a monotonic clock, and of a calendar."""

    def now(self) -> float:
        """Return the current time, seconds."""

    def wall(self) -> float:
        """Return the seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Return when this much of the clock's time has passed."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return the current time, seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands until `advance` is called."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        """Return the current time, seconds."""
        return self._now

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return self._now

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Wait until `advance` has passed the time, counted from this call: a task may start later."""
        event = asyncio.Event()
        if seconds > 0:
            self._sleepers.append((self._now + seconds, event))
        else:
            event.set()
        return _until(event)

    def advance(self, seconds: float) -> None:
        """Let time pass and wake those whose time has come."""
        self._now += seconds
        for until, event in self._sleepers:
            if until <= self._now:
                event.set()
        self._sleepers = [(until, event) for until, event in self._sleepers if until > self._now]


async def _until(event: asyncio.Event) -> None:
    await event.wait()
