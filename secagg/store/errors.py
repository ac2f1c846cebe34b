"""Errors of bytes at rest."""

from __future__ import annotations

from secagg.errors import SecAggError


class StoreError(SecAggError):
    """A store cannot be opened, read or written; the message names it and the reason."""


class StoreBusyError(StoreError):
    """Another process, or another store of this one, has the file."""


class StoreFullError(StoreError):
    """There is no room; nothing of the transaction was kept."""


class StoreGoneError(StoreError):
    """The file vanished, or the database cannot be reached; it may come back."""


class StoreDamagedError(StoreError):
    """What was kept is gone, or is something else: waiting does not mend it."""


class LeaseLostError(StoreError):
    """Another server leads here by now; nothing of the transaction was kept."""
