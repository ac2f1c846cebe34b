"""Suite "contribution": the memory that a site needs between the end of its training and its masked upload.

Traced are Python's and numpy's allocations (tracemalloc) from the moment when the learner hands its
parameters back, which are not counted, to the last chunk of the upload that a real session made. Rounds have
a few clients; the ring and its lanes are those of `CLIENTS`.
"""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from bench.harness import FULL, TINY, Effort
from fedcore.learner import Metrics, Parameters, Rows
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Train
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from secagg import ClientSession, IdentityKey, Phase, Policy, RoundParameters, ServerSession, context_digest
from secagg.effects import InputWanted, Send
from secagg.params import Entropy

CLIENTS = 100  # that the plan counts with
SESSIONS = 5  # of the round that is run
CHUNK_BYTES = 1 << 20
LAYERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a contribution is shaped and encoded."""

    name: str
    plan: dict[str, Any] = field(default_factory=dict)
    asks: Asks = field(default_factory=Asks)


FORMS = (
    Form(name="delta, 20 bits", plan={"norm": 1.0}),
    Form(name="weights, 20 bits", asks=Asks(update=UpdateKind.WEIGHTS)),
    Form(name="a tenth sent, 8 bits", plan={"norm": 1.0, "keep": 0.1, "bits": 8}),
    Form(name="signs", plan={"norm": 1.0, "bits": 1}),
    Form(name="rotated, 8 bits", plan={"norm": 1.0, "rotate": True, "bits": 8}),
    Form(
        name="Skellam noise, 16 bits",
        plan={"norm": 1.0, "bits": 16, "privacy": PrivacyPlan(epsilon=8, delta=1e-5, rounds=1, smallest=90)},
        asks=Asks(weighting=Weighting.UNIFORM),
    ),
)


# Types of the learner's parameters and of the model in the task: a server's steps are in float64.
TYPES = (("float32", "float32"), ("float32", "float64"), ("float64", "float64"))

# What this measured at d = 4 000 000, in the order of TYPES, at commit 325b68c, where `join` handed the whole
# encoded vector to the session and an update was flattened, subtracted and shaped in vectors of their own.
BEFORE = {
    "delta, 20 bits": (12.0, 20.02, 24.0),
    "weights, 20 bits": (12.0, 20.02, 24.0),
    "a tenth sent, 8 bits": (24.4, 32.8, 32.8),
    "signs": (13.0, 25.0, 25.0),
    "rotated, 8 bits": (20.0, 28.0, 28.0),
    "Skellam noise, 16 bits": (33.0, 37.0, 37.0),
}


class GivenParameters:
    """A learner that was trained already; what is allocated after `fit` is traced. Its update is 2 long."""

    def __init__(self, length: int, dtype: DTypeLike) -> None:
        rng, scale = np.random.default_rng(1), np.float32(2 / np.sqrt(length))
        sizes = [len(part) for part in np.array_split(np.empty(length, np.int8), LAYERS)]
        self.before = {f"layer {i}": np.zeros(size, dtype) for i, size in enumerate(sizes)}
        self.after = {
            name: (rng.standard_normal(array.size, np.float32) * scale).astype(dtype)
            for name, array in self.before.items()
        }

    def initial(self) -> Parameters:
        return self.before

    def fit(self, parameters: Parameters, rows: Rows, seed: int) -> Parameters:
        tracemalloc.start()
        return self.after

    def evaluate(self, parameters: Parameters, rows: Rows) -> Metrics:
        return {}


def run(effort: Effort) -> dict[str, Any]:
    """Return the peak of every form for parameters of float32 and float64."""
    length = 50_000 if effort == TINY else 16_000_000 if effort == FULL else 4_000_000
    rows = []
    for form in FORMS:
        for (own, given), before in zip(TYPES, BEFORE[form.name], strict=True):
            found = peak(length, form, own, given)
            row = {"form": form.name, "learner": own, "model": given, "before": before}
            rows.append({**row, "bytes_per_value": found, "ratio": before / found})
    return {"length": length, "clients": CLIENTS, "rows": rows}


def peak(length: int, form: Form, own: DTypeLike, given: DTypeLike) -> float:
    """Return the bytes per parameter that one contribution needs at most."""
    learner = GivenParameters(length, own)
    plan = TrainingPlan(clients=CLIENTS, rounds=1, **form.plan)
    terms = Terms(plan=plan, asks=form.asks, passes=0, schema=None, classes=(), size=length)
    task = terms.task(Train(model={name: array.astype(given) for name, array in learner.before.items()}))
    site, session = Site("site", range(100), None, learner), waiting_session(task)
    try:
        for effect in session.submit(site.answer(task)):
            if isinstance(effect, Send):
                for _chunk in effect.frame.chunks(CHUNK_BYTES):
                    pass
        return tracemalloc.get_traced_memory()[1] / length
    finally:
        tracemalloc.stop()


def waiting_session(task: Task, entropy: Entropy = os.urandom) -> ClientSession:
    """Return a client's session of a round about `task`, brought up to where it wants its vector."""
    keys = [IdentityKey.generate(entropy) for _ in range(SESSIONS)]
    parameters = RoundParameters(
        round_id=entropy(16),
        vector_length=task.encoding.length,
        ring_bits=task.encoding.codec.ring_bits,
        context=context_digest(b"bench"),
        minimum_cohort=SESSIONS,
    )
    policy = Policy(known=frozenset(key.identity for key in keys), minimum_cohort=SESSIONS)
    server = ServerSession(parameters, admitted=[key.identity for key in keys])
    clients = {
        key.identity: ClientSession(signer=key, context=parameters.context, policy=policy, entropy=entropy)
        for key in keys
    }
    effects = server.start()
    while server.phase is not Phase.MASKED_INPUT_COLLECTION:
        for effect in effects:
            if isinstance(effect, Send) and effect.to is not None:
                for answer in clients[effect.to].receive(effect.frame.buffer()):
                    if isinstance(answer, Send):
                        server.receive(effect.to, answer.frame.buffer())
        effects = server.close_phase()
    session = clients[keys[0].identity]
    for effect in effects:
        if isinstance(effect, Send) and effect.to == keys[0].identity:
            asked = session.receive(effect.frame.buffer())
            if not any(isinstance(one, InputWanted) for one in asked):
                raise RuntimeError(f"the session does not want a vector: {asked}")
    return session
