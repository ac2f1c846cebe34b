"""What every store keeps to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secagg.store import (
    FolderStore,
    MappingStore,
    MemoryStore,
    ParticipationLedger,
    SqliteStore,
    Store,
    StoredCounter,
)


@pytest.fixture(params=["memory", "mapping", "sqlite", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "mapping":
        yield MappingStore({})
    elif request.param == "folder":
        with FolderStore(tmp_path / "site") as opened_folder:
            yield opened_folder
    else:
        with SqliteStore(tmp_path / "site.db") as opened:
            yield opened


def test_values_are_kept_replaced_and_removed(store: Store) -> None:
    store.put({"a/1": b"one", "a/2": b"two", "b": b""})
    assert store.get("a/1") == b"one"
    assert store.get("b") == b""
    assert store.get("missing") is None
    assert store.names("a/") == ["a/1", "a/2"]
    assert store.names("") == ["a/1", "a/2", "b"]
    store.put({"a/1": None, "a/2": b"new", "missing": None})
    assert store.get("a/1") is None
    assert store.get("a/2") == b"new"


def test_a_later_change_of_the_buffer_changes_nothing(store: Store) -> None:
    buffer = bytearray(b"secret")
    store.put({"x": buffer})  # type: ignore[dict-item]
    buffer[:] = bytes(6)
    assert store.get("x") == b"secret"


def test_repr_shows_no_value(store: Store) -> None:
    store.put({"name": b"secret"})
    assert "secret" not in repr(store)


def test_a_value_that_is_none_leaves_the_others_of_a_put_alone(store: Store) -> None:
    with pytest.raises(TypeError):
        store.put({"a": b"1", "b": "text"})  # type: ignore[dict-item]
    assert store.names("") == []


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    store.put({"a": b"before"})

    def fail() -> None:
        with store.transaction():
            store.put({"a": b"after", "b": b"new"})
            with store.transaction():
                store.put({"c": b"inner"})
            assert store.get("a") == b"after"
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert (store.get("a"), store.names("")) == (b"before", ["a"])
    with store.transaction():
        store.put({"c": b"kept"})
    assert store.names("") == ["a", "c"]


def test_of_threads_that_read_and_write_in_transactions_none_loses_a_step(store: Store) -> None:
    def count() -> None:
        for _ in range(50):
            with store.transaction():
                value = int.from_bytes(store.get("n") or b"", "big")
                store.put({"n": (value + 1).to_bytes(4, "big")})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(store.get("n") or b"", "big") == 200


def test_of_two_threads_that_advance_a_counter_to_one_value_only_one_may(store: Store) -> None:
    counter, done = StoredCounter(store), []
    barrier = threading.Barrier(4)

    def advance() -> None:
        barrier.wait()
        try:
            counter.advance("round", 1)
        except ValueError:
            return
        done.append(1)

    threads = [threading.Thread(target=advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (done, counter.value("round")) == ([1], 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.text("ab/1", max_size=3), st.one_of(st.none(), st.binary(max_size=4)), max_size=3)
    )
)
def test_both_stores_answer_alike(tmp_path_factory: Any, puts: list[dict[str, bytes | None]]) -> None:
    memory = MemoryStore()
    with SqliteStore(tmp_path_factory.mktemp("stores") / "s.db") as sqlite:
        for values in puts:
            memory.put(values)
            sqlite.put(values)
        for prefix in ("", "a", "a/", "b1"):
            assert sqlite.names(prefix) == memory.names(prefix)
        assert [sqlite.get(name) for name in memory.names("")] == [
            memory.get(name) for name in memory.names("")
        ]


def test_a_store_says_whether_it_outlives_the_process(tmp_path: Path) -> None:
    assert not MemoryStore().durable
    with SqliteStore(tmp_path / "s.db") as store:
        assert store.durable


def test_what_a_client_keeps_is_there_after_its_process(tmp_path: Path) -> None:
    """Round ids, counters, ledger, and values of the caller's: an account, an agreement."""
    path, one = tmp_path / "site.db", b"1" * 32
    with SqliteStore(path) as store:
        store.put({"accepted/00": b"\1", "account": bytes(1000), "agreement": b"{}"})
        StoredCounter(store).advance("rounds/00", 3)
        ParticipationLedger(store, rounds_per_day=1).uploaded(b"s" * 32, b"r" * 16, one, 5)
    with SqliteStore(path) as store:
        assert StoredCounter(store).value("rounds/00") == 3
        assert (store.get("accepted/00"), store.get("account")) == (b"\1", bytes(1000))
        book = ParticipationLedger(store, rounds_per_day=1)
        assert [concern.clients for concern in book.too_often([one], 6)] == [(one,)]
