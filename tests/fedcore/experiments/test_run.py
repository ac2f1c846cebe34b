"""Experiments: every strategy under dropouts, the modes beside each other, grids, and going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.errors import DataError, SettingError
from fedcore.experiments import parse_experiment, read_outcomes, run_experiment
from fedcore.experiments.results import cell_folder, read_rounds
from fedcore.history import read_history
from fedcore.rounds.state import RunState
from fedcore.strategies import STRATEGIES
from tests.fedcore.experiments.small import run, small, values

OPTIONS: dict[str, dict[str, Any]] = {
    "FedAdam": {"server_rate": 0.1},
    "FedMedian": {"groups": 3},
    "FedTrimmedMean": {"groups": 3, "trim": 1},
    "GeometricMedian": {"smoothing": 0.5, "passes": 2},
    "Scaffold": {"control_scale": 0.5},
}


# Of each kind one: means, control variates, groups, passes.
USUAL = {"FedAvg", "Scaffold", "FedMedian", "GeometricMedian"}


@pytest.mark.parametrize(
    "name",
    [name if name in USUAL else pytest.param(name, marks=pytest.mark.exhaustive) for name in STRATEGIES],
)
def test_every_strategy_learns_securely_with_a_dropout_in_every_round(tmp_path: Path, name: str) -> None:
    strategy = {"name": name} | OPTIONS.get(name, {})
    plain, quantized, secure = run(
        tmp_path, strategy=strategy, compare=["plain", "quantized", "secure"], plan={"bits": 20}
    )
    assert [one.mode for one in (plain, quantized, secure)] == ["plain", "quantized", "secure"]
    for one in (plain, quantized, secure):
        assert (one.failure, one.rounds, one.survivors) == ("", 3, 11)
    assert secure.digest == quantized.digest
    assert secure.metrics == quantized.metrics
    assert secure.digest != plain.digest
    assert secure.metrics["accuracy"] > 0.6
    assert secure.metrics["accuracy"] == pytest.approx(plain.metrics["accuracy"], abs=0.05)
    assert secure.bytes_up > secure.upload_bytes > 0
    assert (quantized.bytes_up, plain.bytes_up) == (0, 0)


def test_federated_training_beats_sites_alone_and_comes_near_to_pooled_rows(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        compare=["local", "plain", "secure", "pooled"],
        data={"partition": "dirichlet", "alpha": 0.5},
        plan={"rounds": 8},
    )
    accuracy = {one.mode: one.metrics["accuracy"] for one in found}
    assert accuracy["secure"] > accuracy["local"] + 0.1
    assert accuracy["secure"] > accuracy["pooled"] - 0.08
    assert found[0].worst["accuracy"] < found[0].metrics["accuracy"]
    assert found[0].worst["log_loss"] > found[0].metrics["log_loss"]


def test_absent_sites_are_the_same_in_every_mode_others_in_every_round_and_seed(tmp_path: Path) -> None:
    run(tmp_path, compare=["plain", "secure"], seeds=[0, 1], plan={"rounds": 4, "cohort": 8, "keep": 0.5})
    gone = []
    for seed in (0, 1):
        folder = cell_folder(tmp_path, 0, seed)
        plain, secure = (RunState.load(folder / f"{mode}.safetensors") for mode in ("plain", "secure"))
        last = []
        for one in (plain, secure):
            kept = [k for k in one.sites.values() if k.get("pending", ("",))[0] == "train 4"]
            (survivors,) = {k["counted"] for k in kept if "counted" in k}
            last.append(survivors)
        assert last[0] == last[1]
        assert len(last[0]) == 7
        gone.append(last[0])
    assert gone[0] != gone[1]


def test_a_rate_takes_its_share_of_the_sites_on_average(tmp_path: Path) -> None:
    outcomes = run(
        tmp_path, compare=["quantized"], plan={"rounds": 40}, dropout={"per_round": 0, "rate": 0.2}
    )
    survivors = [line["survivors"] for line in read_rounds(tmp_path, 0, 0, "quantized")]
    assert len(survivors) == 40
    assert set(survivors) == {9, 10}
    assert outcomes[0].survivors == pytest.approx(12 * 0.8, abs=0.2)


def test_an_interrupted_experiment_goes_on_to_the_same_results(tmp_path: Path) -> None:
    tables: dict[str, Any] = {
        "strategy": {"name": "Scaffold", "control_scale": 0.5},
        "plan": {"rounds": 4, "keep": 0.5},
        "compare": ["local", "secure", "plain"],
        "seeds": [0, 1],
    }
    whole = run(tmp_path / "whole", **tables)

    class StoppedError(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["number"] == 2 and event["mode"] == mode:
            raise StoppedError

    folder = tmp_path / "broken"
    folder.mkdir()
    for mode in ("secure", "plain"):
        with pytest.raises(StoppedError):
            run_experiment(small(**tables), folder, stop)
        number = RunState.load(cell_folder(folder, 0, 0) / f"{mode}.safetensors").number
        assert number == 2
        with (cell_folder(folder, 0, 0) / f"{mode}.jsonl").open("a") as file:  # as if killed in round 3
            file.write('{"event": "metrics", "step": 3, "survivors": 1, "seconds": 0}\n{"event": "metr')
    after = run(folder, **tables)
    assert [one.key for one in after] == [one.key for one in whole]
    assert len(whole) == 6
    for one, other in zip(whole, after, strict=True):
        assert (one.digest, one.metrics, one.rounds) == (other.digest, other.metrics, other.rounds)
        assert one.survivors == other.survivors
        assert one.bytes_up == pytest.approx(
            other.bytes_up, rel=1e-3
        )  # frames with random bytes vary by a few
    for mode in ("secure", "plain"):
        steps = [line["step"] for line in read_rounds(folder, 0, 0, mode)]
        assert steps == [1, 2, 3, 4]


def test_what_is_done_is_not_run_again_and_another_file_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path)
    told: list[dict[str, Any]] = []
    assert run_experiment(small(), tmp_path, told.append) == first
    assert told == []
    with pytest.raises(DataError, match="is not the experiment that was given"):
        run(tmp_path, plan={"rounds": 2})


def test_a_grid_is_the_product_of_its_values(tmp_path: Path) -> None:
    outcomes = run(tmp_path, grid={"plan.bits": [4, 12], "learner.rate": [0.1, 0.2]}, plan={"rounds": 1})
    assert [one.changes for one in outcomes] == [
        {"plan.bits": bits, "learner.rate": rate} for bits in (4, 12) for rate in (0.1, 0.2)
    ]
    assert [one.point for one in outcomes] == [0, 1, 2, 3]
    assert len({one.digest for one in outcomes}) == 4
    assert outcomes[0].upload_bytes < outcomes[2].upload_bytes < outcomes[2].float32_bytes
    assert read_outcomes(tmp_path) == outcomes


def test_a_point_that_fails_is_an_outcome_and_the_others_are_run(tmp_path: Path) -> None:
    failed, fine = run(
        tmp_path,
        strategy={"name": "FedMedian", "groups": 5},
        grid={"strategy.groups": [5, 3]},
        plan={"rounds": 1},
    )
    assert "groups: 5 of at least 4 sites each are needed" in failed.failure
    assert (failed.metrics, failed.rounds) == ({}, 0)
    assert (fine.failure, fine.rounds) == ("", 1)


def test_privacy_is_accounted_for_and_training_in_the_clear_has_none(tmp_path: Path) -> None:
    plain, secure = run(
        tmp_path,
        compare=["plain", "secure"],
        plan={"norm": 1.0, "rounds": 3},
        privacy={"epsilon": 20.0, "delta": 1e-3},
    )
    assert plain.epsilon is None
    assert secure.failure == ""
    assert secure.epsilon is not None
    assert 10 < secure.epsilon <= 20
    spent = [line["epsilon"] for line in read_rounds(tmp_path, 0, 0, "secure")]
    assert spent == sorted(spent)
    assert spent[-1] == secure.epsilon


def test_stopping_ends_a_run_early(tmp_path: Path) -> None:
    (secure,) = run(tmp_path, plan={"rounds": 9, "stopping": {"target": 0.5}})
    assert secure.stopped == "accuracy reached 0.5"
    assert secure.rounds < 9


def test_a_learner_of_ones_own_is_called_with_the_task_and_its_options(tmp_path: Path) -> None:
    own = {"kind": f"{__name__}:make_own", "options": {"slow": 0.5}}
    (secure,) = run_experiment(parse_experiment(values(plan={"rounds": 1}) | {"learner": own}), tmp_path)
    (half,) = run(tmp_path / "half", learner={"rate": 0.05}, plan={"rounds": 1})
    assert secure.digest == half.digest


@pytest.mark.parametrize(
    ("learner", "standardize", "metric", "least"),
    [
        ({"kind": "logistic", "learning_rate": 0.05, "alpha": 0.001}, True, "accuracy", 0.6),
        ({"kind": "perceptron", "hidden": [16], "rate": 0.2}, True, "accuracy", 0.6),
        ({"kind": "linear", "rate": 0.04}, True, "r2", 0.3),
        ({"kind": "softmax", "rate": 0.003}, False, "accuracy", 0.6),
    ],
)
def test_every_kind_of_learner_learns(
    tmp_path: Path, learner: dict[str, Any], standardize: bool, metric: str, least: float
) -> None:
    given = values(plan={"rounds": 10, "standardize": standardize}, compare=["local", "secure", "pooled"])
    experiment = parse_experiment(given | {"learner": learner})
    assert experiment.metric == metric
    found = {one.mode: one for one in run_experiment(experiment, tmp_path)}
    assert [one.failure for one in found.values()] == [""] * 3
    assert found["secure"].metrics[metric] > least
    assert found["pooled"].metrics[metric] > least
    assert found["local"].metrics[metric] >= found["local"].worst[metric]


def test_a_metric_that_the_learner_does_not_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^metric: must be one of accuracy, auc, .*, is 'mse'$"):
        run(tmp_path, metric="mse")


def make_own(features: int, classes: int, seed: int, slow: float) -> Any:
    from fedcore.learners import LocalSGD, SoftmaxRegression

    assert seed == 0
    return LocalSGD(model=SoftmaxRegression(features, classes), rate=0.1 * slow)


def test_every_round_has_a_line_with_metrics_bytes_and_survivors(tmp_path: Path) -> None:
    run(tmp_path, plan={"norm": {"norm": 1.0, "quantile": 0.5}})
    path = cell_folder(tmp_path, 0, 0) / "secure.jsonl"
    first, *rest = read_history(path)
    assert first["event"] == "run"
    assert first["config"]["plan"]["norm"]["quantile"] == 0.5
    assert [event["step"] for event in rest] == [1, 2, 3]
    for event in rest:
        assert {"accuracy", "auc", "log_loss", "bytes_up", "bytes_down", "seconds"} <= event.keys()
        assert event["survivors"] == 11
        assert 0 <= event["within"] <= 1
    assert np.ptp([event["norm"] for event in rest]) > 0
