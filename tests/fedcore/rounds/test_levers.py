"""What is printed about a run says what remains to a liar, and what would take it away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedcore.codec.clipping import AdaptiveClip
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.agreement import Agreement, ConsentRules, EvaluationRules, Run, Security, StatisticsRules
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.levers import Lever, drowned, levers
from fedcore.strategies import FedAvg, GeometricMedian
from secagg import IdentityKey
from tests.fedcore.sites import LEARNER, SCHEMA, make_plan

MEMBERS = frozenset(IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(8))
PRIVACY = PrivacyPlan(epsilon=3.0, delta=1e-3, rounds=4, smallest=6, colluders=1)


def run_of(**changes: Any) -> Run:
    values: dict[str, Any] = {"schema": SCHEMA, "learner": LEARNER, "strategy": FedAvg(), "words": ""}
    values |= {"members": MEMBERS, "plan": make_plan(rounds=4, clients=8)}
    return Run(**(values | changes))


def by_name(run: Run) -> dict[str, Lever]:
    return {lever.name: lever for lever in levers(run)}


def test_every_choice_of_a_plain_run_is_listed_with_its_remedy() -> None:
    found = by_name(run_of())
    assert found.keys() == {
        *("form of the vectors", "order and retries", "who is in a sum", "colluders", "model of a step"),
        *("standardizer", "weights", "final model"),
    }
    assert "6 steps, each asked at most 3 times" in found["order and retries"].chosen
    assert found["colluders"].chosen == "security.corrupt: up to 1 of 8"
    assert "differ by one site" in found["who is in a sum"].remains
    for name in ("who is in a sum", "model of a step"):
        assert "[privacy]" in found[name].remedy


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"consent": ConsentRules(regroup=True)}, "who is in a sum", "whole groups of a cohort"),
        ({"security": Security(corrupt=0.3)}, "colluders", "up to 3 of 8"),
        (
            {"plan": replace(make_plan(rounds=4, clients=8), norm=AdaptiveClip(norm=1.0))},
            "norm of the updates",
            "e^",
        ),
        ({"strategy": GeometricMedian(smoothing=0.1, passes=2)}, "center of a pass", "2 times a round"),
        ({"statistics": StatisticsRules(count=3)}, "statistics and evaluations", "count 3"),
        ({"evaluation": EvaluationRules(sites=1)}, "statistics and evaluations", "sites 1"),
    ],
)
def test_what_an_agreement_adds_is_said(changes: dict[str, Any], name: str, words: str) -> None:
    assert name not in by_name(run_of()) or words not in by_name(run_of())[name].chosen
    assert words in by_name(run_of(**changes))[name].chosen


def test_what_an_agreement_takes_away_is_not_said_to_remain() -> None:
    assert not by_name(run_of(consent=ConsentRules(strict_cohorts=True)))["who is in a sum"].remains
    uniform = FedAvg(ask=Asks(weighting=Weighting.UNIFORM))
    assert "weights" not in by_name(run_of(strategy=uniform))
    plan = replace(make_plan(rounds=4, clients=8), norm=1.0, bits=14, privacy=PRIVACY)
    found = by_name(run_of(plan=plan, strategy=uniform, security=Security(minimum_cohort=6)))
    assert "standardizer" not in found
    assert "epsilon 3, delta 0.001" in found["model of a step"].remains
    assert found["who is in a sum"].remains == "nothing beyond the budget"


def test_what_a_liar_gains_where_sites_speak_once_is_said() -> None:
    decryptors = frozenset(IdentityKey.from_seed(bytes([i + 101]) * 32).identity for i in range(5))
    once = run_of(
        plan=replace(make_plan(rounds=4, clients=8), attempts=1),
        security=Security(protocol="one-shot"),
        decryptors=decryptors,
        statistics=StatisticsRules(count=3),
    )
    said, pairwise = by_name(once), by_name(run_of(statistics=StatisticsRules(count=3)))
    cohort = said["who is in a sum"]
    assert cohort.chosen.startswith("the server: which of those who upload, of 8 enrolled, at least ")
    assert "about the same vectors" not in cohort.chosen  # no ledger of sites sees the set
    assert "differ by one site" in cohort.remains
    assert "of its length" not in cohort.remains  # nor `consent.near`
    assert cohort.remedy == "[privacy]"
    assert "any of the sites each time" in said["statistics and evaluations"].remains
    assert f"{once.security.minimum_decryptors} or more of 5 enrolled" in said["who opens the sums"].chosen
    assert "`secagg verify`" in said["final model"].remains
    assert said.keys() - pairwise.keys() == {"who opens the sums"}
    assert "one set about the same vectors" in pairwise["who is in a sum"].chosen
    assert "the same members" in pairwise["statistics and evaluations"].remains
    assert "`secagg verify`" in pairwise["final model"].remains


def noisy(epsilon: float | None) -> Run:
    tables: dict[str, Any] = {"plan": {"rounds": 4, "norm": 1.0, "bits": 9}}
    if epsilon is not None:
        tables["privacy"] = {"epsilon": epsilon, "delta": 1e-3, "smallest": 7, "colluders": 1}
        tables["security"] = {"minimum_cohort": 8}
    return Run.of(Agreement.parse(tables), SCHEMA, MEMBERS)


@pytest.mark.parametrize(("epsilon", "warned"), [(0.5, True), (1.0, True), (300.0, False), (None, False)])
def test_noise_that_drowns_what_is_learned_is_told_with_what_helps(
    epsilon: float | None, warned: bool
) -> None:
    said = drowned(noisy(epsilon))
    assert bool(said) is warned
    if warned:
        assert share_of(said) >= 1
        assert "more sites, a larger epsilon, fewer parameters, privacy of persons" in said


def share_of(said: str) -> float:
    return float(said.split("noise of all rounds is ")[1].split(maxsplit=1)[0])


def test_a_larger_epsilon_drowns_less() -> None:
    assert share_of(drowned(noisy(0.5))) > 1.5 * share_of(drowned(noisy(1.0)))
