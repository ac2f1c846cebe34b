"""The file that all parties of a service run share: what it makes, what it refuses, and a run by it."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path

import pytest

from fedcore.errors import SettingError, TaskError
from fedcore.history import read_history
from fedcore.learner import flatten
from fedcore.learners import LocalSGD
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.agreement import Agreement
from fedcore.rounds.agreement import Run as AgreedRun
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg, FedAvgM
from secagg import Identity, IdentityKey
from secagg.store import floor_for
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


def test_the_example_is_a_training_file() -> None:
    found = Agreement.load(Path(__file__).parents[3] / "fedcore" / "examples" / "training.toml")
    run = AgreedRun.of(found, SCHEMA, MEMBERS)
    assert (run.consent.name, run.consent.rows, run.plan.rounds) == ("first", "2026-11", 20)


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
        return json.dumps(AgreedRun.of(load(tmp_path, text), SCHEMA, frozenset(NAMES[:clients])).to_json())

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
    assert own.learner_json(SCHEMA) == {"kind": "mine:make", "options": {"width": 3}}


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
    assert [event["task"] for event in rounds] == ["moments 1", "train 1", "train 2", "train 3"]
    assert all(event["completed"] for event in rounds)
    assert rounds[-1]["epsilon"] <= 40.0
    for site in sites.values():
        assert site.guard is not None
        assert site.guard.accountant.rounds == 4


# --- a run of members over rows

NAMES = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(8)]
MEMBERS = frozenset(NAMES)


HIDDEN = "[plan]\nnorm = 1.0\nbits = 14\n[privacy]\nepsilon = 9.0\ndelta = 1e-3\nsmallest = 6\n"
REGROUP = "[consent]\nregroup = true\n"


def agreed(text: str, members: frozenset[Identity] = MEMBERS) -> AgreedRun:
    return AgreedRun.of(Agreement.parse(tomllib.loads(text)), SCHEMA, members)


def test_colluders_of_the_noise_are_those_of_the_threat_model_unless_the_file_says_otherwise() -> None:
    for more, colluders in (
        *(("", 1), ("[security]\ncorrupt = 0.2\nminimum_cohort = 8", 2)),
        ("colluders = 0", 0),
    ):
        privacy = agreed(HIDDEN + more).plan.privacy
        assert privacy is not None
        assert privacy.colluders == colluders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[security]\ncorrupt = 1.0", r"security\.corrupt: must be in \[0, 1\)"),
        ("[security]\nminimum_cohort = 2", r"security\.minimum_cohort: must be at least 3"),
        ("[security]\ncorrupt = 0.45", r"security\.minimum_cohort: must be enough for 4 colluders, of those"),
        ("[consent]\nnear = 2.0", r"consent\.near: must be in 0\.\.1"),
        ("[consent]\nregroup = 1", r"consent\.regroup: must be true or false"),
        (
            "[consent]\nregroup = true\n[strategy]\nname = 'FedMedian'\ngroups = 2",
            r"consent\.regroup: must be false where",
        ),
        (
            "[consent]\nregroup = true\n[strategy]\nname = 'GeometricMedian'\nsmoothing = 0.1",
            r"consent\.regroup: must be false",
        ),
        (
            "[consent]\nregroup = true\n[plan]\nsmallest_group = 9",
            r"consent\.regroup: 8 members are not enough",
        ),
        ("[statistics]\ncount = -1", r"statistics\.count: must be in 0"),
        ("[statistics]\nmeans = 1", r"statistics\.means: is not known"),
        ("[evaluation]\nsites = 1001", r"evaluation\.sites: must be in 0\.\.1000"),
        (HIDDEN + "[evaluation]\nsites = 1", r"plan\.evaluate_every, evaluation: must be 0 with \[privacy\]"),
    ],
)
def test_a_run_that_cannot_be_is_refused_by_the_key_of_its_table(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        agreed(text)


def test_what_a_site_demands_follows_from_the_agreement() -> None:
    policy = agreed("[security]\ncorrupt = 0.2\nminimum_cohort = 8\nminimum_survivors = 5").policy()
    assert (policy.known, policy.minimum_cohort, policy.minimum_survivors) == (MEMBERS, 8, 5)
    assert policy.minimum_corrupt == 0.2
    assert agreed("[consent]\nregroup = true").policy().minimum_cohort == 4
    assert agreed("[plan]\ncohort = 5").policy().minimum_cohort == 5
    groups = "[strategy]\nname = 'FedMedian'\ngroups = 2\nsmallest = 4"
    assert agreed(groups).policy().minimum_cohort == 4


def test_the_suite_is_agreed_on_and_demanded() -> None:
    members = frozenset(IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(6))

    def run_with(**security: object) -> AgreedRun:
        tables = {"learner": {"kind": "logistic"}, "security": security}
        return AgreedRun.of(Agreement.parse(tables), SCHEMA, members)

    plain, said, hybrid = run_with(), run_with(suite="x25519"), run_with(suite="x25519-mlkem768")
    assert plain.digest == said.digest != hybrid.digest
    assert not plain.policy().require_post_quantum
    assert hybrid.policy().require_post_quantum
    assert "suite" not in plain.to_json()["security"]
    assert hybrid.to_json()["security"]["suite"] == "x25519-mlkem768"
    with pytest.raises(SettingError, match=r"suite: must be x25519 or x25519-mlkem768 with pairwise"):
        run_with(suite="rot13")
    with pytest.raises(SettingError, match=r"security.suite: must be x25519 with one-shot"):
        run_with(suite="x25519-mlkem768", protocol="one-shot")


def test_a_cohort_is_named_and_read_back() -> None:
    run = agreed("[consent]\nregroup = true")
    for cohort in (MEMBERS, frozenset(sorted(MEMBERS)[:5]), frozenset(sorted(MEMBERS)[7:])):
        assert run.cohort_of(run.cohort_bits(cohort)) == cohort
    assert run.cohort_of("") is None
    for bits in ("f", "fff", "FF", "zz"):
        with pytest.raises(TaskError, match="must be a bitmap over 8 members"):
            run.cohort_of(bits)


@pytest.mark.parametrize("sites", [3, 4, 6])
def test_three_and_more_sites_can_agree_where_everybody_stays(sites: int) -> None:
    members = frozenset(sorted(MEMBERS)[:sites])
    text = f"[security]\nminimum_cohort = {sites}\ndropout = 0.0"
    run = agreed(text, members)
    assert run.colluders == 1
    assert floor_for(run.threat_model(sites), sites) == run.floor


def test_what_three_sites_cannot_do_is_told_with_what_helps() -> None:
    with pytest.raises(SettingError, match=r"minimum_cohort: .* is 3: .*what helps: dropout=0"):
        agreed("[security]\nminimum_cohort = 3\ndropout = 0.1", frozenset(sorted(MEMBERS)[:3]))
