"""How a figure is taken: repeats, median, spread. One harness for all suites."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    seconds: float  # per figure, once its first run is over
    repeats: int  # at most
    scale: float = 1.0  # of the sizes of the inputs


TINY = Effort(seconds=0.0, repeats=1, scale=0.001)
NORMAL = Effort(seconds=0.4, repeats=25)
FULL = Effort(seconds=2.0, repeats=101)


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds of one call: the median of the repeats and the quartiles around it."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    repeats: int

    def nanoseconds(self) -> dict[str, float]:
        """For the JSON files."""
        return {
            "median_ns": self.median * 1e9,
            "low_ns": self.low * 1e9,
            "high_ns": self.high * 1e9,
            "repeats": self.repeats,
        }


def measure(call: Callable[[], object], effort: Effort, *, calls: int = 1) -> Figure:
    """Time `call`, which does the measured work `calls` times: seconds of wall time for one of them.

    The first run warms caches and pages up and does not count, unless it is the only one.
    """
    seconds = [_once(call)]
    if effort.repeats > 1:
        began = time.perf_counter()
        seconds = [_once(call)]
        while len(seconds) < effort.repeats and time.perf_counter() - began < effort.seconds:
            seconds.append(_once(call))
    return figure([value / calls for value in seconds])


def alternate(calls: list[tuple[Callable[[], object], float]], effort: Effort) -> list[Figure]:
    """Time several calls in turn, so that a noisy moment falls on all of them: for ratios.

    calls  what to call, and how many times it does the measured work
    """
    taken: list[list[float]] = [[_once(call)] for call, _ in calls]
    if effort.repeats > 1:
        began = time.perf_counter()
        taken = [[] for _ in calls]
        while len(taken[0]) < effort.repeats and time.perf_counter() - began < effort.seconds * len(calls):
            for seconds, (call, _) in zip(taken, calls, strict=True):
                seconds.append(_once(call))
    return [
        figure([value / units for value in seconds]) for seconds, (_, units) in zip(taken, calls, strict=True)
    ]


def figure(seconds: list[float]) -> Figure:
    """Median and quartiles of repeated measurements."""
    if len(seconds) < 2:
        return Figure(seconds[0], seconds[0], seconds[0], 1)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Figure(median, low, high, len(seconds))


def _once(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
