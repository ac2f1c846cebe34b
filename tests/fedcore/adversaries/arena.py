"""Where attackers meet strategies: 20 sites of one distribution, and what the model is worth after 8 rounds.

`python -m tests.fedcore.adversaries.arena` prints the table of all attacks and strategies as Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedcore.adversaries.sites import (
    Attack,
    Backdoor,
    Constant,
    Gaussian,
    LabelFlip,
    OutOfRange,
    Scaling,
    SignFlip,
    corrupt_some,
)
from fedcore.data.table import Table
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.rounds.aggregation import PlainSum, SumAggregator
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg, Strategy
from fedcore.strategies.robust import FedMedian, FedTrimmedMean, GeometricMedian

CLASSES, FEATURES, SITES, ROWS = 4, 10, 20, 40
NAMES = tuple(f"site-{i:02}" for i in range(SITES))
CLIP, NORM = 4.0, 0.5
LEARNER = LocalSGD(model=SoftmaxRegression(FEATURES, CLASSES), epochs=2, batch_size=20, rate=0.2)
_CENTERS = np.random.default_rng(5).normal(0, 1.4, (CLASSES, FEATURES))
_CENTERS[:, 8:] = 0.0  # the last two columns say nothing of the class: room for a trigger


def blobs(rows: int, seed: int) -> Table:
    """Equally many rows of each class, with unit deviation around its center."""
    labels = np.arange(rows) % CLASSES
    noise = np.random.default_rng(seed).normal(size=(rows, FEATURES))
    return Table(_CENTERS[labels] + noise, labels.astype(np.int64))


HELD_OUT = blobs(2000, 999)
FLIP = LabelFlip(classes=CLASSES)
BACKDOOR = Backdoor(trigger={8: 4.0, 9: 4.0}, target=0)


@dataclass(frozen=True, slots=True)
class Defence:
    """A strategy, and the norm that updates are clipped to."""

    strategy: Strategy
    norm: float | None = None


PLAIN = Defence(FedAvg())
DEFENCES = {
    "FedAvg": PLAIN,
    f"FedAvg, norm {NORM}": Defence(FedAvg(), NORM),
    "FedMedian, 5 groups": Defence(FedMedian(groups=5)),
    "FedTrimmedMean, 6 groups, trim 2": Defence(FedTrimmedMean(groups=6, trim=2, smallest=3)),
    "GeometricMedian, nu 0.1": Defence(GeometricMedian(smoothing=0.1)),
}
ATTACKS: dict[str, Attack] = {
    "none": Attack(),
    "label flip": FLIP,
    "label flip, boosted 10": Scaling(factor=10, of=FLIP),
    "sign flip 1": SignFlip(),
    "sign flip 20": SignFlip(scale=20),
    "sign flip 20, ignores the norm": SignFlip(scale=20, ignores_norm=True),
    "sign flip 20, boasts": SignFlip(scale=20, boasts=True),
    "honest update, boosted 10": Scaling(factor=10),
    "Gaussian, honest length": Gaussian(),
    "Gaussian, deviation 2": Gaussian(deviation=2.0),
    "free rider (zero)": Constant(),
    "constant 3": Constant(value=3.0),
    "backdoor": BACKDOOR,
    "backdoor, boosted 10": replace(BACKDOOR, factor=10),
    "out of range": OutOfRange(scale=20),
}


def make_sites(attack: Attack | None = None, bad: int = 0, sites: int = SITES) -> dict[str, Site]:
    """Sites of 40 rows, the first `bad` of them under the attack."""
    good = {name: Site(name, blobs(ROWS, i), None, LEARNER, 3) for i, name in enumerate(NAMES[:sites])}
    return good if attack is None else corrupt_some(good, NAMES[:bad], attack)


def make_plan(**changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {"rounds": 8, "clients": SITES, "weight_cap": 100, "clip": CLIP}
    return TrainingPlan(**(values | changes))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accuracy on held-out rows; backdoor: share of them that its trigger turns into its target."""

    accuracy: float
    backdoor: float


def outcome(
    attack: Attack | None = None,
    defence: Defence = PLAIN,
    bad: int = 2,
    aggregator: type[Any] = PlainSum,
    **plan: Any,
) -> Outcome:
    """Train, and evaluate what came of it."""
    sums: SumAggregator = aggregator(make_sites(attack, bad))
    federation = Federation(
        sums, None, LEARNER, make_plan(norm=defence.norm, **plan), defence.strategy, classes=tuple("abcd")
    )
    parameters = federation.run().parameters
    accuracy = LEARNER.evaluate(parameters, HELD_OUT)["accuracy"]
    return Outcome(accuracy, BACKDOOR.success_rate(LEARNER, parameters, HELD_OUT))


def table(attacks: Mapping[str, Attack] = ATTACKS) -> str:
    """Markdown: attack x strategy -> accuracy / success of the backdoor."""
    lines = ["| attack by 2 of 20 sites | " + " | ".join(DEFENCES) + " |", "|---" * (len(DEFENCES) + 1) + "|"]
    for name, attack in attacks.items():
        cells = [outcome(attack, defence) for defence in DEFENCES.values()]
        told = [
            f"{c.accuracy:.3f} / {c.backdoor:.2f}" if isinstance(attack, Backdoor) else f"{c.accuracy:.3f}"
            for c in cells
        ]
        lines.append(f"| {name} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
