"""The shortest adapter: nodes are functions. Read this first; every other one does the same over a wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fedcore.codec.mean import Arrays, Mean, MeanResult
from fedcore.integrations.exchange import Answering, SecureMean, Train, answer_mean
from secagg.embedding import AnyRound, Ask, Node

Call: TypeAlias = Callable[[bytes, Arrays | None, Mapping[str, Any]], bytes]


def node(participant: Answering, mean: Mean, train: Train) -> Call:
    """Return a node: a function of (request, model or None, configuration) that returns its reply."""

    def call(request: bytes, model: Arrays | None, config: Mapping[str, Any]) -> bytes:
        def given() -> Arrays:
            if model is None:
                raise ValueError("the request that wants a vector brought no model")
            return model

        return answer_mean(participant, mean, request, model=given, train=train, config=config)

    return call


def average(
    secure: SecureMean,
    model: Arrays,
    nodes: Mapping[Node, Call],
    config: Mapping[str, Any] | None = None,
) -> tuple[AnyRound[Node], MeanResult]:
    """Run a round over nodes that are functions. What one raises costs it the round, and nobody else.

    raises  as `SecureMean.run`
    """

    def carry(ask: Ask[Node]) -> None:
        for name, request in ask.frames.items():
            try:
                reply = nodes[name](request, model if ask.wants_vector else None, config or {})
            except Exception as error:  # noqa: BLE001 - of somebody else's code: it is lost, and that is logged
                ask.lose(name, repr(error))
            else:
                ask.take(name, reply)

    return secure.run(model, list(nodes), carry, config)
