"""Every task runs in a few rounds, so that none rots, and ends with the JSON object that it promises."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.report import _tasks as tables_of_tasks
from bench.tasks import command
from bench.tasks.compression import draw

FIELDS = {
    *("task", "metric", "local", "plain", "secure", "pooled", "bytes_per_client_round", "float32_bytes"),
    *("seconds", "max_difference", "bound"),
}
needs_data = pytest.mark.skipif(
    not Path(os.environ.get("SECAGG_DATA", "")).joinpath("heart_disease").is_dir()
    or "SECAGG_DATA" not in os.environ,
    reason="SECAGG_DATA does not name the folder of the real data sets",
)


def last_line(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    command.main([name, "--quick"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def check(name: str, found: dict[str, Any]) -> None:
    assert set(found) >= FIELDS
    assert found["task"] == name
    for field in ("plain", "secure", "pooled"):
        assert 0 < found[field] <= 1
    assert 0 < found["max_difference"] <= found["bound"]
    assert found["bytes_per_client_round"] > 0
    assert found["float32_bytes"] % 4 == 0


def test_digits_prints_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    check("digits", last_line("digits", capsys))


@needs_data
@pytest.mark.parametrize(
    "name",
    ["heart", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("breast", "writers", "ner"))],
)
def test_a_task_on_real_data_prints_what_it_promises(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = last_line(name, capsys)
    check(name, found)
    if name == "heart":  # one seed of five
        assert found["secure"] >= 0.75
        assert found["details"]["FedAvg"]["published"] == 0.6850


@needs_data
@pytest.mark.exhaustive
def test_privacy_is_measured_beside_the_published_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = last_line("privacy", capsys)["rows"]
    assert [(row["epsilon"], row["delta"]) for row in rows] == [(0.1, 0.1), (1.0, 0.1)]
    for row in rows:
        assert 0 < row["spent"] <= row["epsilon"]
    assert rows[0]["published"] == pytest.approx(0.7108, abs=1e-4)


@needs_data
def test_privacy_of_users_is_measured_beside_a_trusted_server(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = last_line("users", capsys)["rows"]
    assert 0 < row["spent"] <= row["epsilon"] == 16.0
    assert row["ring_bits"] > 10


@needs_data
def test_standardization_under_privacy_is_measured_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    rows = last_line("scale", capsys)["rows"]
    assert [row["epsilon"] for row in rows] == [1.0, 3.0, 10.0]
    for row in rows:
        assert all(0.4 < row[name] <= 1 for name in ("none", "bounds", "moments"))


def test_bytes_are_measured_and_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = last_line("bytes", capsys)["rows"]
    assert {row["codec"] for row in rows} >= {"float32", "8 bits", "8 bits, rotated"}
    by_codec = {row["codec"]: row for row in rows}
    assert by_codec["8 bits"]["net_bytes_per_value"] <= 1.25
    assert by_codec["8 bits"]["bytes_per_value"] > by_codec["2 bits, rotated"]["bytes_per_value"]
    draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_without_the_data_a_task_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SECAGG_DATA", raising=False)
    with pytest.raises(SystemExit) as ended:
        command.main(["heart"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("bench: SECAGG_DATA: ")


def test_a_saved_result_becomes_a_row_of_the_table(tmp_path: Path) -> None:
    found = dict.fromkeys(FIELDS, 0.5) | {"task": "digits", "metric": "macro_f1", "float32_bytes": 400}
    found |= {"clients": 10, "rounds": 3, "ring_bits": 12, "machine": {"commit": "abc"}, "details": {}}
    (tmp_path / "task-digits.json").write_text(json.dumps(found), encoding="utf-8")
    text = "\n".join(tables_of_tasks(tmp_path))
    assert "| digits | macro_f1 | 0.5000 | 0.5000 | 0.5000 | 0.5000 | 0 | 400 | 12 |" in text
