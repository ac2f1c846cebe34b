"""What the terminal shows of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.demo.report import comparison_rows, print_result, summary_lines
from fedcore.demo.run import DemoResult, Setting
from fedcore.evaluation.baselines import Mode, Result
from fedcore.rounds.state import RunState

SCHEMA = Schema((Column("age", 0, 120),), ("no", "yes"))


def make_table(rows: int) -> Table:
    return Table(np.arange(float(rows))[:, None], np.arange(rows) % 2)


def metrics(accuracy: float, area: float) -> dict[str, float]:
    return {"accuracy": accuracy, "auc": area}


def model(value: float) -> RunState:
    return RunState.of(1, {"w": np.array([value])})


def make_result(*, victim: str | None = None, identical: bool = True) -> DemoResult:
    tables = {f"hospital-{i}": make_table(5) for i in range(4)}
    rounds: list[dict[str, Any]] = [
        {"event": "round", "task": "train 1", "completed": True, "survivors": list(tables)},
        {"event": "killed", "client": "hospital-2", "line": "holding before unmasking of train 2"},
        {"event": "round", "task": "train 2", "completed": False, "reason": "too few"},
        {"event": "round", "task": "train 2", "completed": True, "survivors": ["hospital-0", "hospital-1"]},
        {"event": "round", "task": "train 3", "completed": True, "survivors": list(tables)},
    ]
    return DemoResult(
        folder=Path("runs/now"),
        setting=Setting("toy", tables, make_table(7), SCHEMA, "answer"),
        victim=victim,
        events=rounds if victim else [rounds[0], rounds[4]],
        comparison={
            Mode.LOCAL: Result(mode=Mode.LOCAL, metrics=metrics(0.7, 0.8), worst=metrics(0.6, 0.7)),
            Mode.SECURE: Result(mode=Mode.SECURE, metrics=metrics(0.9, 0.95), model=model(1.0)),
            Mode.QUANTIZED: Result(
                mode=Mode.QUANTIZED, metrics=metrics(0.9, 0.95), model=model(1.0 if identical else 2.0)
            ),
            Mode.POOLED: Result(mode=Mode.POOLED, metrics=metrics(0.92, 0.97)),
        },
        checked_sums=5,
        transcripts=6,
        seen=("hospital-1", [11, 22, 33], [1, -2, 3]),
        seconds=12.3,
    )


def test_the_rows_compare_the_mean_and_the_worst_site_with_the_federation() -> None:
    rows = {name: pytest.approx((accuracy, area)) for name, accuracy, area in comparison_rows(make_result())}
    assert rows == {
        "each hospital alone, mean": (0.7, 0.8),
        "each hospital alone, worst": (0.6, 0.7),
        "federated, secure": (0.9, 0.95),
        "federated, in the clear": (0.9, 0.95),
        "pooled": (0.92, 0.97),
    }


def test_the_summary_states_differences_and_checks() -> None:
    lines = summary_lines(make_result())
    assert lines[0] == (
        "Federated against alone: accuracy +0.200, AUC +0.150 over the mean hospital; "
        "+0.300, +0.250 over the worst."
    )
    assert lines[1] == "Federated against pooled: AUC -0.0200."
    assert lines[2].startswith("5 secure sums equal the sums of the sites' quantized updates")
    assert lines[2].endswith("the final model equals that of the same training in the clear.")
    assert lines[3:] == ["6 transcripts verify offline, each with its sum recomputed bit for bit."]


def test_a_model_that_differs_from_the_clear_one_is_said_so() -> None:
    assert "the final model differs from that" in summary_lines(make_result(identical=False))[2]


def test_a_kill_is_told_with_its_failed_rounds_and_the_return() -> None:
    assert summary_lines(make_result(victim="hospital-2"))[4] == (
        "hospital-2 was killed and came back; rounds without a result: 1; it took part again from train 3 on."
    )


def test_the_terminal_shows_the_table_the_upload_and_the_folder() -> None:
    console = Console(file=io.StringIO(), width=120)
    print_result(make_result(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        "toy: 7 held-out rows",
        "federated, secure",
        "0.900",
        "0.9500",
        "hospital-1",
        "11",
        "-2",
        "runs/now",
    ):
        assert part in text
