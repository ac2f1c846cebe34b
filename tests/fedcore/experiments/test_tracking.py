"""Trackers: what each is told, read back; missing packages; nothing secret."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SettingError
from fedcore.experiments.tables import TrackingTable
from fedcore.experiments.tracking import JsonLines, Mlflow, TensorBoard, Wandb, flat, trackers
from tests.fedcore.experiments.small import run

CONFIG = {"plan": {"bits": 8, "stopping": {"target": 0.9}}, "mode": "secure"}


def told(tracker: Any) -> None:
    tracker.start("a run", CONFIG)
    tracker.log({"accuracy": 0.5, "auc": math.nan}, 1)
    tracker.log({"accuracy": 0.75, "auc": 0.5}, 2)
    tracker.close()


def test_json_lines_have_the_settings_and_every_step(tmp_path: Path) -> None:
    path = tmp_path / "secure.jsonl"
    told(JsonLines(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line.pop("at") for line in lines)
    assert lines == [
        {"event": "run", "name": "a run", "config": CONFIG},
        {"event": "metrics", "step": 1, "accuracy": 0.5},
        {"event": "metrics", "step": 2, "accuracy": 0.75, "auc": 0.5},
    ]


def test_json_lines_go_on_after_a_step_and_forget_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "secure.jsonl"
    told(JsonLines(path))
    again = JsonLines(path, resume=1)
    again.start("a run", CONFIG)
    again.log({"accuracy": 0.25}, 2)
    again.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one.get("step"), one.get("accuracy")) for one in found] == [(None, None), (1, 0.5), (2, 0.25)]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """Read an event file as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_back_what_an_experiment_logged(tmp_path: Path) -> None:
    (outcome,) = run(tmp_path, tracking={"tensorboard": True})
    found = scalars(tmp_path / "000-seed-0" / "tensorboard" / "secure", "accuracy")
    assert [step for step, _value in found] == [1, 2, 3]
    assert found[-1][1] == pytest.approx(outcome.metrics["accuracy"])
    assert [value for _step, value in scalars_of(tmp_path, "survivors")] == [11, 11, 11]


def scalars_of(folder: Path, name: str) -> list[tuple[int, float]]:
    return scalars(folder / "000-seed-0" / "tensorboard" / "secure", name)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_forgets_steps_that_are_run_again(tmp_path: Path) -> None:
    told(TensorBoard(tmp_path))
    again = TensorBoard(tmp_path, resume=1)
    again.start("a run", CONFIG)
    again.log({"accuracy": 0.25}, 2)
    again.close()
    assert scalars(tmp_path, "accuracy") == [(1, 0.5), (2, 0.25)]


class Calls:
    """A module or object that notes every call and answers with itself."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*positional: Any, **named: Any) -> Calls:
            self.made.append((name, positional, named))
            return self

        return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Calls]:
    modules = {"wandb": Calls(), "mlflow": Calls()}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def test_wandb_is_told_settings_and_steps(fake: dict[str, Calls], tmp_path: Path) -> None:
    told(Wandb("a project", tmp_path))
    (_, _, start), *rest = fake["wandb"].made
    assert (start["project"], start["name"], start["config"]) == ("a project", "a run", CONFIG)
    assert rest == [
        ("log", ({"accuracy": 0.5},), {"step": 1}),
        ("log", ({"accuracy": 0.75, "auc": 0.5},), {"step": 2}),
        ("finish", (), {}),
    ]


def test_mlflow_is_told_settings_and_steps(fake: dict[str, Calls]) -> None:
    told(Mlflow("a project"))
    assert fake["mlflow"].made == [
        ("set_experiment", ("a project",), {}),
        ("start_run", (), {"run_name": "a run"}),
        ("log_params", ({"plan.bits": 8, "plan.stopping.target": 0.9, "mode": "secure"},), {}),
        ("log_metrics", ({"accuracy": 0.5},), {"step": 1}),
        ("log_metrics", ({"accuracy": 0.75, "auc": 0.5},), {"step": 2}),
        ("end_run", (), {}),
    ]


def test_an_experiment_tells_all_its_trackers_numbers_and_settings_only(
    fake: dict[str, Calls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "do-not-tell")
    run(tmp_path, tracking={"wandb": True, "mlflow": True}, plan={"rounds": 2}, compare=["plain", "secure"])
    for module, steps in ((fake["wandb"], "log"), (fake["mlflow"], "log_metrics")):
        logged = [(positional, named) for name, positional, named in module.made if name == steps]
        assert [named["step"] for _, named in logged] == [1, 2, 1, 2]
        for (metrics,), _ in logged:
            assert all(isinstance(value, float) for value in metrics.values())
        assert "do-not-tell" not in repr(module.made)
        assert "array" not in repr(module.made)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"do-not-tell" not in written


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_package_is_told_with_its_extra_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingError) as caught:
        run(tmp_path, tracking={name: True})
    said = str(caught.value)
    assert said.startswith(
        f"tracking.{name} needs the extra [{name}], in a checkout: pip install '.[{name}]'"
    )
    assert package in said
    assert list(tmp_path.iterdir()) == []


def test_json_lines_are_always_there(tmp_path: Path) -> None:
    made = trackers(TrackingTable(), project="p", folder=tmp_path, mode="secure")
    assert [type(one) for one in made] == [JsonLines]
    every = TrackingTable(tensorboard=True, wandb=True, mlflow=True)
    kinds = [type(one) for one in trackers(every, project="p", folder=tmp_path, mode="secure")]
    assert kinds == [JsonLines, TensorBoard, Wandb, Mlflow]


def test_nested_settings_are_spelled_with_dots() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}
