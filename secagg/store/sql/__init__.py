"""The service's store: SQL in one SQLite file or a PostgreSQL database, and a spool for what is large."""

from secagg.store.sql.database import Database
from secagg.store.sql.journal import Journal, Kept, KeptRound, State, purge, sweep_unknown
from secagg.store.sql.leases import Lease, Leases
from secagg.store.sql.log import AuditChangedError, AuditLog
from secagg.store.sql.packed import SpooledPacked
from secagg.store.sql.spool import (
    DatabaseSpool,
    FolderSpool,
    MemorySpool,
    Spool,
    SpoolError,
    SpoolMissingError,
    SpoolWriter,
    spool_of,
)

__all__ = [
    "AuditChangedError",
    "AuditLog",
    "Database",
    "DatabaseSpool",
    "FolderSpool",
    "Journal",
    "Kept",
    "KeptRound",
    "Lease",
    "Leases",
    "MemorySpool",
    "Spool",
    "SpoolError",
    "SpoolMissingError",
    "SpoolWriter",
    "SpooledPacked",
    "State",
    "purge",
    "spool_of",
    "sweep_unknown",
]
