"""The revealed shares of a round, in one array."""

from __future__ import annotations

import numpy as np

from secagg.messages import Octets
from secagg.primitives.graph import Indices
from secagg.primitives.shamir import LIMBS, SHARE_BYTES, Words


class Answers:
    """Shares by holder and by the dealer's place among the holder's neighbors.

    neighbors, positions  of the graph, (n, k)
    """

    __slots__ = ("_given", "_holders", "_neighbors", "_positions", "_words")

    def __init__(self, neighbors: Indices, positions: Indices) -> None:
        self._neighbors, self._positions = neighbors, positions
        self._words = np.zeros((*neighbors.shape, LIMBS), np.uint64)  # pages are taken as answers come
        self._given = np.zeros(neighbors.shape, bool)
        self._holders: dict[int, None] = {}  # in the order they came

    @property
    def holders(self) -> frozenset[int]:
        """The holders that have answered, by roster index."""
        return frozenset(self._holders)

    def add(self, holder: int, dealers: Indices, shares: Octets) -> None:
        """Keep what a holder revealed about some of its neighbors: shares (m, 40) of dealers (m,)."""
        places = np.searchsorted(self._neighbors[holder], dealers)
        words = np.ascontiguousarray(shares).view("<u8").astype(np.uint64, copy=False)
        self._words[holder, places] = words.reshape(-1, LIMBS)
        self._given[holder, places] = True
        self._holders[holder] = None

    def of_holder(self, holder: int) -> tuple[Indices, Octets]:
        """Return the dealers (m,), ascending, and the shares (m, 40) that a holder revealed."""
        given = self._given[holder]
        words = self._words[holder, given].astype("<u8")
        return self._neighbors[holder, given], words.view(np.uint8).reshape(-1, SHARE_BYTES)

    def of_dealer(self, dealer: int) -> tuple[Indices, Words, Words]:
        """Return the holders (m,) that revealed a share of a dealer, their points (m,), the shares (m, 5).

        A holder's point is 1 + its place among all the dealer's neighbors.
        """
        holders, places = self._neighbors[dealer], self._positions[dealer]
        given = self._given[holders, places]
        points = (1 + np.flatnonzero(given)).astype(np.uint64)
        return holders[given], points, self._words[holders[given], places[given]]

    def wipe(self) -> None:
        """Forget the shares."""
        self._words[self._given] = 0

    def __repr__(self) -> str:
        return f"Answers(holders={len(self._holders)})"
