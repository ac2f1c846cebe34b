from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
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


@pytest.mark.parametrize("t", [31, 32, 33, 63, 64, 65, 127, 128, 129, 192, 193])
@pytest.mark.parametrize("m", [1, 4, 5, 6, 10, 11])
def test_long_polynomials_are_evaluated_like_the_reference(t: int, m: int) -> None:
    rng = np.random.default_rng(t)
    coefficients = rng.integers(0, PRIME, (t, m), np.uint64)
    coefficients[:, 0] = PRIME - 1
    points = words([0, 1, 2, PRIME - 1, *rng.integers(0, PRIME, 3, np.uint64).tolist()])
    expected = [
        [reference.evaluate(column, x) for column in coefficients.T.tolist()] for x in points.tolist()
    ]
    assert field_evaluate(coefficients, points).tolist() == expected


@pytest.mark.parametrize("t", [1, 31, 32, 33, 63, 64, 65, 96, 97, 200])
@pytest.mark.parametrize("word", [PRIME - 1, PRIME - 2, 2**60 + 1])
def test_the_largest_words_are_summed_without_overflow(t: int, word: int) -> None:
    out = field_weighted_sums(np.full((2, t), word, np.uint64), np.full((t, 3), word, np.uint64))
    assert out.tolist() == [[t * word * word % PRIME] * 3] * 2


@pytest.mark.parametrize("t", [31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("m", [1, 4, 5, 6, 10, 11])
def test_long_weighted_sums_are_the_matrix_product(t: int, m: int) -> None:
    rng = np.random.default_rng(t)
    weights, values = rng.integers(0, PRIME, (3, t), np.uint64), rng.integers(0, PRIME, (t, m), np.uint64)
    weights[0] = PRIME - 1
    out = field_weighted_sums(weights, values)
    assert out.tolist() == [
        [sum(w * v for w, v in zip(row, column, strict=True)) % PRIME for column in values.T.tolist()]
        for row in weights.tolist()
    ]


@pytest.mark.parametrize("t", [1, 2, 3, 4, 5, 7, 8, 9, 60])
def test_lagrange_at_many_points(t: int) -> None:
    rng = np.random.default_rng(4)
    points = rng.choice(10**6, t, replace=False).tolist()
    points[t // 2] = PRIME - 1
    ats = [0, 1, PRIME - 1, *points[::7], *rng.integers(0, PRIME, 40, np.uint64).tolist()]
    weights = field_lagrange(words(points), words(ats))
    assert weights.tolist() == [reference.lagrange(points, at) for at in ats]


def padded(polynomial: list[int] | None, t: int) -> list[int] | None:
    """The answer of the reference, in the form of the kernel."""
    return None if polynomial is None else polynomial + [0] * (t - len(polynomial))


def decoded(points: list[int], values: list[int], t: int) -> list[int] | None:
    found = field_decode(words(points), words(values), t)
    return None if found is None else found.tolist()


def codeword(rng: np.random.Generator, t: int, m: int, errors: int) -> tuple[list[int], list[int], list[int]]:
    """Coefficients, points, and values of which `errors` are wrong."""
    polynomial = rng.integers(0, PRIME, t, np.uint64).tolist()
    points = rng.choice(10**6, m, replace=False).tolist()
    values = [reference.evaluate(polynomial, x) for x in points]
    for place in rng.permutation(m)[:errors].tolist():
        values[place] = (values[place] + int(rng.integers(1, PRIME))) % PRIME
    return polynomial, points, values


@settings(max_examples=60)
@given(t=st.integers(1, 30), surplus=st.integers(0, 30), part=st.integers(0, 8), seed=st.integers(0, 2**32))
def test_decode_equals_the_reference(t: int, surplus: int, part: int, seed: int) -> None:
    m = t + surplus
    errors = min(part * (surplus // 2) // 4, m)  # up to the bound by part 4, beyond it behind
    polynomial, points, values = codeword(np.random.default_rng(seed), t, m, errors)
    found = decoded(points, values, t)
    assert found == padded(reference.decode(points, values, t), t)
    if errors <= surplus // 2:
        assert found == polynomial


@given(data=st.data(), t=st.integers(1, 4), surplus=st.integers(0, 6))
def test_decode_equals_the_reference_on_any_values(data: st.DataObject, t: int, surplus: int) -> None:
    m = t + surplus
    few = st.integers(0, 2) | elements  # few values: many near polynomials
    points = data.draw(st.lists(elements, min_size=m, max_size=m, unique=True))
    values = data.draw(st.lists(few, min_size=m, max_size=m))
    assert decoded(points, values, t) == padded(reference.decode(points, values, t), t)


@pytest.mark.parametrize(("t", "m"), [(1, 3), (2, 4), (2, 5), (5, 14), (20, 60)])
def test_decode_corrects_half_of_the_surplus_and_not_one_more(t: int, m: int) -> None:
    rng = np.random.default_rng(m)
    for errors in range(m + 1):
        polynomial, points, values = codeword(rng, t, m, errors)
        assert decoded(points, values, t) == (polynomial if errors <= (m - t) // 2 else None), errors


def test_a_hundred_errors_in_three_hundred_values_are_corrected() -> None:
    rng = np.random.default_rng(8)
    polynomial, points, values = codeword(rng, 100, 300, 100)
    assert decoded(points, values, 100) == polynomial
    _, points, values = codeword(rng, 100, 300, 101)
    assert decoded(points, values, 100) is None


@pytest.mark.parametrize("t", [1, 2, 7, 30])
def test_without_surplus_decoding_is_interpolation(t: int) -> None:
    rng = np.random.default_rng(t)
    _, points, values = codeword(rng, t, t, t)
    assert decoded(points, values, t) == padded(reference.interpolate(points, values), t)


def test_the_zero_polynomial_is_decoded() -> None:
    assert decoded([1, 2, 3, 4], [0, 0, 9, 0], 2) == [0, 0]
    assert decoded([5], [0], 1) == [0]
    assert decoded(list(range(9)), [0] * 9, 9) == [0] * 9
    assert decoded(list(range(9)), [0] * 9, 1) == [0]


def test_a_polynomial_of_lower_degree_is_decoded() -> None:
    values = [7, 7, 7, 1, 7, 7, 7]
    assert decoded([0, 1, 2, 3, 4, 5, PRIME - 1], values, 4) == [7, 0, 0, 0]


def test_values_that_are_all_wrong_are_near_no_polynomial() -> None:
    values = [(x * x * x * 12345 + 6789 * x * x) % PRIME for x in range(1, 41)]
    assert decoded(list(range(1, 41)), values, 3) is None
    assert decoded(list(range(1, 41)), values, 4) == [0, 0, 6789, 12345]


def test_fewer_values_than_the_threshold_are_not_decoded() -> None:
    assert decoded([1, 2], [5, 5], 3) is None
    assert decoded([], [], 1) is None


def test_what_decode_cannot_use_is_refused() -> None:
    with pytest.raises(ValueError, match="values: 2 points need as many values, got 3"):
        decoded([1, 2], [1, 2, 3], 1)
    with pytest.raises(ValueError, match="points: must be distinct"):
        decoded([1, 2, 1], [1, 2, 3], 1)
    for threshold in (0, -1):
        with pytest.raises(ValueError, match=f"threshold: must be at least 1, is {threshold}"):
            decoded([1, 2], [1, 2], threshold)


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
    for points in ([], [4, 4], [1, 2, 3, 1], [1, 2, 2, 3], [3, 2, 2, 1]):
        with pytest.raises(ValueError, match="points: must be distinct, and at least one"):
            field_lagrange(words(points), words([0]))


def test_weights_and_values_fit_together() -> None:
    with pytest.raises(ValueError, match="values: 2 rows are needed, got 3"):
        field_weighted_sums(GOOD, np.ones((3, 2), np.uint64))
