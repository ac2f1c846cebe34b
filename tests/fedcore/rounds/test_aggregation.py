"""One suite for both sums: in the clear and under secure aggregation they promise the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np
import pytest

from fedcore.data.schema import Schema
from fedcore.errors import TaskError
from fedcore.rounds.aggregation import GroupSum, PlainSum, SecureSum
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from secagg import RoundAbortedError
from secagg.kernels import lane_dtype, ring_mask
from tests.fedcore.rows import table_of
from tests.fedcore.sites import (
    KINDS,
    LEARNER,
    SCHEMA,
    FailingLearner,
    FixedLearner,
    answering,
    make_plan,
    make_question,
    make_sites,
    make_table,
    make_task,
    make_terms,
    site_with,
)

Aggregator: TypeAlias = Callable[[Mapping[str, Site], Mapping[str, frozenset[str]]], PlainSum | SecureSum]

ONE_SHOT = partial(SecureSum, protocol="one-shot")
both = pytest.mark.parametrize(
    "aggregator", [PlainSum, SecureSum, ONE_SHOT], ids=["PlainSum", "SecureSum", "one-shot"]
)
any_ring = pytest.mark.parametrize("aggregator", [PlainSum, SecureSum])  # one-shot: up to 40 bits
every_kind = pytest.mark.parametrize("kind", KINDS)


def expected(task: Task, sites: Mapping[str, Site], names: list[str]) -> list[int]:
    """The sum in Python's integers."""
    columns = zip(*(sites[name].contribute(task).tolist() for name in names), strict=True)
    return [sum(column) & ring_mask(task.encoding.codec.ring_bits) for column in columns]


@both
@every_kind
def test_the_sum_is_that_of_the_sites_element_by_element(aggregator: Aggregator, kind: TaskKind) -> None:
    sites, task = make_sites(), make_task(kind)
    result = aggregator(sites, {}).sum(task)
    assert isinstance(result, GroupSum)
    assert result.total.tolist() == expected(task, sites, sorted(sites))
    assert result.total.dtype == lane_dtype(task.encoding.codec.ring_bits)
    assert result.survivors == tuple(sorted(sites))
    assert result.failures == {}


@any_ring
@pytest.mark.parametrize(("bits", "weight_cap"), [(6, 50), (20, 100), (28, 100), (29, 100), (40, 100)])
def test_the_sum_is_exact_in_every_lane(aggregator: Aggregator, bits: int, weight_cap: int) -> None:
    """Negative updates, too: they are the upper half of the ring."""
    learner = answering([[-0.03, 0.02, -0.2]], [0.07])
    sites = {f"s{i}": site_with(learner) for i in range(5)}
    task = make_task(TaskKind.TRAIN, make_plan(bits=bits, weight_cap=weight_cap, clip=0.1))
    result = aggregator(sites, {}).sum(task)
    assert result.total.tolist() == expected(task, sites, sorted(sites))
    difference = np.abs(task.encoding.codec.decode(result.total, 5).mean - [-0.03, 0.02, -0.1, 0.07])
    assert difference.max() <= task.encoding.codec.error_bound(5, 100) * 1.001


@both
def test_a_sum_modulo_the_ring_is_reduced(aggregator: Aggregator) -> None:
    """Five updates of -1 are 5 * (2^b - levels) before the reduction."""
    sites = {f"s{i}": site_with(answering([[-9.0, -9.0, -9.0]], [9.0])) for i in range(5)}
    task = make_task(TaskKind.TRAIN, make_plan(bits=12, weight_cap=20))
    result = aggregator(sites, {}).sum(task)
    levels = task.encoding.codec.levels
    low = 2**task.encoding.codec.ring_bits - 5 * levels
    assert result.total.tolist() == [low, low, low, 5 * levels, 100]


@both
def test_absent_sites_are_left_out_of_their_task_only(aggregator: Aggregator) -> None:
    sites = make_sites()
    summing = aggregator(sites, {"mean 1": frozenset({"site-2"}), "mean 3": frozenset({"site-0"})})
    for number, names in ((1, [0, 1, 3, 4]), (2, [0, 1, 2, 3, 4]), (3, [1, 2, 3, 4])):
        task = make_task(TaskKind.MEAN, number=number)
        result = summing.sum(task)
        assert result.survivors == tuple(f"site-{i}" for i in names)
        assert result.total.tolist() == expected(task, sites, list(result.survivors))
        assert result.failures == {}


OTHER_SHAPES = [
    answering([0.5], []),  # a shape that numpy would broadcast, and some that it would not
    answering([[0.5, 0.5]], [0.5]),
    answering([[0.5] * 5], [0.5]),
    FixedLearner({"coefficients": np.ones((1, 3))}),
]
OTHER_CLASSES = Schema(SCHEMA.columns, ("healthy", "ill"))


@both
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (site_with(answering([[0, np.nan, 0]], [0])), "update[1]: must be finite"),
        (site_with(answering([[0, 0, 0]], [np.inf])), "update[3]: must be finite"),
        (site_with(FailingLearner({})), "the learner failed with ValueError"),
        *((site_with(learner), "parameters of other shapes") for learner in OTHER_SHAPES),
    ],
)
def test_a_site_with_nothing_to_say_is_in_the_sum_with_zeros_under_its_weight(
    aggregator: Aggregator, bad: Site, reason: str
) -> None:
    sites = make_sites(4)
    task = make_task(TaskKind.TRAIN)
    result = aggregator(sites | {"odd": bad}, {}).sum(task)
    assert result.survivors == ("odd", *sites)
    assert list(result.failures) == ["odd"]
    assert reason in result.failures["odd"]
    assert result.total[:-1].tolist() == expected(task, sites, list(sites))[:-1]
    assert result.mean.weight == sum(len(site.table) for site in sites.values()) + 20


@both
def test_a_site_that_refuses_a_task_costs_only_itself_the_round(aggregator: Aggregator) -> None:
    bad = Site("odd", make_table(9, 0), OTHER_CLASSES, LEARNER)
    sites = make_sites(4)
    task = make_task(TaskKind.TRAIN)
    result = aggregator(sites | {"odd": bad}, {}).sum(task)
    assert result.survivors == tuple(sites)
    assert list(result.failures) == ["odd"]
    assert "its schema and classes are not those of this site" in result.failures["odd"]
    assert result.total.tolist() == expected(task, sites, list(sites))


@both
def test_the_sites_of_a_sum_learn_that_they_counted_and_nobody_else_does(aggregator: Aggregator) -> None:
    sites = make_sites()
    plan = make_plan(keep=0.5)
    task = make_terms(plan).task(make_question(TaskKind.TRAIN))
    gone = sites["site-3"]
    gone.contribute(task)  # computed, and lost on the way
    result = aggregator(sites, {task.name: frozenset({"site-3"})}).sum(task)
    assert gone.state.counted == ()
    for name in result.survivors:
        assert sites[name].state.counted == result.survivors


@both
def test_when_no_site_can_contribute_there_is_an_error_that_says_why(aggregator: Aggregator) -> None:
    sites = {f"s{i}": site_with(FailingLearner({})) for i in range(4)}
    with pytest.raises(TaskError, match=r"train 1: no site could contribute: .*s0.*failed with ValueError"):
        aggregator(sites, {}).sum(make_task(TaskKind.TRAIN))
    with pytest.raises(TaskError, match="mean 1: no site could contribute"):
        aggregator(make_sites(4), {"mean 1": frozenset(make_sites(4))}).sum(make_task(TaskKind.MEAN))


@both
def test_a_seeded_sum_repeats_and_a_fresh_one_does_not(aggregator: Aggregator) -> None:
    task = make_task(TaskKind.MEAN)
    seeded = [aggregator(make_sites(), {}).sum(task).total for _ in range(2)]
    fresh = [aggregator(make_sites(seed=None), {}).sum(task).total for _ in range(16)]
    assert np.array_equal(seeded[0], seeded[1])
    # Two sums of three roundings coincide now and then; sixteen that all do have no fresh randomness.
    assert len({total.tobytes() for total in fresh}) > 1


@both
def test_the_error_bound_holds_for_the_mean_that_comes_out(aggregator: Aggregator) -> None:
    sites, task = make_sites(seed=None), make_task(TaskKind.MEAN)
    result = aggregator(sites, {}).sum(task)
    decoded = task.encoding.codec.decode(result.total, len(result.survivors))
    rows = np.concatenate([table_of(site).features for site in sites.values()])
    wanted = (rows.mean(axis=0) - SCHEMA.low) / (SCHEMA.high - SCHEMA.low)
    assert decoded.weight == len(rows)
    assert np.abs(decoded.mean - wanted).max() <= task.encoding.codec.error_bound(5, len(rows)) + 1e-12


def test_only_the_secure_sum_has_traffic_of_a_protocol() -> None:
    task = make_task(TaskKind.MEAN)
    plain, secure = PlainSum(make_sites()).sum(task), SecureSum(make_sites()).sum(task)
    assert (plain.bytes_up, plain.bytes_down) == (0, 0)
    assert min(secure.bytes_up, secure.bytes_down) > 0


def test_a_secure_sum_over_too_few_has_no_result() -> None:
    absent = {"mean 1": frozenset({"site-0", "site-1", "site-2"})}
    with pytest.raises(RoundAbortedError):
        SecureSum(make_sites(), absent).sum(make_task(TaskKind.MEAN))


@both
def test_a_reason_that_all_sites_share_is_said_once(aggregator: Aggregator) -> None:
    sites = {f"s{i}": site_with(FailingLearner({})) for i in range(8)}
    with pytest.raises(TaskError) as caught:
        aggregator(sites, {}).sum(make_task(TaskKind.TRAIN))
    said = str(caught.value)
    assert said.count("the learner failed") == 1
    assert "s0, s1, s2, s3, s4 and 3 more: the learner failed" in said
