"""MNIST by writers with the privacy of every writer: distributed noise beside that of a trusted server.

All 297 writers take part in every round; nothing is claimed for sampling. Sums are taken in the clear by
the same codec and noise, which gives the same bits as the protocol (tested).
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table as View

from fedcore.data import MnistWriters, mnist_writers
from fedcore.evaluation.baselines import Mode, Trial
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.central import CentralGaussianSum
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.strategies import FedAvg

EPSILONS, DELTA, ROUNDS, SMALLEST = (1.0, 2.0, 4.0, 8.0, 16.0), 1e-3, 40, 267
LEARNER = LocalSGD(model=SoftmaxRegression(784, 10), epochs=1, batch_size=10, rate=0.1)


def train(
    data: MnistWriters, epsilon: float | None, mechanism: Mechanism, rounds: int
) -> tuple[float, float, int]:
    """Return accuracy, epsilon spent and ring bits; no epsilon: no noise."""
    tables = data.train_by_writer.tables(data.train)
    privacy = None
    if epsilon is not None and mechanism is not Mechanism.GAUSSIAN:
        privacy = PrivacyPlan(
            epsilon=epsilon, delta=DELTA, rounds=rounds, smallest=SMALLEST, mechanism=mechanism
        )
    trial = Trial(
        rows=tables,
        held_out=(data.test,),
        learner=LEARNER,
        plan=TrainingPlan(
            rounds=rounds, clients=len(tables), bits=10, norm=0.5, rotate=True, privacy=privacy
        ),
        strategy=FedAvg(ask=Asks(weighting=Weighting.UNIFORM)),
        classes=data.schema.classes,
    )
    mode, sites = Mode.PLAIN if epsilon is None else Mode.QUANTIZED, trial.sites()
    aggregator = trial.aggregator(mode, sites)
    if epsilon is not None and mechanism is Mechanism.GAUSSIAN:
        aggregator = CentralGaussianSum(sites, epsilon, DELTA, rounds)
    ring_bits = 0

    def on_round(record: RoundRecord) -> None:
        nonlocal ring_bits
        ring_bits = record.task.encoding.codec.ring_bits

    model = trial.federation(mode, aggregator, on_round).run()
    return trial.evaluate(model.parameters, model.standardizer)["accuracy"], model.epsilon or 0.0, ring_bits


def main(console: Console, *, quick: bool = False) -> list[dict[str, Any]]:
    """Print the table; returns its rows."""
    data, rounds = mnist_writers(), 2 if quick else ROUNDS
    rows: list[dict[str, Any]] = []
    for epsilon in EPSILONS[-1:] if quick else (*EPSILONS, None):
        values: dict[str, Any] = {"epsilon": "none" if epsilon is None else epsilon}
        for name, mechanism in (
            ("central", Mechanism.GAUSSIAN),
            ("skellam", Mechanism.SKELLAM),
            ("discrete_gaussian", Mechanism.DISCRETE_GAUSSIAN),
        ):
            values[name], values["spent"], values["ring_bits"] = train(data, epsilon, mechanism, rounds)
        rows.append(values)
    view = View(title=f"MNIST by writers, privacy of writers, delta {DELTA:g}, {rounds} rounds: accuracy")
    for column in ("epsilon", "central Gaussian", "Skellam", "discrete Gaussian", "spent", "ring bits"):
        view.add_column(column, justify="right")
    for row in rows:
        view.add_row(
            str(row["epsilon"]),
            *(f"{row[name]:.4f}" for name in ("central", "skellam", "discrete_gaussian", "spent")),
            str(row["ring_bits"]),
        )
    console.print(view)
    return rows
