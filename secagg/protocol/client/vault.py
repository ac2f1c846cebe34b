"""The shares that a client may reveal of its neighbors: one kind for each, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import NoReturn

from secagg.errors import LocalProtocolError
from secagg.params import Identity
from secagg.primitives.shamir import SHARE_BYTES

PAIR_BYTES = 2 * SHARE_BYTES


class ShareKind(Enum):
    """The secret that a share belongs to; the value is its place in the sealed pair (PROTOCOL.md, 4.1)."""

    MASK_KEY = 0
    SELF_SEED = 1


class Vault:
    """Both shares of every neighbor that dealt well, until one kind of it is released.

    A share leaves only through `release`, which erases it and the neighbor's other one: whatever happens
    later, in memory and in snapshots there is nothing left from which the second kind could be revealed.

    shares  the mask-key share, then the self-seed share, 80 bytes, by dealer
    """

    __slots__ = ("_pairs",)

    def __init__(self, shares: Mapping[Identity, bytes]) -> None:
        self._pairs = {dealer: bytearray(pair) for dealer, pair in sorted(shares.items())}

    def __contains__(self, dealer: object) -> bool:
        return dealer in self._pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def release(self, dealer: Identity, kind: ShareKind) -> bytes:
        """Take a share out, 40 bytes, and erase the dealer's other one.

        raises  LocalProtocolError when the dealer has none, or one was released before
        """
        pair = self._pairs.pop(dealer, None)
        if pair is None:
            raise LocalProtocolError(f"vault: nothing of {dealer.hex()[:12]} may be released (any more)")
        share = bytes(pair[SHARE_BYTES * kind.value :][:SHARE_BYTES])
        _zero(pair)
        return share

    def saved(self) -> Iterator[tuple[Identity, bytes]]:
        """Yield what is left, for the snapshot, which is secret."""
        return ((dealer, bytes(pair)) for dealer, pair in self._pairs.items())

    def wipe(self) -> None:
        """Erase everything."""
        for pair in self._pairs.values():
            _zero(pair)
        self._pairs.clear()

    def __repr__(self) -> str:
        return f"Vault(dealers={len(self)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Vault is not pickled")


def _zero(buffer: bytearray) -> None:
    buffer[:] = bytes(len(buffer))
