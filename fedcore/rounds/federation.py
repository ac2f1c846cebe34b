"""The round loop: standardize by two secure sums, then train by as many as the plan says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.clipping import AdaptiveClip
from fedcore.data.schema import Schema
from fedcore.errors import TaskError
from fedcore.evaluation.federated import (
    SITE_BINS,
    Evaluation,
    SiteSpread,
    dimension,
    to_evaluation,
    to_spread,
)
from fedcore.learner import Learner, Metrics, Parameters, flatten, unflatten
from fedcore.names import select
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.aggregation import SumAggregator
from fedcore.rounds.instructions import Asks, Weighting, sent
from fedcore.rounds.model import model_arrays
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import Checkpoint
from fedcore.rounds.summation import OnRound, RoundRecord, Summed, sum_with_retries
from fedcore.rounds.task import Task, TaskKind
from fedcore.statistics.standardizer import Standardizer, from_bounds, to_mean, to_standardizer
from fedcore.strategies import FedAvg, RoundUpdate, Strategy
from fedcore.stream import permutation

_ABOUT_MODEL = {TaskKind.TRAIN, TaskKind.EVALUATE, TaskKind.SITES}
Evaluator: TypeAlias = Callable[[Parameters, Standardizer], Metrics]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """The outcome of a run.

    weight       rows of the sites in the last statistics round; 0 where there was none
    rounds       of training that were run
    evaluations  metrics by round
    stopped      why training ended before its last round
    epsilon      spent, where noise was added
    """

    parameters: Parameters
    standardizer: Standardizer
    weight: int
    rounds: int = 0
    evaluations: dict[int, Metrics] = field(default_factory=dict)
    stopped: str = ""
    epsilon: float | None = None


@dataclass(slots=True)
class Federation:
    """Drives an aggregator through a training plan.

    aggregator     PlainSum, SecureSum, FloatSum, or the service
    schema         of the rows; None: nothing is standardized, `classes` are the label's
    on_round       told what became of every task, as it happens
    evaluator      metrics of a model, for stopping; None: federated evaluation
    on_checkpoint  given everything that a later run needs to go on: after every round and, where noise
                   is added, before every attempt, as spent
    every_sum      also after every sum: sites that keep what they answered do not answer an earlier one again
    """

    aggregator: SumAggregator
    schema: Schema | None
    learner: Learner[Any]
    plan: TrainingPlan
    strategy: Strategy = field(default_factory=FedAvg)
    on_round: OnRound = lambda _record: None
    classes: tuple[str, ...] = ()
    evaluator: Evaluator | None = None
    on_checkpoint: Callable[[Checkpoint], None] = lambda _checkpoint: None
    every_sum: bool = False

    def run(self, resume: Checkpoint | None = None) -> TrainedModel:
        """Train, from the start or from a checkpoint. A round without a result is tried again.

        raises  the last RoundAbortedError or CodecError of a round; TaskError; BudgetExceededError before
                the round that would pass the budget
        """
        if resume is not None:
            self._check(resume)
        return _Run(self, resume).train()

    def _check(self, resume: Checkpoint) -> None:
        """Refuse a checkpoint that this run cannot go on from."""
        asks = self.strategy.asks()
        wanted = sent(self.learner.initial(), Asks(personal=asks.personal))
        if _shapes(resume.parameters) != _shapes(wanted):
            raise TaskError("resume: the parameters are not this learner's")
        state = self.strategy.start(flatten(sent(wanted, asks)).size)
        if _shapes(resume.state) != _shapes(state):
            raise TaskError(f"resume: the state is not that of {type(self.strategy).__name__}")
        if self.plan.privacy is not None and resume.number and resume.accountant is None:
            raise TaskError("resume: says nothing of the privacy that its rounds have spent")

    def evaluate(
        self,
        parameters: Parameters,
        standardizer: Standardizer | None = None,
        number: int = 1,
    ) -> Evaluation:
        """Evaluate over the held-out rows of all sites by one secure sum."""
        return _Run(self, Checkpoint.of(number, parameters, standardizer)).evaluation()

    def evaluate_sites(
        self,
        parameters: Parameters,
        standardizer: Standardizer | None = None,
        number: int = 1,
    ) -> SiteSpread:
        """Count the sites by bins of their own accuracy by one secure sum; arguments as in `evaluate`."""
        return _Run(self, Checkpoint.of(number, parameters, standardizer)).spread()


def _shapes(arrays: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


class _Run:
    """What changes while a federation runs."""

    def __init__(self, federation: Federation, resume: Checkpoint | None = None) -> None:
        self.federation = federation
        self.plan, self.strategy = federation.plan, federation.strategy
        privacy = self.plan.privacy
        self.guard = None if privacy is None else PrivacyGuard(privacy)
        if self.guard is not None and self.plan.evaluate_every and federation.evaluator is None:
            raise TaskError("evaluate_every: federated evaluation adds no noise; give an evaluator instead")
        if resume is None:
            initial = federation.learner.initial()
            select(initial, self.strategy.asks().personal, "ask.personal")
            select(initial, self.strategy.asks().shared, "ask.shared")
            shared = sent(initial, Asks(personal=self.strategy.asks().personal))
            now = Checkpoint.of(0, shared)
            size = flatten(sent(shared, self.strategy.asks())).size
            now = replace(now, state=dict(self.strategy.start(size)))
            now = replace(now, norm=self.plan.first_norm)
        else:
            now = resume
            if self.guard is not None and resume.accountant is not None:
                self.guard.accountant = type(self.guard.accountant).restore(resume.accountant)
        self.now = now

    def train(self) -> TrainedModel:
        """Run what is left of the plan."""
        federation, plan = self.federation, self.plan
        if federation.schema is not None and plan.standardize and not self.now.standardizer.deviation.size:
            if self.guard is None:
                self._standardize(federation.schema)
            else:  # exact statistics would be outside the budget
                self.now = replace(self.now, standardizer=from_bounds(federation.schema))
        self._evaluate_when_due()
        stopped = self._stopped()
        while self.now.number < plan.rounds and not stopped:
            self._round(self.now.number + 1)
            if federation.evaluator is None:
                self._between_sums()
            self._evaluate_when_due()
            federation.on_checkpoint(self.now)
            stopped = self._stopped()
        epsilon = None if self.guard is None else self.guard.accountant.epsilon
        now = self.now
        return TrainedModel(
            *(now.parameters, now.standardizer, now.weight, now.number, dict(now.evaluations)),
            *(stopped, epsilon),
        )

    def _between_sums(self) -> None:
        if self.federation.every_sum:
            self.federation.on_checkpoint(self.now)

    def _evaluate_when_due(self) -> None:
        """Evaluate the model of the last round, unless that was done before the run was gone on with."""
        now, every = self.now, self.plan.evaluate_every
        if every and now.number and now.number % every == 0 and now.number not in now.evaluations:
            self.now = replace(now, evaluations={**now.evaluations, now.number: self._metrics()})

    def _stopped(self) -> str:
        stopping = self.plan.stopping
        return "" if stopping is None else stopping.reason(list(self.now.evaluations.values()))

    def _metrics(self) -> Metrics:
        if self.federation.evaluator is not None:
            return self.federation.evaluator(self.now.parameters, self.now.standardizer)
        return self.evaluation().metrics

    def evaluation(self) -> Evaluation:
        """One secure sum over the sites' held-out rows."""
        classes = self._classes()
        summed = self._sum(self._about_model(TaskKind.EVALUATE, dimension(len(classes))))
        return to_evaluation(summed.mean.mean, summed.mean.weight, len(classes))

    def spread(self) -> SiteSpread:
        """One secure sum of one vote per site."""
        summed = self._sum(self._about_model(TaskKind.SITES, SITE_BINS))
        return to_spread(summed.mean.mean, len(summed.result.survivors))

    def _standardize(self, schema: Schema) -> None:
        columns = len(schema.columns)
        mean = self.now.standardizer.mean  # of a run that ended between the two sums
        if not mean.size:
            first = self._sum(self._task(TaskKind.MEAN, 1, columns, {}))
            mean = np.clip(to_mean(first.mean.mean, schema), schema.low, schema.high)  # rounding
            self.now = replace(self.now, standardizer=Standardizer(mean, np.zeros(0)))
            self._between_sums()
        task = self._task(TaskKind.DEVIATION, 1, columns, {"mean": mean})
        second = self._sum(task).mean
        resolution = task.codec.error_bound(self.plan.clients, second.weight)
        standardizer = to_standardizer(mean, second.mean, schema, resolution)
        self.now = replace(self.now, standardizer=standardizer, weight=second.weight)
        self._between_sums()

    def _sum(self, task: Task) -> Summed:
        """One sum that does not change the model."""
        summed = self.attempt(task, None)
        self._report(RoundRecord(task, summed.result, summed.mean.weight, "", self.now.parameters))
        return summed

    def attempt(self, task: Task, among: Sequence[str] | None) -> Summed:
        """Sum with retries; failures are reported, and spent where noise is added."""

        def allowed() -> None:
            if self.guard is None or task.noise is None:
                return
            spent = self.guard.before(task.noise, task.shaping.length(task.dimension) + task.hidden)
            # Whatever becomes of this process: a run that goes on from here has spent the attempt.
            self.federation.on_checkpoint(replace(self.now, accountant=spent.state()))

        def failed(reason: str) -> None:
            epsilon = self.spend(task, None)
            if self.guard is not None and epsilon is not None:  # spent, whatever becomes of this run
                self.now = replace(self.now, accountant=self.guard.accountant.state())
            self._report(RoundRecord(task, None, 0, reason, self.now.parameters, epsilon, task.shaping.norm))

        return sum_with_retries(
            self.federation.aggregator,
            task,
            attempts=self.plan.attempts,
            on_failure=failed,
            among=among,
            before=allowed,
        )

    def spend(self, task: Task, survivors: int | None) -> float | None:
        """Account for a sum, or for an attempt without one. Returns epsilon."""
        if self.guard is None or task.noise is None:
            return None
        return self.guard.after(task.noise, task.shaping.length(task.dimension) + task.hidden, survivors)

    def _report(self, record: RoundRecord) -> None:
        self.federation.on_round(record)

    def _round(self, number: int) -> None:
        """One round of training: sums, the strategy's step, the record of each sum."""
        sums = _RoundSums(self, number)
        update = self.strategy.combine(sums)
        parameters = self.now.parameters
        trained = sent(parameters, self.strategy.asks())
        vector, state = self.strategy.step(flatten(trained), update, self.now.state)
        if not np.isfinite(vector).all():
            raise TaskError(f"{type(self.strategy).__name__}: the step of round {number} is not finite")
        norm = self.now.norm
        if norm is not None and np.isfinite(update.within):
            norm = self.plan.next_norm(norm, update.within)
        self.now = replace(
            self.now,
            number=number,
            parameters={**parameters, **unflatten(vector, trained)},
            state=dict(state),
            norm=norm,
            accountant=None if self.guard is None else self.guard.accountant.state(),
        )
        for record in sums.records:
            self._report(replace(record, parameters=self.now.parameters))

    def training_task(self, number: int, arrays: dict[str, NDArray[np.float64]], passes: int) -> Task:
        """Return the task of a training round."""
        asks = self.plan.asks(self.strategy.asks(), number)
        size = flatten(sent(self.now.parameters, asks)).size
        values = size * (2 if asks.control else 1)
        shaping = self.plan.shaping(number, self.now.norm)
        task = self._about_model(TaskKind.TRAIN, values, number)
        codec, noise = self.plan.round_codec(asks, shaping, values)
        return replace(
            task,
            codec=codec,
            asks=asks,
            shaping=shaping,
            noise=noise,
            passes=passes,
            arrays=task.arrays | self.strategy.arrays(self.now.state) | arrays,
        )

    def _about_model(self, kind: TaskKind, values: int, number: int | None = None) -> Task:
        """Return a task with the model and the standardization in it."""
        arrays = model_arrays(self.now.parameters, self.now.standardizer)
        task = self._task(kind, self.now.number if number is None else number, values, arrays)
        asks = replace(task.asks, personal=self.strategy.asks().personal)
        if kind is TaskKind.SITES:
            asks = replace(asks, weighting=Weighting.UNIFORM)
        return replace(task, asks=asks)

    def _classes(self) -> tuple[str, ...]:
        schema = self.federation.schema
        return self.federation.classes if schema is None else schema.classes

    def _task(self, kind: TaskKind, number: int, values: int, arrays: dict[str, NDArray[np.float64]]) -> Task:
        schema = self.federation.schema
        columns = () if schema is None else schema.columns
        return Task(
            kind=kind,
            number=number,
            dimension=values,
            codec=self.plan.codec(kind),
            columns=tuple((column.name, column.low, column.high) for column in columns),
            classes=self._classes(),
            arrays=arrays,
        )

    def update_of(self, summed: Summed) -> RoundUpdate:
        """Return what a sum says about the round."""
        task, mean = summed.task, summed.mean
        quantile = task.asks.quantile if task.hidden else 0.0
        vector, within = task.shaping.restore(mean.mean, task.dimension, quantile)
        precise = dict(zip(task.precise, mean.precise, strict=True))
        if "within" in precise:
            within = (1 + precise["within"]) / 2
        steps = (1 + precise["steps"]) / 2 * task.asks.steps_cap if "steps" in precise else float("nan")
        control = None
        if task.asks.control:
            vector, moved = np.split(vector, 2)
            control = moved / task.asks.control
        survivors = len(summed.result.survivors)
        return RoundUpdate(task.asks.update, vector, mean.weight, survivors, steps, control, within)


def expected_task(federation: Federation, task: Task) -> Task:
    """Return what this federation would ask in the place of a task, with the public arrays of that one.

    raises  TaskError: nothing, in no run that follows the plan; CodecError, ParameterError
    """
    plan, strategy = federation.plan, federation.strategy
    standardizer = Standardizer.none()
    if "deviation" in task.arrays and "mean" in task.arrays:
        standardizer = Standardizer(task.arrays["mean"], task.arrays["deviation"])
    parameters = sent(federation.learner.initial(), Asks(personal=strategy.asks().personal))
    if _shapes(task.model) != _shapes(parameters) and task.kind in _ABOUT_MODEL:
        raise TaskError("task.model: not the shapes of this site's learner")
    now = Checkpoint.of(task.number, task.model or parameters, standardizer)
    state = strategy.start(flatten(sent(parameters, strategy.asks())).size)
    norm = task.shaping.norm if isinstance(plan.norm, AdaptiveClip) else plan.norm
    run = _Run(federation, replace(now, state=dict(state), norm=norm))
    columns = 0 if federation.schema is None else len(federation.schema.columns)
    match task.kind:
        case TaskKind.TRAIN:
            made = run.training_task(task.number, {}, task.passes)
            wanted = set(made.arrays) | ({"center"} if task.passes else set())
        case TaskKind.EVALUATE:
            made = run._about_model(TaskKind.EVALUATE, dimension(len(run._classes())), task.number)  # noqa: SLF001
            wanted = set(made.arrays)
        case TaskKind.MEAN | TaskKind.DEVIATION:
            made = run._task(task.kind, task.number, columns, {})  # noqa: SLF001
            wanted = {"mean"} if task.kind is TaskKind.DEVIATION else set()
        case _:
            raise TaskError(f"task.kind: {task.kind} is in no run that was agreed on")
    if wanted != task.arrays.keys():
        raise TaskError(f"task.arrays: must be {sorted(wanted)}, are {sorted(task.arrays)}")
    return replace(made, arrays=task.arrays)


class _RoundSums:
    """The sums of one training round, as a strategy asks for them (strategies.Sums)."""

    def __init__(self, run: _Run, number: int) -> None:
        self._run = run
        self._number = number
        self.records: list[RoundRecord] = []
        names = run.federation.aggregator.names
        self._cohort = run.plan.cohort_of(names, number)
        self._everybody = len(self._cohort) == len(names)

    @property
    def sites(self) -> Sequence[str]:
        return self._cohort

    def shuffled(self) -> Sequence[str]:
        seed = self._run.plan.round_seed(self._number, "groups")
        return tuple(self._cohort[i] for i in permutation(seed, len(self._cohort)))

    def mean(
        self,
        among: Sequence[str] | None = None,
        *,
        passes: int = 0,
        center: NDArray[np.float64] | None = None,
    ) -> RoundUpdate:
        """One secure sum over the cohort or some of it."""
        run = self._run
        task = run.training_task(self._number, {} if center is None else {"center": center}, passes)
        if among is None and not self._everybody:
            among = self._cohort
        summed = run.attempt(task, among)
        epsilon = run.spend(task, len(summed.result.survivors))
        update = run.update_of(summed)
        within = update.within if task.asks.quantile else None
        self.records.append(
            RoundRecord(
                *(task, summed.result, summed.mean.weight, "", run.now.parameters),
                *(epsilon, task.shaping.norm, within),
            )
        )
        return update
