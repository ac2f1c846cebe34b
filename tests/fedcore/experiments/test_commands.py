"""The commands run, convergence and upload: what they print, and one line for what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fedcore.experiments import read_outcomes
from fedcore.experiments.commands import upload
from tests.fedcore.experiments.small import EXAMPLES

TOML = """
[data]
name = "digits"
partition = "iid"
clients = 5
[learner]
rate = 0.1
[plan]
rounds = 2
[dropout]
per_round = 1
"""


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run `fedcore` as its script does."""
    import fedcore.cli.main  # brings scikit-learn

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fedcore", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            fedcore.cli.main.main()
        code = caught.value.code
        return Outcome(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_run_prints_each_outcome_and_the_comparison_and_leaves_a_report(
    tmp_path: Path, call: Call, experiment: Path
) -> None:
    done = call("run", experiment, "--out", tmp_path / "runs")
    assert (done.status, done.err) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "experiment.toml").read_text(encoding="utf-8") == TOML
    outcomes = read_outcomes(folder)
    assert [one.mode for one in outcomes] == ["local", "plain", "secure", "pooled"]
    for one in outcomes:
        assert f"  {one.mode:<10}accuracy {one.metrics['accuracy']:.4f}" in done.out
    assert "local worst" in done.out
    assert str(folder / "report.md") in done.out
    assert (folder / "report.md").exists()
    again = call("run", experiment, "--resume", folder)
    assert again.status == 0
    assert read_outcomes(folder) == outcomes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rounds = 2|rounds = -2", "plan.rounds: must be at least 0, is -2"),
        ('"digits"|"faces"', "data.name: must be one of"),
        ("[plan]|[plans]", "plans: is not known"),
        ("[plan]|[plan", "not an experiment file"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(
    tmp_path: Path, call: Call, experiment: Path, change: str, message: str
) -> None:
    before, after = change.split("|")
    experiment.write_text(TOML.replace(before, after), encoding="utf-8")
    done = call("run", experiment, "--out", tmp_path / "runs")
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("fedcore: ")
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_resume_needs_the_folder_of_the_same_file(tmp_path: Path, call: Call, experiment: Path) -> None:
    assert "--resume: must name a folder" in call("run", experiment, "--resume", tmp_path / "none").err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "experiment.toml").write_text("", encoding="utf-8")
    done = call("run", experiment, "--resume", tmp_path / "other")
    assert done.status == 2
    assert "is not the experiment that was given" in done.err


def test_convergence_prints_a_row_for_each_setting_and_leaves_lines_and_a_plot(
    tmp_path: Path, call: Call
) -> None:
    options = ["--clients", "4,5", "--alpha", "10", "--dropout", "0", "--bits", "8", "--target", "0.3"]
    done = call("convergence", *options, "--rounds", 2, "--out", tmp_path)
    assert (done.status, done.err) == (0, "")
    assert "until accuracy 0.3" in done.out
    assert "kB up of a client" in done.out
    (folder,) = tmp_path.iterdir()
    assert len((folder / "convergence.jsonl").read_text().splitlines()) == 3
    assert (folder / "convergence.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", "x"), "--bits: must be numbers with commas between, is 'x'"),
        (("--bits", "50"), "plan.bits: must be in 1..40, is 50"),
        (("--dataset", "faces"), "data.name: must be one of"),
        (("--strategy", "FedMedian"), "strategy.groups: is missing"),
    ],
)
def test_convergence_refuses_before_it_makes_a_folder(
    tmp_path: Path, call: Call, options: tuple[str, str], message: str
) -> None:
    done = call("convergence", *options, "--out", tmp_path)
    assert done.status == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_upload_tells_what_the_ring_adds(call: Call) -> None:
    options = ("--parameters", 147465, "--clients", 20, "--bits", 8)
    found = json.loads(call("plan", *options, "--json").out)
    # 20 values of at most 127 in magnitude, and the sign: 13 bits; two entries carry the weight.
    assert (found["values"], found["entries"], found["ring_bits"]) == (147465, 147467, 13)
    assert found["bytes"] == -(-147467 * 13 // 8)
    assert found["net_bytes_per_value"] == pytest.approx(1, abs=1e-4)
    assert found["float32_bytes"] == 4 * 147465
    assert found["ratio"] == pytest.approx(13 / 32, abs=1e-4)
    text = call("plan", *options).out
    assert "239 634" in text
    assert "589 860" in text


@pytest.mark.parametrize(
    ("options", "entries", "ring_bits"),
    [
        (("--keep", "0.1", "--bits", "8"), 102, 13),
        (("--weighting", "uniform", "--bits", "8"), 1000, 13),
        (("--rotate", "--norm", "1", "--bits", "1"), 1014, 5),
    ],
)
def test_upload_follows_its_options(
    call: Call, options: tuple[str, ...], entries: int, ring_bits: int
) -> None:
    found = json.loads(call("plan", "--parameters", 1000, "--clients", 20, "--json", *options).out)
    assert (found["entries"], found["ring_bits"]) == (entries, ring_bits)


def test_upload_makes_room_for_noise(call: Call) -> None:
    options = ("--parameters", 1000, "--clients", 20, "--bits", 12, "--rotate", "--json")
    plain = json.loads(call("plan", *options).out)
    private = json.loads(call("plan", *options, "--epsilon", 5).out)
    assert private["ring_bits"] > plain["ring_bits"]
    assert private["entries"] == 1000  # all sites count alike: no weight follows the values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", "0"), "bits: must be in 1..40, is 0"),
        (("--weighting", "size"), "weighting: must be one of rows, uniform, is 'size'"),
        (("--keep", "2"), "keep: must be in (0, 1], is 2.0"),
        (("--epsilon", "-1"), "epsilon: must be positive"),
    ],
)
def test_upload_refuses_in_one_line(call: Call, options: tuple[str, ...], message: str) -> None:
    done = call("plan", "--parameters", 10, "--clients", 5, *options)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_the_examples_of_the_readme_are_there() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.toml")) == [
        "digits.toml",
        "heart_disease.toml",
        "private.toml",
        "training.toml",
    ]
    assert upload.__doc__


@pytest.mark.parametrize("address", ["server.example.org", "server:port", ":7443"])
def test_join_refuses_an_address_without_a_port_at_once(call: Call, address: str) -> None:
    files = [
        part for name in ("registry", "certificate", "key", "data", "schema") for part in (f"--{name}", name)
    ]
    done = call("join", address, *files, "--label", "outcome")
    assert (done.status, done.err) == (
        2,
        f"fedcore: --server: must be host:port with a port in 0..65535, is {address!r}\n",
    )


def test_a_path_of_the_data_that_is_not_there_is_said_by_its_key(call: Call, tmp_path: Path) -> None:
    text = """
[data]
name = "files"
path = "nowhere"
schema = "schema.csv"
label = "outcome"
classes = ["no", "yes"]
"""
    (tmp_path / "schema.csv").write_text("column,low,high\nage,0,1\n", encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    done = call("run", tmp_path / "mine.toml", "--out", tmp_path / "runs")
    assert done.status == 2
    assert (
        done.err == f"fedcore: data.path: must be a file or a folder, {tmp_path / 'nowhere'} is not there\n"
    )


def test_a_choice_in_a_message_is_spelled_as_in_the_file(call: Call, tmp_path: Path) -> None:
    text = TOML + '[strategy]\nweighting = "rows"\n[privacy]\nepsilon = 8.0\ndelta = 1e-3\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    done = call("run", tmp_path / "mine.toml", "--out", tmp_path / "runs")
    assert (done.status, done.err) == (
        2,
        "fedcore: strategy.weighting: must be uniform with [privacy], is 'rows'\n",
    )


def test_a_run_that_could_not_end_is_told_by_the_exit_status(
    experiment: Path, call: Call, tmp_path: Path
) -> None:
    fine = call("run", experiment, "--out", tmp_path / "fine")
    assert fine.status == 0
    groups = 'compare = ["quantized"]\n' + TOML + '[strategy]\nname = "FedMedian"\ngroups = 5\n'
    experiment.write_text(groups, encoding="utf-8")
    failed = call("run", experiment, "--out", tmp_path / "failed")
    assert failed.status == 1
    assert "groups: 5 of at least 4 sites each are needed" in failed.out
    assert "Traceback" not in failed.err
