"""What every round inside another stack has: its nodes, its trips, its losses, and what comes of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias

from secagg.effects import Aborted, Aggregate, DropReason, Effect
from secagg.embedding.ask import Ask, Node
from secagg.embedding.patience import AnyPhase, Patience
from secagg.embedding.replies import LossReason, Reason
from secagg.errors import LocalProtocolError, RoundAbortedError
from secagg.params import Identity, RoundParameters
from secagg.registry import Registry
from secagg.store import Concern, LedgerError, ParticipationLedger


@dataclass(frozen=True, slots=True)
class Loss(Generic[Node]):
    """A node that has no part in the rest of a round, or of a committee that was formed for it.

    phase   in which it was lost
    detail  for our own log: of the session, or what the host said
    """

    node: Node
    phase: AnyPhase
    reason: Reason | DropReason
    detail: str = ""


Event: TypeAlias = Loss[Node] | Concern | Effect
Observer: TypeAlias = Callable[[Event[Node]], None]


class AnyRound(ABC, Generic[Node]):
    """One round over the nodes of a host. Iterate once: each `Ask` is a trip, its replies are handed in.

        for ask in round:
            for node, frame in ask.frames.items():
                ask.take(node, ...)  # or ask.lose(node, why)
        round.result.total

    `Round` and `OneShotRound` say which protocol; `result.total` is (vector_length,), modulo 2^ring_bits.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        *,
        nodes: Collection[Node],
        registry: Registry,
        patience: Patience | None,
        excluded: Collection[Identity],
        ledger: ParticipationLedger | None,
        observer: Observer[Node] | None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        threads: int = 1,
    ) -> None:
        self.parameters = parameters
        self._nodes = tuple(dict.fromkeys(nodes))
        self._admitted = registry.identities - frozenset(excluded)
        self._registry, self._patience = registry, patience or Patience()
        self._ledger, self._observer = ledger, observer
        self._clock, self._wall, self._threads = clock, wall, threads
        self._identities: dict[Node, Identity] = {}
        self._named: dict[Identity, Node] = {}
        self._losses: dict[Node, Loss[Node]] = {}
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
        return self._trips()

    @abstractmethod
    def _trips(self) -> Iterator[Ask[Node]]:
        """Yield the trips, and settle the outcome."""

    @property
    @abstractmethod
    def _phase(self) -> AnyPhase:
        """The phase that goes on."""

    @abstractmethod
    def _lose(self, node: Node, reason: Reason, detail: str) -> bool:
        """Note a loss; true: the node is waited for no longer."""

    def _ask(
        self,
        frames: dict[Node, bytes],
        take: Callable[[Node, bytes], bool],
        ready: Callable[[], bool],
        *,
        wants_vector: bool,
    ) -> Ask[Node]:
        return Ask(
            frames,
            self._phase.name.replace("_", " ").lower(),
            wants_vector=wants_vector,
            take=take,
            lose=self._lose,
            ready=ready,
            clock=self._clock,
            time_s=self._patience.of(self._phase),
            grace_s=self._patience.grace_s,
        )

    def _may_be(self, node: Node, identity: Identity) -> bool:
        """Whether a node may have an identity, or it is lost. Of two nodes with one the first stands."""
        if identity not in self._admitted:
            return not self._lose(node, LossReason.STRANGER, identity.hex())
        if self._named.get(identity, node) != node:
            other = f"{self._registry.name_of(identity)} is {self._named[identity]!r}"
            return not self._lose(node, LossReason.TAKEN, other)
        return True

    def _name(self, node: Node, identity: Identity) -> None:
        """Note which identity a node has: it signed."""
        self._identities[node], self._named[identity] = identity, node

    def _abort(self, end: Aborted) -> list[Effect]:
        lost = Counter(str(loss.reason) for loss in self._losses.values())
        told = ", ".join(f"{count} ({reason})" for reason, count in lost.most_common())
        detail = f"{end.detail}; nodes lost: {told}" if told else end.detail
        self._outcome = RoundAbortedError(end.reason, detail, end.blamed, end.guilty, end.likely)
        self._tell(end)
        return []

    # --- losses

    def _note(self, loss: Loss[Node]) -> None:
        """Keep the first reason: what follows from it says less."""
        if loss.node not in self._losses:
            self._losses[loss.node] = loss
            self._tell(loss)

    def _tell(self, event: Event[Node]) -> None:
        if self._observer is not None:
            self._observer(event)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}(phase={self._phase.name}, nodes={len(self._nodes)}, lost={len(self._losses)})"
