"""A guarded site under a server that lies: no task makes it pass its promise, crash, or speak plainly."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.data.table import Table
from fedcore.errors import CodecError, DataError, TaskError
from fedcore.learner import Learner, Metrics, Parameters
from fedcore.learners import LocalSGD, LogisticRegression
from fedcore.learners.per_person import PersonClipped
from fedcore.privacy.accounting import Accountant, Budget, BudgetExceededError, Mechanism, Release
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.noise import signed
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.local_training import SiteState, Update
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Evaluate, TaskKind
from fedcore.rounds.site import Contribution, Site
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg
from tests.fedcore.sites import SCHEMA, asked, encoded, make_table, make_task, make_terms

LEARNER = LocalSGD(model=LogisticRegression(3), rate=0.1)
PRIVACY = PrivacyPlan(epsilon=20.0, delta=1e-3, rounds=3, smallest=4, colluders=1)
PLAN = TrainingPlan(rounds=1, clients=6, bits=16, norm=1.0, privacy=PRIVACY)
NAMES = ("a", "b", "c", "d", "e", "f")


def task_of(plan: TrainingPlan = PLAN, ask: Asks | None = None, learner: Learner[Any] = LEARNER) -> Task:
    """The first task of an honest run."""
    records: list[RoundRecord] = []
    sites = {name: Site(name, make_table(20 + i, i), SCHEMA, learner, 5) for i, name in enumerate(NAMES)}
    strategy = FedAvg(ask=ask or Asks(weighting=Weighting.UNIFORM))
    Federation(PlainSum(sites), SCHEMA, learner, plan, strategy, on_round=records.append).run()
    return records[0].task


def guarded(learner: Learner[Any] = LEARNER, plan: PrivacyPlan = PRIVACY) -> Site:
    return Site("a", make_table(20, 0), SCHEMA, learner, 5, guard=PrivacyGuard(plan))


# --- numbers chosen to crash ---


@pytest.mark.parametrize(
    "change",
    [
        lambda t: encoded(t, shaping=replace(t.encoding.shaping, norm=1e200)),
        lambda t: encoded(t, shaping=replace(t.encoding.shaping, norm=1.7e308)),
        lambda t: encoded(t, asks=replace(t.encoding.asks, quantile=1e200)),
        lambda t: encoded(t, asks=replace(t.encoding.asks, quantile=1.7e308)),
        lambda t: encoded(t, codec=replace(t.encoding.codec, clip=1e-100)),
        lambda t: encoded(
            t, shaping=replace(t.encoding.shaping, norm=1e200), codec=replace(t.encoding.codec, clip=1e-100)
        ),
        lambda t: encoded(t, dimension=2**53 - 1),
    ],
)
def test_no_number_of_a_task_makes_a_guarded_site_raise_anything_but_a_typed_error(change: Any) -> None:
    with pytest.raises((TaskError, CodecError, BudgetExceededError)):
        guarded().contribute(change(task_of()))


def test_a_vector_too_long_for_its_length_to_be_a_number_is_clipped_all_the_same() -> None:
    clipped, scale = Shaping(norm=1.0).clip(np.full(4, 1e200))
    assert clipped.tolist() == [0.5] * 4
    assert scale == 1.0 / 2e200


@dataclass(frozen=True)
class Probe:
    """Fails, or diverges, if the rows are such."""

    how: str

    def initial(self) -> Parameters:
        return LogisticRegression(3).initial()

    def fit(self, parameters: Parameters, rows: Table, seed: int) -> Parameters:
        if self.how == "raises":
            raise ZeroDivisionError
        if self.how == "refuses":
            raise TaskError("rate: parameters are not finite")
        return {name: np.full_like(array, np.inf) for name, array in parameters.items()}

    def evaluate(self, parameters: Parameters, rows: Table) -> Metrics:
        return {}


@dataclass(frozen=True)
class Unlabelled:
    """Rows of a learner's own."""

    def __len__(self) -> int:
        return 3


class Scoring(Probe):
    """Gives scores for whatever there is."""

    def scores(self, parameters: Parameters, rows: Any) -> NDArray[np.float64]:
        return np.full((len(rows), 2), 0.5)


def test_an_evaluation_of_rows_without_labels_says_nothing() -> None:
    site = Site("a", Unlabelled(), SCHEMA, Scoring(""))
    task = make_terms().task(Evaluate(model=LEARNER.initial()))
    assert task.encoding.dimension == 405
    assert not site.contribute(task)[:405].any()
    assert site.trouble == "evaluation: Unlabelled has no labels"


def test_what_shapes_updates_is_refused_for_what_is_none() -> None:
    task, site = make_task(TaskKind.MEAN), Site("a", make_table(20, 0), SCHEMA, LEARNER)
    with pytest.raises(TaskError, match="mean has none"):
        site.contribute(encoded(task, shaping=Shaping(keep=0.5)))
    with pytest.raises(TaskError, match="mean has none"):
        site.contribute(encoded(task, asks=Asks(quantile=0.5), noise=task_of().encoding.noise))


# --- answers in the clear: being in the sum or not ---


@pytest.mark.parametrize("factor", [0.01, 0.5, 0.99, 0.9995, 1.0005])
def test_the_norm_that_decides_who_can_answer_is_not_the_servers_to_choose(factor: float) -> None:
    task = task_of()
    assert task.encoding.noise is not None
    with pytest.raises(TaskError, match="within the norm"):
        guarded().contribute(
            encoded(task, noise=replace(task.encoding.noise, norm=task.encoding.noise.norm * factor))
        )


@pytest.mark.parametrize("how", ["raises", "refuses", "diverges"])
def test_a_guarded_site_whose_training_fails_sends_noise_alone_so_that_nobody_hears_of_it(how: str) -> None:
    task = task_of()
    site, silent = guarded(Probe(how)), Site("a", make_table(20, 0), SCHEMA, Probe(how))
    vector = site.contribute(task)
    assert vector.shape == (task.encoding.length,)
    assert task.encoding.noise is not None
    steps = signed(vector[: task.encoding.dimension], task.encoding.codec.ring_bits)
    assert 0 < np.abs(steps).max() < 8 * math.sqrt(task.encoding.noise.variance)
    assert vector.size == task.encoding.dimension  # all count alike: no weight is sent
    quiet = encoded(task, noise=None)
    assert not silent.contribute(quiet)[: task.encoding.dimension].any()  # nor is it told without a promise


def test_a_guarded_site_still_refuses_what_does_not_depend_on_its_rows() -> None:
    task = task_of()
    for wrong in (encoded(task, dimension=7), asked(task, model={}), encoded(task, classes=("x",))):
        with pytest.raises(TaskError):
            guarded(Probe("raises")).contribute(wrong)
    with pytest.raises(TaskError, match="cannot be steered"):
        guarded(Probe("raises")).contribute(encoded(task, asks=replace(task.encoding.asks, proximal=1.0)))


# --- the same noise twice ---


def test_noise_of_a_guarded_site_is_fresh_although_it_has_a_seed_so_that_repeats_do_not_cancel_it() -> None:
    task = task_of()
    assert task.encoding.noise is not None
    site = guarded(Probe("diverges"))
    first, second = (
        signed(site.contribute(task)[: task.encoding.dimension], task.encoding.codec.ring_bits)
        for _ in range(2)
    )
    assert np.abs(first - second).max() > 0.01 * math.sqrt(task.encoding.noise.variance)


# --- the account ---


def test_the_account_is_of_the_noise_that_is_sent_also_where_it_is_a_little_less_than_wanted() -> None:
    task = task_of()
    assert task.encoding.noise is not None
    less = encoded(task, noise=replace(task.encoding.noise, variance=task.encoding.noise.variance * 0.9995))
    guards = [PrivacyGuard(PRIVACY), PrivacyGuard(PRIVACY)]
    for guard, one in zip(guards, (task, less), strict=True):
        guard.demand(one)
    assert guards[1].accountant.epsilon > guards[0].accountant.epsilon


def test_two_tasks_at_once_do_not_both_pass_for_the_last_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of()
    guard = PrivacyGuard(PRIVACY)
    for _ in range(2):
        guard.demand(task)
    require = Accountant.require

    def slow(self: Accountant, release: Release, budget: Budget) -> None:
        require(self, release, budget)
        time.sleep(0.05)

    monkeypatch.setattr(Accountant, "require", slow)
    refused: list[Exception] = []

    def ask() -> None:
        try:
            guard.demand(task)
        except BudgetExceededError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (guard.accountant.rounds, len(refused)) == (3, 3)


def test_an_account_in_a_file_outlives_the_process_and_is_written_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    task, path = task_of(), tmp_path / "account.json"
    for spent in (1, 2, 3):
        guard = PrivacyGuard(PRIVACY, path)
        guard.demand(task)
        assert guard.accountant.rounds == spent
        del guard  # as with its process, its hold on the account ends
    guard = PrivacyGuard(PRIVACY, path)
    assert guard.accountant.rounds == 3
    with pytest.raises(BudgetExceededError):
        guard.demand(task)
    del guard
    with pytest.raises(DataError, match="for delta"):
        PrivacyGuard(replace(PRIVACY, delta=1e-5), path)
    with pytest.raises(DataError, match="cannot be written"):
        PrivacyGuard(PRIVACY, tmp_path / "none" / "account.json").demand(task)
    for junk in ("", "[]", "{}", "3", '{"delta": 0.5}'):
        path.write_text(junk, encoding="utf-8")
        with pytest.raises(DataError, match="not an account"):
            PrivacyGuard(PRIVACY, path)


def test_two_guards_do_not_spend_one_account(tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    guard = PrivacyGuard(PRIVACY, path)
    with pytest.raises(DataError, match="is in use: one budget is spent by one process at a time"):
        PrivacyGuard(PRIVACY, path)
    del guard
    PrivacyGuard(PRIVACY, path)


def test_signs_are_refused_they_have_no_room_for_noise() -> None:
    task = task_of()
    with pytest.raises(TaskError, match="bits"):
        guarded().contribute(encoded(task, codec=replace(task.encoding.codec, bits=1, headroom=0)))


# --- privacy of persons ---

PERSON = replace(PRIVACY, sensitivity=0.05)
PERSONS = PersonClipped(model=LogisticRegression(3), clip=1.0, expected=20.0)
GRADIENTS = Asks(update=UpdateKind.GRADIENT, weighting=Weighting.UNIFORM)


def person_task() -> Task:
    return task_of(replace(PLAN, privacy=PERSON), GRADIENTS, PERSONS)


@pytest.mark.parametrize("mechanism", [Mechanism.SKELLAM, Mechanism.DISCRETE_GAUSSIAN])
@pytest.mark.parametrize("sensitivity", [1.5, 2.0, 3.0])
def test_a_person_who_can_turn_the_whole_vector_round_has_noise_for_twice_its_norm(
    mechanism: Mechanism, sensitivity: float
) -> None:
    plan = replace(PRIVACY, sensitivity=sensitivity, mechanism=mechanism)
    codec = Codec(clip=1.0, bits=8, weight_cap=1, clients=6)
    noise = plan.noise(codec, 1.0, 4)
    half = min(sensitivity / 2, 1.0)  # both are within the norm
    ahead, back = np.array([half, 0, 0, 0]), np.array([-half, 0, 0, 0])
    moved = [signed(codec.encode(v, 1, bytes(32))[:4], codec.ring_bits) for v in (ahead, back)]
    assert np.linalg.norm(moved[0] - moved[1]) <= noise.sensitivity


def test_an_honest_task_of_persons_is_served() -> None:
    site = guarded(PERSONS, PERSON)
    assert site.contribute(person_task()).size == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda t: encoded(t, asks=replace(t.encoding.asks, quantile=0.5)),
        lambda t: encoded(t, shaping=replace(t.encoding.shaping, keep=0.5)),
        lambda t: encoded(t, asks=replace(t.encoding.asks, update=UpdateKind.DELTA)),
        lambda t: encoded(t, asks=replace(t.encoding.asks, update=UpdateKind.WEIGHTS)),
    ],
)
def test_what_a_person_moves_beyond_the_bound_of_one_gradient_is_refused(change: Any) -> None:
    task = change(person_task())
    sent = task.encoding.shaping.length(task.encoding.dimension) + task.encoding.hidden
    longest = math.hypot(1.0, task.encoding.asks.quantile)
    task = encoded(task, noise=PERSON.noise(task.encoding.codec, longest, sent))
    with pytest.raises(TaskError, match="sensitivity"):
        guarded(PERSONS, PERSON).contribute(task)


def test_a_learner_that_lets_a_person_move_more_than_was_promised_is_refused() -> None:
    wide = replace(PERSONS, expected=10.0)
    with pytest.raises(TaskError, match="sensitivity"):
        guarded(wide, PERSON).contribute(person_task())


@pytest.mark.parametrize("rotate", [False, True])
def test_rotation_in_single_precision_is_within_the_sensitivity_of_a_person(rotate: bool) -> None:
    codec = Codec(clip=1.0, bits=26, weight_cap=1, clients=6)
    plan = replace(PRIVACY, sensitivity=1e-6, epsilon=1000.0)
    noise = plan.noise(codec, 1.0, 2, rotate=rotate)
    shaping = Shaping(norm=1.0, rotate=rotate)
    base = np.array([0.3, 0.4])
    turned = shaping.shape(base)[0]
    worst = 0.0
    for angle in np.linspace(0, 6.28, 200):
        near = shaping.shape(base + 1e-6 * np.array([np.cos(angle), np.sin(angle)]))[0]
        worst = max(worst, float(np.linalg.norm(near - turned)) * codec.levels / codec.clip)
    assert worst + math.sqrt(2) <= noise.sensitivity * (1 + 1e-6)


class Poisoned(LogisticRegression):
    """One kind of row has a gradient that is no number."""

    def gradient(self, parameters: Parameters, rows: Any) -> Parameters:
        found = super().gradient(parameters, rows)
        bad = {0: np.nan, 1: np.inf}.get(int(rows.features[0, 0]))
        return found if bad is None else {name: array + bad for name, array in found.items()}


def test_a_row_whose_gradient_is_no_number_counts_nothing_instead_of_silencing_the_site() -> None:
    learner = PersonClipped(model=Poisoned(1), clip=1.0, expected=2.0)
    features: NDArray[np.float64] = np.array([[0.0], [1.0], [2.0]])
    rows = Table(features, np.array([0, 1, 1]))
    whole = learner.gradient(learner.initial(), rows)
    rest = learner.gradient(learner.initial(), rows.take(np.array([2])))
    for name, array in whole.items():
        assert array.tobytes() == rest[name].tobytes()
        assert np.isfinite(array).all()


# --- what is written down ---


def test_nothing_that_is_printed_tells_an_update_or_the_seed_of_the_noise() -> None:
    secret = np.array([0.123456])
    update = Update(secret, 1.0, {"control": secret})
    printed = [
        repr(Contribution(secret, secret, 3)),
        repr(update),
        repr(SiteState(control=secret, residual=secret, personal={"a": secret}, update=("train 1", update))),
        repr(Site("a", make_table(3, 0), SCHEMA, LEARNER, 918273)),
    ]
    assert not any("0.123456" in text or "918273" in text for text in printed)
