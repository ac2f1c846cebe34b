"""Terms that all parties know before a run starts, and the order and the form of every sum, which follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fedcore.codec.clipping import AdaptiveClip
from fedcore.codec.shaping import Shaping
from fedcore.data.schema import Schema
from fedcore.errors import TaskError
from fedcore.evaluation import federated
from fedcore.learner import Learner, check_parameters, size_of
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks, Weighting, sent
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import (
    AboutModel,
    Count,
    Covariance,
    Cumulative,
    Deviation,
    Mean,
    Moments,
    Question,
    TaskKind,
    Train,
)
from fedcore.rounds.task import Task
from fedcore.settings import require
from fedcore.statistics.moments import moments_asked, moments_norm
from fedcore.statistics.standardizer import means_asked
from fedcore.strategies import Strategy


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a run a sum stands. All passes over the vectors of one round are in one place."""

    kind: TaskKind
    number: int


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The agreed values of a run.

    asks      of the strategy, before the plan adds its own; passes: of the strategy after a first sum
    schema    of the rows; None: nothing is standardized. classes: of the label
    size      parameters that are trained and sent
    before    statistics that may be asked ahead of training: (kind, how often)
    values    most numbers of such a statistic
    after     what may be asked of the final model, likewise
    expected  rows of a site, publicly, by which a learner divides that bounds persons; 0: none does
    """

    plan: TrainingPlan
    asks: Asks
    passes: int
    schema: Schema | None
    classes: tuple[str, ...]
    size: int
    before: tuple[tuple[TaskKind, int], ...] = ()
    values: int = 4096
    after: tuple[tuple[TaskKind, int], ...] = ()
    expected: float = 0.0

    def __post_init__(self) -> None:
        if self.schema is not None and self.schema.filled.size:
            name = self.schema.columns[int(self.schema.filled[0])].name
            rule = f"true where missing values become the mean of all sites, as those of {name}"
            require(self.plan.standardize, "plan.standardize", rule, self.plan.standardize)

    @classmethod
    def of(
        cls,
        plan: TrainingPlan,
        strategy: Strategy,
        learner: Learner[Any],
        schema: Schema | None,
        classes: tuple[str, ...] = (),
    ) -> Terms:
        """Return the terms of a run. Raises TaskError: nothing would be sent."""
        asks = strategy.asks()
        return cls(
            plan=plan,
            asks=asks,
            passes=getattr(strategy, "passes", 0),
            schema=schema,
            classes=classes if schema is None else schema.classes,
            size=size_of(sent(check_parameters(learner.initial(), "learner.initial"), asks)),
            expected=getattr(learner, "expected", 0.0),
        )

    @cached_property
    def schedule(self) -> dict[Place, int]:
        """Return the step, from 1, of every sum that a run may have, in order."""
        return {place: step for step, place in enumerate(self._places(), 1)}

    def _places(self) -> Iterator[Place]:
        plan = self.plan
        for kind, count in self.before:
            yield from (Place(kind, number) for number in range(1, count + 1))
        if self.schema is not None and plan.standardize and plan.privacy is None:
            yield from (Place(kind, 1) for kind in (TaskKind.MEAN, TaskKind.DEVIATION))
        if self.schema is not None and plan.privacy is not None and plan.privacy.statistics:
            yield Place(TaskKind.MOMENTS, 1)
        for number in range(1, plan.rounds + 1):
            yield Place(TaskKind.TRAIN, number)
            if plan.evaluate_every and number % plan.evaluate_every == 0:
                yield Place(TaskKind.EVALUATE, number)
        for kind, count in self.after:
            yield from (Place(kind, plan.rounds + number) for number in range(1, count + 1))

    @property
    def adapts(self) -> bool:
        """Whether the norm of the updates changes from round to round."""
        return isinstance(self.plan.norm, AdaptiveClip)

    def place(self, question: Question) -> int:
        """Return the step of a question; 0: it is in no run of these terms."""
        if question.passes > self.passes:
            return 0
        return self.schedule.get(Place(question.kind, question.number), 0)

    def task(self, question: Question) -> Task:
        """Return the first attempt at an answer. Raises CodecError, ParameterError, TaskError."""
        return Task(question=question, encoding=self.encoding(question), step=self.place(question))

    def encoding(self, question: Question) -> Encoding:
        """Return the form of the answers. Raises CodecError, ParameterError, TaskError."""
        if isinstance(question, Train):
            return self._training(question)
        if isinstance(question, Moments):
            return self._moments()
        uniform = question.kind is TaskKind.SITES
        asks = Asks(weighting=Weighting.UNIFORM if uniform else Weighting.ROWS)
        if isinstance(question, AboutModel):
            asks = replace(asks, personal=self.asks.personal)
        return Encoding(
            dimension=self._values(question),
            codec=self.plan.codec(question.kind),
            asks=asks,
            schema=self.schema,
            classes=self.classes,
        )

    def first_noisy(self) -> Encoding:
        """Return the form of the first sum that has noise, under a budget."""
        private = self.plan.privacy
        if private is not None and private.statistics and self.schema is not None:
            return self._moments()
        return self._training(Train(model={}, norm=self.plan.first_norm if self.adapts else None))

    def _values(self, question: Question) -> int:
        """Return the numbers of an answer that is no training."""
        columns = 0 if self.schema is None else len(self.schema.columns)
        match question:
            case Cumulative(edges=edges):
                return edges.size
            case Count(cells=cells):
                return len(cells)
            case Covariance():
                return columns * (columns + 1) // 2
            case Mean():
                return 0 if self.schema is None else means_asked(self.schema)
            case AboutModel(kind=TaskKind.SITES):
                return federated.SITE_BINS
            case AboutModel():
                return federated.dimension(len(self.classes))
            case Deviation():
                return columns
            case _:
                raise TaskError(f"task.kind: {question.kind} has no known number of values")

    def _moments(self) -> Encoding:
        if self.schema is None:
            raise TaskError("task.kind: moments need a schema with public bounds")
        norm, dimension = moments_norm(self.schema), moments_asked(self.schema)
        codec, noise = self.plan.moments_codec(norm, dimension, self.expected)
        return Encoding(
            dimension=dimension,
            codec=codec,
            shaping=Shaping(norm=norm),
            noise=noise,
            asks=Asks(weighting=Weighting.UNIFORM),
            schema=self.schema,
            classes=self.classes,
        )

    def _training(self, question: Train) -> Encoding:
        asks = self.plan.asks(self.asks, question.number)
        if self.adapts != (question.norm is not None):
            raise TaskError(f"task.norm: {'is missing, it adapts' if self.adapts else 'does not adapt'}")
        shaping = self.plan.shaping(question.number, question.norm)
        dimension = self.size * (2 if asks.control else 1)
        codec, noise = self.plan.round_codec(asks, shaping, dimension)
        return Encoding(
            dimension=dimension,
            codec=codec,
            shaping=shaping,
            noise=noise,
            asks=asks,
            schema=self.schema,
            classes=self.classes,
        )
