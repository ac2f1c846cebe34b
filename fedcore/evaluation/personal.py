"""Models of single sites: a common body with a local head, or the global model trained on at the site.

With `ask=Asks(personal=("head*",))` any strategy leaves these parameters at the sites (FedPer, Arivazhagan,
Aggarwal, Singh and Choudhary 2019, algorithm 1): they are trained together with the common ones, and
neither a task nor a vector contains them. Fine-tuning needs no such strategy; it starts from the end.

All here happens at the sites, or in a simulation of them: no sum, nothing that a server learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedcore.data.table import Table
from fedcore.errors import TaskError
from fedcore.learner import Abilities, Learner, Metrics, Parameters, Rows, Steering
from fedcore.names import select
from fedcore.rounds.agreement import FineTuningRules
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState
from fedcore.statistics.standardizer import Standardizer


def personal_model(model: RunState, site: Site) -> Parameters:
    """Return the site's whole model: the common parameters, and its own in place of personal ones.

    Its own are those of the last round whose result it is in; the initial ones if there is none.
    """
    initial = site.learner.initial()
    own = site.state.own()
    if unknown := model.parameters.keys() - initial.keys():
        raise TaskError(f"{site.name}: its learner has no {min(unknown)}")
    return {name: model.parameters.get(name, own.get(name, array)).copy() for name, array in initial.items()}


def personal_models(model: RunState, sites: Mapping[str, Site]) -> dict[str, Parameters]:
    """Return the whole model of every site, by name. Raises TaskError."""
    return {name: personal_model(model, site) for name, site in sites.items()}


def fine_tune(
    learner: Learner[Any],
    parameters: Parameters,
    rows: Rows,
    seed: int,
    rounds: int = 1,
    only: tuple[str, ...] = (),
    rate: float = 1.0,
) -> Parameters:
    """Train on at one site; `parameters` stay as they are.

    rows    standardized, if the model is
    rounds  of the learner's own local training, each with another seed
    only    patterns of the parameters that move, such as the head; none: all
    rate    factor of the learning rate
    raises  SettingError: a pattern fits nothing; TaskError: a learner that cannot be steered
    """
    if rounds < 0:
        raise TaskError(f"rounds: must be at least 0, are {rounds}")
    frozen = frozenset(parameters.keys() - select(parameters, only, "only") if only else ())
    after = {name: array.copy() for name, array in parameters.items()}
    steerable = Abilities.of(learner).steerable
    for number in range(rounds):
        if not frozen and rate == 1:
            after = learner.fit(after, rows, seed + number)
        elif steerable is not None:
            steering = Steering(frozen=frozen, rate=rate)
            after = steerable.fit_steered(after, rows, seed + number, steering).parameters
        else:
            raise TaskError(f"only, rate: {type(learner).__name__} cannot be steered")
    return after


def train_alone(learner: Learner[Any], plan: TrainingPlan, rows: Rows, seed: int) -> Parameters:
    """Train in one place, as many rounds as a plan has, at the rates of its rounds.

    rows    standardized, if they are to be
    raises  TaskError: a learner whose rate cannot change, where the plan's does
    """
    able, parameters = Abilities.of(learner), learner.initial()
    for number in range(1, plan.rounds + 1):
        one, rate = learner, plan.rate(number)
        if rate != 1 and able.steerable is None and able.rated is not None:
            one, rate = able.rated.at_rate(able.rated.rate * rate), 1.0
        parameters = fine_tune(one, parameters, rows, seed + number - 1, rate=rate)
    return parameters


def trained_on(model: RunState, site: Site, rules: FineTuningRules) -> Parameters:
    """Return the site's whole model, trained on at the site as was agreed. Raises TaskError."""
    rows, seed = model.standardizer.apply(site.table), model.number
    start = personal_model(model, site)
    return fine_tune(site.learner, start, rows, seed, rules.rounds, rules.only, rules.rate)


def beside_alone(
    model: RunState, parameters: Parameters, site: Site, plan: TrainingPlan
) -> tuple[Metrics, Metrics | None]:
    """Return the metrics of a site's model on its held-out rows, and of one trained on its rows alone.

    parameters  of the site's model, such as `personal_model` or `trained_on` of `model`
    plan        of training alone, too; None for the second: the learner does not train alone
    Raises TaskError: the site holds nothing out, or the model is not its learner's.
    """
    if site.held_out is None:
        raise TaskError(f"{site.name}: holds no rows out")
    learner, rows = site.learner, site.table
    ours = learner.evaluate(parameters, model.standardizer.apply(site.held_out))
    own = Standardizer.none()
    if model.standardizer.mean.size and isinstance(rows, Table):
        own = Standardizer.of(rows)
    try:
        alone = train_alone(learner, plan, own.apply(rows), 0)
    except TaskError:
        return ours, None
    return ours, learner.evaluate(alone, own.apply(site.held_out))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of each site's held-out rows under models of several kinds.

    shared      the common parameters, with initial ones in place of personal ones
    personal    the common parameters with the site's own; equal to `shared` where none are personal
    fine_tuned  `personal`, trained on at the site
    local       trained at the site alone, from the start
    All by site; NaN where the learner says so.
    """

    shared: dict[str, float] = field(default_factory=dict)
    personal: dict[str, float] = field(default_factory=dict)
    fine_tuned: dict[str, float] = field(default_factory=dict)
    local: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def mean(of: Mapping[str, float]) -> float:
        """Mean over the sites, each counted once; sites with NaN are left out."""
        return float(np.nanmean(list(of.values())))

    @staticmethod
    def worst(of: Mapping[str, float]) -> float:
        """Least of the sites; sites with NaN are left out."""
        return float(np.nanmin(list(of.values())))

    def table(self) -> dict[str, tuple[float, float]]:
        """Return (mean, worst) by kind of model."""
        kinds = ("shared", "personal", "fine_tuned", "local")
        return {kind: (self.mean(getattr(self, kind)), self.worst(getattr(self, kind))) for kind in kinds}


def compare(
    model: RunState,
    sites: Mapping[str, Site],
    *,
    seed: int,
    rounds: int = 1,
    only: tuple[str, ...] = (),
    rate: float = 1.0,
    local_rounds: int | None = None,
    metric: str = "accuracy",
) -> Comparison:
    """Evaluate the models of every site on its own held-out rows (without any: its training rows).

    rounds, only, rate  of fine-tuning
    local_rounds        of training alone; None: as many as the federation had
    raises              TaskError: no sites, no such metric
    """
    if not sites:
        raise TaskError("sites: there are none to compare")
    out = Comparison()
    for name, site in sites.items():
        standardizer = model.standardizer
        rows, held_out = standardizer.apply(site.table), _held_out(site, standardizer)
        initial, own = site.learner.initial(), personal_model(model, site)
        tuned = fine_tune(site.learner, own, rows, seed, rounds, only, rate)
        alone = model.number if local_rounds is None else local_rounds
        found = {
            "shared": initial | model.parameters,
            "personal": own,
            "fine_tuned": tuned,
            "local": fine_tune(site.learner, initial, rows, seed, alone),
        }
        for kind, parameters in found.items():
            metrics = site.learner.evaluate(parameters, held_out)
            if metric not in metrics:
                raise TaskError(f"metric: must be one of {sorted(metrics)}, is {metric!r}")
            getattr(out, kind)[name] = metrics[metric]
    return out


def _held_out(site: Site, standardizer: Standardizer) -> Rows:
    return standardizer.apply(site.table if site.held_out is None else site.held_out)
