"""The objections of a ledger, and their wording."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from secagg.errors import SecAggError

Reaction: TypeAlias = Literal["refuse", "warn"]


class ConcernKind(StrEnum):
    """The dangers that the ledger watches for."""

    DIFFERENCING = "with other sums it could show too few members"
    TOO_FEW = "a sum over too few members"
    COHORT = "another cohort was agreed on"
    REPEATED = "a vector of a round without result is submitted again"
    TOO_OFTEN = "too many rounds in a day"


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that should not be summed."""

    kind: ConcernKind
    clients: tuple[bytes, ...]  # in whose interest it is, ascending
    detail: str


class LedgerError(SecAggError):
    """The ledger refuses; `concerns` say why."""

    def __init__(self, concerns: Collection[Concern]) -> None:
        self.concerns = tuple(concerns)
        super().__init__("; ".join(f"{concern.kind}: {concern.detail}" for concern in self.concerns))
