"""What a served run leaves for people: a report with its figures, and as many models as are wanted."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedcore.cli.progress import Progress
from fedcore.data.dataset import hold_out
from fedcore.rounds.model import SUFFIX, load_model
from fedcore.rounds.site import Site
from fedcore.service import recorder as recorder_module
from fedcore.service.report import PLOT, REPORT, write_report
from secagg import ParameterError
from tests.fedcore.rows import table_of
from tests.fedcore.service.test_join import PATIENT, Run
from tests.fedcore.service.test_training import sites_of, train
from tests.fedcore.sites import make_plan, make_sites


def _sites() -> dict[str, Site]:
    out = {}
    for name, site in sites_of(4).items():
        rows, kept = hold_out(table_of(site), 0.3, 0)
        out[name] = replace(site, table=rows, held_out=kept)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plan = replace(make_plan(rounds=4, clients=4), evaluate_every=2)
    done = Run(tmp_path_factory.mktemp("run"), _sites(), PATIENT)
    asyncio.run(train(done, plan=plan, keep=2))
    return done


def test_a_report_has_every_evaluation_of_the_history_and_who_took_part(run: Run) -> None:
    text = (run.folder / REPORT).read_text(encoding="utf-8")
    evaluated = [event for event in run.events() if event["kind"] == "evaluate"]
    assert len(evaluated) == 2
    for event in evaluated:
        line = next(line for line in text.splitlines() if line.startswith(f"| {event['task']} | "))
        assert f"| {event['metrics']['accuracy']:.4g} |" in line
        assert line.endswith(f"| {event['rows']} |")
    assert "- 4 of 4 rounds" in text
    assert all(f"| {name} | 4 |" in text for name in run.sites)
    assert run.events("listening")[0]["agreement"] in text
    assert (run.folder / PLOT).stat().st_size > 5000


def test_only_the_newest_models_and_sums_stay(run: Run) -> None:
    kept = sorted(path.name for path in (run.folder / "models").iterdir())
    assert kept == [f"003{SUFFIX}", f"004{SUFFIX}"]
    assert load_model(run.folder / "models" / kept[-1]).number == 4
    assert len(list((run.folder / "sums").iterdir())) == 2


def test_what_is_kept_is_at_least_the_last(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="keep: must be at least 1, is 0"):
        Run(tmp_path, make_sites(4), PATIENT).serve_options(keep=0)


def test_what_went_wrong_is_counted_in_the_report(run: Run, tmp_path: Path) -> None:
    history = (run.folder / "history.jsonl").read_text(encoding="utf-8")
    failed = '{"event": "round", "at": "", "task": "train 9", "completed": false, "reason": "too few"}\n'
    (tmp_path / "history.jsonl").write_text(history + 2 * failed, encoding="utf-8")
    write_report(tmp_path, run.agreed)
    text = (tmp_path / REPORT).read_text(encoding="utf-8")
    assert "- train 9: too few (2 times)" in text
    assert "2 attempts without a result" in text


def test_the_console_says_how_the_run_ended(capsys: pytest.CaptureFixture[str]) -> None:
    show = Progress(Console()).show
    show({"event": "finished", "rounds": 3, "planned": 9, "reason": "the budget is spent"})
    show({"event": "report", "file": "run/report.md"})
    said = "the run is over after 3 of 9 rounds: the budget is spent\nwritten: run/report.md\n"
    assert capsys.readouterr().out == said


def test_a_report_that_cannot_be_written_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder_module, "write_report", full)
    run = Run(tmp_path, make_sites(4), PATIENT)
    asyncio.run(run.go())
    assert len(run.finals) == 4
    assert run.events("finished")[0]["rounds"] == 2
    assert run.events("warning")[-1]["text"].startswith("there is no report: OSError")


def test_sites_in_no_sum_are_in_the_report_and_words_are_no_markup(run: Run, tmp_path: Path) -> None:
    history = (run.folder / "history.jsonl").read_text(encoding="utf-8")
    event = {"event": "round", "at": "", "task": "train 9", "completed": False, "reason": "a\n<b>"}
    failed = json.dumps(event) + "\n"
    (tmp_path / "history.jsonl").write_text(history + failed, encoding="utf-8")
    write_report(tmp_path, run.agreed, [*run.sites, "absent"])
    text = (tmp_path / REPORT).read_text(encoding="utf-8")
    assert "| absent | 0 |" in text
    assert "- train 9: a &lt;b>" in text
