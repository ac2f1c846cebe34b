"""From `fedcore init` to a model in use, as the sample's own README says, with real processes."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedcore.data.sample import NEW_ROWS, SITES
from fedcore.evaluation.prediction import Predictor
from fedcore.history import read_history
from fedcore.learner import flatten

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after all commands of its README, and what they printed."""
    folder = tmp_path_factory.mktemp("walk") / "trial"
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([BIN / "fedcore", "init", folder], check=True, capture_output=True, env=environment)
    text = (folder / "README.md").read_text(encoding="utf-8")
    commands = "set -e\n" + "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        ["bash", "-c", commands.replace("7443", str(port))],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_data_are_looked_at_first(walked: tuple[Path, str]) -> None:
    _, said = walked
    assert f"hospital-1.csv: {SITES['hospital-1']} rows, {SITES['hospital-1']} can be used" in said
    assert "missing values of systolic filled" in said


def test_everybody_sees_how_good_the_model_is(walked: tuple[Path, str]) -> None:
    folder, said = walked
    events = list(read_history(folder / "run" / "history.jsonl"))
    evaluated = [event for event in events if event.get("kind") == "evaluate" and event["completed"]]
    assert [event["number"] for event in evaluated] == [4, 8]
    assert evaluated[-1]["metrics"]["accuracy"] > 0.75
    assert evaluated[-1]["metrics"]["auc"] > 0.85
    held_out = evaluated[-1]["rows"]
    assert 0.15 * sum(SITES.values()) < held_out < 0.25 * sum(SITES.values())
    assert f"accuracy {evaluated[-1]['metrics']['accuracy']:.4g}" in said
    assert f"over {held_out} held-out rows" in said
    total = 0
    for name in SITES:
        log = (folder / f"{name}.log").read_text(encoding="utf-8")
        (ours,) = re.findall(r"on this site's (\d+) held-out rows: accuracy", log)
        assert "a model trained on this site's rows alone: accuracy" in log
        total += int(ours)
    assert total == held_out


def test_every_hospital_has_the_same_model_and_its_file_says_what_it_needs(walked: tuple[Path, str]) -> None:
    folder, _ = walked
    found = [Predictor.load(folder / f"model-{i}.safetensors") for i in range(1, 6)]
    assert len({flatten(one.model.parameters).tobytes() for one in found}) == 1
    assert {one.model.number for one in found} == {8}
    layout = found[0].schema.layout
    assert layout is not None
    assert (layout.id, layout.label.name) == ("patient", "readmitted")


def test_new_rows_are_predicted(walked: tuple[Path, str]) -> None:
    folder, said = walked
    assert f"{NEW_ROWS} of {NEW_ROWS} rows predicted, in predictions.csv" in said
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [str(i) for i in range(1, NEW_ROWS + 1)]
    for row in rows:
        share = float(row["P(yes)"])
        assert float(row["P(no)"]) + share == pytest.approx(1, abs=1e-5)
        assert row["readmitted"] == ("yes" if share > 0.5 else "no")
    assert {row["readmitted"] for row in rows} == {"no", "yes"}


def fedcore(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "fedcore", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_model_is_shown_compared_and_exported(walked: tuple[Path, str]) -> None:
    folder, _ = walked
    shown = json.loads(fedcore(folder, "model", "show", "model-1.safetensors", "--json").stdout)
    assert shown["round"] == 8
    assert shown["learner"]["kind"] == "softmax"
    done = fedcore(folder, "model", "compare", "model-1.safetensors", "model-2.safetensors", "hospital-3.csv")
    assert done.returncode == 0, done.stderr
    assert f"{SITES['hospital-3']} rows" in done.stdout
    done = fedcore(folder, "model", "export", "model-1.safetensors", "model.skops")
    assert done.returncode == 0, done.stderr
    done = fedcore(folder, "predict", "model-1.safetensors", "new-patients.csv")
    assert (done.returncode, done.stderr) == (2, "fedcore: predictions.csv: exists\n")


def test_a_folder_that_is_not_empty_is_left_as_it_is(walked: tuple[Path, str]) -> None:
    folder, _ = walked
    done = fedcore(folder, "init", ".")
    assert (done.returncode, done.stderr) == (2, "fedcore: .: is not empty, nothing was written\n")


def test_a_schema_is_drafted_and_can_be_used(walked: tuple[Path, str]) -> None:
    folder, _ = walked
    done = fedcore(
        folder, "schema", "hospital-4.csv", "--label", "readmitted", "--id", "patient", "--out", "draft.toml"
    )
    assert done.returncode == 0, done.stderr
    text = (folder / "draft.toml").read_text(encoding="utf-8")
    assert "# admitted: read as %d.%m.%Y" in text
    assert "# systolic: some are missing" in text
    done = fedcore(folder, "check", "hospital-4.csv", "--schema", "draft.toml", "--json")
    found = json.loads(done.stdout)
    assert (found["rows"], found["usable"], found["faults"]) == (SITES["hospital-4"],) * 2 + ([],)
