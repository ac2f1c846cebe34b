"""The server of a pairwise round inside another stack: an iterator of trips to the nodes, then a sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from secagg.effects import Aborted, AbortReason, Completed, Dropped, Effect, Refused, Send
from secagg.embedding.any_round import AnyRound, Loss, Observer
from secagg.embedding.ask import Ask, Node
from secagg.embedding.participant import QuestionOf, context_is_subject
from secagg.embedding.patience import Patience
from secagg.embedding.replies import LossReason, Reason, declined
from secagg.errors import LocalProtocolError, RemoteProtocolError, RoundAbortedError
from secagg.params import Identity, Phase, RoundParameters, require
from secagg.primitives.bounds import choose_for
from secagg.protocol import ServerSession, parameters_frame, sender_of
from secagg.registry import Registry
from secagg.store import LedgerError, ParticipationLedger, floor_for

Attempt = TypeVar("Attempt", bound=AnyRound[Any])


class Round(AnyRound[Node]):
    """A round of the pairwise protocol; see `AnyRound`.

    parameters  of the round; the same go to every node
    nodes       to ask, by the host's own ids; which identity a node has its first frame says, signed
    registry    who is enrolled
    patience    how long to wait
    excluded    identities that have no part, such as the guilty of an earlier attempt (`retry`)
    ledger      what was summed before; None: nothing is kept, and every sum is allowed here. The nodes have
                ledgers of their own
    question_of what the round asks, for the ledger; default: its context is its subject
    observer    told of losses, of what the ledger warns of, and of the session's effects, as they happen
    clock, wall seconds, for patience and for the ledger
    threads     for agreements and masks when the sum is unmasked
    raises      ParameterError, InfeasibleParameters: no such round with so many nodes
    """

    def __init__(
        self,
        parameters: RoundParameters,
        *,
        nodes: Collection[Node],
        registry: Registry,
        patience: Patience | None = None,
        excluded: Collection[Identity] = (),
        ledger: ParticipationLedger | None = None,
        question_of: QuestionOf = context_is_subject,
        observer: Observer[Node] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        threads: int = 1,
    ) -> None:
        super().__init__(
            parameters,
            nodes=nodes,
            registry=registry,
            patience=patience,
            excluded=excluded,
            ledger=ledger,
            observer=observer,
            clock=clock,
            wall=wall,
            threads=threads,
        )
        least = parameters.minimum_cohort
        require(len(self._nodes) >= least, "nodes", f"at least minimum_cohort = {least}", len(self._nodes))
        choose_for(least, parameters.threat_model)
        self._question = question_of(parameters)
        self._advertised: dict[Node, bytes] = {}
        self._session: ServerSession | None = None
        self._at = Phase.ADVERTISE_KEYS

    # --- the trips

    @property
    def _phase(self) -> Phase:
        return self._at

    def _trips(self) -> Iterator[Ask[Node]]:
        frame = bytes(parameters_frame(self.parameters))
        ask = self._ask(dict.fromkeys(self._nodes, frame), self._advertise, self._enough, wants_vector=False)
        yield ask
        ask.close()
        effects = self._open()
        while self._outcome is None:
            requests = {
                self._named[effect.to]: bytes(effect.frame)
                for effect in effects
                if isinstance(effect, Send) and effect.to is not None
            }
            ask = self._ask(
                requests,
                self._receive,
                lambda: self._live.progress.ready,
                wants_vector=self._at is Phase.MASKED_INPUT_COLLECTION,
            )
            if requests:
                yield ask
            ask.close()
            effects = self._close_phase()

    @property
    def _live(self) -> ServerSession:
        if self._session is None:
            raise LocalProtocolError("the round has not begun, or is over")
        return self._session

    # --- the first: who is there

    def _advertise(self, node: Node, reply: bytes) -> bool:
        """Take a first frame: it names its node. Of two nodes with one identity the first stands."""
        if (reason := declined(reply)) is not None:
            return self._lose(node, reason, "")
        if node in self._advertised:
            return True  # the first stands
        try:
            identity = sender_of(self.parameters, reply)
        except RemoteProtocolError as error:
            return self._lose(node, LossReason.MALFORMED, str(error))
        if self._may_be(node, identity):
            self._name(node, identity)
            self._advertised[node] = reply
        return True

    def _enough(self) -> bool:
        return len(self._advertised) >= self.parameters.minimum_cohort

    def _open(self) -> list[Effect]:
        """Begin with those who are there."""
        present, least = self._advertised, self.parameters.minimum_cohort
        if len(present) < least:
            return self._abort(
                Aborted(
                    AbortReason.COHORT_TOO_SMALL,
                    (),
                    f"minimum_cohort: {least} are needed, {len(present)} came",
                )
            )
        identities = sorted(self._identities[node] for node in present)
        try:
            self._ask_ledger(identities)
        except LedgerError as error:
            self._outcome = error
            return []
        session = ServerSession(self.parameters, admitted=identities, threads=self._threads)
        session.start()
        self._session = session
        for node, frame in present.items():
            self._receive(node, frame)
        self._advertised.clear()
        return self._close_phase()

    def _ask_ledger(self, identities: list[Identity]) -> None:
        """Settle what is asked, and of whom, before anybody uploads. Raises LedgerError."""
        if self._ledger is None:
            return
        question = self._question
        floor = question.floor or floor_for(self.parameters.threat_model, len(question.cohort or ()))
        concerns = self._ledger.join(question.subject, cohort=question.cohort, floor=floor)
        concerns += self._ledger.check_clients(question.subject, identities)
        if often := self._ledger.too_often(identities, self._wall()):
            raise LedgerError(often)
        for concern in concerns:
            self._tell(concern)

    # --- the others

    def _receive(self, node: Node, reply: bytes) -> bool:
        """Take a frame; return whether the node is waited for no longer."""
        if node in self._losses:
            return True
        if (reason := declined(reply)) is not None:
            return self._lose(node, reason, "")
        session, identity = self._live, self._identities[node]
        before = session.taken
        for effect in session.receive(identity, reply):
            self._tell(effect)
            if isinstance(effect, Refused) and identity in session.progress.missing:
                return self._lose(node, effect.reason, effect.detail)
        taken = session.taken > before and session.phase is Phase.MASKED_INPUT_COLLECTION
        if taken and self._ledger is not None:
            round_id, subject = self.parameters.round_id, self._question.subject
            self._ledger.uploaded(subject, round_id, identity, self._wall())
        return identity not in session.progress.missing  # or it is a repetition of an earlier answer

    def _close_phase(self) -> list[Effect]:
        session = self._live
        uploading = session.phase is Phase.MASKED_INPUT_COLLECTION
        effects = session.close_phase()
        for effect in effects:
            match effect:
                case Send():
                    continue
                case Dropped(client=client, reason=reason):
                    self._note(Loss(self._named[client], self._at, reason))
                case Aborted():
                    return self._abort(effect)
                case Completed(result=result) if result is not None:
                    if self._ledger is not None:  # before anybody sees it
                        subject, round_id = self._question.subject, self.parameters.round_id
                        self._ledger.released(subject, round_id, result.survivors)
                    self._outcome = result
                case _:
                    pass
            self._tell(effect)
        if uploading and session.survivors and not self._may_sum(session):
            return []
        if session.phase is not None:
            self._at = session.phase
        return effects

    def _may_sum(self, session: ServerSession) -> bool:
        """Ask the ledger, before anybody is asked to sign or to open the sum."""
        if self._ledger is None:
            return True
        floor = self._question.floor or floor_for(self.parameters.threat_model, session.roster)
        try:
            concerns = self._ledger.sign(
                self._question.subject, self.parameters.round_id, session.survivors, floor=floor
            )
        except LedgerError as error:
            self._outcome = error
            return False
        for concern in concerns:
            self._tell(concern)
        return True

    # --- losses

    def _lose(self, node: Node, reason: Reason, detail: str) -> bool:
        """Note a loss; true: the node is waited for no longer."""
        self._note(Loss(node, self._at, reason, detail))
        identity = self._identities.get(node)
        if self._session is not None and identity is not None:
            self._session.drop(identity)
        return True


def retry(make: Callable[[frozenset[Identity]], Attempt], attempts: int = 3) -> Iterator[Attempt]:
    """Yield rounds, each to be iterated, until one has a sum.

        for round in retry(make, attempts=3):
            for ask in round: ...
        round.result

    make     called with the identities to leave out: returns a round with a fresh round id
    attempts in all, at least 1

    Left out of the next attempt are the guilty of those before, or who is likely guilty where nobody surely
    is. What a ledger refuses is refused again, so it ends the attempts, as the last one does: `result`
    raises.

    raises   LocalProtocolError: a round id that was used before
    """
    require(attempts >= 1, "attempts", "at least 1", attempts)
    excluded: frozenset[Identity] = frozenset()
    used: set[bytes] = set()
    for _ in range(attempts):
        one = make(excluded)
        if one.parameters.round_id in used:
            raise LocalProtocolError("round_id: must be fresh in every attempt: os.urandom(16)")
        used.add(one.parameters.round_id)
        yield one
        if not isinstance(one.error, RoundAbortedError):
            return
        excluded |= frozenset(map(Identity, one.error.guilty or one.error.likely))
