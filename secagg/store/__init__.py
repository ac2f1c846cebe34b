"""Bytes at rest: named values in transactions. Knows nothing of the protocol."""

from secagg.store.advice import Advice
from secagg.store.concerns import Concern, ConcernKind, LedgerError, Reaction
from secagg.store.counter import Counter, StoredCounter
from secagg.store.deal import cells, deal, is_cell
from secagg.store.errors import (
    LeaseLostError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreGoneError,
)
from secagg.store.files import move_into_place, replace_file, sync_file, sync_folder
from secagg.store.folder import FolderStore
from secagg.store.ids import StoredIds
from secagg.store.ledger import Participation, ParticipationLedger
from secagg.store.lock import FileLock
from secagg.store.mapping import MappingStore
from secagg.store.memory import MemoryStore
from secagg.store.rule import DEALT, floor_for
from secagg.store.sealed import SealedStore
from secagg.store.sqlite import SqliteStore
from secagg.store.store import Store

__all__ = [
    "DEALT",
    "Advice",
    "Concern",
    "ConcernKind",
    "Counter",
    "FileLock",
    "FolderStore",
    "LeaseLostError",
    "LedgerError",
    "MappingStore",
    "MemoryStore",
    "Participation",
    "ParticipationLedger",
    "Reaction",
    "SealedStore",
    "SqliteStore",
    "Store",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreGoneError",
    "StoredCounter",
    "StoredIds",
    "cells",
    "deal",
    "floor_for",
    "is_cell",
    "move_into_place",
    "replace_file",
    "sync_file",
    "sync_folder",
]
