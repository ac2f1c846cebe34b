"""Parameters as one vector and back; what a learner can do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import TaskError
from fedcore.learner import Abilities, Labelled, Parameters, difference, flatten, unflatten
from fedcore.learners import LocalSGD, PersonClipped, SoftmaxRegression
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from tests.fedcore.sites import make_table

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


def test_abilities_are_the_methods_that_are_there() -> None:
    model = SoftmaxRegression(3, 2)
    steered = LocalSGD(model=model)
    able = Abilities.of(steered)
    assert able == Abilities(
        steerable=steered,
        gradients=steered,
        rated=None,
        scoring=steered,
        predicting=steered,
        sensitivity=None,
    )
    persons = PersonClipped(model=model, clip=2.0, expected=8.0)
    assert Abilities.of(persons).steerable is None
    assert Abilities.of(persons).gradients is persons
    assert Abilities.of(persons).sensitivity == 0.25
    plain = LogisticRegressionLearner(features=3, classes=2)
    able = Abilities.of(plain)
    assert (able.steerable, able.gradients, able.rated, able.scoring) == (None, None, None, plain)


def test_rows_with_labels_can_be_evaluated() -> None:
    assert isinstance(make_table(3, 0), Labelled)
    assert not isinstance([1, 2], Labelled)


TYPES = st.sampled_from(["float32", "float64"])


@given(shapes=SHAPES, own=st.lists(TYPES, min_size=8, max_size=8), given_=TYPES)
def test_a_difference_is_that_of_the_flat_vectors(
    shapes: dict[str, list[int]], own: list[str], given_: str
) -> None:
    rng = np.random.default_rng(len(shapes))
    before = {name: rng.normal(size=shape).astype(given_) for name, shape in shapes.items()}
    after = {
        name: rng.normal(size=shape).astype(kind)
        for (name, shape), kind in zip(shapes.items(), own, strict=False)
    }
    found = difference(after, before)
    wanted = flatten(after) - flatten(before)
    single = all(array.dtype == np.float32 for array in after.values())
    assert found.dtype == ("float32" if single else "float64")
    assert found.tolist() == wanted.astype(found.dtype).tolist()


def test_a_flat_vector_follows_the_order_of_the_indices_whatever_that_of_the_memory() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert flatten({"a": np.asfortranarray(array), "b": np.array(6.0)}).tolist() == list(range(7))
