"""Heart disease with the privacy of every patient: noise in the ring against FLamby's published table.

FLamby's figures are of FedAvg whose hospitals add the noise of DP-SGD each for itself (Opacus, clip 1.1).
Here every hospital sums its patients' clipped gradients and adds a share of the noise, so that the sum
over three of the four hospitals has enough for the same (epsilon, delta) of every patient: what secure
aggregation is for. Rows are standardized by each hospital for itself, as in FLamby's.
"""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.harness import one_absent
from bench.tasks.heart import FEATURES, SEEDS, TorchStart, mean_of_four, own_standardizer
from fedcore.codec.clipping import FixedClip
from fedcore.data import data_folder, heart_disease
from fedcore.learners.per_person import PersonClipped
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import SecureSum, SumAggregator
from fedcore.rounds.central import CentralGaussianSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg

EPSILONS, DELTAS = (0.1, 1.0, 5.0, 10.0, 50.0), (0.1, 0.01, 0.001, 0.0001)
ROUNDS, CLIP, RATE, EXPECTED = 30, 1.0, 1.0, 121.5


def published() -> dict[tuple[float, float], float]:
    """FLamby's mean accuracy of four by (epsilon, delta), over its seeds; (inf, 0): without noise."""
    found: dict[tuple[float, float], list[float]] = defaultdict(list)
    with (data_folder() / "heart_disease" / "flamby_dp_results.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (float(row["e"]), float(row["d"])) if row["e"] else (float("inf"), 0.0)
            found[key].append(float(row["perf"]))
    return {key: float(np.mean(values)) for key, values in found.items()}


def accuracy(epsilon: float, delta: float, seed: int, mechanism: Mechanism | None) -> tuple[float, float]:
    """Mean accuracy of four after a run, and the epsilon that was spent; no mechanism: no noise."""
    data = heart_disease()
    own = {name: own_standardizer(table) for name, table in data.train.items()}
    tests = {name: own[name].apply(table) for name, table in data.test.items()}
    learner = PersonClipped(model=TorchStart(FEATURES, seed=seed), clip=CLIP, expected=EXPECTED)
    sites = {
        name: Site(name, own[name].apply(table), None, learner, seed) for name, table in data.train.items()
    }
    privacy = None
    if mechanism in {Mechanism.SKELLAM, Mechanism.DISCRETE_GAUSSIAN}:
        privacy = PrivacyPlan(
            epsilon=epsilon,
            delta=delta,
            rounds=ROUNDS,
            smallest=3,
            sensitivity=learner.sensitivity,
            mechanism=mechanism,
        )
    plan = TrainingPlan(
        rounds=ROUNDS,
        clients=4,
        bits=16,
        norm=FixedClip(2.0),
        privacy=privacy,
        seed=seed,
    )
    absent = one_absent(list(sites), ROUNDS, seed, every=3)
    aggregator: SumAggregator = SecureSum(sites, absent)
    if mechanism is Mechanism.GAUSSIAN:
        aggregator = CentralGaussianSum(
            sites, epsilon, delta, ROUNDS, absent, sensitivity=learner.sensitivity, seed=seed
        )
    strategy = FedAvg(ask=Asks(update=UpdateKind.GRADIENT, weighting=Weighting.UNIFORM), server_rate=RATE)
    model = Federation(aggregator, None, learner, plan, strategy, classes=("0", "1")).run()
    return mean_of_four(model.parameters, tests), model.epsilon or 0.0


def main(console: Console, *, quick: bool = False) -> list[dict[str, float | str]]:
    """Print the table; returns its rows."""
    seeds = SEEDS[:1] if quick else SEEDS
    reference = published()
    rows: list[dict[str, float | str]] = []
    view = View(title="heart disease, privacy of patients: mean accuracy of four hospitals")
    for column in ("epsilon", "delta", "FLamby (Opacus)", "central Gaussian", "Skellam", "spent"):
        view.add_column(column, justify="right")
    none = float(np.mean([accuracy(1.0, 0.1, seed, None)[0] for seed in seeds]))
    view.add_row("none", "", f"{reference.get((float('inf'), 0.0), float('nan')):.4f}", f"{none:.4f}", "", "")
    for epsilon in EPSILONS[:2] if quick else EPSILONS:
        for delta in DELTAS[:1] if quick else DELTAS:
            central = [accuracy(epsilon, delta, seed, Mechanism.GAUSSIAN)[0] for seed in seeds]
            skellam = [accuracy(epsilon, delta, seed, Mechanism.SKELLAM) for seed in seeds]
            spent = max(used for _, used in skellam)
            row = {
                "epsilon": epsilon,
                "delta": delta,
                "published": reference[epsilon, delta],
                "central": float(np.mean(central)),
                "skellam": float(np.mean([value for value, _ in skellam])),
                "skellam_std": float(np.std([value for value, _ in skellam])),
                "spent": spent,
                "none": none,
            }
            rows.append(dict(row))
            view.add_row(
                f"{epsilon:g}",
                f"{delta:g}",
                *(f"{row[name]:.4f}" for name in ("published", "central", "skellam", "spent")),
            )
    console.print(view)
    return rows
