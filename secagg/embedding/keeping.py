"""What a client keeps of a round, in the one right order: before a frame leaves, and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from secagg.effects import Effect, RosterAccepted, Send
from secagg.errors import ParameterError
from secagg.params import ROUND_ID_BYTES, Entropy, Identity, Phase, Policy, RoundParameters, Signer
from secagg.protocol import ClientSession
from secagg.store import Concern, Counter, LedgerError, ParticipationLedger, Store, StoredIds, floor_for

_ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Question:
    """The question of a round, as far as the ledger must know it; the same for everybody who is asked.

    subject  names a kind of question about the same data, 32 bytes
    cohort   among whom it is asked, in whole cells; None: one sum, or the same members every time
    floor    fewest members of a cell; 0: `floor_for` the cohort
    """

    subject: bytes
    cohort: frozenset[bytes] | None = None
    floor: int = 0


class RoundForgottenError(ParameterError):
    """The round was begun, and what it needs is not here any more: nobody may begin it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a client brings to every round.

    resumes  whether the store keeps the secrets of a round, to go on with it; it must be sealed then
    wall     seconds since 1970
    """

    signer: Signer
    policy: Policy
    entropy: Entropy = field(repr=False)
    store: Store = field(repr=False)
    counter: Counter = field(repr=False)
    ledger: ParticipationLedger = field(repr=False)
    wall: Callable[[], float]
    resumes: bool
    threads: int = 1


class KeptRound:
    """A client's session of one round, and what is kept of it. Not thread-safe.

    means  what the client brings
    name   of what is kept, in the store: NAME/session, NAME/upload, NAME/subject

    The order is what protects: first the ledger learns that a vector leaves, then the counter rises, then the
    snapshot is kept, and only then a frame is released. Of processes that make the same step one passes the
    counter, and only its snapshot ever exists. Counter and snapshot are one transaction where the counter is
    in the same store; where it is elsewhere, a process that ends between the two loses the round, not more.
    """

    def __init__(self, means: Means, name: str) -> None:
        self._means, self.name = means, name
        self.session: ClientSession | None = None
        self.subject = b""
        self.admitted = False  # the counter was asked about this round
        self._released = 0  # steps of the session that were counted

    @property
    def parameters(self) -> RoundParameters | None:
        """Those of the round, once accepted."""
        return None if self.session is None else self.session.parameters

    @property
    def released(self) -> int:
        """The steps of the session that were kept; 0 before the first."""
        return self._released

    def begin(self, context: bytes | None) -> ClientSession:
        """Make a session for a round about this context."""
        means = self._means
        self.session = ClientSession(
            signer=means.signer,
            context=context,
            policy=means.policy,
            entropy=means.entropy,
            seen=StoredIds(means.store, _ACCEPTED),
            threads=means.threads,
        )
        self.subject, self.admitted, self._released = b"", False, 0
        return self.session

    def restore(self, *, context: bytes | None = None) -> list[Effect] | None:
        """Take the round up as it was when something was last released; None: nothing is kept.

        context  that the round must be about
        returns  the effects that the session has not settled, see `ClientSession.restore`
        raises   ParameterError: it cannot be gone on with (StaleSnapshotError: more was released since);
                 StoreError
        """
        means = self._means
        kept = means.store.get(f"{self.name}/session")
        if kept is None:
            return None
        round_id, snapshot = kept[:ROUND_ID_BYTES], kept[ROUND_ID_BYTES:]
        session, effects = ClientSession.restore(
            snapshot,
            upload=means.store.get(f"{self.name}/upload"),
            signer=means.signer,
            policy=means.policy,
            seen=StoredIds(means.store, _ACCEPTED),
            threads=means.threads,
            releases=means.counter.value(counter_name(round_id)),
        )
        if session.parameters is None or (context is not None and session.parameters.context != context):
            raise ParameterError("snapshot: of a round about something else")
        self.session, self.admitted, self._released = session, True, session.releases
        self.subject = means.store.get(f"{self.name}/subject") or b""
        return effects

    def check_begun(self) -> None:
        """Raise RoundForgottenError for a round that we have begun before; once."""
        parameters = self.parameters
        if parameters is None or self.admitted:
            return
        if self._means.counter.value(counter_name(parameters.round_id)):  # the session that began it is gone
            raise RoundForgottenError("we were in this round before, and have forgotten its secrets")
        self.admitted = True

    def ask_ledger(self, question: Question) -> tuple[Concern, ...]:
        """Ask the ledger whether we take part; whether a sum came out before only the server knows.

        returns  what the ledger warns of
        raises   LedgerError
        """
        means, parameters = self._means, self.parameters
        if parameters is None:
            return ()
        me = means.signer.identity
        self.subject, cohort = question.subject, question.cohort
        floor = question.floor or floor_for(parameters.threat_model, len(cohort or ()))
        concerns = means.ledger.join(self.subject, cohort=cohort, floor=floor)
        concerns += means.ledger.check_clients(self.subject, [me])
        if often := means.ledger.too_often([me], means.wall()):
            raise LedgerError(often)
        return concerns

    def keep(self, effects: list[Effect], more: Mapping[str, bytes] | None = None) -> None:
        """Keep what must not be forgotten before these effects are carried out.

        more    to be kept in the same transaction as a snapshot, where the round is resumed
        raises  StoreError; ParameterError: another process made this step before; LedgerError: our vector was
                spent in the other protocol meanwhile; nothing may be released
        """
        means, session, parameters = self._means, self.session, self.parameters
        if session is None or parameters is None or session.releases == self._released:
            return  # nothing new: it is sent again
        name = counter_name(parameters.round_id)
        new_frame = any(isinstance(effect, Send) for effect in effects)
        if new_frame and session.answered_phase is Phase.MASKED_INPUT_COLLECTION:
            # First: once the snapshot is kept, the upload leaves, whatever becomes of this process.
            means.ledger.submit(self.subject, parameters.round_id, means.signer.identity, means.wall())
        values: dict[str, bytes | None] = {
            f"{_ACCEPTED}/{effect.round_id.hex()}": b"\1"
            for effect in effects
            if isinstance(effect, RosterAccepted)
        }
        if means.resumes:
            values[f"{self.name}/session"] = parameters.round_id + session.snapshot()
            if new_frame and session.upload is not None:
                values[f"{self.name}/upload"] = bytes(session.upload)
            values[f"{self.name}/subject"] = self.subject or None
            values.update(more or {})
        with means.store.transaction():
            means.counter.advance(name, session.releases)  # of two that made this step, one passes
            means.store.put(values)
        self._released = session.releases

    def summed(self, survivors: frozenset[Identity]) -> None:
        """Keep that our vector is in a sum: it is no longer one that went into a round without result."""
        if survivors and self.parameters is not None:
            self._means.ledger.released(self.subject, self.parameters.round_id, survivors)

    def leave(self) -> None:
        """Wipe the round's secrets from memory."""
        if self.session is not None:
            self.session.close()
            self.session = None

    def unkeep(self, *others: str) -> None:
        """Remove what is kept to go on with the round. others: names of the store, as `more` of `keep`."""
        if self._means.resumes:
            ours = (f"{self.name}/{what}" for what in ("session", "upload", "subject"))
            self._means.store.put(dict.fromkeys((*ours, *others)))


def counter_name(round_id: bytes) -> str:
    return f"rounds/{round_id.hex()}"
