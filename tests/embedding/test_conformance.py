"""The conformance suite over plain calls: what it asks of adapters holds for `Round` and `Participant`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from secagg import RoundParameters, context_digest
from secagg.embedding import AnyRound, Committee, OneShotRound, Registry, Round, conformance
from secagg.kernels import UIntArray

CONTEXT = context_digest(b"what the conformance suite sums")


def vector_of(node: int) -> Callable[[RoundParameters], UIntArray]:
    return lambda _parameters: np.full(50, 7 + node, np.uint32)


def plain_calls(
    nodes: Sequence[conformance.Node], registry: Registry, committee: Committee | None
) -> AnyRound[Any]:
    """The shortest host there is; nodes know the model, so the context is there from the beginning."""
    parameters = RoundParameters(round_id=os.urandom(16), vector_length=50, ring_bits=20, context=CONTEXT)
    one: AnyRound[int]
    if committee is None:
        one = Round(parameters, nodes=range(len(nodes)), registry=registry)
    else:
        one = OneShotRound(parameters, committee=committee, nodes=range(len(nodes)), registry=registry)
    for ask in one:
        for node, frame in ask.frames.items():
            try:
                reply = nodes[node].answer(frame, vector_of(node), context=CONTEXT)
            except conformance.Vanished:
                ask.lose(node, "it crashed")
            else:
                ask.take(node, reply)
    return one


@pytest.mark.parametrize("case", conformance.CASES, ids=str)
def test_plain_calls_pass(case: conformance.Case) -> None:
    conformance.check(case, plain_calls)
