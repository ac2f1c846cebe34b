"""Heart disease with the privacy of every patient: noise in the ring against FLamby's published table.

FLamby's figures are of FedAvg whose hospitals add the noise of DP-SGD each for itself (Opacus, clip 1.1).
Here every hospital sums its patients' clipped gradients and adds a share of the noise, so that the sum
over three of the four hospitals has enough for the same (epsilon, delta) of every patient: what secure
aggregation is for. Rows are standardized by each hospital for itself, as in FLamby's.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.logistic import TorchStart
from fedcore.data import data_folder, load_set
from fedcore.evaluation.baselines import Mode, Trial
from fedcore.experiments.dropout import absences
from fedcore.experiments.tables import DropoutTable
from fedcore.learners.per_person import PersonClipped
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.central import CentralGaussianSum
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.strategies import FedAvg

SEEDS = (42, 43, 44, 45, 46)
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
    data = load_set("flamby_heart")
    model = TorchStart(len(data.schema.columns), seed=seed)
    learner = PersonClipped(model=model, clip=CLIP, expected=EXPECTED)
    plan = TrainingPlan(
        rounds=ROUNDS, clients=4, bits=16, norm=2.0, weight_cap=1000, standardize=False, seed=seed
    )
    trial = Trial(
        rows=data.parts,
        held_out=tuple(data.test.values()),
        schema=data.schema,
        learner=learner,
        plan=plan,
        strategy=FedAvg(ask=Asks(update=UpdateKind.GRADIENT, weighting=Weighting.UNIFORM), server_rate=RATE),
        absent=absences(DropoutTable(per_round=1, every=3), plan, sorted(data.parts)),
        seed=seed,
    )
    aggregator = trial.aggregator(Mode.SECURE, trial.sites())
    if mechanism is Mechanism.GAUSSIAN:
        aggregator = CentralGaussianSum(
            trial.sites(), epsilon, delta, ROUNDS, trial.absent, sensitivity=learner.sensitivity, seed=seed
        )
    elif mechanism is not None:
        privacy = PrivacyPlan(
            epsilon=epsilon,
            delta=delta,
            rounds=ROUNDS,
            smallest=3,
            sensitivity=learner.sensitivity,
            mechanism=mechanism,
        )
        trial = replace(trial, plan=replace(plan, privacy=privacy))
    made = trial.federation(Mode.SECURE, aggregator).run()
    return trial.evaluate(made.parameters, made.standardizer)["accuracy"], made.epsilon or 0.0


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
