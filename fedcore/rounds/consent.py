"""What a site consents to: a run that goes as agreed, step by step, whatever the server says.

A site trusts its own copy of the agreement and what its own session proves. It makes every task itself, but
for the public arrays, and refuses one that differs; it keeps what it has answered, and signs no sum that its
ledger forbids. Nothing here depends on rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fedcore.codec.clipping import AdaptiveClip
from fedcore.data.schema import Schema
from fedcore.errors import TaskError
from fedcore.learner import Learner
from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.federation import Federation, expected_task
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.task import Task, TaskKind
from fedcore.settings import to_json
from fedcore.statistics.standardizer import Standardizer, from_bounds
from fedcore.strategies import Strategy
from secagg import ConsentError, Identity, RoundParameters, context_digest
from secagg.store import ParticipationLedger, Store, floor_for

NEAR = 1e-3  # relative distance up to which two models count as the same
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What all parties of a run agreed on. Its digest is in the context of every round.

    words           of the learner, as its table says: learners are foreign code
    members         who is enrolled
    strict_cohorts  all updates have one subject however the model changes, and so have all evaluations
    name            tells a run from another one with the same settings: no step is answered twice in one
    rows            names the state of the rows: sums under one name are about the same rows, in all runs
    """

    schema: Schema
    learner: Learner[Any]
    strategy: Strategy
    plan: TrainingPlan
    words: str
    members: frozenset[Identity]
    strict_cohorts: bool = False
    name: str = ""
    rows: str = ""

    @cached_property
    def digest(self) -> bytes:
        """32 bytes, equal for equal agreements."""
        told = {
            "learner": self.words,
            "name": self.name,
            "plan": to_json(self.plan),
            "rows": self.rows,
            "schema": to_json(self.schema),
            "strategy": {"name": type(self.strategy).__name__, **to_json(self.strategy)},
            "strict_cohorts": self.strict_cohorts,
        }
        return context_digest(b"agreement", json.dumps(told, sort_keys=True).encode(), *sorted(self.members))

    @cached_property
    def schedule(self) -> dict[tuple[TaskKind, int, int], int]:
        """Return the step, from 1, of every sum (kind, number, passes) that the run may have."""
        return {place: step for step, place in enumerate(self._places(), 1)}

    def _places(self) -> Iterator[tuple[TaskKind, int, int]]:
        plan = self.plan
        if plan.standardize and plan.privacy is None:
            yield from ((kind, 1, 0) for kind in (TaskKind.MEAN, TaskKind.DEVIATION))
        for number in range(1, plan.rounds + 1):
            passes = getattr(self.strategy, "passes", 0)
            yield from ((TaskKind.TRAIN, number, again) for again in range(passes + 1))
            if plan.evaluate_every and number % plan.evaluate_every == 0:
                yield TaskKind.EVALUATE, number, 0

    def subjects(self, store: Store) -> Subjects:
        """Return how sums are told to be about the same vectors."""
        rows = context_digest(b"rows", json.dumps(to_json(self.schema)).encode(), self.rows.encode())
        return Subjects(store, self.digest, rows, NEAR, self.strict_cohorts)

    def expected(self, task: Task) -> Task:
        """Return what a run that follows the agreement asks in the place of a task. Raises TaskError."""
        return expected_task(Federation(_Nobody(), self.schema, self.learner, self.plan, self.strategy), task)


class _Nobody:
    """No sites: a federation that only says what it would ask."""

    names: Sequence[str] = ()

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        raise TaskError(f"{task.name}: nobody is asked")


@dataclass(slots=True)
class Consent:
    """One site's consent to one run.

    store   of this site: what it answered, and the models it was asked about
    ledger  of the sums that it signed
    """

    run: Run
    site: Site
    store: Store = field(repr=False)
    ledger: ParticipationLedger = field(repr=False)

    # --- before anything is computed

    def admit(self, payload: bytes, parameters: RoundParameters) -> Task:
        """Return the task of a payload, and keep that it is answered. Raises TaskError, CodecError."""
        task = Task.decode(payload)
        step = self.run.schedule.get((task.kind, task.number, task.passes))
        if step is None:
            raise TaskError(f"task: {task.name}, pass {task.passes}, is in no run that was agreed on")
        self._compare(task, self.run.expected(task))
        wanted = task.length, task.codec.ring_bits
        if (parameters.vector_length, parameters.ring_bits) != wanted:
            raise TaskError(
                f"parameters: vector length and ring bits must be {wanted} for this task, "
                f"are {parameters.vector_length, parameters.ring_bits}"
            )
        if task.noise is not None and parameters.minimum_survivors < task.noise.smallest:
            raise TaskError(
                f"parameters.minimum_survivors: must be at least {task.noise.smallest}, whose noise hides "
                f"each vector, is {parameters.minimum_survivors}"
            )
        with self.store.transaction():
            kept = self._following(task, step, payload)
            self.store.put({self._name: json.dumps(kept, sort_keys=True).encode()})
        return task

    def _compare(self, task: Task, wanted: Task) -> None:
        for name in ("dimension", "codec", "columns", "classes", "asks", "shaping", "noise"):
            if getattr(task, name) != getattr(wanted, name):
                raise TaskError(
                    f"task.{name}: was agreed to be {getattr(wanted, name)}, is {getattr(task, name)}"
                )

    @property
    def _name(self) -> str:
        return f"runs/{self.run.digest.hex()}"

    def _following(self, task: Task, step: int, payload: bytes) -> dict[str, Any]:
        """Return what is to be kept of this task. Raises TaskError unless it may follow what was answered."""
        text = self.store.get(self._name)
        kept: dict[str, Any] = {} if text is None else json.loads(text)
        last, digest, times = kept.get("step", 0), hashlib.sha256(payload).hexdigest(), 1
        if step < last:
            raise TaskError(
                f"task: {task.name} is step {step}, and step {last} was answered before: a run that begins "
                "anew needs another name"
            )
        if step == last:
            times = kept["times"] + 1
            if digest != kept["digest"]:
                raise TaskError(f"task: {task.name} was answered, and asks something else now")
            if times > self.run.plan.attempts:
                raise TaskError(f"task: {task.name} was tried {self.run.plan.attempts} times, as was agreed")
        out = kept | {"step": step, "times": times, "digest": digest}
        return out | self._standardizer(task, kept) | self._norm(task, kept)

    def _standardizer(self, task: Task, kept: dict[str, Any]) -> dict[str, Any]:
        """Check that a run has one standardizer, and that rows can have it."""
        schema, mean = self.run.schema, task.arrays.get("mean")
        wanted = self.run.plan.standardize and task.kind is not TaskKind.MEAN
        if wanted != (mean is not None):
            word = "is missing" if wanted else "must not be there"
            raise TaskError(f"task.mean: {word}, as was agreed")
        if mean is None:
            return {}
        deviation = task.arrays.get("deviation", np.zeros_like(mean))
        if fault := Standardizer(mean, deviation).impossible(schema):
            raise TaskError(f"task.{fault}")
        if self.run.plan.privacy is not None:
            public = from_bounds(schema)
            if (public.mean != mean).any() or (public.deviation != deviation).any():
                raise TaskError("task.mean, task.deviation: must follow from the public bounds under privacy")
        found = {"mean": _digest_of(mean)}
        if task.kind is not TaskKind.DEVIATION:
            found["standardizer"] = _digest_of(mean, deviation)
        if any(kept.get(name, value) != value for name, value in found.items()):
            raise TaskError("task.mean, task.deviation: are others than before in this run")
        return found

    def _norm(self, task: Task, kept: dict[str, Any]) -> dict[str, Any]:
        """Check that an adaptive norm moves no faster than its rule can."""
        norm = self.run.plan.norm
        if task.kind is not TaskKind.TRAIN or not isinstance(norm, AdaptiveClip) or task.shaping.norm is None:
            return {}
        number, before = kept.get("norm", (1, norm.norm))
        rounds = task.number - number
        moved = math.log(task.shaping.norm / before)
        low, high = (-norm.rate * (share - norm.quantile) * rounds for share in (1.0, 0.0))
        if not low - _SLACK <= moved <= high + _SLACK:
            raise TaskError(
                f"task.shaping.norm: must be {before:.6g} times e^{low:.6g}..e^{high:.6g} {rounds} rounds "
                f"after it, is {task.shaping.norm:.6g}"
            )
        return {"norm": (task.number, task.shaping.norm)}

    # --- before a signature leaves, and after

    def signs(
        self,
        payload: bytes,
        parameters: RoundParameters,
        finished: Collection[Identity],
        survivors: Collection[Identity],
    ) -> None:
        """Refuse to sign a set over which no sum may be opened; else it is kept as signed.

        raises  LedgerError, ConsentError
        """
        task = Task.decode(payload)
        floor = floor_for(parameters.threat_model, len(finished))
        state = self.site.state
        if task.kind is TaskKind.TRAIN and state.carried(task.asks, residual=task.shaping.keep < 1):
            shared = sum(one.hex() in state.members for one in survivors)
            if shared < floor:
                raise ConsentError(
                    f"{task.name}: the vector carries over from a sum of {len(state.members)}, of whom "
                    f"{shared} are in this one, at least {floor} must be: keep the cohort together"
                )
        if task.noise is None:  # what sums tell together is within the budget where there is noise
            subject = self.run.subjects(self.store).of(task)  # of all passes over one update, too
            self.ledger.sign(subject, parameters.round_id, survivors, floor=floor)

    def counted(self, payload: bytes, survivors: Collection[Identity]) -> None:
        """Learn from our own session which sum our vector is in."""
        self.site.state.count(Task.decode(payload).name, [one.hex() for one in survivors])


def _digest_of(*arrays: Any) -> str:  # noqa: ANN401 - of numbers
    return hashlib.sha256(b"".join(array.astype("<f8").tobytes() for array in arrays)).hexdigest()
