"""The oracle of the other tests, held against mathematics and AES itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.kernels import PRIME, reference
from tests.kernels.helpers import aes_masks, seeds

elements = st.integers(0, PRIME - 1)


@given(seed=seeds, first=st.integers(0, 500), length=st.integers(0, 100), ring_bits=st.integers(1, 64))
def test_prg_is_aes_on_counter_blocks(seed: bytes, first: int, length: int, ring_bits: int) -> None:
    lane = 2 if ring_bits <= 16 else 4 if ring_bits <= 32 else 8
    expected = [word % 2**ring_bits for word in aes_masks(seed, first, length, lane).tolist()]
    assert reference.prg(seed, first, length, ring_bits) == expected


def test_packing_is_little_endian_by_hand() -> None:
    assert reference.pack([0b001, 0b110, 0b101], 3) == bytes([0b01_110_001, 0b1])
    assert reference.unpack(bytes([0b01_110_001, 0b1]), 3, 3) == [0b001, 0b110, 0b101]


def test_quantize_by_hand() -> None:
    half = 2**31  # 0.5: a fraction of one half goes up for every smaller word
    rounded = reference.quantize(
        [0.5, 0.5, -0.5, 9.0, -9.0], [half - 1, half, 0, 0, 0], clip=2.0, scale=1.0, limit=2, ring_bits=8
    )
    assert rounded == [1, 0, 0, 2, 254]


def test_dequantize_by_hand() -> None:
    assert reference.dequantize([0, 1, 127, 128, 255], step=0.5, ring_bits=8) == [0, 0.5, 63.5, -64, -0.5]


@given(data=st.data(), t=st.integers(1, 8))
def test_interpolation_finds_the_polynomial(data: st.DataObject, t: int) -> None:
    coefficients = data.draw(st.lists(elements, min_size=t, max_size=t).filter(lambda c: c[-1] != 0))
    points = data.draw(st.lists(elements, min_size=t, max_size=t, unique=True))
    values = [reference.evaluate(coefficients, x) for x in points]
    assert reference.interpolate(points, values) == coefficients
    weights = reference.lagrange(points, 0)
    assert sum(w * y for w, y in zip(weights, values, strict=True)) % PRIME == coefficients[0]


def word_with_errors(
    data: st.DataObject, t: int, m: int, errors: int
) -> tuple[list[int], list[int], list[int], set[int]]:
    """Coefficients, points, values, and the places of the values that are wrong."""
    coefficients = data.draw(st.lists(elements, min_size=t, max_size=t))
    points = data.draw(st.lists(st.integers(1, 1000) | elements, min_size=m, max_size=m, unique=True))
    wrong = set(data.draw(st.permutations(range(m)))[:errors])
    values = [reference.evaluate(coefficients, x) for x in points]
    for place in wrong:
        values[place] = (values[place] + data.draw(st.integers(1, PRIME - 1))) % PRIME
    return coefficients, points, values, wrong


@given(data=st.data(), t=st.integers(1, 7), surplus=st.integers(0, 9))
def test_decode_corrects_half_of_the_surplus(data: st.DataObject, t: int, surplus: int) -> None:
    errors = data.draw(st.integers(0, surplus // 2))
    coefficients, points, values, _ = word_with_errors(data, t, t + surplus, errors)
    polynomial = reference.decode(points, values, t)
    assert polynomial is not None
    assert polynomial + [0] * (t - len(polynomial)) == coefficients


@given(data=st.data(), t=st.integers(1, 6), surplus=st.integers(0, 6))
def test_decode_gives_a_close_polynomial_or_none(data: st.DataObject, t: int, surplus: int) -> None:
    m = t + surplus
    _, points, values, _ = word_with_errors(
        data, t, m, data.draw(st.integers(surplus // 2 + 1, m)) if surplus else 0
    )
    polynomial = reference.decode(points, values, t)
    if polynomial is not None:
        off = sum(reference.evaluate(polynomial, x) != y for x, y in zip(points, values, strict=True))
        assert len(polynomial) <= t
        assert off <= surplus // 2


@pytest.mark.parametrize(("t", "m"), [(1, 3), (2, 5), (3, 7), (4, 8), (5, 11)])
def test_one_error_too_many_is_not_decoded(t: int, m: int) -> None:
    errors = (m - t) // 2 + 1
    values = [reference.evaluate([7] * t, x) for x in range(1, m + 1)]
    for place in range(errors):
        values[place] = (values[place] + 1000 + place * place * place) % PRIME
    assert reference.decode(list(range(1, m + 1)), values, t) is None


def test_fewer_values_than_the_threshold_are_not_decoded() -> None:
    assert reference.decode([1, 2], [5, 5], 3) is None
    assert reference.decode([], [], 1) is None


def test_the_zero_polynomial_is_decoded() -> None:
    assert reference.decode([1, 2, 3, 4], [0, 0, 9, 0], 2) == []
