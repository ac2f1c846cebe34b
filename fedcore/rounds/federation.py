"""The round loop: standardize by two secure sums, then train by as many as the plan says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.errors import SettingError, TaskError
from fedcore.evaluation.federated import Evaluation, SiteSpread
from fedcore.learner import Learner, Metrics, Parameters, check_parameters, flatten, unflatten
from fedcore.names import select
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.aggregation import GroupSum, SumAggregator
from fedcore.rounds.attempts import Attempts, OnRound, RoundRecord
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks, Weighting, sent
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Deviation, Evaluate, Mean, Moments, Question, Sites, Train
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from fedcore.settings import differences, to_json
from fedcore.statistics.moments import from_moments
from fedcore.statistics.standardizer import Standardizer, from_bounds, to_mean, to_standardizer
from fedcore.strategies import FedAvg, RoundUpdate, Strategy
from fedcore.strategies.named import strategy_json
from fedcore.stream import permutation

Evaluator: TypeAlias = Callable[[Parameters, Standardizer], Metrics]

_SHOWN = 3  # differences, in a message


@dataclass(slots=True)
class Federation:
    """Drives an aggregator through a training plan.

    aggregator     PlainSum, SecureSum, FloatSum, or the service
    schema         of the rows; None: nothing is standardized, `classes` are the label's
    on_round       told what became of every task, as it happens
    evaluator      metrics of a model, for stopping; None: federated evaluation
    on_checkpoint  given everything that a later run needs to go on: after every round and, where noise
                   is added, before every attempt, as spent
    every_sum      also before every attempt and after every sum: sites that keep what they answered do not
                   answer an earlier one again
    ready          called ahead of every attempt, of everybody or some: returns when it makes sense
    known          tells whether the sum of a task, over all or some, was begun by an earlier process: it is
                   gone on with
    about          what the run stands on, in its checkpoints; None: learner, schema and strategy
    terms          what the sites agreed to; None: what follows from the rest
    """

    aggregator: SumAggregator
    schema: Schema | None
    learner: Learner[Any]
    plan: TrainingPlan
    strategy: Strategy = field(default_factory=FedAvg)
    on_round: OnRound = lambda _record: None
    classes: tuple[str, ...] = ()
    evaluator: Evaluator | None = None
    on_checkpoint: Callable[[RunState], None] = lambda _state: None
    every_sum: bool = False
    ready: Callable[[Sequence[str] | None], None] = lambda _among: None
    known: Callable[[Task, Sequence[str] | None], bool] = lambda _task, _among: False
    about: Mapping[str, Any] | None = None
    terms: Terms | None = None

    def __post_init__(self) -> None:
        if type(self.strategy).step is Strategy.step:
            raise SettingError(f"strategy: {type(self.strategy).__name__} has no step, see fedcore.Strategy")

    def run(self, resume: RunState | None = None) -> RunState:
        """Train, from the start or from a checkpoint. A round without a result is tried again.

        raises  the last RoundAbortedError or CodecError of a round; TaskError; BudgetExceededError before
                the round that would pass the budget
        """
        if resume is not None:
            self._check(resume)
        return _Run(self, resume).train()

    def _check(self, resume: RunState) -> None:
        """Refuse a checkpoint that this run cannot go on from."""
        refuse_other(resume, self.stands_on(), self.plan)
        asks = self.strategy.asks()
        wanted = sent(self.learner.initial(), Asks(personal=asks.personal))
        if _shapes(resume.parameters) != _shapes(wanted):
            raise TaskError("resume: the parameters are not this learner's")
        state = self.strategy.start(flatten(sent(wanted, asks)).size)
        if _shapes(resume.state) != _shapes(state):
            raise TaskError(f"resume: the state is not that of {type(self.strategy).__name__}")
        if self.plan.privacy is not None and resume.number and resume.accountant is None:
            raise TaskError("resume: says nothing of the privacy that its rounds have spent")

    def stands_on(self) -> dict[str, Any]:
        """Return what makes this run another one than others, as JSON values."""
        if self.about is not None:
            return dict(self.about)
        learner, schema = type(self.learner), self.schema
        return {
            "learner": f"{learner.__module__}.{learner.__qualname__}",
            "schema": {} if schema is None else to_json(schema),
            "strategy": _told(self.strategy),
        }

    def evaluate(
        self, parameters: Parameters, standardizer: Standardizer | None = None, number: int = 1
    ) -> Evaluation:
        """Evaluate over the held-out rows of all sites by one secure sum."""
        return _Run(self, RunState.of(number, parameters, standardizer)).evaluation()

    def evaluate_sites(
        self, parameters: Parameters, standardizer: Standardizer | None = None, number: int = 1
    ) -> SiteSpread:
        """Count the sites by bins of their own accuracy by one secure sum."""
        return _Run(self, RunState.of(number, parameters, standardizer)).spread()


def refuse_other(checkpoint: RunState, about: Mapping[str, Any], plan: TrainingPlan) -> None:
    """Raise TaskError where a checkpoint is of another run, or behind the end of this one."""
    others = list(differences(checkpoint.about, dict(about))) if checkpoint.about else []
    if others:
        more = f" (and {len(others) - _SHOWN} more)" if len(others) > _SHOWN else ""
        raise TaskError(f"resume: a checkpoint of another run: {'; '.join(others[:_SHOWN])}{more}")
    if (done := checkpoint.number) > plan.rounds:
        raise TaskError(f"plan.rounds: must be at least the {done} that are done, is {plan.rounds}")


def _told(strategy: Strategy) -> dict[str, Any]:
    try:
        return strategy_json(strategy)
    except SettingError:  # foreign code: whoever goes on with it knows whether it is the same
        return {"name": f"{type(strategy).__module__}:{type(strategy).__qualname__}"}


def _shapes(arrays: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


class _Run:
    """State of a federation that runs."""

    def __init__(self, federation: Federation, resume: RunState | None = None) -> None:
        self.federation = federation
        self.plan, self.strategy = federation.plan, federation.strategy
        privacy = self.plan.privacy
        self.guard = None if privacy is None else PrivacyGuard(privacy)
        if self.guard is not None and self.plan.evaluate_every and federation.evaluator is None:
            raise TaskError("evaluate_every: federated evaluation adds no noise; give an evaluator instead")
        if resume is None:
            initial = check_parameters(federation.learner.initial(), "learner.initial")
            select(initial, self.strategy.asks().personal, "ask.personal")
            select(initial, self.strategy.asks().shared, "ask.shared")
            shared = sent(initial, Asks(personal=self.strategy.asks().personal))
            now = RunState.of(0, shared)
            size = flatten(sent(shared, self.strategy.asks())).size
            now = replace(now, state=dict(self.strategy.start(size)), norm=self.plan.first_norm)
        else:
            now = resume
            if self.guard is not None and resume.accountant is not None:
                self.guard.accountant = type(self.guard.accountant).restore(resume.accountant)
        step, last = now.tried
        now = replace(now, about=federation.stands_on())
        self.now, self.tried = now, (step, last + 1)  # what was asked before is not asked again,
        self._again = resume is not None  # but where the aggregator still has it, it is gone on with
        self._gone_on: set[tuple[int, int]] = set()  # such attempts, by step: spent already

    @cached_property
    def terms(self) -> Terms:
        """Terms that the sites agreed to."""
        one = self.federation
        if one.terms is not None:
            return one.terms
        return Terms.of(one.plan, one.strategy, one.learner, one.schema, one.classes)

    def train(self) -> RunState:
        """Run what is left of the plan."""
        federation, plan = self.federation, self.plan
        if federation.schema is not None and plan.standardize and not self.now.standardizer.deviation.size:
            if self.guard is None:
                self._standardize(federation.schema)
            elif self.guard.plan.statistics:
                self._standardize_privately(federation.schema)
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
        return replace(self.now, stopped=stopped, epsilon=epsilon)

    def _between_sums(self) -> None:
        if self.federation.every_sum:
            self.federation.on_checkpoint(self.now)

    def _evaluate_when_due(self) -> None:
        """Evaluate the model of the last round, unless that was done before the run was gone on with."""
        now, every = self.now, self.plan.evaluate_every
        if every and now.number and now.number % every == 0 and now.number not in now.evaluations:
            metrics = self._metrics()
            self.now = replace(self.now, evaluations={**self.now.evaluations, now.number: metrics})

    def _stopped(self) -> str:
        stopping = self.plan.stopping
        return "" if stopping is None else stopping.reason(list(self.now.evaluations.values()))

    def _metrics(self) -> Metrics:
        if self.federation.evaluator is not None:
            return self.federation.evaluator(self.now.parameters, self.now.standardizer)
        return self.evaluation().metrics

    def evaluation(self) -> Evaluation:
        """One secure sum over the sites' held-out rows."""
        now = self.now
        question = Evaluate(number=now.number, model=now.parameters, standardizer=now.standardizer)
        return self._sum(question).evaluation()

    def spread(self) -> SiteSpread:
        """One secure sum of one vote per site."""
        now = self.now
        question = Sites(number=now.number, model=now.parameters, standardizer=now.standardizer)
        return self._sum(question).spread()

    def _standardize(self, schema: Schema) -> None:
        mean = self.now.standardizer.mean  # of a run that ended between the two sums
        if not mean.size:
            mean = to_mean(self._sum(Mean()).mean.mean, schema)
            self.now = replace(self.now, standardizer=Standardizer(mean, np.zeros(0)))
            self._between_sums()
        second = self._sum(Deviation(mean=mean))
        resolution = second.task.encoding.codec.error_bound(self.plan.clients, second.mean.weight)
        standardizer = to_standardizer(mean, second.mean.mean, schema, resolution)
        self.now = replace(self.now, standardizer=standardizer, weight=second.mean.weight)
        self._between_sums()

    def _standardize_privately(self, schema: Schema) -> None:
        """One sum with noise, which is a release of the budget."""
        found = self._sum(Moments())
        codec, noise = found.task.encoding.codec, found.task.encoding.noise
        variance = 0.0 if noise is None else noise.variance / found.fewest
        deviation = math.sqrt(variance) * codec.clip / codec.levels
        standardizer = from_moments(found.mean.mean, deviation, schema)
        account = None if self.guard is None else self.guard.accountant.state()
        self.now = replace(self.now, standardizer=standardizer, accountant=account)
        self._between_sums()

    def _sum(self, question: Question) -> GroupSum:
        """One sum that does not change the model."""
        found = self.attempt(question, None)
        epsilon = self.spend(found.task, found.fewest)
        self._report(RoundRecord(found.task, found, "", self.now.parameters, epsilon))
        return found

    def _refuse_vanishing(self, encoding: Encoding) -> None:
        """Raise SettingError where rounding may move the mean of all rows as far as a value can be."""
        codec, weight = encoding.codec, self.now.weight
        known = weight and encoding.noise is None and encoding.asks.weighting is Weighting.ROWS
        if not known or codec.bits == 1 or codec.error_bound(1, weight) < codec.clip:
            return
        raise SettingError(
            f"plan.weight_cap: with {codec.weight_cap} and plan.bits {codec.bits} a step of rounding is as "
            f"large as the largest value of all {weight} rows together: agree on a cap near the rows of the "
            "largest site, or on more bits"
        )

    def attempt(self, question: Question, among: Sequence[str] | None) -> GroupSum:
        """Sum with retries; failures are reported, and spent where noise is added."""
        task = self.terms.task(question)
        if isinstance(question, Train):
            self._refuse_vanishing(task.encoding)

        def before(attempt: Task) -> None:
            if self._goes_on(attempt, among):
                return
            self.federation.ready(among)  # first: an attempt that waits is not spent
            self.tried = attempt.step, attempt.attempt
            self.now = now = replace(self.now, tried=self.tried)
            noise = task.encoding.noise
            if self.guard is not None and noise is not None:
                # Whatever becomes of this process: a run that goes on from here has spent the attempt.
                now = replace(now, accountant=self.guard.before(noise, task.encoding.sent).state())
            elif not self.federation.every_sum:
                return
            self.federation.on_checkpoint(now)

        def failed(attempt: Task, reason: str) -> None:
            epsilon = self.spend(attempt, None)
            if self.guard is not None and epsilon is not None:  # spent, whatever becomes of this run
                self.now = replace(self.now, accountant=self.guard.accountant.state())
            norm = task.encoding.shaping.norm
            self._report(RoundRecord(attempt, None, reason, self.now.parameters, epsilon, norm))

        step, first = self.tried  # of all sums of a round: sites count its attempts, too
        done = first - 1 if task.step and step == task.step else 0
        if done and self._goes_on(replace(task, attempt=done), among):
            done -= 1
        aggregator, plan = self.federation.aggregator, self.plan
        return Attempts(aggregator, plan.attempts, plan.smallest_group, before, failed, done).sum(task, among)

    def _goes_on(self, attempt: Task, among: Sequence[str] | None) -> bool:
        """Return whether an attempt was begun before this run was gone on with; it is spent already."""
        if self._again and attempt.step and self.federation.known(attempt, among):
            self._gone_on.add((attempt.step, attempt.attempt))
            return True
        self._again = False  # what follows is new
        return False

    def spend(self, task: Task, survivors: int | None) -> float | None:
        """Account for a sum, or for an attempt without one. Returns epsilon."""
        if self.guard is None or task.encoding.noise is None:
            return None
        if (task.step, task.attempt) in self._gone_on:
            return self.guard.accountant.epsilon
        return self.guard.after(task.encoding.noise, task.encoding.sent, survivors)

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

    def question(self, number: int, passes: int, center: NDArray[np.float64] | None) -> Train:
        """Return what a training round asks."""
        now = self.now
        arrays = self.strategy.arrays(now.state)
        if unknown := arrays.keys() - {"control"}:
            raise TaskError(f"{type(self.strategy).__name__}: no site knows the array {min(unknown)!r}")
        return Train(
            number=number,
            model=now.parameters,
            standardizer=now.standardizer,
            norm=now.norm if self.terms.adapts else None,
            control=arrays.get("control"),
            center=center,
            again=passes,
        )

    def update_of(self, found: GroupSum) -> RoundUpdate:
        """Return what a sum says about the round."""
        encoding, mean = found.task.encoding, found.mean
        asks = encoding.asks
        vector, within = encoding.shaping.restore(mean.mean, encoding.dimension, encoding.quantile)
        precise = dict(zip(encoding.precise, mean.precise, strict=True))
        if "within" in precise:
            within = (1 + precise["within"]) / 2
        steps = (1 + precise["steps"]) / 2 * asks.steps_cap if "steps" in precise else float("nan")
        control = None
        if asks.control:
            vector, moved = np.split(vector, 2)
            control = moved / asks.control
        survivors = len(found.survivors)
        like = sent(self.now.parameters, asks)
        return RoundUpdate(asks.update, vector, mean.weight, survivors, steps, control, within, like)


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
        if among is None and not self._everybody:
            among = self._cohort
        found = run.attempt(run.question(self._number, passes, center), among)
        epsilon = run.spend(found.task, found.fewest)
        update = run.update_of(found)
        encoding = found.task.encoding
        within = update.within if encoding.asks.quantile else None
        record = RoundRecord(
            found.task, found, "", run.now.parameters, epsilon, encoding.shaping.norm, within
        )
        self.records.append(record)
        return update
