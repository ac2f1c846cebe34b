from secagg.store import MemoryStore


def test_values_are_kept_replaced_and_removed() -> None:
    store = MemoryStore()
    store.put({"a/1": b"one", "a/2": b"two", "b": b""})
    assert store.get("a/1") == b"one"
    assert store.get("b") == b""
    assert store.names("a/") == ["a/1", "a/2"]
    store.put({"a/1": None, "a/2": b"new", "missing": None})
    assert store.get("a/1") is None
    assert store.get("a/2") == b"new"


def test_a_later_change_of_the_buffer_changes_nothing() -> None:
    store, buffer = MemoryStore(), bytearray(b"secret")
    store.put({"x": buffer})  # type: ignore[dict-item]
    buffer[:] = bytes(6)
    assert store.get("x") == b"secret"


def test_repr_shows_no_value() -> None:
    store = MemoryStore()
    store.put({"name": b"secret"})
    assert "secret" not in repr(store)
    assert "1 values" in repr(store)
