"""Local heads stay at their sites, count only with the vector, and learn what no global model can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import SettingError, TaskError
from fedcore.evaluation.personal import Comparison, compare, fine_tune, personal_model, personal_models
from fedcore.learner import Parameters, flatten
from fedcore.learners import LocalSGD, Perceptron
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.names import matches
from fedcore.rounds.aggregation import GroupSum, PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind, Train
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState, restore_sites, sites_kept
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from fedcore.strategies import FedAvg
from tests.fedcore.rows import held_out_of
from tests.fedcore.sites import asked, encoded

HEAD = ("layer1*",)  # the last layer
LEARNER = LocalSGD(model=Perceptron(features=2, classes=4, hidden=(16,)), epochs=2, rate=0.2)
SCHEMA = Schema((Column("x", -8.0, 8.0), Column("y", -8.0, 8.0)), tuple("abcd"))
CORNERS = np.array([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
FEDPER = FedAvg(ask=Asks(personal=HEAD))


def corners(rows: int, seed: int, names: np.ndarray) -> Table:
    """Four clouds; what a cloud is called differs from site to site."""
    rng = np.random.default_rng(seed)
    cloud = rng.integers(0, 4, rows)
    features = np.clip(CORNERS[cloud] + rng.normal(size=(rows, 2)) * 0.6, -8, 8)
    return Table(features, names[cloud])


def make_sites(n: int = 4, learner: Any = LEARNER) -> dict[str, Site]:
    """Sites that call the clouds by names shifted by one each."""
    sites = {}
    for i in range(n):
        names = np.roll(np.arange(4), i)
        held_out = corners(60, 100 + i, names)
        sites[f"site-{i}"] = Site(f"site-{i}", corners(80, i, names), SCHEMA, learner, 3, held_out=held_out)
    return sites


def drive(
    sites: dict[str, Site],
    strategy: FedAvg = FEDPER,
    rounds: int = 12,
    absent: dict[str, frozenset[str]] | None = None,
    secure: bool = False,
    **changes: Any,
) -> Federation:
    plan = TrainingPlan(rounds=rounds, clients=len(sites), weight_cap=1000, clip=4.0, **changes)
    aggregator = (SecureSum if secure else PlainSum)(sites, absent or {})
    return Federation(aggregator, SCHEMA, LEARNER, plan, strategy)


def head_of(parameters: Parameters) -> np.ndarray:
    return flatten({name: array for name, array in parameters.items() if matches(name, HEAD)})


def test_sites_that_name_things_differently_learn_with_local_heads_what_no_global_model_can() -> None:
    ordinary = drive(make_sites(), FedAvg()).run()
    common = compare(ordinary, make_sites(), seed=1, rounds=0)
    assert common.shared == common.personal
    assert Comparison.mean(common.shared) < 0.45
    sites = make_sites()
    trained = drive(sites).run()
    found = compare(trained, sites, seed=1)
    assert Comparison.worst(found.personal) > 0.9
    assert Comparison.mean(found.shared) < 0.45
    assert set(found.personal) == set(sites)
    assert trained.parameters.keys() == {"layer0.weights", "layer0.biases"}


class Watching(PlainSum):
    """Remembers the tasks."""

    seen: list[Task]

    def sum(self, task: Task, among: Any = None) -> GroupSum:
        self.seen.append(task)
        return super().sum(task, among)


def test_personal_parameters_are_in_no_task_and_no_vector() -> None:
    sites = make_sites()
    aggregator = Watching(sites)
    aggregator.seen = []
    federation = drive(sites, rounds=3, evaluate_every=1)
    federation.aggregator = aggregator
    federation.run()
    kinds = {task.kind for task in aggregator.seen}
    assert {TaskKind.TRAIN, TaskKind.EVALUATE} <= kinds
    body = sum(a.size for name, a in LEARNER.initial().items() if not matches(name, HEAD))
    for task in aggregator.seen:
        arrays = task.question.arrays()
        assert not [name for name in arrays if matches(name.removeprefix("model."), HEAD)]
        assert LEARNER.initial()["layer1.weights"].size not in {array.size for array in arrays.values()}
        if task.kind is TaskKind.TRAIN:
            assert task.encoding.dimension == body == 48
            for site in sites.values():
                assert len(site.contribute(task)) == task.encoding.codec.length(body)
                assert len(site.compute(task).coordinates) == body


TERMS = Terms.of(TrainingPlan(rounds=9, clients=4), FEDPER, LEARNER, SCHEMA)


def train_task(number: int) -> Task:
    model = {name: array for name, array in LEARNER.initial().items() if not matches(name, HEAD)}
    return TERMS.task(Train(number=number, model=model))


def test_a_head_becomes_the_sites_only_when_its_vector_counted() -> None:
    first = train_task(1)
    for counted, kept in (
        (("train 1", ("site-0", "site-1")), True),
        (None, False),  # dropped out
        (("train 2", ("site-0", "site-1")), False),  # another round's sum
    ):
        site = make_sites()["site-0"]
        once = site.contribute(first)
        assert site.state.pending is not None
        learned = site.state.pending[1]["personal"]
        assert np.array_equal(site.contribute(first), once)  # tried again, from the same head
        assert site.state.personal == {}
        if counted is not None:
            site.state.count(*counted)
        assert bool(site.state.own()) is kept
        site.contribute(train_task(3))  # not drawn for round 2
        assert bool(site.state.personal) is kept
        if kept:
            assert np.array_equal(head_of(site.state.personal), head_of(learned))


def test_a_site_that_dropped_out_keeps_the_head_it_had() -> None:
    def heads(absent: dict[str, frozenset[str]], rounds: int) -> dict[str, np.ndarray]:
        sites = make_sites()
        model = drive(sites, rounds=rounds, absent=absent).run()
        return {name: head_of(own) for name, own in personal_models(model, sites).items()}

    gone = {"train 3": frozenset({"site-1"})}
    before, after = heads({}, 2), heads(gone, 3)
    assert np.array_equal(before["site-1"], after["site-1"])
    assert not np.array_equal(before["site-0"], after["site-0"])
    never = {f"train {i}": frozenset({"site-2"}) for i in range(1, 4)}
    assert np.array_equal(heads(never, 3)["site-2"], head_of(LEARNER.initial()))


def test_heads_count_also_where_a_site_is_not_in_every_cohort() -> None:
    sites = make_sites(6)
    trained: dict[str, int] = dict.fromkeys(sites, 0)

    class Counting(PlainSum):
        def sum(self, task: Task, among: Any = None) -> GroupSum:
            out = super().sum(task, among)
            if task.kind is TaskKind.TRAIN:
                for name in out.survivors:
                    trained[name] += 1
            return out

    federation = drive(sites, rounds=36, cohort=2)
    federation.aggregator = Counting(sites)
    model = federation.run()
    assert sum(trained.values()) == 72
    assert min(trained.values()) >= 4
    found = compare(model, sites, seed=1, rounds=0)
    assert Comparison.worst(found.personal) > 0.85
    assert all(site.state.own() for site in sites.values())


@pytest.mark.parametrize("secure", [False, True])
def test_evaluation_uses_each_sites_own_head(secure: bool) -> None:
    sites = make_sites()
    federation = drive(sites, rounds=8, secure=secure)
    model = federation.run()
    own = personal_models(model, sites)
    hits = 0
    for name, site in sites.items():
        held_out = model.standardizer.apply(held_out_of(site))
        hits += int((LEARNER.scores(own[name], held_out).argmax(axis=1) == held_out.labels).sum())
    found = federation.evaluate(model.parameters, model.standardizer, 8)
    assert np.trace(found.confusion) == hits
    assert found.metrics["accuracy"] > 0.9
    spread = federation.evaluate_sites(model.parameters, model.standardizer, 8)
    assert spread.worst > 0.85
    # Sites have gone on; the models are the same still.
    again = personal_models(model, sites)
    assert all(np.array_equal(flatten(own[name]), flatten(again[name])) for name in sites)


def test_a_run_that_is_resumed_ends_with_the_same_heads(tmp_path: Any) -> None:
    sites = make_sites(5)
    whole = drive(sites, rounds=6, cohort=3).run()
    expected = personal_models(whole, sites)
    first = make_sites(5)
    saved: list[RunState] = []
    federation = drive(first, rounds=3, cohort=3)
    federation.on_checkpoint = saved.append
    federation.run()
    replace(saved[-1], sites=sites_kept(first)).save(tmp_path / "c.npz")
    second, checkpoint = make_sites(5), RunState.load(tmp_path / "c.npz")
    assert any("counted" in kept for kept in checkpoint.sites.values())
    restore_sites(second, checkpoint.sites)
    found = personal_models(drive(second, rounds=6, cohort=3).run(checkpoint), second)
    for name, parameters in expected.items():
        assert np.array_equal(flatten(found[name]), flatten(parameters))


def test_a_gradient_leaves_no_personal_head() -> None:
    task = encoded(train_task(1), asks=Asks(personal=HEAD, update=UpdateKind.GRADIENT))
    with pytest.raises(TaskError, match="gradients train nothing that stays at the site"):
        make_sites()["site-0"].contribute(task)


def test_a_task_with_the_personal_parameters_in_it_or_others_missing_is_refused() -> None:
    task, site = train_task(1), make_sites()["site-0"]
    with pytest.raises(TaskError, match=r"task\.model: .*names are missing"):
        site.contribute(asked(task, model=LEARNER.initial()))
    with pytest.raises(TaskError, match=r"task\.model: .*names are missing"):
        site.contribute(encoded(task, asks=Asks()))


def test_fine_tuning_moves_only_what_it_may_and_leaves_its_start_alone() -> None:
    rows, start = corners(80, 0, np.array([1, 2, 3, 0])), LEARNER.initial()
    before = flatten(start).copy()
    tuned = fine_tune(LEARNER, start, rows, 1, rounds=10, only=HEAD)
    assert np.array_equal(flatten(start), before)
    assert np.array_equal(tuned["layer0.weights"], start["layer0.weights"])
    assert not np.array_equal(head_of(tuned), head_of(start))
    assert LEARNER.evaluate(tuned, rows)["accuracy"] > LEARNER.evaluate(start, rows)["accuracy"] + 0.2
    assert np.array_equal(flatten(fine_tune(LEARNER, start, rows, 1, rounds=0)), before)
    moved = [flatten(fine_tune(LEARNER, start, rows, 1, rate=rate)) - before for rate in (0.01, 1.0)]
    assert 0 < np.linalg.norm(moved[0]) < np.linalg.norm(moved[1]) / 10
    again = [flatten(fine_tune(LEARNER, start, rows, seed, rounds=2)) for seed in (4, 4, 5)]
    assert np.array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2])


def test_fine_tuning_says_what_it_cannot_do() -> None:
    plain = LogisticRegressionLearner(features=2, classes=4)
    rows = corners(20, 0, np.arange(4))
    tuned = fine_tune(plain, plain.initial(), rows, 0, rounds=2)
    assert not np.array_equal(tuned["coefficients"], plain.initial()["coefficients"])
    with pytest.raises(TaskError, match="only, rate: LogisticRegressionLearner cannot be steered"):
        fine_tune(plain, plain.initial(), rows, 0, only=("coef*",))
    with pytest.raises(SettingError, match=r"only: 'other\*' fits none of"):
        fine_tune(LEARNER, LEARNER.initial(), rows, 0, only=("other*",))
    with pytest.raises(TaskError, match="rounds: must be at least 0, are -1"):
        fine_tune(LEARNER, LEARNER.initial(), rows, 0, rounds=-1)


def test_a_comparison_evaluates_every_kind_of_model_at_every_site() -> None:
    sites = make_sites()
    model = drive(sites, FedAvg(), rounds=6).run()
    found = compare(model, sites, seed=2, rounds=6)
    assert Comparison.mean(found.fine_tuned) > Comparison.mean(found.shared) + 0.3
    assert Comparison.mean(found.local) > 0.85
    for name, site in sites.items():
        held_out = model.standardizer.apply(held_out_of(site))
        assert found.shared[name] == LEARNER.evaluate(model.parameters, held_out)["accuracy"]
    table = found.table()
    assert table["local"] == (Comparison.mean(found.local), min(found.local.values()))
    assert table["shared"][0] == pytest.approx(np.mean(list(found.shared.values())))
    losses = compare(model, sites, seed=2, rounds=0, local_rounds=0, metric="log_loss")
    assert losses.fine_tuned == losses.personal
    pooled = join_tables([model.standardizer.apply(held_out_of(site)) for site in sites.values()])
    start = LEARNER.evaluate(LEARNER.initial(), pooled)["log_loss"]
    assert Comparison.mean(losses.local) == pytest.approx(start)
    with pytest.raises(TaskError, match="metric: must be one of .*'speed'"):
        compare(model, sites, seed=2, metric="speed")
    with pytest.raises(TaskError, match="sites: there are none"):
        compare(model, {}, seed=2)
    assert Comparison.worst({"a": 0.5, "b": float("nan")}) == 0.5


def test_a_model_of_another_learner_is_refused() -> None:
    model = RunState.of(3, {"other": np.zeros(1)})
    with pytest.raises(TaskError, match="site-0: its learner has no other"):
        personal_model(model, make_sites()["site-0"])
