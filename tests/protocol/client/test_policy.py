from __future__ import annotations

from dataclasses import replace

import pytest

from secagg.effects import Breach, RefusalReason, Refused
from secagg.errors import ParameterError
from secagg.messages import RosterAnnouncement
from secagg.params import Phase, Policy, RoundParameters, ThreatModel
from secagg.protocol.client.policy import breaches
from tests.protocol.network import CONTEXT, Cohort, opened

POLICY = Policy(known=None, minimum_cohort=10)
ROUND = RoundParameters(
    round_id=bytes(16), vector_length=100, ring_bits=20, context=CONTEXT, minimum_cohort=10
)


def test_the_default_policy_takes_the_default_round() -> None:
    assert breaches(ROUND, POLICY) == ()


CASES: dict[str, tuple[Policy, RoundParameters, Breach]] = {
    "cohort": (POLICY, replace(ROUND, minimum_cohort=9), Breach("minimum_cohort", 10, 9)),
    "survivors": (POLICY, replace(ROUND, minimum_survivors=2), Breach("minimum_survivors", 3, 2)),
    "corrupt": (
        POLICY,
        replace(ROUND, threat_model=ThreatModel(corrupt=0.05)),
        Breach("corrupt_ppm", 100_000, 50_000),
    ),
    "security": (
        POLICY,
        replace(ROUND, threat_model=ThreatModel(security_bits=39)),
        Breach("security_bits", 40, 39),
    ),
    "grinding": (
        POLICY,
        replace(ROUND, threat_model=ThreatModel(grinding_bits=0)),
        Breach("grinding_bits", 40, 0),
    ),
    "adversary": (
        POLICY,
        replace(ROUND, threat_model=ThreatModel(adversary="passive")),
        Breach("adversary", "active", "passive"),
    ),
    "long": (
        replace(POLICY, maximum_vector_length=99),
        ROUND,
        Breach("vector_length", 99, 100),
    ),
    "short": (replace(POLICY, minimum_vector_length=101), ROUND, Breach("vector_length", 101, 100)),
    "wide ring": (replace(POLICY, maximum_ring_bits=19), ROUND, Breach("ring_bits", 19, 20)),
    "narrow ring": (replace(POLICY, minimum_ring_bits=21), ROUND, Breach("ring_bits", 21, 20)),
    "context": (
        replace(POLICY, contexts=frozenset({bytes(32)})),
        ROUND,
        Breach("context", "one of the policy's", CONTEXT.hex()),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_demand_alone_is_named_with_its_limit_and_the_value(name: str) -> None:
    policy, parameters, breach = CASES[name]
    assert breaches(parameters, policy) == (breach,)


def test_a_refusal_lists_every_demand_that_is_not_met() -> None:
    cohort = Cohort(4)
    policy = replace(cohort.policy, minimum_cohort=5, maximum_ring_bits=15)
    (effect,) = cohort.fresh_client(0, policy=policy).receive(cohort.parameters_frame())
    assert isinstance(effect, Refused)
    assert effect.reason is RefusalReason.POLICY
    assert effect.breaches == (Breach("minimum_cohort", 5, 4), Breach("ring_bits", 15, 16))
    assert effect.detail == "minimum_cohort: must be at least 5, is 4; ring_bits: must be at most 15, is 16"


def test_a_context_that_the_policy_allows_is_taken() -> None:
    assert breaches(ROUND, replace(POLICY, contexts=frozenset({CONTEXT, bytes(32)}))) == ()


@pytest.mark.parametrize(
    "demand",
    [
        {"minimum_cohort": 2},  # a cohort of one or two protects nobody
        {"minimum_survivors": 1},
        {"minimum_corrupt": 1.0},
        {"minimum_security_bits": 257},
        {"minimum_grinding_bits": -1},
        {"minimum_vector_length": 0},
        {"maximum_vector_length": 0},
        {"minimum_ring_bits": 30, "maximum_ring_bits": 20},
        {"maximum_ring_bits": 65},
        {"adversary": "none"},
        {"contexts": frozenset({b"short"})},
    ],
    ids="-".join,
)
def test_a_policy_that_makes_no_sense_is_not_made(demand: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(reversed(demand))):
        replace(POLICY, **demand)  # type: ignore[arg-type]


def test_a_roster_that_is_too_small_is_a_breach_like_any_other() -> None:
    cohort = Cohort(5, minimum_cohort=4).advance(Phase.SHARE_KEYS)
    announced = opened(RosterAnnouncement, cohort.request(0))
    small = replace(announced.roster, entries=tuple(announced.roster.entries)[:3])
    (effect,) = cohort.clients[0].receive(cohort.frame(replace(announced, roster=small)))
    assert isinstance(effect, Refused)
    assert (effect.reason, effect.breaches) == (RefusalReason.POLICY, (Breach("Roster.entries", 4, 3),))
