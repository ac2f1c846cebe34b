"""Suite "hybrid": what ML-KEM-768 beside X25519 costs the pairwise protocol, in one run.

All parties are real sessions in this process, one after the other; each one's seconds are taken apart.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from bench.harness import TINY, Effort
from bench.suites.cohort import RING_BITS, Workload
from bench.suites.unit_costs import measured
from secagg import (
    SUITES,
    Aggregate,
    ClientSession,
    IdentityKey,
    Phase,
    Policy,
    RoundParameters,
    ServerSession,
    Suite,
    context_digest,
    plan,
)
from secagg.costs import Load
from secagg.effects import Completed, Effect, InputWanted, Send, SignWanted
from secagg.kernels import ring_mask

T = TypeVar("T")


class Round:
    """Runs one round. Afterwards: seconds of each `client`, of the `server` in all, bytes of a client."""

    def __init__(self, work: Workload, suite: Suite) -> None:
        self.work = work
        keys = [IdentityKey.generate(os.urandom) for _ in range(work.clients)]
        identities = [key.identity for key in keys]
        parameters = RoundParameters(
            round_id=os.urandom(16),
            vector_length=work.length,
            ring_bits=RING_BITS,
            context=context_digest(b"bench"),
            threat_model=work.model,
            minimum_cohort=work.clients,
            suite=suite,
        )
        policy = Policy(known=frozenset(identities), minimum_cohort=work.clients)
        self.clients = {
            key.identity: ClientSession(
                signer=key, context=parameters.context, policy=policy, entropy=os.urandom
            )
            for key in keys
        }
        self.gone = frozenset(identities[: work.dropouts])
        self.session = ServerSession(parameters, admitted=identities)
        self.vector = np.arange(work.length, dtype=np.uint32) & np.uint32(ring_mask(RING_BITS))
        self.client: dict[bytes, float] = defaultdict(float)
        self.server = 0.0
        self.up: dict[bytes, int] = defaultdict(int)
        self.down: dict[bytes, int] = defaultdict(int)

    def run(self) -> None:
        """Run the round. Raises RuntimeError when its sum is wrong or it ends early."""
        effects = self._timed(self.session.start)
        while self.session.phase is not None:
            self._carry(self.session.phase, effects)
            effects = self._timed(self.session.close_phase)
        last = effects[-1]
        if not isinstance(last, Completed) or not isinstance(last.result, Aggregate):
            raise RuntimeError(f"the round ended without a result: {last}")  # noqa: TRY004
        survivors = self.work.clients - len(self.gone)
        if not np.array_equal(
            last.result.total, self.vector * np.uint32(survivors) & np.uint32(ring_mask(RING_BITS))
        ):
            raise RuntimeError("the sum is wrong")

    def _carry(self, phase: Phase, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Send) or effect.to is None:
                continue
            if effect.to in self.gone and phase >= Phase.MASKED_INPUT_COLLECTION:
                continue
            name, frame = effect.to, effect.frame.buffer()
            client = self.clients[name]
            began = time.perf_counter()
            answers = client.receive(frame)
            if any(isinstance(answer, InputWanted) for answer in answers):
                answers = client.submit(self.vector)
            if any(isinstance(answer, SignWanted) for answer in answers):
                answers = client.sign()
            self.client[name] += time.perf_counter() - began
            (sent,) = (answer.frame for answer in answers if isinstance(answer, Send))
            self.down[name] += effect.frame.size
            self.up[name] += sent.size
            data = sent.buffer()
            self._timed(lambda name=name, data=data: self.session.receive(name, data))  # type: ignore[misc]

    def _timed(self, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        out = call()
        self.server += time.perf_counter() - began
        return out


def run(effort: Effort) -> dict[str, Any]:
    """Return both suites, side by side."""
    clients, length = (1000, 100_000) if effort != TINY else (12, 1000)
    costs = measured(effort, length)
    rows = []
    for dropout in (0.0, 0.1):
        work = Workload(clients=clients, length=length, dropout=dropout)
        for suite in SUITES:
            one = Round(work, suite)
            one.run()
            planned = plan(clients=clients, vector_length=length, value_bits=1, suite=suite)
            load = Load(
                clients=clients,
                dropouts=work.dropouts,
                length=length,
                ring_bits=RING_BITS,
                graph=planned.graph,
                quorum=planned.quorum,
                hybrid=suite != "x25519",
            )
            there = [name for name in one.client if name not in one.gone]
            client_s = statistics.median(one.client[name] for name in there)
            rows.append(
                {
                    "suite": suite,
                    "dropout": dropout,
                    "degree": planned.graph.degree,
                    "client_ms": client_s * 1e3,
                    "client_of_primitives": client_s / costs.client_seconds(load),
                    "server_s": one.server,
                    "server_of_primitives": one.server / costs.server_seconds(load),
                    "up_bytes": statistics.median(one.up[name] for name in there),
                    "down_bytes": statistics.median(one.down[name] for name in there),
                }
            )
    return {"clients": clients, "length": length, "ring_bits": RING_BITS, "rows": rows}
