"""Errors of bytes at rest."""

from __future__ import annotations

from secagg.errors import SecAggError


class StoreError(SecAggError):
    """A store cannot be opened, read or written; the message names the file and the reason."""


class StoreBusyError(StoreError):
    """Another process, or another store of this one, has the file."""


class StoreFullError(StoreError):
    """There is no room; nothing of the transaction was kept."""
