"""Dropouts: drawn from the round's own cohort, as many as the file says, and never too many to finish."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.experiments.dropout import absences, threat_model
from fedcore.experiments.tables import DropoutTable
from fedcore.rounds.plan import TrainingPlan
from secagg import Phase, aggregate

NAMES = [f"site-{i:03d}" for i in range(30)]


@given(
    sites=st.integers(1, 30),
    share=st.integers(1, 30),
    rate=st.floats(0, 0.9),
    per_round=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
def test_those_who_vanish_are_in_the_cohort_and_as_many_as_said(
    sites: int, share: int, rate: float, per_round: int, seed: int
) -> None:
    cohort = min(sites, share)
    plan = TrainingPlan(rounds=5, clients=sites, cohort=cohort, seed=seed)
    table = DropoutTable(per_round=per_round) if per_round else DropoutTable(rate=rate)
    gone = absences(table, plan, NAMES[:sites])
    assert gone == absences(table, plan, NAMES[:sites])
    for number in range(1, 6):
        absent = gone.get(f"train {number}", frozenset())
        assert absent <= set(plan.cohort_of(NAMES[:sites], number))
        if per_round:
            assert len(absent) == min(per_round, cohort)
        else:
            assert math.floor(rate * cohort - 1e-6) <= len(absent) <= math.ceil(rate * cohort + 1e-6)
            assert len(absent) <= table.most(cohort)


def test_rounds_and_seeds_differ_in_who_vanishes() -> None:
    table = DropoutTable(per_round=2)
    draws = [absences(table, TrainingPlan(rounds=20, clients=30, seed=seed), NAMES) for seed in (0, 1)]
    assert len(set(draws[0].values())) > 10
    assert draws[0] != draws[1]
    counts = np.unique([name for gone in draws[0].values() for name in gone], return_counts=True)[1]
    assert counts.max() < 10


@pytest.mark.parametrize(
    ("sites", "gone"), [(3, 0), (4, 0), (4, 1), (5, 1), (10, 3), (12, 2), (20, 6), (40, 9)]
)
def test_a_round_with_these_dropouts_has_a_result(sites: int, gone: int) -> None:
    vectors = [np.ones(2, np.uint32)] * sites
    drop = dict.fromkeys(range(gone), Phase.MASKED_INPUT_COLLECTION)
    model = threat_model(DropoutTable(per_round=gone), sites)
    result = aggregate(vectors, ring_bits=20, drop=drop, threat_model=model)
    assert result.total.tolist() == [sites - gone] * 2


def test_only_every_so_many_rounds_lose_somebody() -> None:
    plan = TrainingPlan(rounds=9, clients=4)
    absent = absences(DropoutTable(per_round=1, every=3), plan, ["a", "b", "c", "d"])
    assert [(name, len(gone)) for name, gone in absent.items()] == [
        ("train 3", 1),
        ("train 6", 1),
        ("train 9", 1),
    ]
