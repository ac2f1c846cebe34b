"""Ranges split over threads: the C code holds no interpreter lock, so threads of Python are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def check_threads(threads: int) -> None:
    """Raise ValueError unless threads >= 1."""
    if threads < 1:
        raise ValueError(f"threads: must be at least 1, is {threads}")


def ranges(length: int, parts: int, multiple: int) -> list[tuple[int, int]]:
    """Split 0..length into at most `parts` (first, end) of about one size, each first a multiple."""
    step = max(-(-length // parts), 1)
    step = -(-step // multiple) * multiple
    return [(first, min(first + step, length)) for first in range(0, length, step)]


def in_threads(function: Callable[[T], R], jobs: Sequence[T]) -> list[R]:
    """Return [function(job) for job in jobs], side by side: the first here, the others in threads.

    The caller works too, because a scheduler places one new thread beside a busy one on an idle CPU, but
    may put two new ones on the same.
    """
    if len(jobs) <= 1:
        return [function(job) for job in jobs]
    with ThreadPoolExecutor(len(jobs) - 1) as pool:
        others = [pool.submit(function, job) for job in jobs[1:]]
        return [function(jobs[0]), *(other.result() for other in others)]


def map_in_threads(function: Callable[[T], R], items: Iterable[T], *, threads: int) -> list[R]:
    """Return [function(item) for item in items] in order; worth it for calls that release the lock."""
    check_threads(threads)
    todo = list(items)
    if threads == 1 or len(todo) < 2 * threads:
        return [function(item) for item in todo]
    parts = [todo[first:end] for first, end in ranges(len(todo), threads, 1)]
    done = in_threads(lambda part: [function(item) for item in part], parts)
    return [result for part in done for result in part]
