"""What a site computes for statistics, and what is made of the sums; `test_queries` asks whole questions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.schema import Column, Schema
from fedcore.errors import DataError, TaskError
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from fedcore.statistics import sums as analytics
from tests.fedcore.rows import table_of
from tests.fedcore.sites import MIDDLE, SCHEMA, make_sites, make_task

SITE = make_sites()["site-2"]
TABLE = table_of(SITE)


def task_of(kind: TaskKind, **arrays: Any) -> Task:
    values: dict[str, Any] = {name: np.asarray(array, float) for name, array in arrays.items()}
    return make_task(kind, **values)


def part(task: Task) -> list[float]:
    return [float(value) for value in SITE.compute(task).coordinates]


def test_cumulative_shares_count_rows_at_the_edge() -> None:
    edges = np.array([[0.0, TABLE.features[3, 0], 100.0], [-5.0, 0.0, 5.0], [0.0, 1.0, 2.0]])
    found = part(task_of(TaskKind.CUMULATIVE, edges=edges))
    assert found == [float((TABLE.features[:, i] <= edge).mean()) for i in range(3) for edge in edges[i]]
    assert found[-3:] == [0.0, 1.0, 1.0]


def test_products_are_the_upper_triangle_in_units_of_the_ranges() -> None:
    found = part(task_of(TaskKind.COVARIANCE, mean=MIDDLE["mean"]))
    scaled = (TABLE.features - MIDDLE["mean"]) / (SCHEMA.high - SCHEMA.low)
    expected = [float((scaled[:, i] * scaled[:, j]).mean()) for i in range(3) for j in range(i, 3)]
    assert found == pytest.approx(expected)
    assert max(map(abs, found)) <= 1


def test_shares_are_of_features_and_of_the_label() -> None:
    cells = [[analytics.LABEL, 1], [2, 1], [2, 0], [0, TABLE.features[5, 0]], [analytics.LABEL, 7]]
    yes = float(TABLE.labels.mean())
    assert part(task_of(TaskKind.COUNT, cells=cells)) == [yes, 1.0, 0.0, 1 / len(TABLE), 0.0]


BAD = [
    (TaskKind.CUMULATIVE, {"edges": np.zeros((2, 3))}, "edges must be a matrix with a row per column"),
    (TaskKind.COVARIANCE, {"mean": np.zeros(2)}, "mean with one value per column is missing"),
    (TaskKind.COUNT, {"cells": np.zeros((2, 3))}, "cells must be pairs of column and value, have 3"),
    (TaskKind.COUNT, {"cells": [[3, 0]]}, "cells name column 3, there are 3"),
    (TaskKind.COUNT, {"cells": [[-2, 0]]}, "cells name column -2, there are 3"),
    (TaskKind.COUNT, {"cells": [[0.5, 0]]}, r"cells name column 0\.5, there are 3"),
    (TaskKind.COUNT, {"cells": [[-0.5, 0]]}, r"cells name column -0\.5, there are 3"),
    (TaskKind.COUNT, {"cells": [[1e30, 0]]}, "cells name column 1e"),
]


@pytest.mark.parametrize(("kind", "arrays", "reason"), BAD)
def test_a_statistic_that_is_badly_asked_for_is_refused(
    kind: TaskKind, arrays: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TaskError, match=reason):
        SITE.contribute(task_of(kind, **arrays))


def test_an_answer_is_as_long_as_was_asked() -> None:
    for kind, length in ((TaskKind.CUMULATIVE, 6), (TaskKind.COVARIANCE, 6), (TaskKind.COUNT, 2)):
        task = make_task(kind)
        assert task.encoding.dimension == length
        assert len(SITE.contribute(task)) == task.encoding.length == length + 1


def test_a_task_that_is_no_statistic_is_refused() -> None:
    with pytest.raises(TaskError, match=r"task\.kind: train is no statistic"):
        analytics.answer(make_task(TaskKind.TRAIN).question, SCHEMA)


@pytest.mark.parametrize("bins", [0, -1])
def test_edges_need_a_bin(bins: int) -> None:
    with pytest.raises(DataError, match=f"bins: must be at least 1, are {bins}"):
        analytics.edges_of(SCHEMA, bins)


@settings(max_examples=50)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 100))
def test_edges_go_from_bound_to_bound(low: float, width: float, bins: int) -> None:
    schema = Schema((Column("x", low, low + width),), ("a", "b"))
    (edges,) = analytics.edges_of(schema, bins)
    assert (edges[0], edges[-1], len(edges)) == (low, low + width, bins + 1)
    assert (np.diff(edges) >= 0).all()


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(0, 999))
def test_a_covariance_comes_back_whole_from_its_triangle(columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    schema = Schema(tuple(Column(f"c{i}", -1.0 - i, 2.0 + i) for i in range(columns)), ("a", "b"))
    rows = rng.uniform(schema.low, schema.high, (50, columns))
    scaled = (rows - rows.mean(axis=0)) / (schema.high - schema.low)
    triangle = (scaled.T @ scaled / 50)[np.triu_indices(columns)]
    found = analytics.to_covariance(triangle, schema)
    assert found == pytest.approx(np.cov(rows.T, bias=True).reshape(columns, columns))
    parts = analytics.principal_components(found, columns)
    assert (np.diff(parts.variances) <= 1e-12).all()
    assert (parts.components.T * parts.variances) @ parts.components == pytest.approx(found)


@pytest.mark.parametrize("count", [0, 4])
def test_there_are_as_many_components_as_columns(count: int) -> None:
    with pytest.raises(DataError, match=rf"count: must be in 1\.\.3, is {count}"):
        analytics.principal_components(np.eye(3), count)
