"""Selecting a round's cohort from those who are online: as many as it takes, in fair turns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from secagg.params import Identity, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How many a round asks, and of whom (Bonawitz et al., MLSys 2019, sections 2.2 and 4.2).

    goal     uploads that are wanted: the round does not wait for more
    over     how many are asked for each that is wanted, since some drop out; 1.0 or more
    minimum  fewest with which a round is worth while, once `wait_s` has passed
    wait_s   how long to wait for all that are to be asked
    tags     what a client must have said of itself (`AggregationClient(tags=...)`)
    """

    goal: int
    over: float = 1.3
    minimum: int = 4
    wait_s: float = 60.0
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        require(self.goal >= 1, "goal", "at least 1", self.goal)
        require(1.0 <= self.over < math.inf, "over", "at least 1 and finite", self.over)
        require(1 <= self.minimum <= self.asked, "minimum", f"in 1..{self.asked}", self.minimum)
        require(0 <= self.wait_s < math.inf, "wait_s", "at least 0 and finite", self.wait_s)

    @property
    def asked(self) -> int:
        """The number of clients that are asked."""
        return math.ceil(self.goal * self.over)


def choose(
    online: Collection[Identity], served: Mapping[Identity, int], wanted: int, seed: bytes
) -> frozenset[Identity]:
    """Choose among those online who was selected least often so far; among equals, nobody chooses.

    served  how often each was selected; seed: fresh random bytes, which decide between equals
    """

    def turn(identity: Identity) -> tuple[int, bytes]:
        return served.get(identity, 0), hashlib.sha256(seed + identity).digest()

    return frozenset(sorted(online, key=turn)[:wanted])
