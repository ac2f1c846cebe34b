"""Bytes at rest: named values in transactions. Knows nothing of the protocol."""

from secagg.store.counter import Counter, StoredCounter
from secagg.store.memory import MemoryStore
from secagg.store.store import Store

__all__ = ["Counter", "MemoryStore", "Store", "StoredCounter"]
