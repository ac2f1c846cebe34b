"""The simulated federation of bench/: everybody trains on the same cohorts, the protocol changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.peers import flower_strategies
from bench.peers.flower_steps import steps
from bench.suites import simulations
from bench.suites.simulation import Users, Work, numpy_learner, synthetic, train
from fedcore.strategies import FedAvg, FedMedian

WORK = Work(rounds=3, cohort=6)


@pytest.fixture(scope="module")
def users() -> Users:
    return synthetic(12, 20, 8)


def test_the_cohorts_that_peers_are_given_are_those_that_our_training_draws(users: Users) -> None:
    learner, cohorts = numpy_learner(WORK, users), WORK.cohorts(users)
    assert [len(set(cohort)) for cohort in cohorts] == [6, 6, 6]
    assert cohorts[0] != cohorts[1]
    drawn = train(WORK, users, "real", learner, at_most=1).parameters[0]
    for cohort, same in zip(cohorts[:2], (True, False), strict=True):
        theirs = replace(users, tables={name: users.tables[name] for name in cohort})
        all_of_them = train(replace(WORK, cohort=None), theirs, "real", learner, at_most=1).parameters[0]
        assert np.array_equal(drawn["coefficients"], all_of_them["coefficients"]) == same


def test_training_may_end_early_as_if_the_rest_were_to_come(users: Users) -> None:
    learner = numpy_learner(WORK, users)
    whole = train(WORK, users, "quantized", learner).parameters
    part = train(WORK, users, "quantized", learner, at_most=2).parameters
    assert (len(whole), len(part)) == (3, 2)
    assert all(np.array_equal(part[1][name], whole[1][name]) for name in whole[1])


def test_a_protocol_with_another_result_than_the_sum_in_the_clear_is_noticed(users: Users) -> None:
    plain = train(WORK, users, "quantized", numpy_learner(WORK, users))
    assert simulations._protocol(WORK, users, "secure", plain)["rounds_run"] == 3
    plain.parameters[1] = {name: array + 1e-9 for name, array in plain.parameters[1].items()}
    with pytest.raises(RuntimeError, match="other parameters"):
        simulations._protocol(WORK, users, "secure", plain)


def test_updates_with_noise_are_as_far_from_the_mean_as_the_budget_says(users: Users) -> None:
    work = replace(WORK, cohort=None, private=True, rate=0.001)
    learner = numpy_learner(work, users)
    noisy = train(work, users, "central Gaussian", learner, at_most=1).parameters[0]["coefficients"]
    expected = simulations._gaussian(work) * work.norm / len(users.tables)
    assert 0.6 * expected < noisy.std() < 1.6 * expected


def test_exact_sums_are_weighted_means_of_those_who_are_asked() -> None:
    sent = flower_strategies.reports(6, 3, 1)[0]
    update = FedAvg().combine(flower_strategies._ExactSums(sent))
    assert np.allclose(update.mean, np.average(sent.changes, axis=0, weights=sent.weights))
    alone = FedMedian(groups=6, smallest=1).combine(flower_strategies._ExactSums(sent))
    assert np.allclose(alone.mean, np.median(sent.changes, axis=0))


@pytest.mark.peers
def test_flower_agrees_once_the_differences_are_removed() -> None:
    for row in flower_strategies.agreement(20, 50, 5):
        same = "tau" in row["equal"] if row["strategy"] != "FedAdam" else "bias" in row["equal"]
        if same or row["equal"] == "groups of 1" or row["strategy"].startswith("FedAvg"):
            assert row["difference"] < 1e-11 < row["moved"], row
        else:
            assert row["difference"] > 1e-3, row


def test_steps_are_timed_without_the_peer() -> None:
    rows = steps(4, 50, 1, flower=False)
    assert [row["strategy"] for row in rows] == ["FedAvg", "FedAdam"]
    assert all(set(row["seconds"]) == {"real", "ring"} for row in rows)
