"""Bytes at rest: named values in transactions. Knows nothing of the protocol."""

from secagg.store.memory import MemoryStore
from secagg.store.store import Store

__all__ = ["MemoryStore", "Store"]
