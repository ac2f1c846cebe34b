"""Experiment files: what is read, and one line that names table.key for everything that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError
from fedcore.experiments import load_experiment, parse_experiment
from fedcore.experiments.tables import SETS
from fedcore.learners import LocalSGD, Perceptron
from fedcore.learners.kinds import read_learner
from fedcore.rounds.instructions import Weighting
from fedcore.strategies import Scaffold
from tests.fedcore.experiments.small import EXAMPLES, small, values

BAD: list[tuple[dict[str, Any], str]] = [
    ({"extra": 1}, "extra: is not known, the file has data"),
    ({"data": {"size": 3}}, "data.size: is not known, data has name"),
    ({"data": None}, "data: is missing"),
    ({"data": {"name": "iris"}}, "data.name: must be one of breast_cancer, digits"),
    ({"data": {"clients": "ten"}}, "data.clients: must be an integer, is 'ten'"),
    ({"data": {"clients": True}}, "data.clients: must be an integer, is True"),
    ({"data": {"clients": 0}}, "data.clients: must be at least 1, is 0"),
    ({"data": {"clients": 2}}, "data.clients: must be at least 3 for secure sums, is 2"),
    ({"data": {"partition": "dirichlet"}}, "data.alpha: is missing, dirichlet needs it"),
    ({"data": {"partition": "natural"}}, "data.partition: must be one of iid, uneven, dirichlet"),
    ({"data": {"alpha": 0.5}}, "data.alpha: is for dirichlet, the partition is iid"),
    ({"data": {"partition": "dirichlet", "alpha": -1}}, "data.alpha: must be positive and finite, is -1"),
    ({"plan": {"clip": float("nan")}}, "plan.clip: must be finite, is nan"),
    ({"learner": {"penalty": 10**400}}, "learner.penalty: must be finite, is 1000"),
    ({"data": {"held_out": 1.0}}, "data.held_out: must be in (0, 1), is 1.0"),
    ({"data": {"path": "rows"}}, "data.path: is for files, data.name is digits"),
    ({"data": {"name": "files"}}, "data.path: is missing, files need it"),
    ({"data": {"name": "heart_disease", "held_out": 0.5}}, "data.held_out: heart_disease has test rows"),
    ({"learner": {"kind": "tree"}}, "learner.kind: must be one of logistic, softmax, perceptron, linear"),
    ({"learner": {"alpha": 0.1}}, "learner.alpha: is not known, learner has epochs, steps"),
    ({"learner": {"rate": 0}}, "learner.rate: must be positive and finite, is 0"),
    ({"learner": {"kind": "perceptron", "hidden": [3, "x"]}}, "learner.hidden[1]: must be an integer"),
    ({"strategy": {"name": "Krum"}}, "strategy.name: must be one of FedAvg"),
    ({"strategy": {"mu": 0.1}}, "strategy.mu: is not known, strategy has server_rate"),
    ({"strategy": {"name": "FedMedian"}}, "strategy.groups: is missing"),
    ({"strategy": {"name": "FedProx", "mu": -1}}, "strategy.mu: must be finite and at least 0"),
    ({"strategy": {"weighting": "size"}}, "strategy.weighting: must be one of rows, uniform"),
    ({"strategy": {"weighting": "capped"}}, "strategy.weighting: must be one of rows, uniform, is 'capped'"),
    ({"strategy": {"name": "Scaffold", "weighting": "rows"}}, "strategy.weighting: must be uniform"),
    ({"strategy": {"name": "FedAdam", "update": "weights"}}, "strategy.update: must be delta with FedAdam"),
    ({"plan": {"rounds": 0}}, "plan.rounds: must be at least 1, is 0"),
    ({"plan": {"bits": 41}}, "plan.bits: must be in 1..40, is 41"),
    ({"plan": {"bits": 8.5}}, "plan.bits: must be an integer, is 8.5"),
    ({"plan": {"keep": 0.0}}, "plan.keep: must be in (0, 1], is 0.0"),
    ({"plan": {"cohort": 13}}, "plan.cohort: must be in 1..12, is 13"),
    ({"plan": {"norm": "big"}}, "plan.norm: must be a number or a table, is 'big'"),
    ({"plan": {"norm": {"norm": 1.0, "q": 1}}}, "plan.norm.q: is not known"),
    ({"plan": {"norm": {"norm": 1.0, "quantile": 2.0}}}, "plan.norm.quantile: must be in (0, 1)"),
    ({"plan": {"stopping": {"patience": 0}}}, "plan.stopping.patience: must be at least 1, is 0"),
    ({"privacy": {"epsilon": 1.0}}, "privacy.delta: is missing"),
    ({"privacy": {"epsilon": 1.0, "delta": 1e-5}}, "privacy: needs a norm"),
    (
        {"privacy": {"epsilon": 1.0, "delta": 1e-5, "mechanism": "laplace"}},
        "privacy.mechanism: must be one of gaussian, discrete_gaussian, skellam, is 'laplace'",
    ),
    (
        {
            "privacy": {"epsilon": 1.0, "delta": 1e-5},
            "plan": {"norm": 1.0},
            "strategy": {"weighting": "rows"},
        },
        "strategy.weighting: must be uniform with [privacy], is",
    ),
    (
        {"privacy": {"epsilon": 1.0, "delta": 1e-5, "smallest": 12}, "plan": {"norm": 1.0}},
        "privacy.smallest: must be at most 11, is 12",
    ),
    ({"dropout": {"rate": 1.0}}, "dropout.rate: must be in [0, 1), is 1.0"),
    ({"dropout": {"rate": 0.1}}, "dropout.per_round: excludes rate, is 1"),
    ({"dropout": {"per_round": 12}}, "dropout: must be less than the 12 sites of a round, is 12"),
    ({"attack": {"kind": "flip"}}, "attack.share: is missing"),
    ({"attack": {"kind": "flip", "share": 2}}, "attack.share: must be in (0, 1], is 2.0"),
    ({"seeds": []}, "seeds: must be distinct, from 0 on, is ()"),
    ({"seeds": [1, 1]}, "seeds: must be distinct, from 0 on, is (1, 1)"),
    ({"compare": ["secret"]}, "compare: must be of local, plain, quantized, secure, pooled, is 'secret'"),
    ({"grid": {"plan.bits": 8}}, "grid.plan.bits: must be a list with values, is 8"),
    ({"grid": {"bits": [8]}}, "grid.bits: must be table.key"),
    ({"grid": {"plan.bits": [8, 99]}}, "plan.bits: must be in 1..40, is 99"),
    ({"grid": {"plan.byts": [8]}}, "plan.byts: is not known"),
    ({"tracking": {"wandb": "yes"}}, "tracking.wandb: must be true or false, is 'yes'"),
    ({"tracking": {"wandb_api_key": "x"}}, "tracking.wandb_api_key: secrets do not belong"),
    ({"plan": [1]}, "plan: must be a table, is [1]"),
]


@pytest.mark.parametrize(("tables", "message"), BAD, ids=[message for _tables, message in BAD])
def test_a_bad_value_is_refused_in_one_line_that_names_it(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        small(**tables)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_small_experiment_itself_is_fine() -> None:
    assert small().points[0].make_plan(clients=12, largest=1, seed=0).bits == 16


@pytest.mark.parametrize("name", ["digits", "heart_disease", "private"])
def test_the_examples_are_read(name: str) -> None:
    read = load_experiment(EXAMPLES / f"{name}.toml")
    assert read.points[0].data.name in SETS
    assert read.text.startswith("#")
    assert len(read.points) == (3 if name == "digits" else 1)


@pytest.mark.parametrize("content", [b"data = [", b"\xff", None])
def test_what_is_no_toml_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "experiment.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=r"experiment\.toml: not an experiment file"):
        load_experiment(path)


def test_quoted_and_nested_keys_of_a_grid_mean_the_same() -> None:
    quoted = small(grid={"plan.bits": [4, 8], "plan.norm.norm": [1.0]})
    nested = small(grid={"plan": {"bits": [4, 8], "norm": {"norm": [1.0]}}})
    assert quoted.points == nested.points
    assert [point.label for point in quoted.points] == [
        f"plan.bits = {bits}, plan.norm.norm = 1.0" for bits in (4, 8)
    ]
    assert quoted.points[0].make_plan(clients=12, largest=1, seed=0).norm == AdaptiveClip(norm=1.0)


def test_a_grid_changes_no_other_point() -> None:
    given = values(grid={"plan.bits": [4, 8]})
    first, second = parse_experiment(given).points
    assert (first.agreed.plan["bits"], second.agreed.plan["bits"]) == (4, 8)
    assert given["plan"] == {"rounds": 3, "bits": 16}


def test_tables_become_learner_strategy_and_plan() -> None:
    point = small(
        learner={"kind": "perceptron", "hidden": [7], "momentum": 0.5},
        strategy={"name": "Scaffold", "control_scale": 2},
        plan={"norm": {"norm": 2, "quantile": 0.3}, "weight_cap": 9},
    ).points[0]
    learner = read_learner(point.agreed.learner, features=64, classes=10, seed=3)
    assert isinstance(learner, LocalSGD)
    assert learner.model == Perceptron(64, 10, (7,), 3)
    assert (learner.momentum, learner.rate) == (0.5, 0.1)
    strategy = point.agreed.make_strategy(12)
    assert strategy == Scaffold(sites=12, control_scale=2.0)
    assert strategy.asks().weighting is Weighting.UNIFORM
    plan = point.make_plan(clients=12, largest=50, seed=4)
    assert plan.norm == AdaptiveClip(norm=2.0, quantile=0.3)
    assert (plan.weight_cap, plan.clients, plan.seed) == (9, 12, 4)


def test_the_largest_site_is_the_cap_of_weights_where_none_is_given() -> None:
    point = small().points[0]
    assert point.make_plan(clients=12, largest=50, seed=0).weight_cap == 50


def test_the_noise_counts_on_those_who_do_not_drop_out() -> None:
    point = small(privacy={"epsilon": 9.0, "delta": 1e-3}, plan={"norm": 1.0, "cohort": 10}).points[0]
    plan = point.make_plan(clients=12, largest=1, seed=0)
    assert plan.privacy is not None
    assert (plan.privacy.smallest, plan.privacy.rounds) == (9, 3 + 1)  # of training, and the moments
    assert point.agreed.make_strategy(12).asks().weighting is Weighting.UNIFORM


def test_a_learner_that_cannot_be_made_is_named() -> None:
    faults = {
        "no.such.module:make": "there is no no.such.module:make: ModuleNotFoundError",
        "math:no_such_name": "there is no math:no_such_name: AttributeError",
        "math:sqrt": "math:sqrt must be defined in a module that uses fedcore, beside the file or installed",
        "fedcore.data.sample:write_sample": "fedcore.data.sample:write_sample must be defined in a module",
    }
    for kind, fault in faults.items():
        point = parse_experiment(values() | {"learner": {"kind": kind}}).points[0]
        with pytest.raises(SettingError, match=f"learner.kind: {fault}"):
            read_learner(point.agreed.learner, features=2, classes=2)
