"""Agreements that would weaken each other, and rounds that are weaker than the agreement."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fedcore.errors import SettingError
from fedcore.rounds.agreement import Agreement, EvaluationRules, Run, Security
from fedcore.rounds.questions import TaskKind, Train
from fedcore.strategies import GeometricMedian
from secagg import IdentityKey, ThreatModel
from secagg.protocol.client.policy import breaches
from tests.attacks.training.test_consent import MEMBERS, PRIVATE, first_of, parameters_of, run_of
from tests.fedcore.sites import SCHEMA, asked, make_question, make_sites, make_terms

STRICT = Security(minimum_cohort=5, minimum_survivors=4, corrupt=0.2)
PRIVACY = {"epsilon": 30.0, "delta": 1e-3, "smallest": 5}


@pytest.mark.parametrize(
    ("name", "weaker"),
    [
        ("minimum_cohort", Security(minimum_cohort=4, minimum_survivors=4, corrupt=0.2)),
        ("minimum_survivors", Security(minimum_cohort=5, minimum_survivors=3, corrupt=0.2)),
        ("corrupt_ppm", Security(minimum_cohort=5, minimum_survivors=4, corrupt=0.1)),
    ],
)
def test_a_round_weaker_than_the_agreement_breaches_the_policy_of_its_sites(
    name: str, weaker: Security
) -> None:
    run = run_of(changes={"security": STRICT})
    task = first_of(run)

    def breached(security: Security) -> list[str]:
        parameters = parameters_of(
            task,
            minimum_cohort=security.minimum_cohort,
            minimum_survivors=security.minimum_survivors,
            threat_model=ThreatModel(corrupt=security.corrupt),
        )
        return [breach.field for breach in breaches(parameters, run.policy())]

    assert breached(STRICT) == []
    assert breached(weaker) == [name]


def test_who_is_not_enrolled_is_not_believed() -> None:
    known = run_of().policy().known
    assert known == frozenset(MEMBERS)
    assert IdentityKey.from_seed(b"stranger" * 4).identity not in known


def test_the_policy_of_a_run_under_noise_leaves_no_sum_with_less_than_it() -> None:
    run = run_of(PRIVATE, changes={"security": Security(minimum_cohort=4)})
    assert run.policy().minimum_survivors == 4
    run = run_of(PRIVATE, changes={"security": Security(minimum_cohort=4, minimum_survivors=2)})
    assert run.policy().minimum_survivors == 4


def test_noise_is_enough_without_that_of_as_many_as_the_agreement_takes_for_colluders() -> None:
    def run(**privacy: Any) -> Run:
        tables: dict[str, Any] = {
            "plan": {"norm": 1.0, "bits": 10, "rounds": 2},
            "privacy": PRIVACY | privacy,
            "security": {"corrupt": 0.3, "minimum_cohort": 6},
        }
        return Run.of(Agreement.parse(tables), SCHEMA, frozenset(MEMBERS))

    usual, nobody = run(), run(colluders=0)
    assert usual.plan.privacy is not None
    assert usual.plan.privacy.colluders == 2  # 0.3 of six
    model = usual.learner.initial()
    noises = [one.terms.encoding(Train(model=model)).noise for one in (usual, nobody)]
    assert noises[0] is not None
    assert noises[1] is not None
    assert 3 * noises[0].variance == pytest.approx(5 * noises[1].variance, rel=0.01)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: run_of(strategy=GeometricMedian(smoothing=0.1), regroup=True), "consent.regroup: must be"),
        (
            lambda: run_of(PRIVATE, changes={"security": Security(minimum_cohort=3)}),
            r"security\.minimum_cohort: must be at least privacy\.smallest, 4",
        ),
        (
            lambda: run_of(PRIVATE, changes={"evaluation": EvaluationRules(overall=1)}),
            r"evaluation: must be 0 with \[privacy\]",
        ),
        (
            lambda: run_of(PRIVATE, changes={"evaluation": EvaluationRules(sites=1)}),
            r"evaluation: must be 0 with \[privacy\]",
        ),
    ],
    ids=["passes in cells", "a cohort too small for the noise", "evaluation", "spread of the sites"],
)
def test_what_would_take_from_the_rest_is_not_agreed_on(make: Any, why: str) -> None:
    with pytest.raises(SettingError, match=why):
        make()


def test_cells_are_as_large_as_the_colluders_of_all_that_are_enrolled_demand() -> None:
    many = frozenset(IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(30))
    run = run_of(changes={"security": Security(corrupt=0.2, minimum_cohort=6)}, regroup=True)
    assert run.cell >= run.floor == 4
    wide = replace(run, members=many, security=Security(corrupt=0.2))
    assert wide.floor == 8
    assert wide.cell >= 8


# --- the rounding of one update


def test_a_later_pass_does_not_repeat_the_rounding_of_the_first() -> None:
    """The same vector under the same weight: what differs is the rounding, by a step at most."""
    terms = make_terms(asks=GeometricMedian(smoothing=1e3).asks(), passes=2)
    first = terms.task(make_question(TaskKind.TRAIN))
    tasks = [first, *(asked(first, again=again, center=np.zeros(4)) for again in (1, 2))]
    apart: dict[tuple[int, int], list[int]] = {}
    for seed in range(8):  # of four coordinates some are rounded alike by chance
        site = make_sites(1, seed)["site-0"]
        passes = [site.contribute(task)[:4].astype(np.int64) for task in tasks]
        for i, j in combinations(range(3), 2):
            apart.setdefault((i, j), []).extend(np.abs(passes[i] - passes[j]).tolist())
    assert [set(steps) for steps in apart.values()] == [{0, 1}] * 3
