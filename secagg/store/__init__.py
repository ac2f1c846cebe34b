"""Bytes at rest: named values in transactions. Knows nothing of the protocol."""

from secagg.store.advice import Advice
from secagg.store.concerns import Concern, ConcernKind, LedgerError, Reaction
from secagg.store.counter import Counter, StoredCounter
from secagg.store.deal import cells, deal, is_cell
from secagg.store.errors import StoreBusyError, StoreError, StoreFullError
from secagg.store.ledger import Participation, ParticipationLedger
from secagg.store.lock import FileLock
from secagg.store.memory import MemoryStore
from secagg.store.rule import DEALT, floor_for
from secagg.store.sqlite import SqliteStore
from secagg.store.store import Store

__all__ = [
    "DEALT",
    "Advice",
    "Concern",
    "ConcernKind",
    "Counter",
    "FileLock",
    "LedgerError",
    "MemoryStore",
    "Participation",
    "ParticipationLedger",
    "Reaction",
    "SqliteStore",
    "Store",
    "StoreBusyError",
    "StoreError",
    "StoreFullError",
    "StoredCounter",
    "cells",
    "deal",
    "floor_for",
    "is_cell",
]
