"""Parameters as one vector and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import TaskError
from fedcore.learner import Parameters, flatten, unflatten

SHAPES = st.dictionaries(
    st.text(min_size=1, max_size=5), st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4
)


@settings(deadline=None)
@given(SHAPES)
def test_unflatten_undoes_flatten(shapes: dict[str, list[int]]) -> None:
    rng = np.random.default_rng(0)
    parameters: Parameters = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    again = unflatten(flatten(parameters), parameters)
    assert again.keys() == parameters.keys()
    for name, array in parameters.items():
        assert again[name].shape == array.shape
        assert np.array_equal(again[name], array)


def test_the_order_is_that_of_the_names_whatever_the_order_of_the_dictionary() -> None:
    one = {"b": np.array([3.0]), "a": np.array([[1.0], [2.0]])}
    other = {"a": one["a"], "b": one["b"]}
    assert flatten(one).tolist() == flatten(other).tolist() == [1.0, 2.0, 3.0]


def test_the_parts_are_copies() -> None:
    like = {"a": np.zeros(2), "b": np.zeros(1)}
    vector = np.array([1.0, 2.0, 3.0])
    parts = unflatten(vector, like)
    parts["a"][0] = 9.0
    assert vector.tolist() == [1.0, 2.0, 3.0]
    assert like["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("length", [0, 2, 4])
def test_a_vector_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(TaskError, match=f"parameters: 3 values are needed, got {length}"):
        unflatten(np.zeros(length), {"a": np.zeros(2), "b": np.zeros(1)})
