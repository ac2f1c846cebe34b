"""The server of a round inside another stack: an iterator of trips to the nodes, then a sum."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    Completed,
    Dropped,
    DropReason,
    Effect,
    Refused,
    Send,
)
from secagg.embedding.ask import Ask, Node
from secagg.embedding.participant import QuestionOf, context_is_subject
from secagg.embedding.patience import Patience
from secagg.embedding.replies import LossReason, Reason, declined
from secagg.errors import LocalProtocolError, RemoteProtocolError, RoundAbortedError
from secagg.params import Identity, Phase, RoundParameters, require
from secagg.primitives.bounds import choose_for
from secagg.protocol import ServerSession, parameters_frame, sender_of
from secagg.registry import Registry
from secagg.store import Concern, LedgerError, ParticipationLedger, floor_for


@dataclass(frozen=True, slots=True)
class Loss(Generic[Node]):
    """A node that has no part in the rest of a round.

    phase   in which it was lost
    detail  for our own log: of the session, or what the host said
    """

    node: Node
    phase: Phase
    reason: Reason | DropReason
    detail: str = ""


Event: TypeAlias = Loss[Node] | Concern | Effect
Observer: TypeAlias = Callable[[Event[Node]], None]


class Round(Generic[Node]):
    """One round over the nodes of a host. Iterate once: each `Ask` is a trip, its replies are handed in.

        for ask in round:
            for node, frame in ask.frames.items():
                ask.take(node, ...)  # or ask.lose(node, why)
        round.result.total

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
        self.parameters = parameters
        self._nodes = tuple(dict.fromkeys(nodes))
        least = parameters.minimum_cohort
        require(len(self._nodes) >= least, "nodes", f"at least minimum_cohort = {least}", len(self._nodes))
        choose_for(least, parameters.threat_model)
        self._admitted = registry.identities - frozenset(excluded)
        self._registry, self._patience = registry, patience or Patience()
        self._ledger, self._question = ledger, question_of(parameters)
        self._observer, self._clock, self._wall, self._threads = observer, clock, wall, threads
        self._identities: dict[Node, Identity] = {}
        self._named: dict[Identity, Node] = {}
        self._advertised: dict[Node, bytes] = {}
        self._losses: dict[Node, Loss[Node]] = {}
        self._phase = Phase.ADVERTISE_KEYS
        self._session: ServerSession | None = None
        self._outcome: Aggregate | RoundAbortedError | LedgerError | None = None
        self._begun = False

    # --- what came of it

    @property
    def result(self) -> Aggregate:
        """The sum. Raises RoundAbortedError, LedgerError; LocalProtocolError: the loop has not ended."""
        if self._outcome is None:
            raise LocalProtocolError("result: the round is not over, its loop must run to its end")
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    @property
    def error(self) -> RoundAbortedError | LedgerError | None:
        """Why there is no sum; None: there is one, or the round is not over."""
        return self._outcome if isinstance(self._outcome, Exception) else None

    @property
    def survivors(self) -> tuple[Node, ...]:
        """The nodes whose vectors are in the sum, in the order of the result's survivors."""
        return tuple(self._named[identity] for identity in self.result.survivors)

    @property
    def losses(self) -> dict[Node, Loss[Node]]:
        """The nodes that were lost, and why; one that was lost after its upload is in the sum."""
        return dict(self._losses)

    @property
    def identities(self) -> dict[Node, Identity]:
        """The identities that nodes signed for."""
        return dict(self._identities)

    def name_of(self, node: Node) -> str:
        """Return a node's name in the registry, or the host's for it."""
        identity = self._identities.get(node)
        return str(node) if identity is None else self._registry.name_of(identity)

    # --- the trips

    def __iter__(self) -> Iterator[Ask[Node]]:
        if self._begun:
            raise LocalProtocolError("a round is iterated once: make another one")
        self._begun = True
        frame = bytes(parameters_frame(self.parameters))
        ask = self._ask(dict.fromkeys(self._nodes, frame), self._advertise, self._enough)
        yield ask
        ask.close()
        effects = self._open()
        while self._outcome is None:
            requests = {
                self._named[effect.to]: bytes(effect.frame)
                for effect in effects
                if isinstance(effect, Send) and effect.to is not None
            }
            ask = self._ask(requests, self._receive, lambda: self._live.progress.ready)
            if requests:
                yield ask
            ask.close()
            effects = self._close_phase()

    @property
    def _live(self) -> ServerSession:
        if self._session is None:
            raise LocalProtocolError("the round has not begun, or is over")
        return self._session

    def _ask(
        self,
        frames: dict[Node, bytes],
        take: Callable[[Node, bytes], bool],
        ready: Callable[[], bool],
    ) -> Ask[Node]:
        return Ask(
            frames,
            self._phase.name.replace("_", " ").lower(),
            wants_vector=self._phase is Phase.MASKED_INPUT_COLLECTION,
            take=take,
            lose=self._lose,
            ready=ready,
            clock=self._clock,
            time_s=self._patience.of(self._phase),
            grace_s=self._patience.grace_s,
        )

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
        if identity not in self._admitted:
            return self._lose(node, LossReason.STRANGER, identity.hex())
        if identity in self._named:
            other = self._named[identity]
            return self._lose(node, LossReason.TAKEN, f"{self._registry.name_of(identity)} is {other!r}")
        self._identities[node], self._named[identity] = identity, node
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
                    self._note(Loss(self._named[client], self._phase, reason))
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
            self._phase = session.phase
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

    def _abort(self, end: Aborted) -> list[Effect]:
        lost = Counter(str(loss.reason) for loss in self._losses.values())
        told = ", ".join(f"{count} ({reason})" for reason, count in lost.most_common())
        detail = f"{end.detail}; nodes lost: {told}" if told else end.detail
        self._outcome = RoundAbortedError(end.reason, detail, end.blamed, end.guilty, end.likely)
        self._tell(end)
        return []

    # --- losses

    def _lose(self, node: Node, reason: Reason, detail: str) -> bool:
        """Note a loss; true: the node is waited for no longer."""
        self._note(Loss(node, self._phase, reason, detail))
        identity = self._identities.get(node)
        if self._session is not None and identity is not None:
            self._session.drop(identity)
        return True

    def _note(self, loss: Loss[Node]) -> None:
        """Keep the first reason: what follows from it says less."""
        if loss.node not in self._losses:
            self._losses[loss.node] = loss
            self._tell(loss)

    def _tell(self, event: Event[Node]) -> None:
        if self._observer is not None:
            self._observer(event)

    def __repr__(self) -> str:
        return f"Round(phase={self._phase.name}, nodes={len(self._nodes)}, lost={len(self._losses)})"


def retry(make: Callable[[frozenset[Identity]], Round[Node]], attempts: int = 3) -> Iterator[Round[Node]]:
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
