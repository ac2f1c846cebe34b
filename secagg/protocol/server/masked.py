"""The masked sum and what is needed to open it: handed from phase 2 on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import UIntArray
from secagg.messages import SealedContribution
from secagg.primitives.graph import Indices
from secagg.protocol.round import RoundView

Pair: TypeAlias = tuple[int, int]  # of roster indices: who sent or dealt something, and to whom


@dataclass(frozen=True, slots=True)
class Upload:
    """The record of an upload that was added: enough to prove it to the neighbors."""

    packed_digest: bytes
    complaints: frozenset[int]  # dealers whose share the uploader could not open
    signature: bytes


class Coverage:
    """The number of shares still missing for each secret that must be rebuilt."""

    __slots__ = ("_needed", "_short")

    def __init__(self, clients: int, dealers: Indices, threshold: int) -> None:
        self._needed = dealers
        self._short = np.full(clients, threshold, np.int32)

    def add(self, dealers: Indices) -> None:
        """Count a holder that can answer for these dealers."""
        self._short[dealers] -= 1

    @property
    def lacking(self) -> int:
        """Secrets with too few shares."""
        return int((self._short[self._needed] > 0).sum())


@dataclass(slots=True)
class Masked:
    """The masked sum over S, by roster index.

    kem_keys       hybrid: the ML-KEM mask keys; else nothing
    contributions  hybrid: to those of U1 that are not in S, by sender and receiver
    departures     hybrid: who left, and because of whose contributions
    """

    view: RoundView
    mask_keys: tuple[bytes, ...]
    commitments: dict[int, bytes]  # of U1
    finished: frozenset[int]  # U1
    uploads: dict[int, Upload]  # keys: S
    total: UIntArray = field(repr=False)
    kem_keys: tuple[bytes, ...] = ()
    contributions: dict[Pair, SealedContribution] = field(default_factory=dict, repr=False)
    departures: dict[int, frozenset[int]] = field(default_factory=dict)
    neighbors: Indices = field(init=False, repr=False)
    positions: Indices = field(init=False, repr=False)  # of each client among its neighbors' neighbors
    in_finished: NDArray[np.bool_] = field(init=False, repr=False)
    in_survivors: NDArray[np.bool_] = field(init=False, repr=False)
    finished_bitmap: bytes = field(init=False, repr=False)
    survivors_bitmap: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.neighbors, self.positions = self.view.graph.neighbors(), self.view.graph.positions()
        self.in_finished, self.in_survivors = (np.zeros(self.view.clients, bool) for _ in range(2))
        self.in_finished[list(self.finished)] = True
        self.in_survivors[list(self.uploads)] = True
        self.finished_bitmap = self.view.bitmap(self.finished)
        self.survivors_bitmap = self.view.bitmap(self.uploads.keys())

    @property
    def survivors(self) -> frozenset[int]:
        """S, by roster index."""
        return frozenset(self.uploads)

    def dealers_of(self, holder: int) -> Indices:
        """Neighbors in U1 whose share the holder has not complained about, ascending."""
        around: Indices = self.neighbors[holder]
        mine = self.in_finished[around]
        if complaints := self.uploads[holder].complaints:
            mine &= ~np.isin(around, list(complaints))
        dealers: Indices = around[mine]
        return dealers

    def needed_dealers(self) -> Indices:
        """Those of whom one secret must be rebuilt: S, and dropouts with a neighbor in S."""
        near = self.in_survivors[self.neighbors].any(axis=1)
        return np.flatnonzero(self.in_finished & (self.in_survivors | near)).astype(np.int32)
