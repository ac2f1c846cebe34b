"""A sealed store: what is in the file is of no use without the key, and cannot be changed unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.pwhash import argon2id

from secagg import ParameterError
from secagg.store import MemoryStore, SealedStore, SqliteStore, StoreDamagedError, StoreError

KEY, SECRET = b"k" * 32, b"the seeds of a round, which nobody else may read"


def test_what_was_put_comes_back_and_is_not_in_the_file(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "client.db") as beneath:
        store = SealedStore(beneath, KEY)
        assert store.durable
        store.put({"a/1": SECRET, "a/2": b"", "b": b"x"})
        store.put({"b": None})
        assert [store.get(name) for name in ("a/1", "a/2", "b")] == [SECRET, b"", None]
        assert store.names("a/") == ["a/1", "a/2"]
        with pytest.raises(RuntimeError), store.transaction():
            store.put({"a/1": b"new"})
            raise RuntimeError
        assert store.get("a/1") == SECRET
        for path in tmp_path.iterdir():
            assert SECRET[:16] not in path.read_bytes()
        assert repr(store) == f"SealedStore({beneath!r})"
    with SqliteStore(tmp_path / "client.db") as beneath:
        assert SealedStore(beneath, KEY).get("a/1") == SECRET


def test_another_key_opens_nothing() -> None:
    beneath = MemoryStore()
    SealedStore(beneath, KEY).put({"a": SECRET})
    with pytest.raises(StoreError, match="another key, or changed"):
        SealedStore(beneath, b"x" * 32)


def test_a_value_does_not_stand_in_for_another() -> None:
    beneath = MemoryStore()
    store = SealedStore(beneath, KEY)
    store.put({"a": SECRET, "b": b"other"})
    beneath.put({"b": beneath.get("a")})
    with pytest.raises(StoreError, match="b: was sealed with another key, or changed"):
        store.get("b")
    assert store.get("a") == SECRET


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    beneath = MemoryStore()
    store = SealedStore(beneath, KEY)
    store.put({"a": SECRET})
    sealed = bytearray(beneath.get("a") or b"")
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    beneath.put({"a": bytes(sealed)})
    with pytest.raises(StoreError):
        store.get("a")
    beneath.put({"a": bytes(sealed[:at])})
    with pytest.raises(StoreError):
        store.get("a")


def test_values_in_the_clear_are_refused_or_sealed_on_demand() -> None:
    beneath = MemoryStore()
    beneath.put({"accepted/1": SECRET})
    with pytest.raises(StoreError, match="not sealed: begin with an empty one"):
        SealedStore(beneath, KEY)
    store = SealedStore(beneath, KEY, adopt=True)
    assert store.get("accepted/1") == SECRET
    assert SECRET not in (beneath.get("accepted/1") or b"")


def test_a_passphrase_is_a_key_with_a_salt_of_its_own() -> None:
    beneath, other = MemoryStore(), MemoryStore()
    weak = argon2id.MEMLIMIT_MIN  # the test is not about its cost
    SealedStore.with_passphrase(beneath, b"correct horse", memory=weak).put({"a": SECRET})
    assert SealedStore.with_passphrase(beneath, b"correct horse", memory=weak).get("a") == SECRET
    with pytest.raises(StoreError):
        SealedStore.with_passphrase(beneath, b"battery staple", memory=weak)
    SealedStore.with_passphrase(other, b"correct horse", memory=weak)
    assert other.get("sealed/salt") != beneath.get("sealed/salt")


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ParameterError, match="key: must be 32 bytes"):
        SealedStore(MemoryStore(), b"short")


def test_a_store_is_sealed_anew_when_the_key_was_rotated() -> None:
    beneath = MemoryStore()
    SealedStore(beneath, KEY).put({"a": SECRET})
    second, third = b"2" * 32, b"3" * 32
    assert SealedStore(beneath, second, former=[b"x" * 32, KEY]).get("a") == SECRET
    assert SealedStore(beneath, second, former=[b"x" * 32, KEY]).get("a") == SECRET  # once more
    assert SealedStore(beneath, third, former=[KEY, second]).get("a") == SECRET
    for key in (KEY, second):
        with pytest.raises(StoreDamagedError, match="another key"):
            SealedStore(beneath, key)


def test_values_in_the_clear_are_taken_over_only_by_who_says_so() -> None:
    beneath = MemoryStore()
    beneath.put({"accepted/1": b"by whoever can write the file"})
    with pytest.raises(StoreError, match="not sealed"):
        SealedStore(beneath, KEY)
    assert SealedStore(beneath, KEY, adopt=True).get("accepted/1") is not None
    assert beneath.get("accepted/1") != b"by whoever can write the file"
