"""What a bad site can do: nothing to medians of groups, everything to a mean; and the geometric median."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters, flatten
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.local_training import GRAIN
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg, FedMedian, FedTrimmedMean, GeometricMedian, Strategy
from fedcore.strategies.robust import _GroupMeans
from tests.fedcore.sites import model_of
from tests.fedcore.strategies.toys import (
    KINDS,
    LEARNER,
    Ran,
    Runner,
    Toy,
    Vector,
    average,
    make_toy_sites,
    make_toys,
    present,
    run_over,
    toy_plan,
)
from tests.lazy import Lazy

optimize: Any = Lazy("scipy.optimize")

TOYS = make_toys(12, same_steps=True)
PLAN = toy_plan(rounds=1, clip=1000.0, bits=40)
GROUPED: list[_GroupMeans] = [FedMedian(groups=3), FedTrimmedMean(groups=3)]
grouped = pytest.mark.parametrize("strategy", GROUPED, ids=lambda s: type(s).__name__)
every_sum = pytest.mark.parametrize("kind", KINDS)


@dataclass(frozen=True)
class Amplified:
    """Sends its change a thousand times, turned around."""

    inner: Any = LEARNER

    def initial(self) -> Parameters:
        return dict(self.inner.initial())

    def fit(self, parameters: Parameters, rows: Any, seed: int) -> Parameters:
        after = self.inner.fit(parameters, rows, seed)
        return {name: parameters[name] - 1000 * (after[name] - parameters[name]) for name in after}

    def evaluate(self, parameters: Parameters, rows: Any) -> Metrics:
        return {}


def changes(toys: Mapping[str, Toy]) -> dict[str, Vector]:
    return {name: toy.train(np.zeros(4)) for name, toy in toys.items()}


def attacked(kind: str, strategy: Strategy, bad: str = "s07") -> Ran:
    sites = make_toy_sites(TOYS)
    sites[bad] = replace(sites[bad], learner=Amplified(sites[bad].learner))
    aggregator: Any = KINDS[kind](sites)
    return run_over(aggregator, sites, strategy, PLAN)


@every_sum
@grouped
@pytest.mark.parametrize("bad", ["s00", "s07", "s11"])
def test_a_bad_site_moves_no_coordinate_beyond_the_means_of_honest_groups(
    strategy: Strategy, kind: str, bad: str
) -> None:
    ran = attacked(kind, strategy, bad)
    honest = changes(TOYS)
    means = np.array(
        [
            average([honest[name] for name in group], [TOYS[name].rows for name in group])
            for group in ran.groups(1)
            if bad not in group
        ]
    )
    assert len(means) == 2
    tiny = 1e-6
    assert (ran.flat >= means.min(axis=0) - tiny).all()
    assert (ran.flat <= means.max(axis=0) + tiny).all()
    assert np.abs(attacked(kind, FedAvg(), bad).flat).max() > 20 * np.abs(means).max()


@pytest.mark.slow
@every_sum
def test_the_geometric_median_is_that_of_the_updates_and_takes_one_sum_more_than_passes(kind: str) -> None:
    uniform = Asks(weighting=Weighting.UNIFORM)
    ran = Runner(TOYS).run(kind, GeometricMedian(smoothing=0.02, passes=25, ask=uniform), PLAN)
    x = np.array(list(changes(TOYS).values()))
    true = optimize.minimize(
        lambda v: np.linalg.norm(x - v, axis=1).sum(), x.mean(axis=0), method="BFGS", options={"gtol": 1e-7}
    ).x
    assert np.linalg.norm(ran.flat - true) < 0.05 * np.linalg.norm(x.mean(axis=0) - true)
    assert len(ran.records) == 26
    assert [record.task.question.passes for record in ran.records] == list(range(26))


@pytest.mark.slow
@every_sum
def test_the_geometric_median_bears_a_bad_site(kind: str) -> None:
    strategy = GeometricMedian(smoothing=0.02, passes=12)
    clean = Runner(TOYS).run(kind, strategy, PLAN).flat
    moved = np.linalg.norm(attacked(kind, strategy).flat - clean)
    carried = np.linalg.norm(attacked(kind, FedAvg()).flat - Runner(TOYS).run(kind, FedAvg(), PLAN).flat)
    assert carried > 5
    assert moved < carried / 50


@pytest.mark.parametrize("passes", [0, 1, 3])
def test_each_pass_is_one_secure_sum_of_the_same_updates(passes: int) -> None:
    ran = Runner(TOYS).run("plain", GeometricMedian(smoothing=0.05, passes=passes), PLAN)
    assert len(ran.records) == passes + 1


def test_the_first_sum_caps_weights_and_loses_no_bits() -> None:
    """Weights travel in steps of 1 / 1024; without passes this is federated averaging with capped rows."""
    ask = Asks(weighting=Weighting.ROWS)
    plan = toy_plan(rounds=1, weight_cap=12)
    median = Runner(TOYS).run("plain", GeometricMedian(smoothing=1.0, passes=0, ask=ask), plan)
    mean = Runner(TOYS).run("float", FedAvg(ask=ask), plan)
    record = median.records[0]
    bound = record.task.encoding.codec.error_bound(12, record.weight)
    assert np.abs(median.flat - mean.flat).max() <= bound
    assert bound < 1e-5


@every_sum
def test_a_site_above_the_cap_is_in_every_pass_with_the_cap(kind: str) -> None:
    ran = Runner(TOYS).run(kind, GeometricMedian(smoothing=0.01, passes=3), toy_plan(rounds=1, weight_cap=40))
    rows = [toy.rows for toy in TOYS.values()]
    assert max(rows) > 40
    assert ran.records[0].weight == GRAIN * sum(min(count, 40) for count in rows)
    for record in ran.records:
        assert record.result is not None
        assert record.result.failures == {}
    assert all(0 < record.weight < ran.records[0].weight for record in ran.records[1:])


@pytest.mark.parametrize("options", [{"norm": 0.1}, {"keep": 0.5}, {"rotate": True}])
def test_distances_are_of_what_is_in_the_sum(options: dict[str, Any]) -> None:
    """Clipped updates are as far apart as they are after clipping; what is not sent has no distance."""
    ran = Runner(TOYS).run(
        "float",
        GeometricMedian(smoothing=0.01, passes=1, ask=Asks(weighting=Weighting.UNIFORM)),
        toy_plan(rounds=1, **options),
    )
    task = ran.records[1].task
    shaped = {
        name: task.encoding.shaping.restore(task.encoding.shaping.shape(x)[0], 4)[0]
        for name, x in changes(TOYS).items()
    }
    v = average(list(shaped.values()), [1] * 12)
    beta = [round(1024 * min(1.0, 0.01 / float(np.linalg.norm(x - v)))) for x in shaped.values()]
    assert ran.flat == pytest.approx(average(list(shaped.values()), beta), abs=1e-4)
    assert ran.records[1].weight == pytest.approx(sum(beta), abs=3)


@grouped
@pytest.mark.parametrize("groups", [0, -1, 4, 12])
def test_groups_that_are_too_small_are_refused(strategy: _GroupMeans, groups: int) -> None:
    toys = make_toys(11)
    with pytest.raises(TaskError, match=rf"groups: {groups} of at least 4 sites each are needed, .* 11"):
        Runner(toys).run("plain", replace(strategy, groups=groups))


def group_of(strategy: _GroupMeans, index: int) -> tuple[str, ...]:
    return Runner(TOYS).run("plain", strategy, PLAN).groups(1)[index]


@every_sum
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_group_without_a_result_has_no_say(kind: str, index: int) -> None:
    strategy = FedMedian(groups=3)
    gone = group_of(strategy, index)
    ran = Runner(TOYS, {"train 1": frozenset(gone)}).run(kind, strategy, PLAN)
    honest = changes(TOYS)
    left = [
        average([honest[name] for name in group], [TOYS[name].rows for name in group])
        for group in ran.groups(1)
    ]
    assert len(left) == 2
    assert ran.flat == pytest.approx((left[0] + left[1]) / 2, abs=1e-6)


@every_sum
@grouped
def test_less_than_a_majority_of_groups_is_an_error_that_says_why(kind: str, strategy: _GroupMeans) -> None:
    gone = frozenset(group_of(strategy, 0) + group_of(strategy, 2))
    with pytest.raises(TaskError, match="groups: 1 of 3 have a result, a majority is needed: train 1"):
        Runner(TOYS, {"train 1": gone}).run(kind, strategy, PLAN)


def test_trimming_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(TaskError, match="trim: must leave groups, 2 at either end of 3 do not"):
        Runner(TOYS).run("plain", FedTrimmedMean(groups=3, trim=2), PLAN)


def test_groups_are_dealt_anew_and_partition_the_cohort() -> None:
    ran = Runner(TOYS).run("plain", FedMedian(groups=3), toy_plan(rounds=6))
    dealt = set()
    for number in range(1, 7):
        groups = ran.groups(number)
        assert [len(group) for group in groups] == [4, 4, 4]
        assert sorted(sum(groups, ())) == present(TOYS, number, {})
        dealt.add(frozenset(map(frozenset, groups)))
    assert len(dealt) == 6


@pytest.mark.parametrize(
    "strategy", [*GROUPED, GeometricMedian(smoothing=0.01)], ids=lambda s: type(s).__name__
)
def test_an_adaptive_norm_follows_the_sites_under_every_strategy(strategy: Strategy) -> None:
    """All updates are longer than the norm at first, so that it grows by exp(rate / 2)."""
    plan = toy_plan(rounds=3, norm=AdaptiveClip(norm=1e-3, rate=0.4))
    ran = Runner(TOYS).run("plain", strategy, plan)
    norms = [next(r.norm for r in ran.records if r.task.number == number) for number in (1, 2, 3)]
    assert norms == pytest.approx([1e-3 * np.exp(0.2 * i) for i in range(3)], rel=1e-5)
    assert all(record.within == pytest.approx(0.0, abs=1e-6) for record in ran.records)


def test_sites_are_not_changed_by_a_learner_that_writes_into_the_model() -> None:
    @dataclass(frozen=True)
    class Scribbling(Amplified):
        def fit(self, parameters: Parameters, rows: Any, seed: int) -> Parameters:
            for array in parameters.values():
                array[:] = 7.0
            return parameters

    sites: dict[str, Site] = make_toy_sites(TOYS)
    sites["s00"] = replace(sites["s00"], learner=Scribbling())
    aggregator: Any = KINDS["float"](sites)
    ran = run_over(aggregator, sites, FedAvg(), PLAN)
    assert flatten(model_of(ran.records[0].task)).tolist() == [0.0] * 4
    others = [TOYS[name].train(np.zeros(4)) for name in sorted(TOYS) if name != "s00"]
    rows = [TOYS[name].rows for name in sorted(TOYS) if name != "s00"]
    without = average([*others, np.zeros(4)], [*rows, 8])
    with_seven = average([*others, np.full(4, 7.0)], [*rows, 8])
    assert min(np.abs(ran.flat - one).max() for one in (without, with_seven)) < 1e-9
