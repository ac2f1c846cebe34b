"""Bytes at rest: named values in transactions. Knows nothing of the protocol."""

from secagg.store.counter import Counter, StoredCounter
from secagg.store.errors import StoreBusyError, StoreError, StoreFullError
from secagg.store.ledger import Concern, ConcernKind, LedgerError, ParticipationLedger, Reaction
from secagg.store.memory import MemoryStore
from secagg.store.sqlite import SqliteStore
from secagg.store.store import Store

__all__ = [
    "Concern",
    "ConcernKind",
    "Counter",
    "LedgerError",
    "MemoryStore",
    "ParticipationLedger",
    "Reaction",
    "SqliteStore",
    "Store",
    "StoreBusyError",
    "StoreError",
    "StoreFullError",
    "StoredCounter",
]
