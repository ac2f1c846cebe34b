"""The masked sum and what is needed to open it: handed from phase 2 on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from secagg.kernels import UIntArray
from secagg.protocol.round import RoundView


@dataclass(frozen=True, slots=True)
class Upload:
    """What is kept of an upload once it is added: enough to prove it to the neighbors."""

    packed_digest: bytes
    complaints: frozenset[int]  # dealers whose share the uploader could not open
    signature: bytes


class Coverage:
    """How many more shares each secret that must be rebuilt needs."""

    __slots__ = ("_short", "_waiting")

    def __init__(self, dealers: list[int], threshold: int) -> None:
        self._short = dict.fromkeys(dealers, threshold)
        self._waiting = len(dealers)

    def add(self, dealers: Iterable[int]) -> None:
        """Count a holder that can answer for these dealers."""
        for dealer in dealers:
            if dealer in self._short:
                self._short[dealer] -= 1
                self._waiting -= self._short[dealer] == 0

    @property
    def lacking(self) -> int:
        """Secrets with too few shares."""
        return self._waiting


@dataclass(slots=True)
class Masked:
    """The masked sum over S, by roster index."""

    view: RoundView
    mask_keys: tuple[bytes, ...]
    commitments: dict[int, bytes]  # of U1
    finished: frozenset[int]  # U1
    uploads: dict[int, Upload]  # keys: S
    total: UIntArray = field(repr=False)
    neighbors: list[tuple[int, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.neighbors = self.view.graph.neighbors()

    @property
    def survivors(self) -> frozenset[int]:
        return frozenset(self.uploads)

    def finished_bitmap(self) -> bytes:
        return self.view.bitmap(self.finished)

    def survivors_bitmap(self) -> bytes:
        return self.view.bitmap(self.uploads.keys())

    def dealers_of(self, holder: int) -> list[int]:
        """Neighbors in U1 whose share the holder has not complained about, ascending."""
        complaints = self.uploads[holder].complaints
        return [i for i in self.neighbors[holder] if i in self.finished and i not in complaints]

    def needed_dealers(self) -> list[int]:
        """Those of whom one secret must be rebuilt: S, and dropouts with a neighbor in S."""
        return sorted(
            dealer
            for dealer in self.finished
            if dealer in self.uploads or any(i in self.uploads for i in self.neighbors[dealer])
        )
