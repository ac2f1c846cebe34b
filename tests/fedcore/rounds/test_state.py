"""A run that was stopped and resumed ends as one that never stopped, bit for bit; broken files fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore import arrays
from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import DataError, TaskError
from fedcore.learner import flatten
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState, restore_sites, sites_kept
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAdam, FedAvg, FedAvgM, GeometricMedian, Scaffold, Strategy
from tests.fedcore.sites import SCHEMA, make_table

LEARNER = LocalSGD(model=SoftmaxRegression(3, 2), batch_size=8, rate=0.2)
PERSONAL = FedAvg(ask=Asks(personal=("intercepts",)))
PRIVACY = PrivacyPlan(epsilon=20.0, delta=1e-4, rounds=6, smallest=4)
CASES: dict[str, tuple[Strategy, dict[str, Any]]] = {
    "FedAvg": (FedAvg(), {}),
    "FedAvgM": (FedAvgM(), {}),
    "FedAdam": (FedAdam(), {}),
    "Scaffold": (Scaffold(sites=6), {}),
    "Scaffold, cohort, sparse": (Scaffold(sites=6), {"keep": 0.5, "cohort": 4}),
    "sparse": (FedAvg(), {"keep": 0.3}),
    "personal": (PERSONAL, {"keep": 0.3}),
    "adaptive norm": (FedAdam(), {"norm": AdaptiveClip(norm=0.05)}),
    "median": (GeometricMedian(smoothing=0.05, passes=2), {"rotate": True, "keep": 0.5}),
    "private": (FedAdam(), {"norm": 0.5, "privacy": PRIVACY, "evaluate_every": 0}),
    "private, adaptive": (
        FedAvg(ask=Asks(weighting=Weighting.UNIFORM)),
        {"norm": AdaptiveClip(norm=0.5), "privacy": PRIVACY, "evaluate_every": 0},
    ),
}
ABSENT = {"train 3": frozenset({"site-1"}), "train 4": frozenset({"site-2"})}


def make_plan(rounds: int, **changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {
        "clients": 6, "weight_cap": 100, "clip": 2.0, "bits": 18, "evaluate_every": 1, "decay": 0.9
    }  # fmt: skip
    return TrainingPlan(rounds=rounds, **(values | changes))


def make_sites() -> dict[str, Site]:
    names = [f"site-{i}" for i in range(6)]
    return {name: Site(name, make_table(10 + 7 * i, i), SCHEMA, LEARNER, 7) for i, name in enumerate(names)}


def line_of(record: RoundRecord) -> str:
    """A record as a line of JSON, all of its task and its sum in it."""
    result = record.result
    return json.dumps(
        {
            "task": record.task.encode().hex(),
            "total": None if result is None else result.total.tolist(),
            "survivors": None if result is None else result.survivors,
            "weight": record.weight,
            "epsilon": record.epsilon,
            "norm": record.norm,
            "within": record.within,
            "after": {name: array.tolist() for name, array in sorted(record.parameters.items())},
        }
    )


def run(
    strategy: Strategy,
    plan: TrainingPlan,
    sites: dict[str, Site],
    resume: RunState | None = None,
    kind: type[PlainSum | SecureSum] = PlainSum,
) -> tuple[RunState, list[str], RunState]:
    lines: list[str] = []
    last: list[RunState] = []
    federation = Federation(
        kind(sites, ABSENT),
        SCHEMA,
        LEARNER,
        plan,
        strategy=strategy,
        on_round=lambda record: lines.append(line_of(record)),
        on_checkpoint=last.append,
    )
    model = federation.run(resume)
    return model, lines, replace(last[-1], sites=sites_kept(sites))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_resumed_run_is_the_run_that_never_stopped(name: str, at: int, tmp_path: Path) -> None:
    strategy, changes = CASES[name]
    whole, lines, end = run(strategy, make_plan(6, **changes), make_sites())
    _, before, saved = run(strategy, make_plan(at, **changes), make_sites())
    saved.save(tmp_path / "run.safetensors")
    loaded = RunState.load(tmp_path / "run.safetensors")
    sites = make_sites()
    restore_sites(sites, loaded.sites)
    resumed, after, finish = run(strategy, make_plan(6, **changes), sites, loaded)
    assert before + after == lines
    assert flatten(resumed.parameters).tobytes() == flatten(whole.parameters).tobytes()
    assert resumed.evaluations == whole.evaluations
    assert (resumed.number, resumed.weight, resumed.epsilon) == (6, whole.weight, whole.epsilon)
    assert (finish.norm, finish.accountant) == (end.norm, end.accountant)
    assert finish.state.keys() == end.state.keys()
    for key, array in end.state.items():
        assert finish.state[key].tobytes() == array.tobytes()
    assert repr_of(finish.sites) == repr_of(end.sites)
    assert np.abs(flatten(whole.parameters)).max() > 1e-3


def repr_of(value: Any) -> Any:
    """Nested values with arrays as bytes."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: repr_of(one) for key, one in sorted(value.items())}
    return [repr_of(one) for one in value] if isinstance(value, tuple | list) else value


def test_it_is_the_same_under_secure_sums(tmp_path: Path) -> None:
    strategy = Scaffold(sites=6)
    whole, lines, _ = run(strategy, make_plan(6), make_sites(), kind=SecureSum)
    _, before, saved = run(strategy, make_plan(3), make_sites(), kind=SecureSum)
    saved.save(tmp_path / "run.safetensors")
    sites, loaded = make_sites(), RunState.load(tmp_path / "run.safetensors")
    restore_sites(sites, loaded.sites)
    resumed, after, _ = run(strategy, make_plan(6), sites, loaded, kind=SecureSum)
    assert before + after == lines
    assert flatten(resumed.parameters).tobytes() == flatten(whole.parameters).tobytes()


@pytest.mark.parametrize("name", ["Scaffold", "sparse", "personal"])
def test_without_what_sites_keep_the_run_is_another(name: str) -> None:
    strategy, changes = CASES[name]
    whole, _, _ = run(strategy, make_plan(6, **changes), make_sites())
    _, _, saved = run(strategy, make_plan(3, **changes), make_sites())
    assert saved.sites.keys() == make_sites().keys()
    resumed, _, _ = run(strategy, make_plan(6, **changes), make_sites(), saved)
    assert flatten(resumed.parameters).tobytes() != flatten(whole.parameters).tobytes()


def make_checkpoint() -> RunState:
    rng = np.random.default_rng(0)
    return RunState(
        number=3,
        parameters={
            "a.b/c": rng.normal(size=(2, 3)),
            "file": np.array([-0.0, np.inf]),
            "header": np.zeros(0),
        },
        standardizer=Standardizer(rng.normal(size=3), np.ones(3)),
        weight=17,
        state={"first": rng.normal(size=4)},
        norm=0.1,
        accountant={"delta": 1e-5, "rounds": 1, "orders": [2.0], "rdp": [0.1]},
        evaluations={1: {"auc": float("nan")}, 3: {"auc": 0.25}},
        sites={
            "a": {"personal": {"control": np.ones(2), "x": np.zeros((2, 2))}},
            "a.personal": {"control": np.zeros(3), "pending": ("train 3", {"residual": np.ones(1)})},
            "é": {
                "pending": ("train 3", {"personal": {"x": np.ones(1)}}),
                "counted": ("b", "é"),
                "members": ("é",),
            },
        },
    )


@pytest.mark.parametrize("counted", [(), ("a", "b")])
def test_what_waits_and_whether_it_counted_come_back(counted: tuple[str, ...], tmp_path: Path) -> None:
    sites, again = make_sites(), make_sites()
    state = sites["site-1"].state
    state.control, state.members = np.zeros(2), ("a", "c")
    state.propose("train 3", {"control": np.ones(2)})
    state.count("train 3", counted)
    replace(make_checkpoint(), sites=sites_kept(sites)).save(tmp_path / "run.safetensors")
    restore_sites(again, RunState.load(tmp_path / "run.safetensors").sites)
    found = again["site-1"].state
    assert found.pending is not None
    assert (found.pending[0], found.counted, found.members) == ("train 3", counted, ("a", "c"))
    found.go_on("train 4")
    assert found.control is not None
    assert found.control.tolist() == ([1.0, 1.0] if counted else [0.0, 0.0])
    assert found.members == (counted or ("a", "c"))


def as_tree(checkpoint: RunState) -> Any:
    values = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    values["standardizer"] = (checkpoint.standardizer.mean, checkpoint.standardizer.deviation)
    return repr_of(values)


def test_everything_comes_back_and_names_do_not_collide(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    one = make_checkpoint()
    one.save(path)
    assert repr(as_tree(RunState.load(path))) == repr(as_tree(one))
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]
    one.save(path)  # over it
    assert repr(as_tree(RunState.load(path))) == repr(as_tree(one))


def load_or_data_error(path: Path, content: bytes) -> RunState | None:
    path.write_bytes(content)
    try:
        return RunState.load(path)
    except DataError:
        return None


def test_truncated_and_changed_files_are_data_errors_or_the_same_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    make_checkpoint().save(path)
    whole = path.read_bytes()
    for end in {*range(0, len(whole), 97), *range(200), len(whole) - 1}:
        assert load_or_data_error(path, whole[:end]) is None
    same = repr(as_tree(make_checkpoint()))
    rng = np.random.default_rng(1)
    refused = 0
    for at in rng.choice(len(whole), 300, replace=False):
        for flip in (1, 0xFF):
            changed = bytearray(whole)
            changed[at] ^= flip
            found = load_or_data_error(path, bytes(changed))
            assert found is None or repr(as_tree(found)) == same
            refused += found is None
    assert refused > 300


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x05\x06" + bytes(18), b"{}", b"\x80\x04N."])
def test_other_files_are_data_errors(content: bytes, tmp_path: Path) -> None:
    assert load_or_data_error(tmp_path / "x", content) is None
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert load_or_data_error(tmp_path / "y", (tmp_path / "x.npy").read_bytes()) is None


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"version": 3},
        {"version": 99},
        {"version": 5, "number": "x"},
        {"version": 5, "number": 1, "weight": 0, "evaluations": {}},
        {"version": 5, "number": 1, "weight": 0, "norm": None, "accountant": None, "tried": [0, 0],
         "epsilon": None, "stopped": "",
         "evaluations": [], "sites": {}},
        {"version": 5, "number": 1, "weight": 0, "norm": None, "accountant": None, "tried": [0, 0],
         "epsilon": None, "stopped": "",
         "evaluations": {}, "sites": {"a": {"array": "model.none"}}},
        {"version": 5, "number": 1, "weight": 0, "norm": None, "accountant": None, "tried": [0, 0],
         "epsilon": None, "stopped": "",
         "evaluations": {}, "sites": {"a": {}}},
    ],
)  # fmt: skip
def test_headers_that_say_something_else_are_data_errors(header: Any, tmp_path: Path) -> None:
    arrays.write(tmp_path / "run.safetensors", {}, header)
    with pytest.raises(DataError, match=r"run\.safetensors"):
        RunState.load(tmp_path / "run.safetensors")


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        RunState.load(tmp_path / "none")


def test_a_checkpoint_of_another_strategy_or_learner_is_refused() -> None:
    _, _, adam = run(FedAdam(), make_plan(2), make_sites())
    _, _, plain = run(FedAvg(), make_plan(2), make_sites())
    for checkpoint, strategy in ((adam, FedAvg()), (plain, FedAdam()), (plain, Scaffold(sites=6))):
        before, now = checkpoint.about["strategy"]["name"], type(strategy).__name__
        said = f"resume: a checkpoint of another run: strategy.name: was '{before}', is '{now}'"
        with pytest.raises(TaskError, match=said):
            run(strategy, make_plan(4), make_sites(), checkpoint)
        with pytest.raises(TaskError, match=f"resume: the state is not that of {now}"):
            run(strategy, make_plan(4), make_sites(), replace(checkpoint, about={}))
    with pytest.raises(TaskError, match="resume: the parameters are not this learner's"):
        run(FedAvg(), make_plan(4), make_sites(), replace(plain, parameters={"w": np.zeros(3)}))


def test_a_run_that_is_over_stays_as_it_was() -> None:
    whole, _, end = run(FedAvg(), make_plan(3), make_sites())
    lines: list[str] = []
    federation = Federation(
        PlainSum(make_sites()), SCHEMA, LEARNER, make_plan(3), on_round=lambda r: lines.append(line_of(r))
    )
    again = federation.run(end)
    assert lines == []
    assert flatten(again.parameters).tobytes() == flatten(whole.parameters).tobytes()
