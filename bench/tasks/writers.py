"""MNIST test digits by their 297 writers, split A: natural clients, sixty of them drawn for each round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.harness import (
    Outcome,
    Setting,
    TaskResult,
    fit_alone,
    result,
    run,
    some_absent,
)
from fedcore.codec.clipping import FixedClip
from fedcore.data import MnistWriters, describe, mnist_writers
from fedcore.learner import Metrics
from fedcore.learners import LocalSGD, Perceptron, SoftmaxRegression
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.strategies import FedAvg, FedAvgM, Strategy

COHORT = 60
CLASSES = tuple("0123456789")


def setting(data: MnistWriters, learner: LocalSGD, strategy: Strategy, plan: TrainingPlan) -> Setting:
    """Six of all writers drop out in every round; about one of a cohort."""
    tables = data.train_by_writer.tables(data.train)

    def evaluate(model: RunState) -> Metrics:
        return learner.evaluate(model.parameters, data.test)

    return Setting(
        name="writers",
        metric="accuracy",
        rows=tables,
        schema=None,
        learner=learner,
        plan=plan,
        strategy=strategy,
        evaluate=evaluate,
        classes=CLASSES,
        absent=some_absent(list(tables), plan.rounds, 0, 6),
    )


def softmax(data: MnistWriters, rounds: int) -> Setting:
    """Softmax regression by FedAvg: one local epoch, batch 10, rate .1, weights by rows."""
    learner = LocalSGD(model=SoftmaxRegression(784, 10), epochs=1, batch_size=10, rate=0.1)
    plan = TrainingPlan(rounds=rounds, clients=297, cohort=COHORT, weight_cap=130, clip=1.0, bits=12)
    return setting(data, learner, FedAvg(), plan)


def two_layers(data: MnistWriters, rounds: int) -> Setting:
    """The 2NN of McMahan et al. by FedAvg with server momentum; eight bits, rotated."""
    learner = LocalSGD(model=Perceptron(784, 10), epochs=2, batch_size=10, rate=0.1)
    plan = TrainingPlan(
        rounds=rounds,
        clients=COHORT,
        cohort=COHORT,
        norm=FixedClip(2.0),
        rotate=True,
        bits=8,
    )
    strategy = FedAvgM(server_rate=0.5, ask=Asks(weighting=Weighting.UNIFORM))
    return setting(data, learner, strategy, plan)


def main(console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table."""
    data = mnist_writers()
    console.print(describe(data.train.labels, None, data.train_by_writer, 10).to_text(), highlight=False)

    def show(text: str) -> None:
        console.print(text, highlight=False)

    makers: dict[str, tuple[Callable[[MnistWriters, int], Setting], int]] = {
        "softmax, FedAvg": (softmax, 2 if quick else 100),
        "2NN, FedAvgM": (two_layers, 2 if quick else 120),
    }
    outcomes: dict[str, tuple[Setting, Outcome]] = {}
    for name, (make, rounds) in makers.items():
        one = make(data, rounds)
        outcomes[name] = (one, run(one, show))
    view = View(title=f"MNIST by writers, cohorts of {COHORT} of 297, dropouts in every round")
    for column in ("training", "plain", "secure", "pooled"):
        view.add_column(column)
    pooled, details = {}, {}
    for name, (one, outcome) in outcomes.items():
        whole = LocalSGD(model=one.learner.model, epochs=15, batch_size=50, rate=0.1)  # type: ignore[attr-defined]
        pooled[name] = whole.evaluate(whole.fit(whole.initial(), data.train, 0), data.test)["accuracy"]
        values = (outcome.plain["accuracy"], outcome.secure["accuracy"], pooled[name])
        view.add_row(name, *(f"{value:.4f}" for value in values))
        details[name] = dict(zip(("plain", "secure", "pooled"), values, strict=True))
    console.print(view)
    one, outcome = outcomes["2NN, FedAvgM"]
    local = [
        one.learner.evaluate(fit_alone(one.learner, rows, 5, 0), data.test)["accuracy"]
        for rows in list(one.rows.values())[::30]
    ]
    return result(one, outcome, local=float(np.mean(local)), pooled=pooled["2NN, FedAvgM"], **details)
