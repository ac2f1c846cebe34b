from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import PRIME, field_decode, field_evaluate, field_lagrange, field_weighted_sums, reference

Words = NDArray[np.uint64]
elements = st.sampled_from([0, 1, 2, PRIME - 1, PRIME - 2, 2**60, 2**32]) | st.integers(0, PRIME - 1)
sizes = st.integers(0, 7)


def matrix(rows: list[list[int]], columns: int) -> Words:
    return np.array(rows, np.uint64).reshape(len(rows), columns)


def test_the_prime_is_the_mersenne_prime_of_61_bits() -> None:
    assert PRIME == 2**61 - 1
    assert all(pow(a, PRIME - 1, PRIME) == 1 for a in (2, 3, 37))


@given(data=st.data(), t=sizes, m=sizes, k=sizes)
def test_evaluate_equals_the_reference(data: st.DataObject, t: int, m: int, k: int) -> None:
    rows = data.draw(st.lists(st.lists(elements, min_size=m, max_size=m), min_size=t, max_size=t))
    points = data.draw(st.lists(elements, min_size=k, max_size=k))
    out = field_evaluate(matrix(rows, m), np.array(points, np.uint64))
    expected = [[reference.evaluate([row[c] for row in rows], x) for c in range(m)] for x in points]
    assert out.shape == (k, m)
    assert out.dtype == np.uint64
    assert out.tolist() == expected


def words(values: list[int]) -> Words:
    return np.array(values, np.uint64)


@given(
    points=st.lists(elements, min_size=1, max_size=12, unique=True),
    ats=st.lists(elements, max_size=4),
)
def test_lagrange_equals_the_reference(points: list[int], ats: list[int]) -> None:
    weights = field_lagrange(words(points), words(ats))
    assert weights.shape == (len(ats), len(points))
    assert weights.tolist() == [reference.lagrange(points, at) for at in ats]


@given(points=st.lists(elements, min_size=1, max_size=12, unique=True), data=st.data())
def test_lagrange_at_a_given_point_picks_its_value(points: list[int], data: st.DataObject) -> None:
    j = data.draw(st.integers(0, len(points) - 1))
    weights = field_lagrange(words(points), words([points[j]]))
    assert weights[0].tolist() == [int(i == j) for i in range(len(points))]


@given(data=st.data(), q=sizes, t=sizes, m=sizes)
def test_weighted_sums_are_the_matrix_product(data: st.DataObject, q: int, t: int, m: int) -> None:
    weights = data.draw(st.lists(st.lists(elements, min_size=t, max_size=t), min_size=q, max_size=q))
    values = data.draw(st.lists(st.lists(elements, min_size=m, max_size=m), min_size=t, max_size=t))
    out = field_weighted_sums(matrix(weights, t), matrix(values, m))
    expected = [[sum(w[j] * values[j][c] for j in range(t)) % PRIME for c in range(m)] for w in weights]
    assert out.shape == (q, m)
    assert out.tolist() == expected


@given(data=st.data(), t=st.integers(1, 9), at=elements)
def test_weights_carry_a_polynomial_to_any_point(data: st.DataObject, t: int, at: int) -> None:
    coefficients = data.draw(st.lists(elements, min_size=t, max_size=t))
    points = np.array(data.draw(st.lists(elements, min_size=t, max_size=t, unique=True)), np.uint64)
    values = field_evaluate(np.array([coefficients], np.uint64).T.copy(), points)
    total = field_weighted_sums(field_lagrange(points, words([at])), values)
    assert total.tolist() == [[reference.evaluate(coefficients, at)]]


def test_many_limbs_at_many_points() -> None:
    rng = np.random.default_rng(3)
    coefficients = rng.integers(0, PRIME, (40, 10), np.uint64)
    points = np.arange(1, 101, dtype=np.uint64)
    out = field_evaluate(coefficients, points)
    for i in (0, 57, 99):
        for c in (0, 9):
            assert out[i, c] == reference.evaluate(coefficients[:, c].tolist(), int(points[i]))


GOOD = np.ones((2, 2), np.uint64)
POINTS = np.array([1, 2], np.uint64)
CALLS: list[tuple[str, int, Callable[[Words], object]]] = [
    ("coefficients", 2, lambda array: field_evaluate(array, POINTS)),
    ("points", 1, lambda array: field_evaluate(GOOD, array)),
    ("points", 1, lambda array: field_lagrange(array, POINTS)),
    ("ats", 1, lambda array: field_lagrange(POINTS, array)),
    ("points", 1, lambda array: field_decode(array, POINTS, 1)),
    ("values", 1, lambda array: field_decode(POINTS, array, 1)),
    ("weights", 2, lambda array: field_weighted_sums(array, GOOD)),
    ("values", 2, lambda array: field_weighted_sums(GOOD, array)),
]


@pytest.mark.parametrize(("name", "ndim", "call"), CALLS)
def test_arrays_of_another_form_are_refused(name: str, ndim: int, call: Callable[[Words], object]) -> None:
    wanted = (2,) * ndim
    wrong = [np.ones((2,) * (3 - ndim), np.uint64), np.ones(wanted, np.int64), np.ones(wanted, ">u8")]
    wrong.append(np.ones((4,) * ndim, np.uint64)[::2])
    for array in wrong:
        with pytest.raises(ValueError, match=f"{name}: must be (an array of uint64 with {ndim}|contiguous)"):
            call(array)


@pytest.mark.parametrize(("name", "ndim", "call"), CALLS)
@pytest.mark.parametrize("word", [PRIME, PRIME + 1, 2**64 - 1])
def test_words_out_of_the_field_are_refused(
    name: str, ndim: int, call: Callable[[Words], object], word: int
) -> None:
    array = np.arange(2**ndim, dtype=np.uint64).reshape((2,) * ndim)
    array.flat[-1] = word
    with pytest.raises(ValueError, match=rf"{name}: every word must be below 2\^61 - 1"):
        call(array)


def test_points_are_distinct_and_at_least_one() -> None:
    for points in ([], [4, 4], [1, 2, 3, 1]):
        with pytest.raises(ValueError, match="points: must be distinct, and at least one"):
            field_lagrange(words(points), words([0]))


def test_weights_and_values_fit_together() -> None:
    with pytest.raises(ValueError, match="values: 2 rows are needed, got 3"):
        field_weighted_sums(GOOD, np.ones((3, 2), np.uint64))
