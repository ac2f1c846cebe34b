"""A private run keeps its budget: noise for the fewest survivors, every attempt spent, refusal in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError, TaskError
from fedcore.privacy.accounting import Accountant, BudgetExceededError, Mechanism, Release
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import GroupSum, PlainSum, SumAggregator
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.strategies import FedAdam, FedAvg, FedMedian, FedNova, GeometricMedian, Scaffold, Strategy
from secagg import AbortReason, RoundAbortedError
from tests.fedcore.sites import encoded
from tests.fedcore.strategies.toys import (
    KINDS,
    LEARNER,
    Ran,
    Runner,
    make_toy_sites,
    make_toys,
    run_over,
    toy_plan,
)

TOYS = make_toys(8)
BOTH = (Mechanism.DISCRETE_GAUSSIAN, Mechanism.SKELLAM)
every_mechanism = pytest.mark.parametrize("mechanism", BOTH)
DROPS = {"train 2": frozenset({"s03"}), "train 3": frozenset({"s00", "s06"})}


def private(mechanism: Mechanism = Mechanism.SKELLAM, **changes: Any) -> TrainingPlan:
    names = ("epsilon", "delta", "smallest", "colluders", "sensitivity")
    own = {name: changes.pop(name) for name in names if name in changes}
    own["rounds"] = changes.pop("planned", 4)
    values: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-4, "smallest": 6, "colluders": 1}
    privacy = PrivacyPlan(mechanism=mechanism, **(values | own))
    defaults: dict[str, Any] = {"rounds": 4, "norm": 0.1, "bits": 14}
    return toy_plan(privacy=privacy, **(defaults | changes))


@dataclass
class Flaky:
    """Has no result at certain calls."""

    inner: SumAggregator
    fails: frozenset[int]
    calls: list[str] = field(default_factory=list)

    @property
    def names(self) -> Sequence[str]:
        return self.inner.names

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        return self.inner.deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        self.calls.append(task.name)
        if len(self.calls) - 1 in self.fails:
            raise RoundAbortedError(AbortReason.TOO_FEW_SURVIVORS, "on purpose")
        return self.inner.sum(task, among)


def independent_epsilon(
    records: list[RoundRecord], mechanism: Mechanism, colluders: int, delta: float
) -> float:
    """Compose with dp_accounting alone; the curve of the Skellam mechanism from its paper, whole orders."""
    from dp_accounting.rdp import rdp_privacy_accountant as rdp

    orders = np.arange(2.0, 400.0)
    total = np.zeros(len(orders))
    for record in records:
        noise, task = record.task.encoding.noise, record.task
        assert noise is not None
        count = noise.smallest if record.result is None else len(record.result.survivors)
        s2 = (count - colluders) * noise.variance
        total += orders * noise.norm**2 / (2 * s2)
        if mechanism is Mechanism.SKELLAM:
            l2 = noise.norm
            l1 = min(
                np.sqrt(task.encoding.shaping.length(task.encoding.dimension) + task.encoding.hidden) * l2,
                l2**2,
            )
            first = ((2 * orders - 1) * l2**2 + 6 * l1) / (4 * s2**2)
            total += np.minimum(first, 3 * l1 / (2 * s2))
    return float(rdp.compute_epsilon(orders, total, delta)[0])


@every_mechanism
@pytest.mark.parametrize("kind", ["plain", "secure"])
def test_epsilon_is_in_every_record_and_that_of_an_independent_composition(
    mechanism: Mechanism, kind: str
) -> None:
    ran = Runner(TOYS, DROPS).run(kind, FedAvg(), private(mechanism))
    spent = Accountant(1e-4)
    for i, record in enumerate(ran.records):
        noise, result = record.task.encoding.noise, record.result
        assert noise is not None
        assert result is not None
        moved = record.task.encoding.shaping.length(record.task.encoding.dimension)
        l2 = noise.norm
        l1 = min(float(np.sqrt(moved)) * l2, l2 * l2)
        spent.spend(
            Release(
                mechanism=mechanism,
                l2=l2,
                l1=l1,
                dimension=moved,
                variance=noise.variance,
                parties=len(result.survivors) - 1,
            )
        )
        assert record.epsilon == pytest.approx(spent.epsilon, rel=1e-12)
        independent = independent_epsilon(ran.records[: i + 1], mechanism, 1, 1e-4)
        assert record.epsilon == pytest.approx(independent, rel=0.02)
    assert ran.model.epsilon == ran.records[-1].epsilon
    assert ran.model.epsilon is not None
    assert 4.0 < ran.model.epsilon <= 8.0  # more survive than must


@every_mechanism
def test_the_planned_rounds_fit_the_budget_and_one_more_is_refused_before_it_starts(
    mechanism: Mechanism,
) -> None:
    sites = make_toy_sites(dict(list(TOYS.items())[:6]))
    counting = Flaky(PlainSum(sites), frozenset())
    seen: list[RunState] = []
    with pytest.raises(BudgetExceededError, match=r"after 4 rounds, would be .* limit 8"):
        run_over(counting, sites, FedAvg(), private(mechanism, rounds=6), on_checkpoint=seen.append)
    assert counting.calls == ["train 1", "train 2", "train 3", "train 4"]
    assert seen[-1].number == 4


@pytest.mark.parametrize("fails", [{0}, {1, 2}])
def test_attempts_without_a_result_are_spent_recorded_and_kept(fails: set[int]) -> None:
    sites, seen = make_toy_sites(TOYS), list[RunState]()
    flaky = Flaky(PlainSum(sites), frozenset(fails))
    ran = run_over(flaky, sites, FedAvg(), private(rounds=2, epsilon=40.0), on_checkpoint=seen.append)
    lost = [record for record in ran.records if record.result is None]
    assert len(lost) == len(fails)
    spent = [record.epsilon for record in ran.records]
    assert all(epsilon is not None for epsilon in spent)
    assert spent == sorted(spent)  # type: ignore[type-var]
    assert spent[-1] == pytest.approx(independent_epsilon(ran.records, Mechanism.SKELLAM, 1, 1e-4), rel=0.02)
    accounts = [one.accountant["rounds"] for one in seen if one.accountant is not None]
    assert accounts[-1] == len(ran.records) == 2 + len(fails)
    assert len(seen) == (2 + len(fails)) + 2  # before every attempt, and after every round


def test_no_attempt_starts_that_would_pass_the_budget() -> None:
    """Six attempts would be allowed, the budget is for three sums of the fewest survivors."""
    sites, seen = make_toy_sites(TOYS), list[RunState]()
    flaky = Flaky(PlainSum(sites), frozenset(range(1, 100)))
    with pytest.raises(BudgetExceededError):
        plan = private(planned=3, smallest=8, attempts=6)
        run_over(flaky, sites, FedAvg(), plan, on_checkpoint=seen.append)
    assert flaky.calls == ["train 1", "train 2", "train 2"]
    assert seen[-1].accountant is not None
    assert seen[-1].accountant["rounds"] == 3


def test_a_resumed_run_goes_on_with_what_was_spent() -> None:
    seen: list[RunState] = []
    Runner(TOYS).run("plain", FedAvg(), private(), on_checkpoint=seen.append)
    sites = make_toy_sites(TOYS)
    second = next(one for one in seen if one.number == 2)
    model = Federation(PlainSum(sites), None, LEARNER, private()).run(second)
    assert model.epsilon == Runner(TOYS).run("plain", FedAvg(), private()).model.epsilon
    without = RunState.of(2, second.parameters)
    with pytest.raises(TaskError, match="says nothing of the privacy"):
        Federation(PlainSum(sites), None, LEARNER, private()).run(without)


@pytest.mark.parametrize("kind", ["plain", "secure"])
def test_too_few_survivors_have_no_result_and_are_spent(kind: str) -> None:
    records: list[RoundRecord] = []
    sites = make_toy_sites(TOYS)
    aggregator: Any = KINDS[kind](sites, {"train 1": frozenset({"s00", "s01", "s02"})})
    with pytest.raises(RoundAbortedError, match="5 of at least 6 whose noise is needed"):
        Federation(aggregator, None, LEARNER, private(epsilon=40.0), on_round=records.append).run()
    assert [record.result for record in records] == [None] * 3
    assert [record.epsilon is not None for record in records] == [True] * 3


@pytest.mark.parametrize(
    "strategy", [FedNova(), GeometricMedian(smoothing=1.0)], ids=lambda s: type(s).__name__
)
def test_what_travels_beside_the_noise_is_refused(strategy: Strategy) -> None:
    with pytest.raises(SettingError, match="travel beside the noise, so they cannot be used with it"):
        Runner(TOYS).run("plain", strategy, private())


@pytest.mark.parametrize("weighting", Weighting)
def test_sites_count_uniformly_whatever_was_asked(weighting: Weighting) -> None:
    ran = Runner(TOYS).run("plain", FedAvg(ask=Asks(weighting=weighting)), private())
    for record in ran.records:
        assert record.weight == 8
        assert record.task.encoding.codec.weight_cap == 1
        assert record.task.encoding.asks.weighting is Weighting.UNIFORM


@pytest.mark.parametrize(
    "strategy",
    [
        FedAvg(),
        FedAdam(),
        Scaffold(sites=8),
        FedAvg(ask=Asks(update=UpdateKind.GRADIENT), server_rate=0.1),
    ],
    ids=["FedAvg", "FedAdam", "Scaffold", "FedSGD"],
)
@pytest.mark.parametrize("changes", [{}, {"rotate": True}, {"keep": 0.5}, {"norm": AdaptiveClip(norm=0.1)}])
def test_noisy_runs_agree_bit_for_bit_and_no_vector_is_longer_than_its_norm(
    strategy: Strategy, changes: dict[str, Any]
) -> None:
    plan = private(**{"rounds": 4, **changes})
    runs: list[Ran] = [Runner(TOYS, DROPS).run(kind, strategy, plan) for kind in ("plain", "secure")]
    assert runs[0].flat.tobytes() == runs[1].flat.tobytes()
    for record in runs[0].records:
        task = record.task
        assert task.encoding.noise is not None
        assert record.result is not None
        assert not record.result.failures
        assert len(record.result.survivors) >= 6
        lengths = task.encoding.shaping.length(task.encoding.dimension) + task.encoding.hidden
        assert task.encoding.length == task.encoding.codec.length(lengths)


def test_noise_shows_in_the_model_and_is_fresh_without_seeds() -> None:
    noisy, quiet = (
        Runner(TOYS).run("plain", FedAvg(ask=Asks(weighting=Weighting.UNIFORM)), plan).flat
        for plan in (private(), toy_plan(rounds=4, norm=0.1))
    )
    assert 1e-3 < np.abs(noisy - quiet).max() < 2.0


def test_groups_need_the_noise_of_their_own_members() -> None:
    toys = make_toys(12)
    plan = private(smallest=4, epsilon=50.0, planned=12)
    ran = Runner(toys).run("plain", FedMedian(groups=3), plan)
    assert all(record.result is not None and len(record.result.survivors) == 4 for record in ran.records)
    assert ran.model.epsilon is not None
    assert ran.model.epsilon <= 50.0


@pytest.mark.parametrize("dimension", [4, 50])
def test_privacy_of_persons_adds_less_noise_and_does_not_repeat_the_rounding(dimension: int) -> None:
    site, person = (private(smallest=6, sensitivity=bound).privacy for bound in (None, 0.001))
    codec = private().codec(TaskKind.TRAIN)
    assert site is not None
    assert person is not None
    whole, one = (plan.noise(codec, 1.0, dimension) for plan in (site, person))
    assert one.variance < whole.variance
    assert (whole.norm > 0, one.norm) == (True, 0.0)
    scale = codec.levels / codec.clip
    assert one.sensitivity == pytest.approx(0.001 * scale + dimension**0.5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"norm": None}, "privacy: needs a norm"),
        ({"smallest": 13}, r"privacy\.smallest: must be at most the 12 sites of a round"),
        ({"cohort": 5}, r"privacy\.smallest: must be at most the 5 sites of a round"),
        ({"sensitivity": 0.1, "norm": AdaptiveClip(norm=1.0)}, "a person also moves the bit"),
        ({"sensitivity": 0.1, "keep": 0.5}, "a person also moves the bit"),
        ({"sensitivity": 0.0}, "sensitivity: must be positive"),
        ({"epsilon": 0.0}, "epsilon: must be positive"),
        ({"delta": 1.0}, r"delta: must be in \(0, 1\)"),
        ({"colluders": 6}, "smallest: must be more than the 6 colluders"),
    ],
)
def test_plans_that_cannot_keep_the_promise_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        private(**changes)
    with pytest.raises(SettingError, match="the central Gaussian needs a trusted server"):
        private(Mechanism.GAUSSIAN)


def test_signs_have_no_room_for_noise() -> None:
    with pytest.raises(SettingError, match="noise needs 2 or more"):
        Runner(TOYS).run("plain", FedAvg(), private(bits=1))


def test_evaluation_without_noise_is_refused() -> None:
    with pytest.raises(TaskError, match="federated evaluation adds no noise"):
        Runner(TOYS).run("plain", FedAvg(), private(evaluate_every=1))


def test_a_site_with_an_account_refuses_noise_whose_rounding_is_not_bounded() -> None:
    plan = private()
    assert plan.privacy is not None
    task = Runner(TOYS).run("plain", FedAvg(), plan).records[0].task
    assert task.encoding.noise is not None
    PrivacyGuard(plan.privacy).demand(task)
    with pytest.raises(TaskError, match=r"task\.noise: variance must be"):
        PrivacyGuard(plan.privacy).demand(encoded(task, noise=replace(task.encoding.noise, norm=0.0)))
