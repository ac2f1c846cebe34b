"""Z_q: the functions of test_field.py over the other field."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import LATTICE_FIELD, reference

Words = NDArray[np.uint64]
Q = LATTICE_FIELD.modulus
elements = st.sampled_from([0, 1, 2, Q - 1, Q - 2, 2**49, 2**14]) | st.integers(0, Q - 1)


def words(values: list[int]) -> Words:
    return np.array(values, np.uint64)


@given(data=st.data(), t=st.integers(0, 7), m=st.integers(0, 7), k=st.integers(0, 7))
def test_evaluate_equals_the_reference(data: st.DataObject, t: int, m: int, k: int) -> None:
    rows = data.draw(st.lists(st.lists(elements, min_size=m, max_size=m), min_size=t, max_size=t))
    points = data.draw(st.lists(elements, min_size=k, max_size=k))
    out = LATTICE_FIELD.evaluate(np.array(rows, np.uint64).reshape(t, m), words(points))
    expected = [[reference.evaluate([row[c] for row in rows], x, Q) for c in range(m)] for x in points]
    assert out.tolist() == expected


@given(points=st.lists(elements, min_size=1, max_size=12, unique=True), ats=st.lists(elements, max_size=4))
def test_lagrange_equals_the_reference(points: list[int], ats: list[int]) -> None:
    weights = LATTICE_FIELD.lagrange(words(points), words(ats))
    assert weights.tolist() == [reference.lagrange(points, at, Q) for at in ats]


@pytest.mark.parametrize("t", [1, 5, 33, 200, 65536])
@pytest.mark.parametrize("word", [Q - 1, Q - 2, 2**49 + 1])
def test_the_largest_words_are_summed_without_overflow(t: int, word: int) -> None:
    out = LATTICE_FIELD.weighted_sums(np.full((2, t), word, np.uint64), np.full((t, 6), word, np.uint64))
    assert out.tolist() == [[t * word * word % Q] * 6] * 2


@settings(max_examples=60)
@given(t=st.integers(1, 30), surplus=st.integers(0, 30), part=st.integers(0, 8), seed=st.integers(0, 2**32))
def test_decode_equals_the_reference(t: int, surplus: int, part: int, seed: int) -> None:
    m, rng = t + surplus, np.random.default_rng(seed)
    errors = min(part * (surplus // 2) // 4, m)
    polynomial = rng.integers(0, Q, t, np.uint64).tolist()
    points = list(range(1, m + 1))
    values = [reference.evaluate(polynomial, x, Q) for x in points]
    for place in rng.permutation(m)[:errors].tolist():
        values[place] = (values[place] + int(rng.integers(1, Q))) % Q
    found = LATTICE_FIELD.decode(words(points), words(values), t)
    expected = reference.decode(points, values, t, Q)
    assert (None if found is None else found.tolist()) == (
        None if expected is None else expected + [0] * (t - len(expected))
    )
    if errors <= surplus // 2:
        assert found is not None
        assert found.tolist() == polynomial


@pytest.mark.parametrize("word", [Q, Q + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_words_out_of_the_field_are_refused(word: int) -> None:
    with pytest.raises(ValueError, match=r"points: every word must be below 2\^50 - 2\^14 \+ 1"):
        LATTICE_FIELD.lagrange(words([1, word]), words([0]))
