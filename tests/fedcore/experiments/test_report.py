"""The report of an experiment: a table for each point, plots, and what went wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev

import pytest

from fedcore.experiments import load_experiment, run_experiment
from fedcore.experiments.report import spread, write_report
from tests.fedcore.experiments.small import EXAMPLES, run

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_report_compares_the_modes_at_every_point_over_the_seeds(tmp_path: Path) -> None:
    outcomes = run(
        tmp_path,
        compare=["local", "plain", "quantized", "secure", "pooled"],
        grid={"plan.bits": [4, 8]},
        seeds=[0, 1],
        plan={"rounds": 2},
    )
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "## plan.bits = 4" in text
    assert "## plan.bits = 8" in text
    for mode, name in (
        ("local", "each site alone, mean"),
        ("secure", "federated, secure"),
        ("pooled", "pooled"),
    ):
        values = [one.metrics["accuracy"] for one in outcomes if one.mode == mode and one.point == 1]
        assert len(values) == 2
        assert f"| {name} | {mean(values):.4f} ± {pstdev(values):.4f} | 2 |" in text
    worst = [one.worst["accuracy"] for one in outcomes if one.mode == "local" and one.point == 0]
    assert f"| each site alone, worst | {spread(worst)} |" in text
    secure = next(one for one in outcomes if one.mode == "secure" and one.point == 0)
    assert f"| 2 | {secure.upload_bytes} |" in text
    assert f"| {secure.float32_bytes} |" in text
    assert secure.float32_bytes == 4 * 650
    assert "4 of 4 secure models equal those of the quantized sums in the clear, bit for bit." in text
    for name in ("accuracy.png", "bytes.png"):
        assert f"({name})" in text
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_without_a_grid_there_is_no_plot_over_it(tmp_path: Path) -> None:
    run(tmp_path, plan={"rounds": 1})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "bytes.png" not in text
    assert not (tmp_path / "bytes.png").exists()
    assert (tmp_path / "accuracy.png").exists()


def test_failures_early_ends_and_epsilon_are_told(tmp_path: Path) -> None:
    run(
        tmp_path,
        strategy={"name": "FedMedian", "groups": 5},
        grid={"strategy.groups": [5, 3]},
        plan={"rounds": 5, "stopping": {"target": 0.2}, "norm": 1.0},
        privacy={"epsilon": 30.0, "delta": 1e-3, "smallest": 3},
    )
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "## Notes" in text
    assert "ended after round 0: groups: 5 of at least 4 sites each are needed" in text
    assert "| federated, secure | - | 0 |" in text


def test_epsilon_is_in_the_table(tmp_path: Path) -> None:
    (secure,) = run(
        tmp_path,
        plan={"rounds": 2, "norm": 1.0},
        privacy={"epsilon": 15.0, "delta": 1e-3},
        compare=["secure"],
    )
    assert secure.epsilon is not None
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert f"| {secure.epsilon:.3g} |" in text


def test_the_example_of_bytes_loses_little_with_eight_bits(tmp_path: Path) -> None:
    whole = load_experiment(EXAMPLES / "digits.toml")
    outcomes = run_experiment(replace(whole, seeds=(0,), points=whole.points[1:2]), tmp_path)
    found = {one.mode: one for one in outcomes}
    assert found["secure"].changes == {"plan.bits": 8}
    assert found["secure"].metrics["accuracy"] > found["plain"].metrics["accuracy"] - 0.02
    assert found["secure"].metrics["accuracy"] > found["local"].metrics["accuracy"] + 0.15
    assert found["secure"].upload_bytes < 0.4 * found["secure"].float32_bytes


@pytest.mark.exhaustive
def test_the_private_example_keeps_to_its_budget_and_still_learns(tmp_path: Path) -> None:
    plain, secure = run_experiment(load_experiment(EXAMPLES / "private.toml"), tmp_path)
    assert secure.failure == ""
    assert secure.rounds == 4
    assert secure.epsilon is not None
    assert 7.5 < secure.epsilon <= 8
    assert secure.metrics["accuracy"] > 0.75
    assert plain.epsilon is None


@pytest.mark.skipif("SECAGG_DATA" not in os.environ, reason="SECAGG_DATA is not set")
def test_four_hospitals_learn_more_together_than_alone_with_one_absent_in_every_round(tmp_path: Path) -> None:
    outcomes = run_experiment(load_experiment(EXAMPLES / "heart_disease.toml"), tmp_path)
    auc = {
        mode: mean(one.metrics["auc"] for one in outcomes if one.mode == mode)
        for mode in ("local", "plain", "secure", "pooled")
    }
    assert auc["secure"] > auc["local"] + 0.1
    assert auc["secure"] == pytest.approx(auc["plain"], abs=0.005)
    assert auc["secure"] > auc["pooled"] - 0.04
    assert {one.survivors for one in outcomes if one.mode == "secure"} == {3}
