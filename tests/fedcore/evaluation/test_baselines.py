"""The one comparison: modes that must agree do, and what the secure sums say is held against real numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedcore.data import breast_cancer, hold_out, uneven
from fedcore.data.table import Table
from fedcore.evaluation.baselines import Mode, Trial, compare, run
from fedcore.evaluation.metrics import mean_metrics, worst_metrics
from fedcore.learner import flatten
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.rounds.instructions import Asks
from fedcore.rounds.plan import TrainingPlan
from fedcore.statistics.standardizer import Standardizer


@pytest.fixture(scope="module")
def parts() -> tuple[Table, Table]:
    """Training and held-out rows."""
    return hold_out(breast_cancer().table, 0.3, 0)


@pytest.fixture(scope="module")
def trial(parts: tuple[Table, Table]) -> Trial:
    train, held_out = parts
    return Trial(
        rows=uneven(train.labels, 6, 1, minimum_rows=8).tables(train),
        held_out=(held_out,),
        schema=breast_cancer().schema,
        learner=LocalSGD(model=SoftmaxRegression(30, 2), rate=0.1),
        plan=TrainingPlan(rounds=4, clients=6, weight_cap=500, bits=8),
        absent={"train 2": frozenset({"client-003"})},
        seed=2,
    )


def test_secure_and_quantized_end_in_the_same_bits_and_near_real_numbers(trial: Trial) -> None:
    found = compare(trial, Mode)
    assert list(found) == list(Mode)
    assert found[Mode.SECURE].equals(found[Mode.QUANTIZED])
    assert not found[Mode.SECURE].equals(found[Mode.PLAIN])
    assert not found[Mode.LOCAL].equals(found[Mode.LOCAL])  # many models are no model
    assert found[Mode.SECURE].metrics == found[Mode.QUANTIZED].metrics
    secure, local, pooled = (
        found[mode].metrics["accuracy"] for mode in (Mode.SECURE, Mode.LOCAL, Mode.POOLED)
    )
    assert local < secure
    assert secure == pytest.approx(pooled, abs=0.05)
    assert found[Mode.LOCAL].worst["accuracy"] < local
    assert found[Mode.LOCAL].worst["log_loss"] > found[Mode.LOCAL].metrics["log_loss"]


def test_the_secure_sums_are_within_the_bound_of_rounding(trial: Trial) -> None:
    checked = run(trial, Mode.SECURE).checked
    assert checked is not None
    assert 0 < checked.difference <= checked.bound
    assert [asked for _, asked in checked.traffic] == [6] * 4
    assert checked.bytes_per_client > checked.length
    assert run(trial, Mode.QUANTIZED).checked is None


def test_all_rows_at_one_site_alone_are_the_pooled_model(trial: Trial, parts: tuple[Table, Table]) -> None:
    train, _ = parts
    whole = replace(trial, rows={"all": train})
    alone, pooled = whole.alone(train), run(whole, Mode.POOLED).model
    assert pooled is not None
    assert flatten(alone.parameters).tobytes() == flatten(pooled.parameters).tobytes()
    assert alone.standardizer.mean.tolist() == train.features.mean(axis=0).tolist()
    raw = replace(whole, plan=replace(trial.plan, standardize=False)).alone(train)
    assert not raw.standardizer.mean.size


def test_metrics_of_several_parts_are_averaged(trial: Trial, parts: tuple[Table, Table]) -> None:
    train, held_out = parts
    halves = [held_out.take(part) for part in np.array_split(np.arange(len(held_out)), 2)]
    model = trial.alone(train)
    one, other = (
        replace(trial, held_out=(half,)).evaluate(model.parameters, model.standardizer) for half in halves
    )
    both = replace(trial, held_out=tuple(halves)).evaluate(model.parameters, model.standardizer)
    assert both == mean_metrics([one, other])
    worst = worst_metrics([{"accuracy": 0.5, "mse": 1.0}, {"accuracy": 0.7, "mse": 2.0}])
    assert worst == {"accuracy": 0.5, "mse": 2.0}


@pytest.mark.parametrize("changes", [{"decay": 0.5}, {"final_rate": 0.1}, {}])
@pytest.mark.parametrize("mode", [Mode.LOCAL, Mode.POOLED])
def test_training_alone_follows_the_rates_of_the_plan(
    trial: Trial, parts: tuple[Table, Table], mode: Mode, changes: dict[str, float]
) -> None:
    plan = replace(trial.plan, **changes)  # type: ignore[arg-type]
    one = replace(trial, rows={"all": parts[0]}, plan=plan)
    standardizer = Standardizer.of(parts[0])
    now = one.learner.initial()
    for number in range(1, plan.rounds + 1):
        factor = plan.asks(Asks(), number).rate  # what the sites of the federation are asked for
        learner = replace(trial.learner, rate=0.1 * factor)  # type: ignore[type-var]
        now = learner.fit(now, standardizer.apply(parts[0]), one.seed + number - 1)
    wanted = one.evaluate(now, standardizer)
    assert run(one, mode).metrics["log_loss"] == pytest.approx(wanted["log_loss"], rel=1e-9)
