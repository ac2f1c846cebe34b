"""Heart disease with the privacy of every patient: standardized by the public bounds, or by one noisy sum.

The noisy sum is one release more of the same budget. Sums are taken in the clear by the same codec and
noise, which gives the same bits as the protocol (tested).
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table as View

from fedcore.data import load_set
from fedcore.evaluation.metrics import mean_metrics
from fedcore.learners import PersonClipped, SoftmaxRegression
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg

EPSILONS, DELTA, ROUNDS, EXPECTED, TIMES = (1.0, 3.0, 10.0), 1e-3, 30, 180.0, 5
STRATEGY = FedAvg(ask=Asks(update=UpdateKind.GRADIENT, weighting=Weighting.UNIFORM), server_rate=3.0)


def area(epsilon: float | None, *, statistics: bool, rounds: int) -> float:
    """AUC, mean of the four hospitals' test rows; no epsilon: no noise, exact statistics."""
    data = load_set("heart_disease")
    train, test = data.split(0.25, 0)
    model = SoftmaxRegression(len(data.schema.columns), len(data.schema.classes))
    learner = PersonClipped(model=model, clip=1.0, expected=EXPECTED)
    privacy = None
    if epsilon is not None:
        privacy = PrivacyPlan(
            epsilon=epsilon,
            delta=DELTA,
            rounds=rounds + statistics,
            smallest=len(train),
            sensitivity=learner.sensitivity,
            statistics=statistics,
        )
    plan = TrainingPlan(rounds=rounds, clients=len(train), norm=1.5, bits=16, weight_cap=1, privacy=privacy)
    sites = {}
    for name, rows in train.items():
        guard = None if privacy is None else PrivacyGuard(privacy)
        sites[name] = Site(name, rows, data.schema, learner, None, guard=guard)
    made = Federation(PlainSum(sites), data.schema, learner, plan, STRATEGY).run()
    parts = [made.standardizer.apply(rows) for rows in test.values()]
    return mean_metrics([learner.evaluate(made.parameters, part) for part in parts])["auc"]


def main(console: Console, *, quick: bool = False) -> list[dict[str, float]]:
    """Print the table; returns its rows."""
    rounds, times = (3, 1) if quick else (ROUNDS, TIMES)
    none = area(None, statistics=False, rounds=rounds)
    view = View(title=f"heart disease, privacy of patients, delta {DELTA:g}: AUC; without noise {none:.4f}")
    for column in ("epsilon", "standardized by bounds", "std", "by a noisy sum", "std"):
        view.add_column(column, justify="right")
    rows: list[dict[str, float]] = []
    for epsilon in EPSILONS:
        row = {"epsilon": epsilon, "none": none}
        for name, statistics in (("bounds", False), ("moments", True)):
            found = [area(epsilon, statistics=statistics, rounds=rounds) for _ in range(times)]
            row |= {name: float(np.mean(found)), f"{name}_std": float(np.std(found))}
        rows.append(row)
        names = ("bounds", "bounds_std", "moments", "moments_std")
        view.add_row(f"{epsilon:g}", *(f"{row[name]:.4f}" for name in names))
    console.print(view)
    return rows
