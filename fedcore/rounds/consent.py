"""Consent of a site: to a run that goes as agreed, step by step, whatever the server says.

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
from typing import Any

import numpy as np

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError, TaskError
from fedcore.rounds.agreement import Run
from fedcore.rounds.questions import AboutModel, Count, Covariance, Cumulative, Question, Train
from fedcore.rounds.site import Site
from fedcore.rounds.state import pack_site, unpack_site
from fedcore.rounds.task import Task
from fedcore.statistics.standardizer import Standardizer, from_bounds
from secagg import ConsentError, Identity, OneShotParameters, RoundParameters
from secagg.service import Question as LedgerQuestion
from secagg.store import ParticipationLedger, Store, floor_for

_SLACK = 1e-9


@dataclass(slots=True)
class Consent:
    """One site's consent to one run.

    store   of this site: what it answered, and the models it was asked about
    ledger  of the sums that it signed
    raises  SettingError: the run has a budget, and the site no account of it
    """

    run: Run
    site: Site
    store: Store = field(repr=False)
    ledger: ParticipationLedger = field(repr=False)

    def __post_init__(self) -> None:
        if self.run.plan.privacy is not None and self.site.guard is None:
            raise SettingError("site.guard: is missing, under [privacy] a site keeps an account of its own")
        if (kept := self.store.get(self._site_name)) is not None:  # of this site before it was started again
            self.site.state.restore(unpack_site(kept))

    # --- before anything is computed

    def admit(self, payload: bytes, parameters: RoundParameters | OneShotParameters) -> Task:
        """Return the task of a payload, and keep that it is answered. Raises TaskError, CodecError."""
        task = self._read(payload, parameters)
        with self.store.transaction():
            kept = self._following(task, parameters.round_id.hex())
            self.store.put({self._name: json.dumps(kept, sort_keys=True).encode()})
        return task

    def _read(self, payload: bytes, parameters: RoundParameters | OneShotParameters) -> Task:
        """Return a task that may be asked in some place of this run. Raises TaskError, CodecError."""
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
        if isinstance(parameters, RoundParameters):
            tolerated = floor_for(parameters.threat_model, parameters.minimum_cohort) - 2
            if tolerated < self.run.colluders:
                raise TaskError(
                    f"parameters.threat_model.corrupt: must cover {self.run.colluders} colluders in a round "
                    f"of {parameters.minimum_cohort}, covers {tolerated}"
                )
        elif parameters.colluding < self.run.colluders:
            raise TaskError(
                f"parameters.colluding: must be at least {self.run.colluders}, is {parameters.colluding}"
            )
        if not task.step or terms.place(task.question) != task.step:
            raise TaskError(f"task.step: {task.name} is not step {task.step} of the run that was agreed on")
        if not 1 <= task.attempt <= terms.plan.attempts:
            raise TaskError(f"task.attempt: must be in 1..{terms.plan.attempts}, is {task.attempt}")
        self._check_arrays(task)
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
        most = self.run.terms.values
        if isinstance(question, Cumulative) and question.edges.size > most:
            raise TaskError(f"task.edges: must be at most {most} numbers, are {question.edges.size}")
        if isinstance(question, Count) and len(question.cells) > most:
            raise TaskError(f"task.cells: must be at most {most}, are {len(question.cells)}")
        if (self.run.cohort_of(task.cohort) is not None) != self.run.regroups:
            word = "is missing" if self.run.regroups else "must not be there"
            raise TaskError(f"task.cohort: {word}, as was agreed")

    @property
    def _name(self) -> str:
        return self.run.store_name

    @property
    def _site_name(self) -> str:
        return f"site/{self.run.digest.hex()}"

    def _following(self, task: Task, round_id: str) -> dict[str, Any]:
        """Return what is to be kept of this task. Raises TaskError unless it may follow what was answered.

        The newest may be computed again in its own round, of which one vector leaves at most: by a process
        that was started again.
        """
        text = self.store.get(self._name)
        kept: dict[str, Any] = {} if text is None else json.loads(text)
        last = tuple(kept.get("last", (0, 0, 0)))
        now, digest = (task.step, task.attempt, task.question.passes), task.digest.hex()
        again = now == last and round_id == kept.get("round")
        if now <= last and not again:
            raise TaskError(
                f"task: {task.name} is step {now[0]}, attempt {now[1]}, and does not follow step {last[0]}, "
                f"attempt {last[1]}, which was answered: a run that begins anew with this store needs "
                "another --name (consent.name)"
            )
        if now[0] == last[0] and digest != kept["digest"]:
            raise TaskError(f"task: {task.name} was answered, and asks something else now")
        out = kept | {"last": now, "digest": digest, "round": round_id}
        return out | self._standardizer(task.question, kept) | self._norm(task.question, kept)

    def _standardizer(self, question: Question, kept: dict[str, Any]) -> dict[str, Any]:
        """Check that a run has one standardizer, and that rows can have it."""
        schema, plan = self.run.schema, self.run.plan
        given, wanted = _scale_of(question), plan.standardize or isinstance(question, Covariance)
        if given is None:
            return {}
        if wanted != bool(given.mean.size):
            word = "is missing" if wanted else "must not be there"
            raise TaskError(f"task.mean: {word}, as was agreed")
        if not given.mean.size:
            return {}
        if fault := given.impossible(schema):
            raise TaskError(f"task.{fault}")
        if plan.privacy is not None and not plan.privacy.statistics:
            public = from_bounds(schema)
            if (public.mean != given.mean).any() or (public.deviation != given.deviation).any():
                raise TaskError(
                    "task.mean, task.deviation: must follow from the bounds, privacy.statistics is false"
                )
        if isinstance(question, Covariance):  # about a mean of its own
            return {}
        found = {"mean": _digest_of(given.mean)}
        if isinstance(question, AboutModel):
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

    def answered_before(self, task: Task) -> bool:
        """Tell whether rows were used for what a task is about: it is to be answered with these again."""
        return any(self.store.get(name) is not None for name in self._rows_of(task))

    def fix_rows(self, task: Task) -> None:
        """Keep with which rows a task is answered: never again with others, whoever asks, in whatever run.

        Two sums over the same members about other rows differ by what has changed, which may be one row.
        raises  TaskError: it was answered with other rows
        """
        version, names = self.site.version(task), self._rows_of(task)
        with self.store.transaction():
            if any(self.store.get(name) not in {None, version} for name in names):
                raise TaskError(
                    f"{task.name}: sums about this were answered with other rows, or others were held out; "
                    "when rows have changed, all parties agree on another --rows NAME"
                )
            self.store.put(dict.fromkeys(names, version))

    def _rows_of(self, task: Task) -> list[str]:
        if task.encoding.noise is not None:  # what sums tell together is within the budget
            return []
        of = "held out" if self.site.evaluates_apart(task) else "trained on"
        return [f"rows/{of}/{subject.hex()}" for subject in self.run.subjects(self.store).all_of(task)]

    # --- before the vector and a signature leave, and after

    def question_of(self, payload: bytes, parameters: RoundParameters) -> LedgerQuestion:
        """Return what the ledger is to know a round by, before the vector leaves. Raises TaskError."""
        task = self._read(payload, parameters)
        if task.encoding.noise is not None:  # what sums tell together is within the budget
            return LedgerQuestion(parameters.context)
        subject, cohort = self.run.subjects(self.store).of(task), self.run.cohort_of(task.cohort)
        return LedgerQuestion(subject, cohort, self.run.floor if cohort is None else self.run.cell)

    def signs(
        self,
        payload: bytes,
        parameters: RoundParameters,
        survivors: Collection[Identity],
    ) -> None:
        """Refuse to sign a set over which no sum may be opened; else it is kept as signed.

        raises  LedgerError, ConsentError
        """
        task = Task.decode(payload, self.run.terms.encoding)
        floor = self.run.floor
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
        if encoding.noise is not None:  # what sums tell together is within the budget
            return
        with self.store.transaction():
            for subject in self.run.subjects(self.store).all_of(task):  # that of all passes, too
                if isinstance(task.question, Train) and self.run.terms.passes:
                    self._count_equation(task, subject, len(survivors))
                self.ledger.sign(subject, parameters.round_id, survivors, floor=floor)

    def _count_equation(self, task: Task, subject: bytes, survivors: int) -> None:
        """Keep that one more sum with other weights is about the same updates: it hides in so many more.

        raises  ConsentError
        """
        name = f"equations/{subject.hex()}"
        before = int(self.store.get(name) or b"0")
        needed = self.run.colluders + 2 + before
        if survivors < needed:
            raise ConsentError(
                f"{task.name}: {before} sums about the same updates were signed, one more needs at least "
                f"{needed} members, has {survivors}"
            )
        self.store.put({name: str(before + 1).encode()})

    def presumed(self, payload: bytes) -> None:
        """Note an upload of the one-upload protocol: whether it was summed its site does not learn."""
        task = Task.decode(payload, self.run.terms.encoding)
        if isinstance(task.question, Train):
            self.site.trained += 1
            self.site.silent += bool(self.site.trouble)

    def counted(self, payload: bytes, survivors: Collection[Identity]) -> None:
        """Learn from our own session which sum our vector is in."""
        task = Task.decode(payload, self.run.terms.encoding)
        self.site.state.count(task.name, [one.hex() for one in survivors])
        if kept := self.site.state.kept():
            self.store.put({self._site_name: pack_site(kept)})
        if isinstance(task.question, Train):
            self.site.trained += 1
            self.site.silent += bool(self.site.trouble)


def _scale_of(question: Question) -> Standardizer | None:
    """Return what a question standardizes rows by, or centers them at; None: it does neither."""
    if isinstance(question, AboutModel):
        return question.standardizer
    mean = getattr(question, "mean", None)  # of whatever kind: none goes by unchecked
    return None if mean is None else Standardizer(mean, np.zeros_like(mean))


def _digest_of(*arrays: Any) -> str:  # noqa: ANN401 - of numbers
    return hashlib.sha256(b"".join(array.astype("<f8").tobytes() for array in arrays)).hexdigest()
