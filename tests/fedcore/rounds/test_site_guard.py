"""A site that has a privacy plan of its own: the server's word about the noise does not count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedcore.errors import TaskError
from fedcore.learners import LocalSGD, LogisticRegression
from fedcore.privacy.accounting import BudgetExceededError, Mechanism
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Evaluate, Mean, TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg
from tests.fedcore.sites import SCHEMA, asked, encoded, make_table, model_of

LEARNER = LocalSGD(model=LogisticRegression(3), rate=0.1)
PRIVACY = PrivacyPlan(epsilon=20.0, delta=1e-3, rounds=3, smallest=4, colluders=1)
PLAN = TrainingPlan(rounds=3, clients=6, bits=16, norm=1.0, privacy=PRIVACY)


def make_sites(plan: PrivacyPlan | None = PRIVACY) -> dict[str, Site]:
    return {
        name: Site(
            *(name, make_table(20 + i, i), SCHEMA, LEARNER, 5),
            guard=None if plan is None else PrivacyGuard(plan),
        )
        for i, name in enumerate(("a", "b", "c", "d", "e", "f"))
    }


def tasks_of(plan: TrainingPlan) -> list[Task]:
    records: list[RoundRecord] = []
    Federation(PlainSum(make_sites(None)), SCHEMA, LEARNER, plan, on_round=records.append).run()
    return [record.task for record in records]


def test_an_honest_run_of_the_agreed_plan_is_served_to_its_end_and_costs_the_site_its_budget() -> None:
    sites = make_sites()
    model = Federation(PlainSum(sites), SCHEMA, LEARNER, PLAN).run()
    assert model.number == 3
    for site in sites.values():
        assert site.guard is not None
        assert site.guard.accountant.rounds == 3
        assert 0.9 * PRIVACY.epsilon < site.guard.accountant.epsilon <= PRIVACY.epsilon


def test_a_fourth_round_is_refused_by_the_sites_own_account() -> None:
    site = make_sites()["a"]
    first = tasks_of(PLAN)[0]
    for number in (1, 2, 3):
        site.contribute(asked(first, number=number))
    with pytest.raises(BudgetExceededError):
        site.contribute(asked(first, number=4))


def weaker(task: Task, **changes: Any) -> Task:
    assert task.encoding.noise is not None
    return encoded(task, noise=replace(task.encoding.noise, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: encoded(t, noise=None), "train 1 has none"),
        (lambda t: weaker(t, variance=t.encoding.noise.variance / 2), "variance must be .* or more"),
        (lambda t: weaker(t, variance=0.0), "variance must be"),
        (lambda t: weaker(t, norm=t.encoding.noise.norm * 2), "within the norm"),
        (lambda t: weaker(t, smallest=3), "for 4 survivors or more"),
        (lambda t: weaker(t, mechanism=Mechanism.DISCRETE_GAUSSIAN), "must be skellam"),
        (lambda t: encoded(t, shaping=replace(t.encoding.shaping, norm=None)), "train 1 has none"),
        (
            lambda t: encoded(t, shaping=replace(t.encoding.shaping, norm=50.0)),
            "task.shaping.norm, task.codec.clip: ",
        ),
        (lambda t: encoded(t, codec=replace(t.encoding.codec, weight_cap=100)), "must be uniform"),
        (lambda t: encoded(t, asks=Asks(weighting=Weighting.ROWS)), "must be uniform"),
        (lambda t: asked(t, again=1), "has no update of train 1"),
        (lambda t: encoded(t, asks=replace(t.encoding.asks, normalized=True)), "one noisy vector a round"),
        (lambda t: replace(t, question=Evaluate(model=model_of(t))), "evaluate 1 has none"),
        (lambda t: replace(t, question=Mean()), "mean 1 has none"),
    ],
)
def test_a_task_that_gives_less_than_the_sites_own_plan_is_refused_and_costs_nothing(
    change: Any, message: str
) -> None:
    site = make_sites()["a"]
    with pytest.raises(TaskError, match=message):
        site.contribute(change(tasks_of(PLAN)[0]))
    assert site.guard is not None
    assert site.guard.accountant.rounds == 0


def test_a_second_pass_over_a_noisy_vector_is_refused() -> None:
    task = tasks_of(PLAN)[0]
    with pytest.raises(TaskError, match="one noisy vector a round"):
        PrivacyGuard(PRIVACY).demand(asked(task, again=1))


def test_with_privacy_rows_are_standardized_by_public_bounds_and_no_statistics_are_asked() -> None:
    tasks = tasks_of(PLAN)
    assert [task.kind for task in tasks] == [TaskKind.TRAIN] * 3
    arrays = tasks[0].question.arrays()
    assert arrays["mean"].tolist() == [50.0, 0.0, 0.5]
    assert arrays["deviation"].tolist() == [25.0, 2.5, 0.25]


def test_privacy_and_federated_evaluation_exclude_each_other() -> None:
    plan = replace(PLAN, evaluate_every=1)
    with pytest.raises(TaskError, match="federated evaluation adds no noise"):
        Federation(PlainSum(make_sites()), SCHEMA, LEARNER, plan, FedAvg()).run()
    given = Federation(
        PlainSum(make_sites()), SCHEMA, LEARNER, plan, evaluator=lambda _p, _s: {"accuracy": 0.5}
    ).run()
    assert given.evaluations == {n: {"accuracy": 0.5} for n in (1, 2, 3)}


def test_what_one_person_adds_is_bounded_and_so_is_the_noise_for_it() -> None:
    whole, one = (
        Federation(PlainSum(make_sites(None)), SCHEMA, LEARNER, replace(PLAN, rounds=1, privacy=privacy))
        for privacy in (PRIVACY, replace(PRIVACY, sensitivity=0.05))
    )
    records: list[RoundRecord] = []
    for federation in (whole, one):
        federation.on_round = records.append
        federation.run()
    noises = [record.task.encoding.noise for record in records]
    assert noises[0] is not None
    assert noises[1] is not None
    scale = records[0].task.encoding.codec.levels / records[0].task.encoding.codec.clip
    assert noises[1].sensitivity == pytest.approx(0.05 * scale + np.sqrt(4))
    assert noises[1].variance < noises[0].variance / 300
