"""Five nodes and a server, joined by calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from secagg import IdentityKey, Policy, RoundParameters, context_digest
from secagg.embedding import (
    MappingStore,
    MemoryStore,
    Participant,
    ParticipationLedger,
    Registry,
    Round,
    StoredCounter,
)
from secagg.kernels import UIntArray

CONTEXT = context_digest(b"model 7")
LENGTH, BITS = 3, 20


class Cohort:
    """Nodes 0.. and what each keeps, in the host (`states`) and elsewhere."""

    def __init__(self, nodes: int = 5) -> None:
        self.keys = [IdentityKey.generate(os.urandom) for _ in range(nodes)]
        self.registry = Registry.of((f"node-{i}", key.identity) for i, key in enumerate(self.keys))
        self.policy = Policy(known=self.registry.identities, minimum_cohort=4)
        self.states: list[dict[str, bytes]] = [{} for _ in self.keys]
        self.elsewhere = [MemoryStore() for _ in self.keys]
        self.made = [0] * nodes  # vectors asked for

    def participant(self, i: int, **others: Any) -> Participant:
        given: dict[str, Any] = {
            "store": MappingStore(self.states[i]),
            "counter": StoredCounter(self.elsewhere[i]),
            "ledger": ParticipationLedger(self.elsewhere[i]),
        }
        return Participant(self.keys[i], others.pop("policy", self.policy), **(given | others))

    def parameters(self, context: bytes = CONTEXT, **others: Any) -> RoundParameters:
        given: dict[str, Any] = {
            "round_id": os.urandom(16),
            "vector_length": LENGTH,
            "ring_bits": BITS,
            "context": context,
        }
        return RoundParameters(**(given | others))

    def round(self, **others: Any) -> Round[int]:
        parameters = others.pop("parameters", None) or self.parameters()
        nodes: Collection[int] = others.pop("nodes", range(len(self.keys)))
        return Round(parameters, nodes=nodes, registry=self.registry, **others)

    def vector(self, i: int) -> Callable[[RoundParameters], UIntArray]:
        def make(_parameters: RoundParameters) -> UIntArray:
            self.made[i] += 1
            return np.array([1, i, 10 * i], np.uint32)

        return make

    def answer(self, i: int, frame: bytes, **others: Any) -> bytes:
        return self.participant(i, **others).answer(frame, self.vector(i), context=CONTEXT)

    def sum_over(self, nodes: Collection[int]) -> list[int]:
        return [len(nodes), sum(nodes), 10 * sum(nodes)]


def run(cohort: Cohort, one: Round[int], gone: Collection[int] = ()) -> Round[int]:
    """Run a round to its end; some nodes are lost when their vectors are wanted."""
    for ask in one:
        for node, frame in ask.frames.items():
            if ask.wants_vector and node in gone:
                ask.lose(node, "gone")
            else:
                ask.take(node, cohort.answer(node, frame))
    return one


def requests(cohort: Cohort, node: int) -> Iterator[bytes]:
    """The requests of a round to one node, whose answers to them count; all others answer."""
    for ask in cohort.round():
        for other, frame in ask.frames.items():
            if other != node:
                ask.take(other, cohort.answer(other, frame))
        yield ask.frames[node]
        ask.take(node, cohort.answer(node, ask.frames[node]))
