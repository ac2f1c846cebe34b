"""The file that all parties of a service run share: what it makes, what it refuses, and a run by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fedcore.errors import SettingError
from fedcore.history import read_history
from fedcore.learner import flatten
from fedcore.learners import LocalSGD
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.agreement import Agreement
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg, FedAvgM
from tests.fedcore.service.test_join import PATIENT, Run
from tests.fedcore.service.test_training import train
from tests.fedcore.sites import SCHEMA, make_table

TEXT = """
[learner]
kind = "softmax"
epochs = 2
rate = 0.1

[strategy]
name = "FedAvgM"
server_rate = 0.5

[plan]
rounds = 3
bits = 12
norm = 1.0
rotate = true
"""
PRIVATE = """
[privacy]
epsilon = 40.0
delta = 1e-3
smallest = 4
"""


def load(folder: Path, text: str) -> Agreement:
    path = folder / "training.toml"
    path.write_text(text, encoding="utf-8")
    return Agreement.load(path)


def test_the_tables_become_learner_strategy_and_plan(tmp_path: Path) -> None:
    agreed = load(tmp_path, TEXT)
    assert isinstance(agreed.make_learner(SCHEMA), LocalSGD)
    strategy = agreed.make_strategy(5)
    assert isinstance(strategy, FedAvgM)
    assert strategy.server_rate == 0.5
    plan = agreed.make_plan(5)
    assert (plan.rounds, plan.clients, plan.bits, plan.rotate, plan.norm) == (3, 5, 12, True, 1.0)
    assert (plan.privacy, plan.evaluate_every, plan.weight_cap) == (None, 0, 10_000)


def test_an_empty_file_is_the_default_of_everything(tmp_path: Path) -> None:
    agreed = load(tmp_path, "")
    assert isinstance(agreed.make_strategy(4), FedAvg)
    assert agreed.make_plan(4).rounds == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\nname = 'digits'", "data: is not known, the file has learner"),
        ("[plan]\nrouns = 3", r"plan\.rouns: is not known"),
        ("[plan]\nbits = 'many'", r"plan\.bits: must be an integer"),
        ("[strategy]\nname = 'Krum'", r"strategy\.name: must be one of FedAvg"),
        ("[privacy]\nepsilon = 1.0\ndelta = 1e-3", r"privacy\.smallest: is missing"),
        ("[plan", "not a training file"),
        ("[plan]\nclients = 3", r"plan\.clients: is not known"),
        ("[plan]\nstopping = {target = 0.5}", r"plan\.stopping: needs evaluations, evaluate_every is 0"),
        ("[learner]\nrate = 0", r"learner\.rate: must be positive and finite"),
        ("plan = 3", "plan: must be a table"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load(tmp_path, text)
    with pytest.raises(SettingError, match="not a training file"):
        Agreement.load(tmp_path / "nowhere.toml")


def test_all_that_is_agreed_on_is_told_and_equal_for_equal_runs(tmp_path: Path) -> None:
    def told(text: str, clients: int = 5) -> str:
        agreed = load(tmp_path, text)
        return json.dumps(agreed.to_json(SCHEMA, agreed.make_plan(clients)))

    assert told("") == told("[learner]\nkind = 'softmax'\n[strategy]\nname = 'FedAvg'\n[plan]\nrounds = 10")
    assert told("[plan]\nclip = 2") == told("[plan]\nclip = 2.0")
    texts = [
        "",
        TEXT,
        TEXT + PRIVATE,
        "[learner]\nrate = 0.2",
        "[strategy]\nserver_rate = 0.5",
        "[plan]\nseed = 1",
    ]
    assert len({told(text) for text in texts} | {told("", 6)}) == len(texts) + 1
    own = load(tmp_path, "[learner]\nkind = 'mine:make'\n[learner.options]\nwidth = 3")
    assert own.to_json(SCHEMA, own.make_plan(4))["learner"] == {"kind": "mine:make", "options": {"width": 3}}


def test_a_sensitivity_needs_a_learner_that_bounds_persons(tmp_path: Path) -> None:
    agreed = load(tmp_path, TEXT + PRIVATE + "sensitivity = 0.1\n")
    with pytest.raises(SettingError, match=r"privacy\.sensitivity: LocalSGD bounds no person's part"):
        agreed.make_learner(SCHEMA)


def test_a_run_by_the_file_with_noise_that_every_party_checks_for_itself(tmp_path: Path) -> None:
    agreed = load(tmp_path, TEXT + PRIVATE)
    privacy = agreed.make_plan(5).privacy
    assert privacy is not None
    sites = {
        f"site-{i}": Site(
            *(f"site-{i}", make_table(20 + i, i), SCHEMA, agreed.make_learner(SCHEMA)),
            guard=PrivacyGuard(privacy),
        )
        for i in range(5)
    }
    run = Run(tmp_path, sites, PATIENT)
    model = asyncio.run(
        train(
            run,
            learner=agreed.make_learner(SCHEMA),
            plan=agreed.make_plan(5),
            strategy=agreed.make_strategy(5),
        )
    )
    assert model.number == 3
    assert abs(flatten(model.parameters)).max() > 0
    rounds = [e for e in read_history(tmp_path / "history.jsonl") if e["event"] == "round"]
    assert [event["completed"] for event in rounds] == [True] * 3
    assert rounds[-1]["epsilon"] <= 40.0
    for site in sites.values():
        assert site.guard is not None
        assert site.guard.accountant.rounds == 3
