"""What a site consents to: a run that goes as agreed, step by step, whatever the server says.

A site trusts its own copy of the agreement and what its own session proves. Of a task it takes the place in
the run and the public arrays, and checks both; the rest it derives. It keeps what it has answered, and signs
no sum that its ledger forbids. Nothing here depends on rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fedcore.codec.clipping import AdaptiveClip
from fedcore.data.schema import Schema
from fedcore.errors import TaskError
from fedcore.learner import Learner, Parameters
from fedcore.rounds.instructions import Asks, sent
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import AboutModel, Deviation, Question, Train
from fedcore.rounds.site import Site
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
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
    def terms(self) -> Terms:
        """The order and the form of every sum."""
        return Terms.of(self.plan, self.strategy, self.learner, self.schema)

    def subjects(self, store: Store) -> Subjects:
        """Return how sums are told to be about the same vectors."""
        rows = context_digest(b"rows", json.dumps(to_json(self.schema)).encode(), self.rows.encode())
        return Subjects(store, self.digest, rows, NEAR, self.strict_cohorts)

    def fits(self, model: Parameters) -> bool:
        """Tell whether a global model has the names and shapes of this run's."""
        shared = sent(self.learner.initial(), Asks(personal=self.strategy.asks().personal))
        shapes, wanted = ({name: array.shape for name, array in one.items()} for one in (model, shared))
        return shapes == wanted


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
        terms = self.run.terms
        task = Task.decode(payload, terms.encoding)
        encoding = task.encoding
        wanted = encoding.length, encoding.codec.ring_bits
        if (parameters.vector_length, parameters.ring_bits) != wanted:
            raise TaskError(
                f"parameters: vector length and ring bits must be {wanted} for this task, "
                f"are {parameters.vector_length, parameters.ring_bits}"
            )
        if encoding.noise is not None and parameters.minimum_survivors < encoding.noise.smallest:
            raise TaskError(
                f"parameters.minimum_survivors: must be at least {encoding.noise.smallest}, whose noise "
                f"hides each vector, is {parameters.minimum_survivors}"
            )
        if not task.step or terms.place(task.question) != task.step:
            raise TaskError(f"task.step: {task.name} is not step {task.step} of the run that was agreed on")
        if not 1 <= task.attempt <= terms.plan.attempts:
            raise TaskError(f"task.attempt: must be in 1..{terms.plan.attempts}, is {task.attempt}")
        self._check_arrays(task)
        with self.store.transaction():
            kept = self._following(task)
            self.store.put({self._name: json.dumps(kept, sort_keys=True).encode()})
        return task

    def _check_arrays(self, task: Task) -> None:
        """Refuse arrays that are too many or too few, or of other shapes than this site's."""
        question = task.question
        if isinstance(question, AboutModel) and not self.run.fits(question.model):
            raise TaskError("task.model: not the shapes of this site's learner")
        if isinstance(question, Train):
            asked = bool(task.encoding.asks.control), bool(question.again)
            given = question.control is not None, question.center is not None
            if asked != given:
                raise TaskError(f"task.arrays: control, center must be there: {asked}, are: {given}")

    @property
    def _name(self) -> str:
        return f"runs/{self.run.digest.hex()}"

    def _following(self, task: Task) -> dict[str, Any]:
        """Return what is to be kept of this task. Raises TaskError unless it may follow what was answered."""
        text = self.store.get(self._name)
        kept: dict[str, Any] = {} if text is None else json.loads(text)
        last = tuple(kept.get("last", (0, 0, 0)))
        now, digest = (task.step, task.attempt, task.question.passes), task.digest.hex()
        if now <= last:
            raise TaskError(
                f"task: {task.name}, step {now[0]}, attempt {now[1]}, pass {now[2]}, does not follow {last}, "
                "which was answered: a run that begins anew needs another name"
            )
        if now[0] == last[0] and digest != kept["digest"]:
            raise TaskError(f"task: {task.name} was answered, and asks something else now")
        out = kept | {"last": now, "digest": digest}
        return out | self._standardizer(task.question, kept) | self._norm(task.question, kept)

    def _standardizer(self, question: Question, kept: dict[str, Any]) -> dict[str, Any]:
        """Check that a run has one standardizer, and that rows can have it."""
        schema, plan = self.run.schema, self.run.plan
        if isinstance(question, Deviation):
            given = Standardizer(question.mean, question.mean * 0)
        elif isinstance(question, AboutModel):
            given = question.standardizer
        else:
            return {}
        if plan.standardize != bool(given.mean.size):
            word = "is missing" if plan.standardize else "must not be there"
            raise TaskError(f"task.mean: {word}, as was agreed")
        if not given.mean.size:
            return {}
        if fault := given.impossible(schema):
            raise TaskError(f"task.{fault}")
        if plan.privacy is not None:
            public = from_bounds(schema)
            if (public.mean != given.mean).any() or (public.deviation != given.deviation).any():
                raise TaskError("task.mean, task.deviation: must follow from the public bounds under privacy")
        found = {"mean": _digest_of(given.mean)}
        if not isinstance(question, Deviation):
            found["standardizer"] = _digest_of(given.mean, given.deviation)
        if any(kept.get(name, value) != value for name, value in found.items()):
            raise TaskError("task.mean, task.deviation: are others than before in this run")
        return found

    def _norm(self, question: Question, kept: dict[str, Any]) -> dict[str, Any]:
        """Check that an adaptive norm moves no faster than its rule can."""
        norm = self.run.plan.norm
        if not isinstance(question, Train) or not isinstance(norm, AdaptiveClip) or question.norm is None:
            return {}
        number, before = kept.get("norm", (1, norm.norm))
        rounds = question.number - number
        moved = math.log(question.norm / before)
        low, high = (-norm.rate * (share - norm.quantile) * rounds for share in (1.0, 0.0))
        if not low - _SLACK <= moved <= high + _SLACK:
            raise TaskError(
                f"task.norm: must be {before:.6g} times e^{low:.6g}..e^{high:.6g} {rounds} rounds "
                f"after it, is {question.norm:.6g}"
            )
        return {"norm": (question.number, question.norm)}

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
        task = Task.decode(payload, self.run.terms.encoding)
        floor = floor_for(parameters.threat_model, len(finished))
        state, encoding = self.site.state, task.encoding
        if isinstance(task.question, Train) and state.carried(
            encoding.asks, residual=encoding.shaping.keep < 1
        ):
            shared = sum(one.hex() in state.members for one in survivors)
            if shared < floor:
                raise ConsentError(
                    f"{task.name}: the vector carries over from a sum of {len(state.members)}, of whom "
                    f"{shared} are in this one, at least {floor} must be: keep the cohort together"
                )
        if encoding.noise is None:  # what sums tell together is within the budget where there is noise
            subject = self.run.subjects(self.store).of(task)  # of all passes over one update, too
            self.ledger.sign(subject, parameters.round_id, survivors, floor=floor)

    def counted(self, payload: bytes, survivors: Collection[Identity]) -> None:
        """Learn from our own session which sum our vector is in."""
        name = Task.decode(payload, self.run.terms.encoding).name
        self.site.state.count(name, [one.hex() for one in survivors])


def _digest_of(*arrays: Any) -> str:  # noqa: ANN401 - of numbers
    return hashlib.sha256(b"".join(array.astype("<f8").tobytes() for array in arrays)).hexdigest()
