"""Handwritten digits of scikit-learn, ten clients with Dirichlet 0.3 mixes of labels."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.harness import Setting, TaskResult, fit_alone, result, run, some_absent
from fedcore.codec.clipping import FixedClip
from fedcore.data import describe, digits, dirichlet
from fedcore.data.sets.tables import hold_out
from fedcore.learner import Metrics
from fedcore.learners import LocalSGD, Perceptron
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg

CLIENTS, ALPHA, ROUNDS = 10, 0.3, 100


def main(console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table."""
    rounds = 3 if quick else ROUNDS
    data = digits()
    train, test = hold_out(data.table, 0.25, 0)
    partition = dirichlet(train.labels, CLIENTS, ALPHA, 0, minimum_rows=10)
    console.print(describe(train.labels, None, partition, 10).to_text(), highlight=False)
    tables = partition.tables(train)
    learner = LocalSGD(model=Perceptron(64, 10, hidden=(64,)), epochs=2, batch_size=16, rate=0.05)

    def evaluate(model: RunState) -> Metrics:
        return learner.evaluate(model.parameters, model.standardizer.apply(test))

    setting = Setting(
        name="digits",
        metric="macro_f1",
        rows=tables,
        schema=data.schema,
        learner=learner,
        plan=TrainingPlan(
            rounds=rounds,
            clients=CLIENTS,
            weight_cap=1000,
            bits=8,
            norm=FixedClip(4.0),
            rotate=True,
        ),
        strategy=FedAvg(ask=Asks(weighting=Weighting.UNIFORM)),
        evaluate=evaluate,
        absent=some_absent(list(tables), rounds, 0, 1),
    )
    outcome = run(setting, lambda text: console.print(text, highlight=False))
    alone = []
    for table in tables.values():
        own = Standardizer(table.features.mean(axis=0), table.features.std(axis=0))
        parameters = fit_alone(learner, own.apply(table), rounds, 0)
        alone.append(learner.evaluate(parameters, own.apply(test))["macro_f1"])
    together = Standardizer(train.features.mean(axis=0), train.features.std(axis=0))
    pooled = learner.evaluate(fit_alone(learner, together.apply(train), rounds, 0), together.apply(test))
    figures = result(setting, outcome, local=float(np.mean(alone)), pooled=pooled["macro_f1"])
    view = View(title=f"digits, {CLIENTS} clients, Dirichlet {ALPHA}, one drops out in every round")
    for column in ("training", "macro F1", "accuracy"):
        view.add_column(column)
    view.add_row("each client alone, mean", f"{np.mean(alone):.4f}", "")
    view.add_row("federated, real numbers", *(f"{outcome.plain[m]:.4f}" for m in ("macro_f1", "accuracy")))
    view.add_row("federated, secure", *(f"{outcome.secure[m]:.4f}" for m in ("macro_f1", "accuracy")))
    view.add_row("pooled", *(f"{pooled[m]:.4f}" for m in ("macro_f1", "accuracy")))
    console.print(view)
    return figures
