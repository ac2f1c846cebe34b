from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.codec.tiles import TILE, norm, not_finite

LENGTHS = (1, TILE - 1, TILE, TILE + 1, 2 * TILE + 5)


@given(length=st.sampled_from(LENGTHS), share=st.floats(0, 1), bad=st.sampled_from([math.nan, -math.inf]))
def test_the_first_value_that_is_not_finite_is_found(length: int, share: float, bad: float) -> None:
    values = np.ones(length, np.float32)
    assert not_finite(values) is None
    at = round(share * (length - 1))
    values[at] = values[-1] = bad
    assert not_finite(values) == at


def test_nothing_is_finite_and_has_no_length() -> None:
    assert not_finite(np.zeros(0)) is None
    assert norm(np.zeros(0, np.float32)) == norm(np.zeros(0)) == 0.0


@pytest.mark.parametrize("length", LENGTHS)
def test_the_norm_of_float32_is_as_precise_as_that_of_float64(length: int) -> None:
    values = np.random.default_rng(length).normal(size=length).astype(np.float32)
    assert norm(values) == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_may_be_too_large_for_numbers(dtype: type[np.float32 | np.float64]) -> None:
    large = float(np.finfo(dtype).max) / 4
    assert norm(np.full(4, large, dtype)) == pytest.approx(2 * large)
    assert norm(np.array([1.0, math.inf], dtype)) == math.inf
    assert math.isnan(norm(np.array([1.0, math.nan], dtype)))
