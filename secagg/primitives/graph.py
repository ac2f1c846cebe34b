"""The neighbor graph: a Harary graph over a circle in random order (Bell et al., CCS 2020, section 3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.primitives.labels import digests

Indices = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class NeighborGraph:
    """The neighbors of every client. Clients are roster indices 0..n-1, in the order of their identities."""

    degree: int
    circle: tuple[int, ...]  # indices in the order of their places

    @classmethod
    def build(cls, roster_digest: bytes, identities: Sequence[bytes], degree: int) -> NeighborGraph:
        """Place every identity by H("place", roster_digest, identity)."""
        places = digests("place", roster_digest, identities, 32)
        return cls(degree, tuple(sorted(range(len(places)), key=places.__getitem__)))

    @property
    def complete(self) -> bool:
        """Return whether every client is a neighbor of every other."""
        return self.degree == len(self.circle) - 1

    def neighbors(self) -> Indices:
        """Return the neighbors of each index, (n, k), every row ascending."""
        n = len(self.circle)
        if self.complete:
            others = np.arange(n - 1, dtype=np.int32)
            return others + (others >= np.arange(n, dtype=np.int32)[:, None])
        half, circle = self.degree // 2, np.array(self.circle, np.int32)
        offsets = np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)])
        out = np.empty((n, self.degree), np.int32)
        out[circle] = np.sort(circle[(np.arange(n)[:, None] + offsets) % n], axis=1)
        return out

    def positions(self) -> Indices:
        """Return where each index stands among its neighbors' neighbors, (n, k).

        positions()[i, j] is the place of i in the row of i's j-th neighbor: a holder's point, less one.
        """
        n, k = len(self.circle), self.degree
        neighbors = self.neighbors()
        own = np.arange(n, dtype=np.int32)[:, None]
        if self.complete:
            return own - (own > neighbors)
        # Sorted by neighbor, then by index, the edges are the rows of the neighbors one after the other.
        order = np.lexsort((np.repeat(own.ravel(), k), neighbors.ravel()))
        out = np.empty(n * k, np.int32)
        out[order] = np.arange(n * k, dtype=np.int32) % k
        return out.reshape(n, k)

    def neighbors_of(self, index: int) -> tuple[int, ...]:
        """Return the neighbors of one index, ascending."""
        if self.complete:
            return tuple(j for j in range(len(self.circle)) if j != index)
        return self._around(self.circle.index(index))

    def _around(self, place: int) -> tuple[int, ...]:
        n, half = len(self.circle), self.degree // 2
        offsets = [*range(-half, 0), *range(1, half + 1)]
        return tuple(sorted(self.circle[(place + offset) % n] for offset in offsets))

    def widest_gap_holds(self, survivors: Collection[int]) -> int:
        """Fewest survivors among any degree // 2 successive places of the circle."""
        present = [index in survivors for index in self.circle]
        half = self.degree // 2
        held = fewest = sum(present[:half])
        for place in range(len(present)):
            held += present[(place + half) % len(present)] - present[place]
            fewest = min(fewest, held)
        return fewest
