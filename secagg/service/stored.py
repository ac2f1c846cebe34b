"""What the store has of a round, whichever protocol it speaks: one way to end it, whatever ends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from secagg import audit
from secagg.effects import Aborted, Aggregate, Completed, Effect, Progress
from secagg.errors import LocalProtocolError, RoundAbortedError
from secagg.params import Buffer, Identity
from secagg.protocol import ServerSession
from secagg.protocol.oneshot import EdgeServer, OneShotProgress, OneShotServer
from secagg.registry import Registry
from secagg.service.clock import Clock
from secagg.service.events import (
    Event,
    Observer,
    RoundCompleted,
    RoundFailed,
    StoreFailed,
    TranscriptFailed,
    TranscriptSealed,
)
from secagg.service.kept import dump_failure, dump_result, load_failure
from secagg.service.transcripts import Recording, Transcripts
from secagg.store import ParticipationLedger, StoreDamagedError, StoreError
from secagg.store.sql import AuditLog, Journal, KeptRound, State
from secagg.transcript import total_digest

_Session = TypeVar("_Session", ServerSession, OneShotServer, EdgeServer)
OVER = Progress(None, 0, 0, 0, ready=False, missing=frozenset())
_GIVEN_UP = "given up"
DAMAGED = "what was kept of it cannot be read any more"  # to clients; what and where is the operator's


class Standing(Enum):
    """What became of a client's frame."""

    TAKEN = "taken, and kept"
    STANDS = "was taken before, or cannot be now: nothing changed"
    REFUSED = "failed its checks"
    LOST = "the store failed: it is asked for again"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A frame of an authenticated client, at hand or in the spool."""

    sender: Identity
    frame: bytes | None
    spooled: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a round ended. receipt: that the audit log has it, or nothing."""

    result: Aggregate | RoundAbortedError
    receipt: bytes = b""


@dataclass(slots=True)
class Step:
    """What a step leads to, for the event loop. up: bytes that were taken; end: when the round is over."""

    effects: list[Effect] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    up: int = 0
    end: Ended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the rounds of a run share. executor: for what takes long or waits for the disk."""

    registry: Callable[[], Registry]  # as it is now
    clock: Clock
    journal: Journal
    ledger: ParticipationLedger
    observer: Observer
    transcripts: Transcripts | None
    audit: AuditLog | None
    executor: Executor
    tidy: Callable[[], None]  # overwrites what a round has left in the database


class StoredRound(ABC, Generic[_Session]):
    """A round between its session and the store. For a thread, one step at a time.

    payload  what the round is about
    kept     whether the store has the round; else it is a new one, of `ticket`
    known    the same, as it is now
    """

    def __init__(
        self, round_id: bytes, services: Services, payload: Buffer, *, kept: bool, ticket: bytes
    ) -> None:
        self.known = kept
        self._services, self._journal = services, services.journal
        self._id, self._name = round_id, round_id.hex()
        self._payload, self._ticket = payload, ticket
        self._session: _Session | None = None
        self._recording: Recording | None = None

    @property
    def live(self) -> bool:
        """Whether there is a session at the moment."""
        return self._session is not None

    @property
    def progress(self) -> Progress | OneShotProgress:
        """Of the session."""
        return OVER if self._session is None else self._session.progress

    @property
    def _live(self) -> _Session:
        if self._session is None:
            raise LocalProtocolError("the round has no session at the moment")
        return self._session

    def open(self) -> Step:
        """Begin the round, or make its session anew from what the store holds.

        raises  StoreError; StoreDamagedError: waiting does not mend it; a new one: InfeasibleParameters,
                LedgerError, ParameterError: there is no ML-KEM here, and it needs it
        """
        if not self.known:
            return self._begin()
        kept = self._journal.find(self._id)
        if kept is None:
            raise StoreDamagedError(f"round {self._name}: the store does not have it any more")
        if kept.state is not State.OPEN:  # it was kept, though the store said it failed
            return self._ended_before(kept, Step())
        return self._resume(kept)

    # --- what a protocol brings

    @abstractmethod
    def _begin(self) -> Step:
        """Begin a new round: the store has it, or nothing is left of it. Raises StoreError and more."""

    @abstractmethod
    def _resume(self, kept: KeptRound) -> Step:
        """Make the session anew. Raises StoreError, StoreDamagedError."""

    @abstractmethod
    def take(self, batch: Sequence[Incoming]) -> Step:
        """Feed frames; those that are taken are kept, all of them in one transaction. Raises StoreError."""

    @abstractmethod
    def close_phase(self) -> Step:
        """Leave the phase: what follows from it is kept before anybody hears of it. Raises StoreError."""

    @staticmethod
    @abstractmethod
    def loaded(kept: KeptRound, total: Buffer) -> Aggregate:
        """Read the result of a round that was completed. Raises StoreDamagedError."""

    @abstractmethod
    def _released(self, result: Aggregate) -> None:
        """Tell the ledger of a sum, before anybody sees it."""

    def forget_session(self) -> None:
        """Throw the session away: what it took and the store did not must not count."""
        if self._recording is not None:
            self._recording.close()
        self._session = self._recording = None

    def leave(self, spooled: Iterable[str | None]) -> None:
        """Let go of everything; what was spooled for the round and is not kept goes."""
        self.forget_session()
        self.discard(spooled)

    def _seal(self, step: Step) -> bytes:
        """Return the address of the complete transcript; nothing: there is none."""
        try:
            sealed = None if self._recording is None else self._recording.seal()
        except OSError as error:
            step.events.append(TranscriptFailed(self._id, str(error)))
            return b""
        if sealed is None:
            return b""
        step.events.append(TranscriptSealed(self._id, *sealed))
        return sealed[1]

    def _forget_record(self) -> None:
        """Remove the transcript of a round that did not come to its end; where that fails it lies there."""
        if self._services.transcripts is not None:
            try:
                self._services.transcripts.discard(self._id)
            except OSError:
                return

    # --- ending

    def give_up(self, why: str) -> Step:
        """End a round that cannot go on, or that nobody waits for; one that has ended stays as it did.

        raises  StoreError, LeaseLostError
        """
        step, failure = Step(), given_up(why)
        self.forget_session()
        kept = self._journal.find(self._id) if self.known else None
        if kept is not None and kept.state is not State.OPEN:
            return self._ended_before(kept, step)
        self._forget_record()
        if kept is None:
            self._remove_rest(step)
            step.end = Ended(failure)
        else:
            self._end(step, failure)
        return step

    def _end(self, step: Step, result: Aggregate | RoundAbortedError) -> None:
        """Keep how the round ended, and forget what it was made of."""
        services = self._services
        step.events.append(self._told(result))
        if isinstance(result, Aggregate):
            outcome, total = dump_result(result)
            self._journal.keep(f"{self._name}.total", total)
            state = State.COMPLETED
        else:
            outcome, state = dump_failure(result), State.ABORTED
        transcript = self._seal(step)
        with self._journal.transaction():
            if isinstance(result, Aggregate):
                self._released(result)
            self._journal.end(self._id, state, outcome, services.clock.wall())
            receipt = self._audited(result, transcript)
        step.end = Ended(result, receipt)  # it leaves only now that the log has it
        self._remove_rest(step)

    def _ended_before(self, kept: KeptRound, step: Step) -> Step:
        """Take the end of the round that the store has."""
        try:
            step.end = ended(kept, self._journal, self._services.audit, self.loaded)
        except StoreDamagedError as error:
            step.events.append(StoreFailed(self._id, str(error)))
            step.end = Ended(given_up(DAMAGED))
        step.events.append(self._told(step.end.result))
        self._remove_rest(step)
        return step

    def _told(self, result: Aggregate | RoundAbortedError) -> Event:
        if isinstance(result, Aggregate):
            suspects = self._names(blame.client for blame in result.blamed)
            return RoundCompleted(self._id, self._names(result.survivors), suspects)
        return RoundFailed(
            self._id, str(result.reason), result.detail, self._names(map(Identity, result.blamed))
        )

    def _audited(self, result: Aggregate | RoundAbortedError, transcript: bytes) -> bytes:
        """Write the round into the audit log; returns its receipt."""
        log, place = self._services.audit, self._journal.place
        if log is None:
            return b""
        if isinstance(result, Aggregate):
            entry = audit.Round.completed(
                place,
                self._id,
                total_digest=total_digest(result.total),
                survivors=result.survivors,
                transcript=transcript,
            )
        else:
            entry = audit.Round.aborted(place, self._id, reason=str(result), transcript=transcript)
        return audit.dump_receipt(log.append(entry))

    def _remove_rest(self, step: Step) -> None:
        """Remove all but the sum, and overwrite it where we can; what fails is swept later."""
        try:
            left = self._journal.names_of(self._id)
            self._journal.remove(name for name in left if not name.endswith(".total"))
            self._services.tidy()
        except StoreError as error:
            step.events.append(StoreFailed(self._id, str(error)))

    def _finish(self, step: Step) -> None:
        """Keep how the session ended."""
        match step.effects[-1]:
            case Completed(result=Aggregate() as result):
                self._end(step, result)
            case Aborted(reason=reason, blamed=blamed, detail=detail) as end:
                self._end(step, RoundAbortedError(reason, detail, blamed, end.guilty, end.likely))
            case _:
                raise LocalProtocolError("a round ends with a result or a reason")

    def _is_there(self) -> bool:
        try:
            return self._journal.find(self._id) is not None
        except StoreError:
            return False

    def _recall(self) -> None:
        """Forget that the round was announced; where that fails it is swept later."""
        try:
            self._journal.recall(self._id)
        except StoreError:
            return

    def _frame_of(self, arrived: Incoming) -> Buffer:
        if arrived.frame is None and arrived.spooled is not None:
            return self._journal.open(arrived.spooled)
        return arrived.frame or b""

    # --- what observers are told, and what is thrown away

    def discard(self, spooled: Iterable[str | None]) -> None:
        """Remove what was spooled and is not kept; where that fails it is swept later."""
        try:
            self._journal.remove(name for name in spooled if name is not None)
        except StoreError:
            return

    def _names(self, identities: Iterable[Identity]) -> tuple[str, ...]:
        registry = self._services.registry()
        return tuple(sorted(registry.name_of(identity) for identity in identities))


def ended(
    kept: KeptRound, journal: Journal, log: AuditLog | None, loaded: Callable[[KeptRound, Buffer], Aggregate]
) -> Ended:
    """Return how a round ended. Raises StoreError; StoreDamagedError: its sum is gone."""
    receipt = None if log is None else log.receipt_of(kept.round_id)
    shown = b"" if receipt is None else audit.dump_receipt(receipt)
    if kept.state is State.ABORTED:
        return Ended(load_failure(kept.outcome), shown)
    return Ended(loaded(kept, journal.open(f"{kept.round_id.hex()}.total")), shown)


def given_up(why: str) -> RoundAbortedError:
    """Return how a round ends that is not gone on with."""
    return RoundAbortedError(_GIVEN_UP, why)
