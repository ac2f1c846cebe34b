"""Masked vectors of the one-upload protocol in a spool: they outlive a server, and no round."""

from __future__ import annotations

from secagg.params import Buffer, require
from secagg.store.errors import StoreError
from secagg.store.sql.spool import Spool


class SpooledPacked:
    """The vectors of one round: a `PackedStore` of `OneShotServer`, durable where its spool is.

    spool     may be that of other rounds, too
    round_id  16 bytes
    failure   why vectors of a round that is over are still there; call `clear` again
    """

    def __init__(self, spool: Spool, round_id: bytes) -> None:
        require(len(round_id) == 16, "round_id", "16 bytes", len(round_id))
        self.failure: StoreError | None = None
        self._spool, self._round = spool, round_id.hex()

    def put(self, digest: bytes, packed: Buffer) -> None:
        """Keep a vector, durably. Raises SpoolError, StoreFullError: it is not kept then."""
        writer = self._spool.create(self._name(digest))
        try:
            writer.write(packed)
            writer.commit()
        except BaseException:
            writer.abandon()
            raise

    def get(self, digest: bytes) -> Buffer:
        """Return a vector. Raises SpoolError."""
        return self._spool.open(self._name(digest))

    def clear(self) -> None:
        """Remove the vectors of the round, and what a killed server left of some."""
        try:
            self._spool.sweep({self._round})
            self._spool.remove(name for name in self._spool.names() if name.startswith(f"{self._round}."))
            self.failure = None
        except StoreError as error:  # the sum is there all the same
            self.failure = error

    def _name(self, digest: bytes) -> str:
        return f"{self._round}.{digest.hex()}"

    def __repr__(self) -> str:
        return f"SpooledPacked({self._round}, {self._spool!r})"
