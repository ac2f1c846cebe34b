"""From the tables of a file to a learner, a strategy and a plan."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fedcore.codec.clipping import AdaptiveClip, FixedClip
from fedcore.errors import CodecError, DataError, TaskError
from fedcore.experiments.fields import read, read_values, typed
from fedcore.experiments.tables import (
    DropoutTable,
    LearnerTable,
    NormTable,
    PlanTable,
    PrivacyTable,
    StrategyTable,
    require,
)
from fedcore.learner import Learner
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.stopping import Stopping
from fedcore.strategies import STRATEGIES, Strategy
from secagg import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Logistic:
    """Options of scikit-learn's logistic regression (fedcore.learners.sklearn_epochs)."""

    epochs: int = 2
    learning_rate: float = 0.02
    alpha: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Local:
    """Options of numpy models under local SGD (fedcore.learners.LocalSGD)."""

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    rate: float = 0.1
    momentum: float = 0.0
    penalty: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layers(_Local):
    """Options of the perceptron."""

    hidden: tuple[int, ...] = (200, 200)


_KINDS: dict[str, type[Any]] = {
    "logistic": _Logistic,
    "softmax": _Local,
    "perceptron": _Layers,
    "linear": _Local,
}


def learner_table(raw: Mapping[str, Any]) -> LearnerTable:
    """Read [learner]. Raises DataError."""
    kind = typed(raw.get("kind", LearnerTable().kind), str, "learner.kind")
    rest = {name: value for name, value in raw.items() if name != "kind"}
    if ":" in kind:
        return read(LearnerTable, dict(raw), "learner")
    require(kind in _KINDS, "learner.kind", f"one of {', '.join(_KINDS)}, module:function", kind)
    options = asdict(read(_KINDS[kind], rest, "learner"))
    table = LearnerTable(kind=kind, options=options)
    make_learner(table, 1, 2, 0)  # to have its values checked
    return table


def make_learner(table: LearnerTable, features: int, classes: int, seed: int) -> Learner[Any]:
    """Make the learner for so many features and classes.

    seed    of initial weights, where they are random
    raises  DataError
    """
    try:
        if ":" in table.kind:
            return _own_learner(table, features, classes, seed)
        if table.kind == "logistic":
            from fedcore.learners.sklearn_epochs import LogisticRegressionLearner

            return LogisticRegressionLearner(features=features, classes=classes, **table.options)
        return _local_learner(table, features, classes, seed)
    except ParameterError as error:
        raise DataError(f"learner.{error}") from error


def _local_learner(table: LearnerTable, features: int, classes: int, seed: int) -> Learner[Any]:
    from fedcore.learners import LinearRegression, LocalSGD, Model, Perceptron, SoftmaxRegression

    options = dict(table.options)
    penalty, hidden = options.pop("penalty"), tuple(options.pop("hidden", ()))
    models: dict[str, Model] = {
        "softmax": SoftmaxRegression(features, classes, penalty),
        "linear": LinearRegression(features, penalty),
        "perceptron": Perceptron(features, classes, hidden, seed, penalty),
    }
    return LocalSGD(model=models[table.kind], **options)


def _own_learner(table: LearnerTable, features: int, classes: int, seed: int) -> Learner[Any]:
    """Call function(features=, classes=, seed=, **options) of a module that can be imported."""
    module, _, name = table.kind.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        made: Learner[Any] = function(features=features, classes=classes, seed=seed, **table.options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"learner.kind: {table.kind} makes no learner: {error}") from error
    return made


def strategy_table(raw: Mapping[str, Any]) -> StrategyTable:
    """Read [strategy]. Raises DataError."""
    name = typed(raw.get("name", StrategyTable().name), str, "strategy.name")
    require(name in STRATEGIES, "strategy.name", f"one of {', '.join(STRATEGIES)}", name)
    shared = {field.name for field in fields(StrategyTable)} - {"options"}
    options = {key: value for key, value in raw.items() if key not in shared}
    if name == "Scaffold":
        options = {"sites": 1} | options  # the data will say
    values = read_values(STRATEGIES[name], options, "strategy", frozenset({"ask"}))
    values = {key: value for key, value in values.items() if key in raw}
    plain = read_values(StrategyTable, {key: raw[key] for key in raw if key in shared}, "strategy")
    return StrategyTable(**plain, options=values)


def make_strategy(table: StrategyTable, clients: int, *, private: bool) -> Strategy:
    """Make the strategy for so many sites; with noise, sites count uniformly. Raises DataError."""
    kind, options = STRATEGIES[table.name], dict(table.options)
    if table.name == "Scaffold":
        options.setdefault("sites", clients)
    weighting = table.weighting or (Weighting.UNIFORM if private else Weighting.ROWS)
    if private:
        require(weighting is Weighting.UNIFORM, "strategy.weighting", "uniform with [privacy]", weighting)
    try:
        made = kind(ask=Asks(weighting=weighting, update=table.update), **options)
        used = made.asks().weighting
    except TaskError as error:
        raise DataError(f"strategy.{error}") from error
    if table.weighting is not None:
        require(used is table.weighting, "strategy.weighting", f"{used} with {table.name}", table.weighting)
    return made


def make_plan(
    table: PlanTable,
    privacy: PrivacyTable | None,
    dropout: DropoutTable,
    *,
    clients: int,
    largest: int,
    seed: int,
) -> TrainingPlan:
    """Make the plan for so many sites, the largest of `largest` rows. Raises DataError."""
    sites = min(clients, table.cohort or clients)
    survivors = sites - dropout.most(sites)
    require(survivors >= 1, "dropout", f"less than the {sites} sites of a round", dropout.most(sites))
    try:
        norm = _norm(table.norm)
        stopping = None if table.stopping is None else Stopping(**asdict(table.stopping))
        values = {field.name: getattr(table, field.name) for field in fields(table)}
        values |= {"norm": norm, "stopping": stopping, "weight_cap": table.weight_cap or largest}
        plan = TrainingPlan(**values, clients=clients, seed=seed)
    except (TaskError, CodecError) as error:
        raise DataError(f"plan.{error}") from error
    if privacy is None:
        return plan
    try:
        values = asdict(privacy) | {"smallest": privacy.smallest or survivors, "rounds": table.rounds}
        private = PrivacyPlan(**values)
        require(private.smallest <= survivors, "privacy.smallest", f"at most {survivors}", private.smallest)
        return replace(plan, privacy=private)
    except TaskError as error:
        text = str(error)
        raise DataError(text if text.startswith("privacy: ") else f"privacy.{text}") from error


def _norm(norm: float | NormTable | None) -> FixedClip | AdaptiveClip | None:
    if norm is None:
        return None
    return AdaptiveClip(**asdict(norm)) if isinstance(norm, NormTable) else FixedClip(norm)
