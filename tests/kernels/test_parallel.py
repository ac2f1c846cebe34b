import os
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.kernels import map_in_threads, usable_cpus
from secagg.kernels._parallel import check_threads, in_threads, ranges


def fail_at(bad: int) -> Callable[[int], int]:
    def function(item: int) -> int:
        if item == bad:
            raise LookupError(f"item {item}")
        return item

    return function


@given(length=st.integers(0, 3000), parts=st.integers(1, 40), multiple=st.integers(1, 600))
def test_ranges_cover_everything_once_and_start_on_multiples(length: int, parts: int, multiple: int) -> None:
    found = ranges(length, parts, multiple)
    assert len(found) <= parts
    assert all(first % multiple == 0 and first < end for first, end in found)
    covered = [i for first, end in found for i in range(first, end)]
    assert covered == list(range(length))
    sizes = [end - first for first, end in found]
    assert all(size == sizes[0] for size in sizes[:-1])
    assert all(size <= -(-length // parts) + multiple for size in sizes)


def test_nothing_is_split_into_no_ranges() -> None:
    assert ranges(0, 4, 8) == []


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_results_come_in_the_order_of_the_jobs(count: int) -> None:
    assert in_threads(lambda job: job * job, range(count)) == [job * job for job in range(count)]


def test_several_jobs_run_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=30)
    assert sorted(in_threads(lambda _: barrier.wait(), range(3))) == [0, 1, 2]


def test_a_single_job_runs_in_the_thread_of_the_caller() -> None:
    assert in_threads(lambda _: threading.get_ident(), [0]) == [threading.get_ident()]


@pytest.mark.parametrize("count", [1, 3])
def test_the_error_of_a_job_reaches_the_caller(count: int) -> None:
    with pytest.raises(LookupError, match="item 0"):
        in_threads(fail_at(0), range(count))


@given(items=st.lists(st.integers(), max_size=50), threads=st.integers(1, 5))
def test_mapping_in_threads_is_mapping(items: list[int], threads: int) -> None:
    assert map_in_threads(str, iter(items), threads=threads) == list(map(str, items))


def test_few_items_are_not_worth_a_thread() -> None:
    here = threading.get_ident()
    assert map_in_threads(lambda _: threading.get_ident(), range(5), threads=3) == [here] * 5
    assert map_in_threads(lambda _: threading.get_ident(), range(9), threads=1) == [here] * 9
    split = map_in_threads(lambda _: threading.get_ident(), range(6), threads=3)
    assert split[:2] == [here] * 2  # the caller takes the first part
    assert here not in split[2:]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_ends_the_mapping(threads: int) -> None:
    with pytest.raises(LookupError, match="item 5"):
        map_in_threads(fail_at(5), range(9), threads=threads)


@pytest.mark.parametrize("threads", [0, -3])
def test_less_than_one_thread_is_refused(threads: int) -> None:
    for call in (lambda: check_threads(threads), lambda: map_in_threads(str, [1], threads=threads)):
        with pytest.raises(ValueError, match=f"threads: must be at least 1, is {threads}"):
            call()


def test_usable_cpus_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cpus() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert usable_cpus() == 3


@pytest.mark.parametrize(("count", "usable"), [(6, 6), (None, 1)])
def test_without_affinity_all_cpus_count(
    count: int | None, usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cpus() == usable
