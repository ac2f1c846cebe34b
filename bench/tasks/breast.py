"""FATE's horizontal breast cancer set: guest and host, each as two departments.

Two parties cannot hide from each other in a sum: each would subtract its own vector. Cohorts of one or
two are refused, so the rows of both parties are halved, in the order of their files.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.harness import Setting, TaskResult, fit_alone, one_absent, result, run
from fedcore.data import breast_homo
from fedcore.data.table import Table, join_tables
from fedcore.learner import Metrics
from fedcore.learners import LocalSGD, LogisticRegression
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg

ROUNDS = 30


def departments(name: str, table: Table) -> dict[str, Table]:
    """Halve a party's rows in the order of its file."""
    halves = np.array_split(np.arange(len(table)), 2)
    return {f"{name}-{i}": table.take(rows) for i, rows in enumerate(halves, 1)}


def main(console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table."""
    rounds = 3 if quick else ROUNDS
    data = breast_homo()
    tables = departments("guest", data.guest) | departments("host", data.host)
    learner = LocalSGD(model=LogisticRegression(30, penalty=0.01), epochs=2, batch_size=16, rate=0.05)

    def evaluate(model: RunState) -> Metrics:
        return learner.evaluate(model.parameters, model.standardizer.apply(data.test))

    setting = Setting(
        name="breast",
        metric="auc",
        rows=tables,
        schema=data.schema,
        learner=learner,
        plan=TrainingPlan(rounds=rounds, clients=4, weight_cap=200, clip=2.0, bits=12),
        strategy=FedAvg(),
        evaluate=evaluate,
        absent=one_absent(list(tables), rounds, 0),
    )
    outcome = run(setting, lambda text: console.print(text, highlight=False))
    alone = []
    for table in tables.values():
        own = Standardizer(table.features.mean(axis=0), table.features.std(axis=0))
        parameters = fit_alone(learner, own.apply(table), rounds, 0)
        alone.append(learner.evaluate(parameters, own.apply(data.test))["auc"])
    everything = join_tables(list(tables.values()))
    together = Standardizer(everything.features.mean(axis=0), everything.features.std(axis=0))
    pooled = learner.evaluate(
        fit_alone(learner, together.apply(everything), rounds, 0), together.apply(data.test)
    )
    view = View(title="FATE breast cancer, horizontal, 4 departments, one drops out in every round")
    for column in ("training", "AUC", "accuracy"):
        view.add_column(column)
    view.add_row("each department alone, mean", f"{np.mean(alone):.4f}", "")
    view.add_row("federated, real numbers", *(f"{outcome.plain[m]:.4f}" for m in ("auc", "accuracy")))
    view.add_row("federated, secure", *(f"{outcome.secure[m]:.4f}" for m in ("auc", "accuracy")))
    view.add_row("pooled", *(f"{pooled[m]:.4f}" for m in ("auc", "accuracy")))
    console.print(view)
    return result(setting, outcome, local=float(np.mean(alone)), pooled=pooled["auc"])
