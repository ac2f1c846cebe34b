from __future__ import annotations

import numpy as np
import pytest

from fedcore.data.table import Table
from fedcore.errors import SettingError
from fedcore.learner import Metrics, Parameters
from fedcore.phones import FedBuff, Phone, Run, buffered, crowd, synchronous
from fedcore.rounds.instructions import Asks
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Train
from fedcore.rounds.site import Site
from fedcore.rounds.terms import Terms
from fedcore.statistics.standardizer import Standardizer
from tests.fedcore.sites import MIDDLE, make_table

STANDARD = Standardizer(**MIDDLE)
PHONES = 40


class Towards:
    """Moves a fifth of the way from where it is to the mean of its rows."""

    def initial(self) -> Parameters:
        return {"place": np.full(3, 0.9)}

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        place = parameters["place"]
        return {"place": place + 0.2 * (table.features.mean(axis=0) - place)}

    def evaluate(self, parameters: Parameters, table: Table) -> Metrics:
        return {}


LEARNER = Towards()
ROWS = [STANDARD.apply(make_table(12 + i % 7, i)) for i in range(PHONES)]
MIDDLE_OF_ALL = np.concatenate([rows.features for rows in ROWS]).mean(axis=0)


def phones(**options: float) -> tuple[Phone, ...]:
    sites = [Site(f"phone-{i}", rows, None, LEARNER, seed=i) for i, rows in enumerate(ROWS)]
    return crowd(sites, seed=3, between=1.2, **options)


def terms(goal: int, sums: int) -> Terms:
    plan = TrainingPlan(clients=goal, rounds=sums, weight_cap=100, standardize=False)
    return Terms(plan=plan, asks=Asks(), passes=0, schema=None, classes=("no", "yes"), size=3)


def near(parameters: Parameters) -> Metrics:
    return {"near": -float(np.abs(parameters["place"] - MIDDLE_OF_ALL).max())}


def test_the_buffered_run_beats_the_synchronous_one_by_the_clock() -> None:
    settings, sums = FedBuff(goal=8), 14
    fast = buffered(phones(), terms(8, sums), LEARNER.initial(), near, settings, concurrency=20, sums=sums)
    slow = synchronous(phones(), terms(8, sums), LEARNER.initial(), near, settings, asked=10, sums=sums)
    assert len(fast.moments) == len(slow.moments) == sums
    assert fast.seconds_to("near", -0.3) < 0.5 * slow.seconds_to("near", -0.3) < float("inf")
    assert fast.seconds_to("near", 1.0) == float("inf")
    assert max(moment.behind for moment in fast.moments) > 0
    assert all(moment.behind == 0 for moment in slow.moments)
    assert fast.vanished > 0 < slow.vanished


def test_a_run_follows_from_its_seed_but_for_rounding() -> None:
    settings = FedBuff(goal=6, versions=3, staleness=1.0)

    def run() -> Run:
        return buffered(
            phones(vanishes=0.2),
            terms(6, 5),
            LEARNER.initial(),
            near,
            settings,
            concurrency=15,
            sums=5,
            seed=4,
        )

    one, again = run(), run()
    for name, array in one.parameters.items():
        assert np.allclose(array, again.parameters[name], atol=1e-5)
    assert [moment.seconds for moment in one.moments] == [moment.seconds for moment in again.moments]


def test_updates_about_models_of_few_are_left_out_and_counted() -> None:
    settings = FedBuff(goal=6, versions=6, smallest=4)
    run = buffered(phones(), terms(6, 12), LEARNER.initial(), near, settings, concurrency=24, sums=12, seed=1)
    assert sum(moment.left_out for moment in run.moments) > 0
    assert all(moment.uploads + moment.left_out == 6 for moment in run.moments)
    lost = [moment for moment in run.moments if moment.reason]
    assert all(moment.uploads == 0 and "uploads, at least" in moment.reason for moment in lost)


def test_who_is_too_late_is_counted() -> None:
    settings = FedBuff(goal=4, versions=1)
    run = buffered(phones(), terms(4, 8), LEARNER.initial(), near, settings, concurrency=30, sums=8, seed=2)
    assert run.late > 0
    assert all(moment.behind == 0 for moment in run.moments)


@pytest.mark.parametrize(
    ("behind", "exponent", "factor"), [(0, 0.5, 1.0), (3, 0.5, 0.5), (1, 1.0, 0.5), (9, 0, 1)]
)
def test_stale_updates_weigh_less(behind: int, exponent: float, factor: float) -> None:
    assert FedBuff(staleness=exponent).fade(behind) == pytest.approx(factor)


def test_a_faded_answer_weighs_less_and_says_the_same() -> None:
    site = Site("one", STANDARD.apply(make_table(30, 1)), None, LEARNER, seed=1)
    task = terms(5, 1).task(Train(model=LEARNER.initial()))
    codec = task.encoding.codec
    means = {}
    for fade in (1.0, 0.5, 1e-9):
        vector = np.empty(task.encoding.length, np.uint64).astype(np.uint32)
        site.faded_answer(task, fade).read(0, vector)  # type: ignore[union-attr]
        means[fade] = codec.decode(vector, 1)
    assert [mean.weight for mean in means.values()] == [30, 15, 1]
    assert np.allclose(means[1.0].mean, means[0.5].mean, atol=1e-3)
    for fade in (0.0, 1.1, -1.0):
        with pytest.raises(SettingError, match=r"fade: must be in \(0, 1\]"):
            site.faded_answer(task, fade)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goal": 2}, "goal: must be at least 3, is 2"),
        ({"smallest": 11}, "smallest: must be at most goal = 10, is 11"),
        ({"versions": 17}, r"versions: must be in 1..16, is 17"),
        ({"staleness": -1}, "staleness: must be at least 0"),
        ({"server_rate": 0}, "server_rate: must be"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        FedBuff(**changes)  # type: ignore[arg-type]


def test_too_few_phones_are_refused() -> None:
    def run(simulate: object, **options: int) -> Run:
        given = (phones(), terms(10, 1), LEARNER.initial(), near, FedBuff())
        return simulate(*given, sums=1, **options)  # type: ignore[operator,no-any-return]

    for concurrency in (9, 41):
        with pytest.raises(SettingError, match=r"concurrency: must be in 10..40"):
            run(buffered, concurrency=concurrency)
        with pytest.raises(SettingError, match=r"asked: must be in 10..40"):
            run(synchronous, asked=concurrency)
    with pytest.raises(SettingError, match=r"vanishes: must be in \[0, 1\)"):
        phones(vanishes=1.0)


@pytest.mark.parametrize("seed", range(6))
def test_synchronous_rounds_go_on_when_too_few_upload(seed: int) -> None:
    """Who uploaded about a model in vain is not asked about it again; nobody's vector is told twice."""
    settings = FedBuff(goal=5)
    run = synchronous(
        phones(vanishes=0.7),
        terms(5, 8),
        LEARNER.initial(),
        near,
        settings,
        asked=6,
        sums=8,
        seed=seed,
    )
    assert len(run.moments) == 8
    assert any("at least 3 are needed" in moment.reason for moment in run.moments) or run.vanished
    assert run.moments[-1].version == sum(not moment.reason for moment in run.moments)


def test_rounds_in_which_nobody_uploads_say_so() -> None:
    few = phones(vanishes=0.99)[:6]
    run = synchronous(few, terms(3, 5), LEARNER.initial(), near, FedBuff(goal=3), asked=3, sums=5, seed=1)
    assert "nobody uploaded" in {moment.reason for moment in run.moments}


def test_a_buffer_fills_though_most_phones_vanish() -> None:
    run = buffered(
        phones(vanishes=0.7),
        terms(10, 6),
        LEARNER.initial(),
        near,
        FedBuff(goal=10),
        concurrency=20,
        sums=6,
    )
    assert len(run.moments) == 6
    assert run.vanished > 60
    assert 0 <= run.waiting < 20


def test_terms_for_fewer_than_the_goal_and_times_that_are_none_are_refused() -> None:
    given = (phones(), terms(5, 3), LEARNER.initial(), near, FedBuff(goal=10))
    with pytest.raises(SettingError, match=r"plan.clients: must be at least goal = 10, .* is 5"):
        buffered(*given, concurrency=20, sums=3)
    right = (phones(), terms(10, 3), LEARNER.initial(), near, FedBuff(goal=10))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="open_s"):
            buffered(*right, concurrency=20, sums=3, open_s=wrong)
        with pytest.raises(SettingError, match="open_s"):
            synchronous(*right, asked=12, sums=3, open_s=wrong)
