"""Heart disease in four hospitals, FLamby's split, model, schedule and metric (ogier du Terrail et al. 2022).

FLamby's own rows are reproduced first (rows standardized by each hospital for itself, torch's initial
weights, 15 rounds of 100 steps of batch 4); then rows are standardized by pooled statistics from two
secure sums. One of the four drops out in every third round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.harness import Outcome, Setting, TaskResult, fit_alone, one_absent, result, run
from fedcore.data import heart_disease
from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.learner import Parameters
from fedcore.learners import LocalSGD, LogisticRegression
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.state import RunState
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAdam, FedAvg, FedYogi, Strategy

SEEDS = (42, 43, 44, 45, 46)
FEATURES = 13
ROUNDS = 15
# Mean of four hospitals and five seeds, from the results that FLamby publishes.
PUBLISHED = {"FedAvg": 0.6850, "FedAdam": 0.7256, "FedYogi": 0.7314}
PUBLISHED_POOLED = 0.7353


@dataclass(frozen=True, slots=True)
class TorchStart(LogisticRegression):
    """Starts from the weights that torch draws for a linear layer, as FLamby's models do."""

    seed: int = 0

    def initial(self) -> Parameters:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            layer = torch.nn.Linear(self.features, 1)
        return {
            "coefficients": layer.weight.detach().numpy()[0].astype(np.float64),
            "intercept": layer.bias.detach().numpy().astype(np.float64),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: means over the seeds."""

    name: str
    plain: float
    secure: float
    deviation: float
    published: float | None
    outcomes: list[tuple[Setting, Outcome]]


def own_standardizer(table: Table) -> Standardizer:
    """FLamby's: by a hospital's own training rows, n - 1."""
    return Standardizer(table.features.mean(axis=0), table.features.std(axis=0, ddof=1) + 1e-9)


def mean_of_four(parameters: Parameters, tests: dict[str, Table]) -> float:
    """Accuracy at 0.5, plain mean over the hospitals."""
    model = LogisticRegression(FEATURES)
    return float(np.mean([model.evaluate(parameters, table)["accuracy"] for table in tests.values()]))


def setting(
    train: dict[str, Table],
    tests: dict[str, Table],
    schema: Schema | None,
    strategy: Strategy,
    seed: int,
    *,
    rate: float,
    start: bool,
) -> Setting:
    """FLamby's schedule: 100 steps of batch 4 a round, weights by rows."""

    def evaluate(model: RunState) -> dict[str, float]:
        scaled = {name: model.standardizer.apply(table) for name, table in tests.items()}
        return {"accuracy": mean_of_four(model.parameters, scaled)}

    model = TorchStart(FEATURES, seed=seed) if start else LogisticRegression(FEATURES)
    return Setting(
        name="heart",
        metric="accuracy",
        rows=train,
        schema=schema,
        learner=LocalSGD(model=model, steps=100, batch_size=4, rate=rate),
        plan=TrainingPlan(rounds=ROUNDS, clients=len(train), weight_cap=1000, clip=8.0, bits=16, seed=seed),
        strategy=strategy,
        evaluate=evaluate,
        classes=("0", "1"),
        absent=one_absent(list(train), ROUNDS, seed, every=3),
        seed=seed,
    )


def line(name: str, make: Callable[[int], Setting], seeds: tuple[int, ...]) -> Row:
    """Run all seeds."""
    outcomes = [(one := make(seed), run(one)) for seed in seeds]
    secure = [outcome.secure["accuracy"] for _, outcome in outcomes]
    plain = [outcome.plain["accuracy"] for _, outcome in outcomes]
    return Row(
        name,
        float(np.mean(plain)),
        float(np.mean(secure)),
        float(np.std(secure)),
        PUBLISHED.get(name),
        outcomes,
    )


def lines(seeds: tuple[int, ...]) -> list[Row]:
    """FLamby's strategies on its rows, then ours on rows with federated standardization."""
    data = heart_disease()
    own = {name: own_standardizer(table) for name, table in data.train.items()}
    train = {name: own[name].apply(table) for name, table in data.train.items()}
    tests = {name: own[name].apply(table) for name, table in data.test.items()}
    theirs: dict[str, tuple[Strategy, float]] = {
        "FedAvg": (FedAvg(), 1e-3),
        "FedAdam": (FedAdam(server_rate=0.01, beta2=0.999, tau=1e-8), 1e-2),
        "FedYogi": (FedYogi(server_rate=0.01, beta2=0.999, tau=1e-8), 10**-2.5),
    }
    rows = [
        line(name, lambda s, f=f, r=r: setting(train, tests, None, f, s, rate=r, start=True), seeds)  # type: ignore[misc]
        for name, (f, r) in theirs.items()
    ]
    rows += [
        line(
            f"FedAvg, pooled statistics, rate {rate:g}",
            lambda s, r=rate: setting(  # type: ignore[misc]
                data.train, data.test, data.schema, FedAvg(), s, rate=r, start=False
            ),
            seeds,
        )
        for rate in (0.05, 0.01)
    ]
    return rows


def baselines(seeds: tuple[int, ...]) -> tuple[float, float]:
    """Each hospital alone, scored on all four (FLamby's local rows); all rows pooled."""
    data = heart_disease()
    alone = []
    for table in data.train.values():
        standardizer = own_standardizer(table)
        scaled = {name: standardizer.apply(test) for name, test in data.test.items()}
        learner = LocalSGD(model=LogisticRegression(FEATURES), steps=100, batch_size=4, rate=0.01)
        alone += [
            mean_of_four(fit_alone(learner, standardizer.apply(table), ROUNDS, seed), scaled)
            for seed in seeds
        ]
    pooled = join_tables(list(data.train.values()))
    standardizer = Standardizer(pooled.features.mean(axis=0), pooled.features.std(axis=0))
    scaled = {name: standardizer.apply(test) for name, test in data.test.items()}
    learner = LocalSGD(model=LogisticRegression(FEATURES), epochs=4, batch_size=4, rate=0.01)
    together = [
        mean_of_four(fit_alone(learner, standardizer.apply(pooled), ROUNDS, seed), scaled) for seed in seeds
    ]
    return float(np.mean(alone)), float(np.mean(together))


def main(console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table."""
    seeds = SEEDS[:1] if quick else SEEDS
    rows = lines(seeds)
    local, pooled = baselines(seeds)
    view = View(title="heart disease, 4 hospitals: mean accuracy of the four, five seeds")
    for column in ("training", "plain", "secure", "std", "published"):
        view.add_column(column, justify="left" if column == "training" else "right")
    view.add_row("each hospital alone, mean", "", f"{local:.4f}", "", ".5670 to .7222")
    for row in rows:
        published = "" if row.published is None else f"{row.published:.4f}"
        view.add_row(row.name, f"{row.plain:.4f}", f"{row.secure:.4f}", f"{row.deviation:.4f}", published)
    view.add_row("pooled, pooled standardization", "", f"{pooled:.4f}", "", f"{PUBLISHED_POOLED:.4f}")
    console.print(view)
    best = rows[-1]
    one, outcome = best.outcomes[0]
    figures = result(one, outcome, local=local, pooled=pooled)
    checked = [outcome.checked for row in rows for _, outcome in row.outcomes]
    return TaskResult(
        **{
            **{name: getattr(figures, name) for name in TaskResult.__slots__},
            "plain": best.plain,
            "secure": best.secure,
            "seconds": sum(outcome.seconds for row in rows for _, outcome in row.outcomes),
            "max_difference": max(one.difference for one in checked),
            "bound": min(one.bound for one in checked),
            "details": {
                row.name: {
                    "plain": row.plain,
                    "secure": row.secure,
                    "deviation": row.deviation,
                    "published": row.published,
                }
                for row in rows
            },
        }
    )
