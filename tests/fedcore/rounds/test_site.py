"""A site refuses what is not its own task, and its randomness repeats only when it was asked to.

The sites of this file serve the other tests of the package, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.errors import CodecError, FedcoreError, TaskError
from fedcore.learner import Learner, Parameters, flatten
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.statistics.standardizer import Standardizer, unit_deviations, unit_means

SCHEMA = Schema(
    (Column("age", 0.0, 100.0), Column("dose", -5.0, 5.0), Column("unit", 0.0, 1.0)), ("no", "yes")
)
LEARNER = LogisticRegressionLearner(features=3, classes=2, epochs=3, learning_rate=0.05)
KINDS = (TaskKind.MEAN, TaskKind.DEVIATION, TaskKind.TRAIN)  # the other kinds have tests of their own
MIDDLE = {"mean": np.array([50.0, 0.0, 0.5]), "deviation": np.array([20.0, 2.0, 0.0])}


def make_table(rows: int, seed: int) -> Table:
    """Rows within the bounds: old age and high doses say yes, `unit` is always 1."""
    rng = np.random.default_rng(seed)
    age, dose = rng.uniform(0, 100, rows), rng.uniform(-5, 5, rows)
    labels = (age / 20 + dose + rng.normal(size=rows) > 2.5).astype(np.int64)
    return Table(np.column_stack([age, dose, np.ones(rows)]), labels)


def make_sites(n: int = 5, seed: int | None = 7) -> dict[str, Site]:
    """Sites of 10, 17, 24, ... rows."""
    return {
        f"site-{i}": Site(f"site-{i}", make_table(10 + 7 * i, i), SCHEMA, LEARNER, seed) for i in range(n)
    }


def make_plan(**changes: float) -> TrainingPlan:
    values: dict[str, Any] = {"rounds": 4, "clients": 5, "weight_cap": 100}
    return TrainingPlan(**(values | changes))


def make_task(kind: TaskKind, plan: TrainingPlan | None = None, **changes: Any) -> Task:
    """A task as the federation would make it, with MIDDLE as the standardization."""
    arrays: dict[str, NDArray[np.float64]] = {}
    if kind is not TaskKind.MEAN:
        arrays["mean"] = MIDDLE["mean"]
    if kind is TaskKind.TRAIN:
        arrays["deviation"] = MIDDLE["deviation"]
        arrays |= {f"model.{name}": array for name, array in LEARNER.initial().items()}
    values: dict[str, Any] = {
        "kind": kind,
        "number": 1,
        "dimension": 4 if kind is TaskKind.TRAIN else 3,
        "codec": (plan or make_plan()).codec(kind),
        "columns": tuple((column.name, column.low, column.high) for column in SCHEMA.columns),
        "classes": SCHEMA.classes,
        "arrays": arrays,
    }
    return Task(**(values | changes))


@dataclass(frozen=True)
class FixedLearner:
    """Starts from zeros of `LEARNER`'s shapes and answers what it was told."""

    answer: Mapping[str, NDArray[np.float64]]

    def initial(self) -> Parameters:
        return LEARNER.initial()

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        return dict(self.answer)

    def evaluate(self, parameters: Parameters, table: Table) -> dict[str, float]:
        return {}


class FailingLearner(FixedLearner):
    """Fails as a library does, with an error of its own."""

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        raise ValueError("Floating-point under-/overflow occurred at epoch #1.")


def answering(coefficients: Any, intercepts: Any) -> FixedLearner:
    return FixedLearner(
        {"coefficients": np.array(coefficients, float), "intercepts": np.array(intercepts, float)}
    )


def site_with(learner: Learner[Any], table: Table | None = None) -> Site:
    return Site("odd", table or make_table(20, 0), SCHEMA, learner, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_contribution_decodes_to_what_the_site_computed(kind: TaskKind) -> None:
    plan, site, task = make_plan(clients=1), make_sites()["site-1"], make_task(kind, make_plan(clients=1))
    decoded = task.codec.decode(site.contribute(task), 1)
    if kind is TaskKind.MEAN:
        wanted = unit_means(site.table, SCHEMA)
    elif kind is TaskKind.DEVIATION:
        wanted = unit_deviations(site.table, SCHEMA, MIDDLE["mean"])
    else:  # learning is repeatable, but its seed is the site's: the same change comes out of the same site
        wanted = site.compute(task).coordinates
        assert np.abs(wanted).max() > 0.01
        learned = flatten(LEARNER.fit(LEARNER.initial(), Standardizer(**MIDDLE).apply(site.table), 0))
        assert wanted.shape == learned.shape
        assert np.sign(wanted[:2]).tolist() == np.sign(learned[:2]).tolist()
    bound = plan.codec(kind).error_bound(1, len(site.table))
    assert np.abs(decoded.mean - wanted).max() <= bound
    assert decoded.weight == len(site.table) == 17


@pytest.mark.parametrize("kind", KINDS)
def test_a_seeded_site_repeats_itself_and_another_seed_does_not(kind: TaskKind) -> None:
    one, again, other = (
        np.concatenate([site.contribute(make_task(kind)) for site in make_sites(seed=seed).values()])
        for seed in (3, 3, 4)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_seeded_site_rounds_and_trains_differently_in_every_round_and_from_its_neighbours() -> None:
    sites = make_sites()
    first, second = (make_task(TaskKind.TRAIN, number=number) for number in (1, 2))
    assert not np.array_equal(sites["site-0"].contribute(first), sites["site-0"].contribute(second))
    twin = Site("twin", sites["site-0"].table, SCHEMA, LEARNER, 7)
    assert not np.array_equal(sites["site-0"].contribute(first), twin.contribute(first))


def test_without_a_seed_every_rounding_is_fresh() -> None:
    task = make_task(TaskKind.MEAN)
    sites = make_sites(10, seed=None)
    one, two = (np.concatenate([site.contribute(task) for site in sites.values()]) for _ in range(2))
    assert not np.array_equal(one, two)
    assert np.abs(one.astype(np.int64) - two.astype(np.int64)).max() == 1


SWAPPED = (("dose", -5.0, 5.0), ("age", 0.0, 100.0), ("unit", 0.0, 1.0))
WIDER = (("age", 0.0, 101.0), ("dose", -5.0, 5.0), ("unit", 0.0, 1.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"columns": SWAPPED},
        {"columns": WIDER},
        {"columns": ()},
        {"classes": ("yes", "no")},
        {"classes": ("no",)},
    ],
)
def test_foreign_columns_bounds_and_classes_are_refused(kind: TaskKind, changes: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"task\.columns, task\.classes: not those of this site's schema"):
        make_sites()["site-0"].contribute(make_task(kind, **changes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimension", [0, 2, 5])
def test_another_dimension_is_refused(kind: TaskKind, dimension: int) -> None:
    with pytest.raises(TaskError, match=rf"task\.dimension: {dimension}, this site has [34] values"):
        make_sites()["site-0"].contribute(make_task(kind, dimension=dimension))


@pytest.mark.parametrize(
    ("kind", "missing"),
    [(TaskKind.DEVIATION, "mean"), (TaskKind.TRAIN, "mean"), (TaskKind.TRAIN, "deviation")],
)
@pytest.mark.parametrize("shape", [None, (2,), (4,), (3, 1), ()])
def test_an_array_that_is_missing_or_of_another_shape_is_refused(
    kind: TaskKind, missing: str, shape: tuple[int, ...] | None
) -> None:
    task = make_task(kind)
    arrays = {name: array for name, array in task.arrays.items() if name != missing}
    if shape is not None:
        arrays[missing] = np.ones(shape)
    with pytest.raises(TaskError, match=rf"task\.arrays: {missing} with one value per column is missing"):
        make_sites()["site-0"].contribute(replace(task, arrays=arrays))


@pytest.mark.parametrize(
    "changes",
    [
        {"model.coefficients": np.zeros((3, 1))},
        {"model.coefficients": np.zeros((1, 4))},
        {"model.intercepts": np.zeros(2)},
        {"model.more": np.zeros(1)},
    ],
)
def test_a_model_of_other_shapes_is_refused(changes: dict[str, NDArray[np.float64]]) -> None:
    task = make_task(TaskKind.TRAIN)
    with pytest.raises(TaskError, match=r"task\.model: not the shapes of this site's learner"):
        make_sites()["site-0"].contribute(replace(task, arrays=task.arrays | changes))


def test_a_model_without_one_of_its_arrays_is_refused() -> None:
    task = make_task(TaskKind.TRAIN)
    arrays = {name: array for name, array in task.arrays.items() if name != "model.intercepts"}
    with pytest.raises(TaskError, match=r"task\.model: not the shapes"):
        make_sites()["site-0"].contribute(replace(task, arrays=arrays))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    with pytest.raises(CodecError, match=r"update\[1\]: must be finite"):
        site_with(answering([[0.0, bad, 0.0]], [0.0])).contribute(make_task(TaskKind.TRAIN))


def test_more_rows_than_the_cap_are_refused() -> None:
    site = site_with(LEARNER, make_table(101, 0))
    for kind in KINDS:
        with pytest.raises(CodecError, match=r"weight: must be in 1\.\.100, is 101"):
            site.contribute(make_task(kind))


# A shape that numpy would broadcast, and some that it would not.
OTHER_SHAPES = [
    pytest.param(answering([0.5], []), id="one value"),
    pytest.param(answering([[0.5, 0.5]], [0.5]), id="too short"),
    pytest.param(answering([[0.5] * 5], [0.5]), id="too long"),
    pytest.param(FixedLearner({"coefficients": np.ones((1, 3))}), id="an array is missing"),
]


@pytest.mark.parametrize("learner", OTHER_SHAPES)
def test_an_update_of_other_shapes_is_refused(learner: FixedLearner) -> None:
    with pytest.raises(FedcoreError):
        site_with(learner).contribute(make_task(TaskKind.TRAIN))


@pytest.mark.parametrize("name", ["mean", "model.coefficients", "model.intercepts"])
def test_a_task_whose_arrays_are_not_finite_is_refused(name: str) -> None:
    task = make_task(TaskKind.TRAIN)
    arrays = task.arrays | {name: np.full_like(task.arrays[name], np.nan)}
    with pytest.raises(FedcoreError):
        make_sites()["site-0"].contribute(replace(task, arrays=arrays))


def test_the_rows_do_not_show_in_a_repr() -> None:
    assert "array" not in repr(make_sites()["site-0"])


def test_contributing_changes_neither_the_task_nor_the_rows() -> None:
    site, task = make_sites()["site-0"], make_task(TaskKind.TRAIN)
    before, rows = task.encode(), site.table.features.copy()
    PlainSum({"site-0": site}).sum(task)
    assert task.encode() == before
    assert np.array_equal(site.table.features, rows)
