"""A site refuses what is not its own task, and its randomness repeats only when it was asked to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.codec.shaping import Shaping
from fedcore.data.schema import Column, Schema
from fedcore.errors import TaskError
from fedcore.learner import flatten
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.instructions import Asks
from fedcore.rounds.questions import STATISTICS, TaskKind
from fedcore.rounds.site import Site, whole
from fedcore.statistics.standardizer import Standardizer, unit_deviations, unit_means
from tests.fedcore.rows import table_of
from tests.fedcore.sites import (
    KINDS,
    LEARNER,
    MIDDLE,
    SCHEMA,
    asked,
    encoded,
    make_plan,
    make_question,
    make_sites,
    make_table,
    make_task,
    make_terms,
    model_of,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_contribution_decodes_to_what_the_site_computed(kind: TaskKind) -> None:
    plan, site, task = make_plan(clients=1), make_sites()["site-1"], make_task(kind, make_plan(clients=1))
    decoded = task.encoding.codec.decode(site.contribute(task), 1)
    if kind is TaskKind.MEAN:
        wanted: NDArray[np.floating[Any]] = unit_means(table_of(site), SCHEMA)
    elif kind is TaskKind.DEVIATION:
        wanted = unit_deviations(table_of(site), SCHEMA, MIDDLE["mean"])
    else:  # learning is repeatable, but its seed is the site's: the same change comes out of the same site
        wanted = site.compute(task).coordinates
        assert np.abs(wanted).max() > 0.01
        learned = flatten(LEARNER.fit(LEARNER.initial(), Standardizer(**MIDDLE).apply(table_of(site)), 0))
        assert wanted.shape == learned.shape
        assert np.sign(wanted[:2]).tolist() == np.sign(learned[:2]).tolist()
    bound = plan.codec(kind).error_bound(1, len(site.table))
    assert np.abs(decoded.mean - wanted).max() <= bound
    assert decoded.weight == len(site.table) == 17


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_the_contribution_as_it_is_read(kind: TaskKind) -> None:
    one, other = make_sites(), make_sites()
    task = make_task(kind)
    read = whole(one["site-1"].answer(task), task)
    assert read.tolist() == other["site-1"].contribute(task).tolist()
    assert whole(read, task) is read


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


SWAPPED = Schema(
    (Column("dose", -5.0, 5.0), Column("age", 0.0, 100.0), Column("unit", 0.0, 1.0)), SCHEMA.classes
)
WIDER = Schema(
    (Column("age", 0.0, 101.0), Column("dose", -5.0, 5.0), Column("unit", 0.0, 1.0)), SCHEMA.classes
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"schema": SWAPPED},
        {"schema": WIDER},
        {"schema": None},
        {"schema": replace(SCHEMA, classes=("yes", "no"))},
        {"classes": ("yes", "no")},
        {"classes": ("no",)},
    ],
)
def test_foreign_columns_bounds_and_classes_are_refused(kind: TaskKind, changes: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"task: its schema and classes are not those of this site"):
        make_sites()["site-0"].contribute(encoded(make_task(kind), **changes))


@pytest.mark.parametrize("dimension", [0, 2, 5])
def test_another_dimension_is_refused(dimension: int) -> None:
    with pytest.raises(TaskError, match=rf"task\.dimension: {dimension}, this site has 4 parameters"):
        make_sites()["site-0"].contribute(encoded(make_task(TaskKind.TRAIN), dimension=dimension))


@pytest.mark.parametrize("kind", [TaskKind.DEVIATION, TaskKind.COVARIANCE])
@pytest.mark.parametrize("shape", [(0,), (2,), (4,)])
def test_a_mean_of_another_shape_is_refused(kind: TaskKind, shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError, match=r"task\.arrays: mean with one value per column is missing"):
        make_sites()["site-0"].contribute(make_task(kind, mean=np.ones(shape)))


@pytest.mark.parametrize("name", ["mean", "deviation"])
@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (1,)])
def test_a_standardizer_of_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    odd = Standardizer(**(MIDDLE | {name: np.ones(shape)}))
    with pytest.raises(TaskError, match=r"task\.arrays: mean, deviation must have one value per column"):
        make_sites()["site-0"].contribute(make_task(TaskKind.TRAIN, standardizer=odd))


@pytest.mark.parametrize(
    "changes",
    [
        {"coefficients": np.zeros((3, 1))},
        {"coefficients": np.zeros((1, 4))},
        {"intercepts": np.zeros(2)},
        {"more": np.zeros(1)},
    ],
)
def test_a_model_of_other_shapes_is_refused(changes: dict[str, NDArray[np.float64]]) -> None:
    task = make_task(TaskKind.TRAIN)
    with pytest.raises(TaskError, match=r"task\.model: not the shapes of this site's learner"):
        make_sites()["site-0"].contribute(asked(task, model=model_of(task) | changes))


def test_a_model_without_one_of_its_arrays_is_refused() -> None:
    model = {name: array for name, array in LEARNER.initial().items() if name != "intercepts"}
    with pytest.raises(TaskError, match=r"task\.model: not the shapes"):
        make_sites()["site-0"].contribute(make_task(TaskKind.TRAIN, model=model))


@pytest.mark.parametrize("kind", [*sorted(STATISTICS), TaskKind.EVALUATE, TaskKind.SITES])
def test_what_shapes_updates_is_refused_for_what_is_none(kind: TaskKind) -> None:
    with pytest.raises(TaskError, match=f"{kind} has none"):
        make_sites()["site-0"].contribute(encoded(make_task(kind), shaping=Shaping(keep=0.5)))


def test_statistics_need_a_schema_and_a_table() -> None:
    bare = Site("bare", make_table(5, 0), None, LEARNER, 1)
    for kind in sorted(STATISTICS):
        with pytest.raises(TaskError, match="bare: statistics need a schema"):
            bare.contribute(encoded(make_task(kind), schema=None))
        with pytest.raises(TaskError, match="site-0: statistics need a table, not a list"):
            replace(make_sites()["site-0"], table=[1, 2]).contribute(make_task(kind))
    with pytest.raises(TaskError, match="site-0: only tables can be standardized"):
        replace(make_sites()["site-0"], table=[1, 2]).contribute(make_task(TaskKind.TRAIN))


def test_a_later_pass_without_a_first_is_refused() -> None:
    terms, site = make_terms(asks=Asks(smoothing=0.1), passes=1), make_sites()["site-0"]
    task = terms.task(make_question(TaskKind.TRAIN))
    again = asked(task, again=1, center=np.zeros(4))
    with pytest.raises(TaskError, match=r"task\.again: site-0 has no update of train 1"):
        site.contribute(again)
    site.contribute(task)
    for center in (None, np.zeros(3)):
        with pytest.raises(TaskError, match=r"task\.arrays: center with 4 values is missing"):
            site.contribute(asked(again, center=center))
    with pytest.raises(TaskError, match=r"task\.again: site-0 has no update of train 2"):
        site.contribute(asked(again, number=2))


def test_the_rows_do_not_show_in_a_repr() -> None:
    assert "array" not in repr(make_sites()["site-0"])


def test_contributing_changes_neither_the_task_nor_the_rows() -> None:
    site, task = make_sites()["site-0"], make_task(TaskKind.TRAIN)
    before, rows = task.encode(), table_of(site).features.copy()
    PlainSum({"site-0": site}).sum(task)
    assert task.encode() == before
    assert np.array_equal(table_of(site).features, rows)
