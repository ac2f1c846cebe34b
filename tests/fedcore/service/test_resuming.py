"""A checkpoint goes on with what it stands on, and with nothing else: the refusal names what differs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcore.data.schema import Column, Schema
from fedcore.errors import SettingError, TaskError
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.agreement import Agreement, Run
from fedcore.rounds.state import RunState
from fedcore.service.recorder import CHECKPOINT
from fedcore.service.serve import serve
from fedcore.settings import differences
from secagg import IdentityKey, ParameterError
from tests.fedcore.service.test_join import PATIENT
from tests.fedcore.service.test_join import Run as Served
from tests.fedcore.sites import make_sites

SCHEMA = Schema((Column("age", 0, 120), Column("dose", 0, 9)), ("no", "yes"))
MEMBERS = frozenset(IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(8))
AGREED: dict[str, Any] = {"learner": {"kind": "logistic"}, "plan": {"rounds": 3}}
PRIVACY = {"epsilon": 20.0, "delta": 1e-3, "smallest": 6}
PRIVATE: dict[str, Any] = {
    "learner": {"kind": "logistic"},
    "plan": {"rounds": 3, "norm": 1.0, "bits": 14},
    "privacy": PRIVACY,
    "security": {"minimum_cohort": 8},
}

# Every table of an agreement, the schema, and who is enrolled: what is changed, and the path that is named.
CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"learner": {"kind": "logistic", "epochs": 7}}, "learner.options.epochs"),
    ({"learner": {"kind": "softmax"}}, "learner.kind"),
    ({"strategy": {"name": "FedAdam"}}, "strategy.name"),
    ({"strategy": {"server_rate": 0.5}}, "strategy.server_rate"),
    ({"strategy": {"weighting": "uniform"}}, "strategy.ask.weighting"),
    ({"plan": {"rounds": 3, "clip": 2.5}}, "plan.clip"),
    ({"plan": {"rounds": 3, "bits": 9}}, "plan.bits"),
    ({"plan": {"rounds": 3, "weight_cap": 11}}, "plan.weight_cap"),
    ({"plan": {"rounds": 3, "standardize": False}}, "plan.standardize"),
    ({"plan": {"rounds": 3, "evaluate_every": 1}}, "plan.evaluate_every"),
    ({"plan": {"rounds": 3, "attempts": 2}}, "plan.attempts"),
    ({"plan": {"rounds": 3, "rotate": True}}, "plan.rotate"),
    ({"plan": {"rounds": 3, "seed": 5}}, "plan.seed"),
    ({"security": {"corrupt": 0.2}}, "security.corrupt"),
    ({"security": {"dropout": 0.2}}, "security.dropout"),
    ({"security": {"minimum_cohort": 5}}, "security.minimum_cohort"),
    ({"security": {"minimum_survivors": 4}}, "security.minimum_survivors"),
    ({"consent": {"strict_cohorts": True}}, "consent.strict_cohorts"),
    ({"consent": {"near": 0.5}}, "consent.near"),
    ({"consent": {"name": "again"}}, "consent.name"),
    ({"consent": {"rows": "2027"}}, "consent.rows"),
    ({"statistics": {"count": 3}}, "statistics.count"),
    ({"evaluation": {"overall": 1}}, "evaluation.overall"),
    ({"privacy": PRIVACY, "plan": PRIVATE["plan"], "security": PRIVATE["security"]}, "plan.privacy"),
]


def run_of(tables: dict[str, Any], schema: Schema = SCHEMA, members: frozenset[Any] = MEMBERS) -> Run:
    return Run.of(Agreement.parse(tables), schema, members)


def between(before: Run, now: Run) -> list[str]:
    """What a checkpoint on disk, which is JSON, differs in from a run."""
    kept = json.loads(json.dumps(before.stands_on()))
    return list(differences(kept, json.loads(json.dumps(now.stands_on()))))


@pytest.mark.parametrize(("changed", "named"), CHANGES, ids=[named for _, named in CHANGES])
def test_every_change_of_an_agreement_is_named(changed: dict[str, Any], named: str) -> None:
    before, now = run_of(AGREED), run_of(AGREED | changed)
    for one, other in ((before, now), (now, before)):
        assert any(text.startswith(f"{named}: was ") for text in between(one, other)), between(one, other)
    assert not between(before, run_of(AGREED))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (Schema((Column("age", 0, 130), SCHEMA.columns[1]), SCHEMA.classes), "schema.columns.age.high"),
        (Schema((SCHEMA.columns[0],), SCHEMA.classes), "schema.columns.dose"),
        (
            Schema((SCHEMA.columns[0], replace(SCHEMA.columns[1], name="doses")), SCHEMA.classes),
            "schema.columns.doses",
        ),
        (Schema(SCHEMA.columns[::-1], SCHEMA.classes), "schema.columns: are in another order"),
        (Schema(SCHEMA.columns, ("no", "yes", "maybe")), "schema.classes: 'maybe' is new"),
    ],
)
def test_a_schema_that_differs_is_named_by_its_column(schema: Schema, named: str) -> None:
    assert any(text.startswith(named) for text in between(run_of(AGREED), run_of(AGREED, schema)))


def test_other_members_are_another_run() -> None:
    fewer = frozenset(sorted(MEMBERS)[1:])
    (gone,) = MEMBERS - fewer
    found = between(run_of(AGREED), run_of(AGREED, members=fewer))
    assert found[-1].startswith(f"members: '{gone.hex()[:50]}")
    assert found[-1].endswith(" is missing")


def test_more_rounds_can_be_agreed_on_later_but_not_beyond_a_budget() -> None:
    longer = {"plan": AGREED["plan"] | {"rounds": 9}}
    assert not between(run_of(AGREED), run_of(AGREED | longer))
    longer = {"plan": PRIVATE["plan"] | {"rounds": 9}}
    assert between(run_of(PRIVATE), run_of(PRIVATE | longer))


def test_a_server_refuses_a_checkpoint_of_another_agreement(tmp_path: Path) -> None:
    run = Served(tmp_path, make_sites(4), PATIENT)
    asyncio.run(run.go())
    kept = (tmp_path / CHECKPOINT).read_bytes()
    assert RunState.load(tmp_path / CHECKPOINT).about["plan"]["bits"] == run.agreed.plan.bits
    other = replace(run.agreed, plan=replace(run.agreed.plan, bits=11))
    with pytest.raises(TaskError, match=r"resume: a checkpoint of another run: plan\.bits: was \d+, is 11$"):
        asyncio.run(serve(run.serve_options(run=other, resume=True)))
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_the_privacy_of_a_checkpoint_is_part_of_what_it_stands_on() -> None:
    plan = PrivacyPlan(epsilon=20.0, delta=1e-3, rounds=3, smallest=6)
    assert run_of(PRIVATE).stands_on()["plan"]["privacy"]["epsilon"] == plan.epsilon


def test_an_agreement_whose_first_noisy_sum_cannot_be_is_refused_before_anybody_waits() -> None:
    persons = {"kind": "softmax", "person_clip": 0.01, "expected": 50.0}
    plan = {"rounds": 3, "norm": 10.0, "bits": 26}
    tables = PRIVATE | {"learner": persons, "plan": plan, "strategy": {"update": "gradient"}}
    tables["privacy"] = PRIVACY | {"sensitivity": 0.01 / 50}
    with pytest.raises(SettingError, match="privacy: "):
        run_of(tables)


def test_fewer_rounds_than_are_done_are_refused_before_anybody_hears_of_it(tmp_path: Path) -> None:
    run = Served(tmp_path, make_sites(4), PATIENT)
    asyncio.run(run.go())
    history = (tmp_path / "history.jsonl").read_bytes()
    fewer = replace(run.agreed, plan=replace(run.agreed.plan, rounds=1))
    with pytest.raises(TaskError, match="plan.rounds: must be at least the 2 that are done, is 1"):
        asyncio.run(serve(run.serve_options(run=fewer, resume=True)))
    assert (tmp_path / "history.jsonl").read_bytes() == history


def test_a_folder_without_a_run_is_not_gone_on_with(tmp_path: Path) -> None:
    run = Served(tmp_path, make_sites(4), PATIENT)
    with pytest.raises(ParameterError, match="--resume: .* has no run to go on with"):
        asyncio.run(serve(run.serve_options(resume=True)))


def test_lists_of_names_say_what_is_new_and_what_is_missing() -> None:
    assert list(differences(["a", "b"], ["b", "c"], "x")) == ["x: 'c' is new", "x: 'a' is missing"]
    assert list(differences(["a", "b"], ["b", "a"], "x")) == ["x: are in another order"]
    assert list(differences([1, 2], [2, 1], "x")) == ["x: was [1, 2], is [2, 1]"]
    assert not list(differences([], [], "x"))
