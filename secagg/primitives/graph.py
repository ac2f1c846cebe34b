"""The neighbor graph: a Harary graph over a circle in random order (Bell et al., CCS 2020, section 3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from secagg.primitives.labels import digest


@dataclass(frozen=True, slots=True)
class NeighborGraph:
    """Who is whose neighbor. Clients are roster indices 0..n-1, in the order of their identities."""

    degree: int
    circle: tuple[int, ...]  # indices in the order of their places

    @classmethod
    def build(cls, roster_digest: bytes, identities: Sequence[bytes], degree: int) -> NeighborGraph:
        """Place every identity by H("place", roster_digest, identity)."""
        places = [digest("place", roster_digest, identity) for identity in identities]
        return cls(degree, tuple(sorted(range(len(places)), key=places.__getitem__)))

    @property
    def complete(self) -> bool:
        """Everybody is everybody's neighbor."""
        return self.degree == len(self.circle) - 1

    def neighbors(self) -> list[tuple[int, ...]]:
        """Return the neighbors of each index, ascending."""
        n = len(self.circle)
        if self.complete:
            return [tuple(j for j in range(n) if j != i) for i in range(n)]
        out: list[tuple[int, ...]] = [()] * n
        for place, index in enumerate(self.circle):
            out[index] = self._around(place)
        return out

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
