"""Parts of the parameters by name."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore.errors import TaskError
from fedcore.learner import Parameters
from fedcore.learners.select import merge, select, subset


def base() -> Parameters:
    return {"body.w": np.ones((2, 3)), "body.b": np.zeros(3), "head.w": np.full((3, 1), 2.0)}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["head.*"], {"head.w"}),
        (["*.w"], {"body.w", "head.w"}),
        (["body.?", "head.w"], {"body.w", "body.b", "head.w"}),
        (["body.[bw]", "body.b"], {"body.w", "body.b"}),
        ([], set()),
    ],
)
def test_patterns_choose_names(patterns: list[str], names: set[str]) -> None:
    assert select(base(), patterns) == names
    part = subset(base(), patterns)
    assert list(part) == [name for name in base() if name in names]
    assert all(np.array_equal(part[name], base()[name]) for name in part)


@pytest.mark.parametrize("pattern", ["tail.*", "HEAD.*", "head", ""])
def test_a_pattern_that_matches_nothing_is_refused_beside_one_that_does(pattern: str) -> None:
    with pytest.raises(TaskError, match="patterns: .* matches none of"):
        subset(base(), ["body.*", pattern])


def test_merging_a_subset_back_gives_the_base_and_shares_nothing() -> None:
    start = base()
    part = subset(start, ["head.*"])
    assert not np.shares_memory(part["head.w"], start["head.w"])
    part["head.w"] += 5
    after = merge(start, part)
    assert list(after) == list(start)
    assert (after["head.w"] == 7).all()
    assert (start["head.w"] == 2).all()
    assert not any(np.shares_memory(after[name], other[name]) for other in (start, part) for name in other)
    assert np.array_equal(after["body.w"], start["body.w"])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"tail": np.zeros(1)}, "part: tail is not among"),
        ({"body.b": np.zeros((3, 1))}, r"part: body.b must be of shape \(3,\), is \(3, 1\)"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(part: Parameters, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        merge(base(), part)
