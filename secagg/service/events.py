"""Events for observers of the service: public facts of a round, for progress lines, logs and histories."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from secagg.params import Phase
from secagg.params_oneshot import EpochPhase, OneShotPhase


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round has begun."""

    round_id: bytes
    vector_length: int
    ring_bits: int


@dataclass(frozen=True, slots=True)
class PhaseDone:
    """A phase was closed; bytes are those of this phase, names those of the registry."""

    round_id: bytes
    phase: Phase | EpochPhase | OneShotPhase
    answered: int
    expected: int
    dropped: tuple[str, ...]
    bytes_up: int
    bytes_down: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UploadTaken:
    """A masked vector was added: all that the server ever sees of it are numbers such as its first ones."""

    round_id: bytes
    client: str
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartialSumTaken:
    """The partial sum of an edge was added, with the uploads of these clients."""

    round_id: bytes
    edge: str
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A client's message failed a check."""

    round_id: bytes
    client: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RoundCompleted:
    """The server has the sum."""

    round_id: bytes
    survivors: tuple[str, ...]
    suspects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """The round ended without a result."""

    round_id: bytes
    reason: str
    detail: str
    suspects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LedgerNoted:
    """The participation ledger warns, or leaves clients out of a round."""

    round_id: bytes
    concern: str
    detail: str
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TranscriptSealed:
    """The record of the round is complete."""

    round_id: bytes
    file: str
    address: bytes  # of the transcript, 32 bytes


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    """The record of the round could not be written; the round went on without it."""

    round_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class RoundResumed:
    """A round goes on from the store: its server was started again, or the store failed and came back."""

    round_id: bytes
    phase: Phase | EpochPhase | OneShotPhase
    taken: int  # messages of this phase that stand


@dataclass(frozen=True, slots=True)
class MessageLost:
    """A message that was taken could not be read again; its client is asked once more."""

    round_id: bytes
    client: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommitteeReady:
    """An epoch of the one-upload protocol has its committee.

    round_id   of the epoch
    threshold  T: so many members together learn nothing
    losses     L: so many may be lost before another one is formed
    """

    round_id: bytes
    members: tuple[str, ...]
    threshold: int
    losses: int


@dataclass(frozen=True, slots=True)
class CommitteeFailed:
    """There is no committee yet, and why; it is tried again. No id: too few decryptors are connected."""

    round_id: bytes  # of the epoch
    reason: str


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store takes nothing at the moment: the round waits, nothing new is begun. No id: all of the run."""

    round_id: bytes
    reason: str


Event: TypeAlias = (
    RoundOpened
    | PhaseDone
    | UploadTaken
    | PartialSumTaken
    | MessageRefused
    | RoundCompleted
    | RoundFailed
    | LedgerNoted
    | TranscriptSealed
    | TranscriptFailed
    | RoundResumed
    | MessageLost
    | CommitteeReady
    | CommitteeFailed
    | StoreFailed
)
Observer: TypeAlias = Callable[[Event], None]
_log = logging.getLogger(__name__)


def guarded(observer: Observer) -> Observer:
    """Return an observer that raises nothing: a round must not end of it."""

    def observe(event: Event) -> None:
        try:
            observer(event)
        except Exception:  # noqa: BLE001 - whatever somebody makes of it
            _log.exception("an observer failed at %s", type(event).__name__)

    return observe


def ignore(_event: Event) -> None:
    """Observe nothing."""
