"""The main job with real processes: a kill at each phase, other data, and who opens which file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedcore.data import breast_cancer, uneven, write_table
from fedcore.demo.checks import DemoError, check_sums, check_transcripts
from fedcore.demo.report import write_report
from fedcore.demo.run import DemoOptions, DemoResult, run_demo
from fedcore.errors import DataError
from fedcore.evaluation.baselines import Mode
from fedcore.history import read_history
from fedcore.service.join import Hold
from secagg import Phase, check_identity

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

# Records which files a process opens, and under which command it runs.
_AUDIT = """
import os, sys
_log = os.open(os.environ["OPENED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)) and "revealed" in os.fsdecode(args[0]):
        os.write(_log, f"{sys.argv[1:2]} {os.getpid()} {os.fsdecode(args[0])}\\n".encode())
sys.addaudithook(_hook)
"""


USUAL = {Phase.MASKED_INPUT_COLLECTION}  # the others by `make test-exhaustive`


def run(tmp_path: Path, **changes: object) -> DemoResult:
    """A small demonstration."""
    values: dict[str, object] = {"clients": 5, "rounds": 4, "out": tmp_path / "runs"}
    return run_demo(DemoOptions(**(values | changes)), lambda _event: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "phase",
    [phase if phase in USUAL else pytest.param(phase, marks=pytest.mark.exhaustive) for phase in Phase],
)
def test_a_kill_at_any_phase_costs_no_round_and_the_killed_site_comes_back(
    tmp_path: Path, phase: Phase
) -> None:
    # in as many seconds the killed site is back for the next round, on a loaded machine, too
    result = run(tmp_path, drop=Hold(2, phase), grace_s=6.0)
    assert result.victim is not None
    rounds = [event for event in result.events if event["event"] == "round"]
    assert [event["task"] for event in rounds] == [
        *("mean 1", "deviation 1"),
        *("train 1", "train 2", "train 3", "train 4"),
    ]
    assert all(event["completed"] for event in rounds)
    assert result.checked_sums == 6
    if phase is not Phase.ADVERTISE_KEYS:  # who had not advertised may still come in time, as a new process
        uploaded = phase > Phase.MASKED_INPUT_COLLECTION
        assert (result.victim in rounds[3]["survivors"]) == uploaded
    assert result.victim in rounds[-1]["survivors"]
    assert result.identical


def test_the_server_never_opens_a_plain_update_though_the_sites_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(_AUDIT, encoding="utf-8")
    log = tmp_path / "opened.log"
    monkeypatch.setenv("PYTHONPATH", str(hooks))
    monkeypatch.setenv("OPENED_LOG", str(log))
    result = run(tmp_path, rounds=1, clients=4)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("['join']") for line in lines) >= 4 * 3  # three rounds, four sites
    server = next(event["pid"] for event in result.events if event["event"] == "listening")
    assert not [line for line in lines if line.startswith("['serve']") or f" {server} " in line]


def test_sites_that_speak_once_vanish_and_a_decryptor_is_killed(tmp_path: Path) -> None:
    """Two sites are new processes for every upload; one of seven decryptors is gone from the third sum on."""
    result = run(tmp_path, rounds=2, protocol="one-shot")
    rounds = [event for event in result.events if event["event"] == "round"]
    assert [event["task"] for event in rounds] == ["mean 1", "deviation 1", "train 1", "train 2"]
    assert all(event["completed"] and len(event["survivors"]) == 5 for event in rounds)
    assert {"event": "killed", "client": "decryptor-1", "line": "for good"} in result.events
    assert result.vanishing == ("hospital-1", "hospital-2")
    assert result.checked_sums == 4
    assert result.identical
    write_report(result)
    assert "gone after every upload" in (result.folder / "report.md").read_text(encoding="utf-8")
    logs = (result.folder / "logs" / "hospital-1.log").read_text(encoding="utf-8")
    assert logs.count("agreed: ") >= 4  # a process for every upload
    with pytest.raises(DataError, match="one-shot"):
        run(tmp_path, protocol="one-shot", drop=Hold(1, Phase.ADVERTISE_KEYS))


@pytest.mark.exhaustive
def test_digits_with_ten_sites(tmp_path: Path) -> None:
    result = run(tmp_path, dataset="digits", clients=10, rounds=3)
    assert result.checked_sums == 5
    assert result.identical
    assert result.comparison[Mode.SECURE].metrics["accuracy"] > 0.85


def test_a_folder_of_csv_files_through_the_command_line(tmp_path: Path) -> None:
    data = breast_cancer()
    folder = tmp_path / "data"
    folder.mkdir()
    for i, rows in enumerate(
        uneven(data.table.labels, 4, seed=1, minimum_rows=8).tables(data.table).values()
    ):
        write_table(rows, folder / f"clinic-{i}.csv", data.schema, "finding")
    data.schema.dump(folder / "schema.csv")
    arguments = ["--data", str(folder), "--label", "finding", "--classes", "malignant,benign"]
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "fedcore",
            "demo",
            *arguments,
            "--rounds",
            "2",
            "--out",
            str(tmp_path / "runs"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "SIGKILL to clinic-0" in finished.stdout
    assert "4 secure sums equal" in finished.stdout
    (folder_out,) = (tmp_path / "runs").iterdir()
    assert (folder_out / "report.png").read_bytes().startswith(b"\x89PNG")
    report = (folder_out / "report.md").read_text(encoding="utf-8")
    for name in ("clinic-0", "federated, secure", "federated, in the clear", "pooled", "What the server saw"):
        assert name in report
    for line in (folder_out / "history.jsonl").read_text(encoding="utf-8").splitlines():
        assert "event" in json.loads(line)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """A run whose folder two tests change, each in another place."""
    return run(tmp_path_factory.mktemp("small"), rounds=1, clients=4)


def test_a_sum_that_differs_from_the_revealed_updates_is_found(small: DemoResult) -> None:
    result = small
    write_report(result)
    events = list(read_history(result.folder / "history.jsonl"))
    assert check_sums(result.folder, events) == 3
    victim = next(event for event in events if event["event"] == "round")
    path = result.folder / "sums" / f"{victim['round_id']}.npy"
    total = np.load(path)
    total[3] += 1
    np.save(path, total)
    with pytest.raises(DemoError, match="mean 1: the secure sum differs at element 3"):
        check_sums(result.folder, events)
    total[3] -= 1
    np.save(path, total)
    assert check_sums(result.folder, events) == 3


def test_the_transcripts_of_a_run_are_verified_and_a_changed_one_is_found(small: DemoResult) -> None:
    result = small
    events = list(read_history(result.folder / "history.jsonl"))
    server = check_identity(bytes.fromhex((result.folder / "server.identity").read_text(encoding="ascii")))
    assert result.transcripts == check_transcripts(result.folder, events, server) == 3
    path = next((result.folder / "transcripts").iterdir())
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(DemoError, match=f"{path.name}: entry 0: "):
        check_transcripts(result.folder, events, server)
