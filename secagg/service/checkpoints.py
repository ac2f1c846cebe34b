"""The states of a round's session in the spool: written there first, then named by the store."""

from __future__ import annotations

from secagg.protocol import ServerSession
from secagg.store import StoreError
from secagg.store.sql import Journal

_UPLOAD_BYTES = 256 << 20  # before the sum so far is kept: a restart adds no more again
_RATIO = 8  # and so many times the checkpoint itself


class Checkpoints:
    """Writes the checkpoints of a round, and knows when the next is worth while. Blocks."""

    def __init__(self, journal: Journal, round_id: bytes) -> None:
        self._journal, self._id = journal, round_id
        self._count = 0
        self._bytes = 0  # of the newest
        self._uploaded = 0  # since
        self.loose: str | None = None  # one that is spooled, and may not be the round's

    def write(self, session: ServerSession) -> str:
        """Spool a session as it is; returns the name. Raises StoreError."""
        self._count += 1
        snapshot = session.snapshot()
        # Named by the lease: a server that was only stopped must not write over what the next one keeps.
        self.loose = name = f"{self._id.hex()}.checkpoint{self._journal.epoch}-{self._count}"
        self._journal.keep(name, snapshot)
        self._bytes = len(snapshot)
        return name

    def read(self, name: str) -> bytes:
        """Return a checkpoint that the store names; later ones get other names. Raises StoreError."""
        self._count = max(self._count, int(name.rpartition("-")[2]))
        snapshot = bytes(self._journal.open(name))
        self._bytes, self._uploaded = len(snapshot), 0
        return snapshot

    def settled(self) -> None:
        """Note that the store names the newest one."""
        self.loose, self._uploaded = None, 0

    def uploaded(self, size: int) -> None:
        """Note that so many bytes were added since."""
        self._uploaded += size

    @property
    def due(self) -> bool:
        """Whether another one saves a restart more than it costs."""
        return self._uploaded >= max(_UPLOAD_BYTES, _RATIO * self._bytes)

    def drop_loose(self) -> None:
        """Remove one that the store does not name; where that fails it is swept later."""
        if self.loose is None:
            return
        try:
            kept = self._journal.find(self._id)
            if kept is None or kept.checkpoint != self.loose:
                self._journal.remove([self.loose])
        except StoreError:
            return
