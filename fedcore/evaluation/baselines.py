"""What secure federated training is compared with, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.learner import Learner, Metrics, Parameters
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState
from fedcore.statistics.standardizer import Standardizer


@dataclass(frozen=True, slots=True)
class Comparison:
    """Metrics on the held-out rows; `alone` by site."""

    alone: dict[str, Metrics]
    secure: Metrics
    clear: Metrics
    pooled: Metrics
    identical: bool  # the secure and the clear run ended in the same parameters, bit for bit


def train_locally(
    learner: Learner[Any], table: Table, rounds: int, seed: int
) -> tuple[Parameters, Standardizer]:
    """Train on one table alone, with its own standardization, as long as the federation does."""
    standardizer = Standardizer(table.features.mean(axis=0), table.features.std(axis=0))
    scaled = standardizer.apply(table)
    parameters = learner.initial()
    for number in range(rounds):
        parameters = learner.fit(parameters, scaled, seed + number)
    return parameters, standardizer


def compare(
    *,
    secure: RunState,
    sites: Mapping[str, Site],
    absent: Mapping[str, frozenset[str]],
    held_out: Table,
    schema: Schema,
    learner: Learner[Any],
    plan: TrainingPlan,
    seed: int,
) -> Comparison:
    """Train the baselines and evaluate everything.

    absent  by task name, who was not among the survivors of the secure run: the clear run leaves out the same
    """
    alone = {}
    for name, site in sites.items():
        parameters, own = train_locally(learner, site.table, plan.rounds, seed)
        alone[name] = learner.evaluate(parameters, own.apply(held_out))
    everything = join_tables([site.table for site in sites.values()])
    parameters, standardizer = train_locally(learner, everything, plan.rounds, seed)
    clear = Federation(PlainSum(sites, absent), schema, learner, plan).run()
    return Comparison(
        alone,
        learner.evaluate(secure.parameters, secure.standardizer.apply(held_out)),
        learner.evaluate(clear.parameters, clear.standardizer.apply(held_out)),
        learner.evaluate(parameters, standardizer.apply(held_out)),
        identical=all(
            np.array_equal(secure.parameters[name], clear.parameters[name]) for name in clear.parameters
        ),
    )
