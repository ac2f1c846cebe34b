import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels import (
    NotFiniteError,
    QuantizedVector,
    UIntArray,
    dequantize,
    lane_dtype,
    quantize,
    reference,
)
from tests.kernels.helpers import lanes_for, misaligned, seeds

pytestmark = pytest.mark.usefixtures("each_variant")

SEED = bytes(range(32))
BLOCK, TILE = 256, 1 << 17  # values: of the loop in C, and whose random words are drawn at a time
both_reals = pytest.mark.parametrize("dtype", ["float32", "float64"])
positive = st.floats(min_value=1e-300, max_value=1e300)
moderate = st.floats(-1e6, 1e6)


def centred(values: UIntArray, ring_bits: int) -> NDArray[np.float64]:
    return dequantize(values, step=1.0, ring_bits=ring_bits)


@given(
    data=st.data(),
    width=st.sampled_from([32, 64]),
    clip=positive | st.floats(0.5, 1e4),
    scale=positive | st.floats(0.5, 1e4),
    ring_bits=st.integers(2, 64),
    seed=seeds,
    first=st.integers(0, 2000),
)
def test_quantize_is_bit_equal_to_the_reference(
    data: st.DataObject, width: int, clip: float, scale: float, ring_bits: int, seed: bytes, first: int
) -> None:
    floats = st.floats(width=width, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    near = st.floats(-10, 10, width=width)  # type: ignore[arg-type]
    values = np.array(data.draw(st.lists(floats | near, max_size=60)), f"f{width // 8}")
    limit = data.draw(st.integers(1, 2 ** min(ring_bits - 1, 52) - 1))
    out = quantize(values, clip=clip, scale=scale, limit=limit, ring_bits=ring_bits, seed=seed, first=first)
    words = reference.prg(seed, first, values.size, 32)
    expected = reference.quantize(
        values.tolist(), words, clip=clip, scale=scale, limit=limit, ring_bits=ring_bits
    )
    assert out.dtype == lane_dtype(ring_bits)
    assert out.tolist() == expected


@cache
def quantized(
    length: int, dtype: str, first: int, ring_bits: int
) -> tuple[NDArray[Any], Callable[[NDArray[Any]], UIntArray], list[int]]:
    """Values of all kinds, how they are quantized, and what the reference makes of them."""
    limit = 2 ** min(ring_bits - 1, 52) - 1
    values = np.random.default_rng(ring_bits).normal(0, 2, length).astype(dtype)
    values[::7], values[3::11], values[5::13] = 0.0, 3e38, -1e-40
    clip, scale = 3.0, limit / 2.75
    out = reference.quantize(
        values.tolist(),
        reference.prg(SEED, first, length, 32),
        clip=clip,
        scale=scale,
        limit=limit,
        ring_bits=ring_bits,
    )

    def run(array: NDArray[Any]) -> UIntArray:
        return quantize(
            array, clip=clip, scale=scale, limit=limit, ring_bits=ring_bits, seed=SEED, first=first
        )

    return values, run, out


@pytest.mark.parametrize("ring_bits", range(2, 65))
@both_reals
def test_quantize_is_bit_equal_in_every_ring(dtype: str, ring_bits: int) -> None:
    values, run, expected = quantized(BLOCK + 70, dtype, 5, ring_bits)
    out = run(values)
    assert out.dtype == lane_dtype(ring_bits)
    assert out.tolist() == expected


@pytest.mark.parametrize("ring_bits", [12, 24, 48])
@both_reals
def test_quantize_is_bit_equal_around_blocks(dtype: str, ring_bits: int) -> None:
    values, run, expected = quantized(4 * BLOCK + 1, dtype, 0, ring_bits)
    around = [size + step for size in (8, 16, 32, BLOCK, 2 * BLOCK, 4 * BLOCK) for step in (-1, 0, 1)]
    for length in (0, 1, 2, 3, *around):
        assert run(values[:length]).tolist() == expected[:length], length


@both_reals
def test_quantize_is_bit_equal_across_tiles(dtype: str) -> None:
    values, run, expected = quantized(2 * TILE + 1, dtype, 9, 24)
    for length in (TILE - 1, TILE, TILE + 1, 2 * TILE + 1):
        assert run(values[:length]).tolist() == expected[:length], length


def test_quantize_is_bit_equal_on_misaligned_values() -> None:
    values = np.random.default_rng(6).normal(0, 1, 1001)
    for array in (values, values.astype(np.float32)):
        one = quantize(array, clip=2.0, scale=99.0, limit=500, ring_bits=16, seed=SEED)
        other = quantize(misaligned(array), clip=2.0, scale=99.0, limit=500, ring_bits=16, seed=SEED)
        assert np.array_equal(one, other)


@both_reals
def test_a_vector_may_be_read_in_pieces(dtype: str) -> None:
    values: NDArray[Any] = np.random.default_rng(7).normal(0, 1, TILE + 900).astype(dtype)
    source = QuantizedVector(values, clip=3.0, scale=50.0, limit=150, ring_bits=12, seed=SEED, first=4)
    whole = quantize(values, clip=3.0, scale=50.0, limit=150, ring_bits=12, seed=SEED, first=4)
    assert source.length == whole.size
    assert source.dtype == whole.dtype == np.uint16
    places = [(0, 0), (0, 1), (1, 7), (3, BLOCK), (BLOCK - 1, 600), (700, TILE + 200), (TILE, 900)]
    for first, length in [*places, (TILE - 1, 1), (TILE + 899, 1), (TILE + 900, 0), (0, source.length)]:
        out = np.full(length + 2, 0xABCD, np.uint16)
        source.read(first, out[1:-1])
        assert np.array_equal(out[1:-1], whole[first : first + length]), (first, length)
        assert out[0] == out[-1] == 0xABCD


def test_a_piece_of_the_values_is_rounded_by_its_piece_of_the_words() -> None:
    values = np.random.default_rng(7).normal(0, 1, 300)
    whole = quantize(values, clip=3.0, scale=50.0, limit=150, ring_bits=12, seed=SEED, first=4)
    for at in range(0, 300, 77):
        piece = quantize(
            values[at : at + 77], clip=3.0, scale=50.0, limit=150, ring_bits=12, seed=SEED, first=4 + at
        )
        assert np.array_equal(piece, whole[at : at + 77])


@pytest.mark.parametrize("x", [0.3, -0.3, 17.75, -1000.125, 2.0**-20, 0.999])
def test_rounding_is_unbiased(x: float) -> None:
    n = 200_000
    out = centred(quantize(np.full(n, x), clip=2e3, scale=1.0, limit=2**20, ring_bits=32, seed=SEED), 32)
    assert set(out.tolist()) <= {math.floor(x), math.floor(x) + 1}
    p = x - math.floor(x)
    deviation = abs(out.mean() - x) / math.sqrt(p * (1 - p) / n)
    assert deviation < 5


@given(value=st.integers(-1000, 1000), seed=seeds)
def test_whole_steps_are_not_rounded(value: int, seed: bytes) -> None:
    out = quantize(np.full(20, value / 4), clip=1000.0, scale=4.0, limit=1000, ring_bits=16, seed=seed)
    assert centred(out, 16).tolist() == [value] * 20


@given(value=moderate, clip=st.floats(0.125, 100), seed=seeds)
def test_values_are_clipped(value: float, clip: float, seed: bytes) -> None:
    out = quantize(np.array([value]), clip=clip, scale=1024.0, limit=2**40, ring_bits=48, seed=seed)
    bound = min(max(value, -clip), clip) * 1024
    assert centred(out, 48)[0] in {math.floor(bound), math.floor(bound) + 1, math.ceil(bound)}
    assert abs(centred(out, 48)[0]) <= math.ceil(clip * 1024)


@given(values=st.lists(moderate, min_size=1, max_size=30), limit=st.integers(1, 127), seed=seeds)
def test_no_result_passes_the_limit(values: list[float], limit: int, seed: bytes) -> None:
    out = quantize(np.array(values), clip=1e6, scale=3.7, limit=limit, ring_bits=8, seed=seed)
    assert (np.abs(centred(out, 8)) <= limit).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@both_reals
def test_a_value_that_is_not_finite_is_found_anywhere_in_a_block(bad: float, dtype: str) -> None:
    values: NDArray[Any] = np.zeros(2 * BLOCK + 9, dtype)
    source = QuantizedVector(values, clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=SEED)  # sees changes
    out = np.empty(values.size, np.uint16)
    for index in range(values.size):
        values[index] = bad
        with pytest.raises(NotFiniteError) as caught:
            source.read(0, out)
        assert caught.value.index == index
        values[index] = 0.0
    source.read(0, out)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, TILE - 1, TILE, TILE + 5])
@both_reals
def test_the_first_value_that_is_not_finite_is_named(bad: float, index: int, dtype: str) -> None:
    values: NDArray[Any] = np.zeros(TILE + 9, dtype)
    values[index] = bad
    values[index + 2] = values[-1] = math.nan
    with pytest.raises(NotFiniteError, match=rf"^values\[{index}\]: must be finite, is {bad}$") as caught:
        quantize(values, clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=SEED)
    assert isinstance(caught.value, ParameterError)


@both_reals
def test_the_index_counts_from_the_first_value_wherever_one_reads(dtype: str) -> None:
    values: NDArray[Any] = np.zeros(1000, dtype)
    values[777] = math.inf
    source = QuantizedVector(values, clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=SEED)
    with pytest.raises(NotFiniteError, match=r"^values\[777\]: must be finite, is inf$"):
        source.read(700, np.empty(100, np.uint16))
    source.read(0, np.empty(777, np.uint16))
    source.read(778, np.empty(222, np.uint16))


@both_reals
def test_the_largest_finite_values_are_finite(dtype: str) -> None:
    most, least = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    values: NDArray[Any] = np.array([most, -most, least, -least], dtype)
    out = quantize(values, clip=1.0, scale=4.0, limit=4, ring_bits=8, seed=SEED)
    assert centred(out, 8)[:2].tolist() == [4, -4]
    assert set(centred(out, 8)[2:].tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_clip_and_scale_are_positive_and_finite(bad: float) -> None:
    for clip, scale in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(ParameterError, match="clip, scale: must be positive and finite"):
            quantize(np.zeros(3), clip=clip, scale=scale, limit=1, ring_bits=8, seed=SEED)


@pytest.mark.parametrize(
    ("limit", "ring_bits"),
    [(0, 8), (-1, 8), (128, 8), (2**31, 32), (2**52, 53), (2**52, 54), (2**52, 64), (1, 1)],
)
def test_limits_that_the_ring_does_not_hold_are_refused(limit: int, ring_bits: int) -> None:
    with pytest.raises(ParameterError, match=rf"limit: must be in 1\.\..* for {ring_bits} bits, is {limit}"):
        quantize(np.zeros(3), clip=1.0, scale=1.0, limit=limit, ring_bits=ring_bits, seed=SEED)


@pytest.mark.parametrize(("limit", "ring_bits"), [(1, 2), (127, 8), (2**31 - 1, 32), (2**52 - 1, 64)])
def test_the_largest_limit_is_reached_on_both_sides(limit: int, ring_bits: int) -> None:
    values = np.array([1e300, -1e300])
    out = quantize(values, clip=1e300, scale=1e300, limit=limit, ring_bits=ring_bits, seed=SEED)
    assert centred(out, ring_bits).tolist() == [limit, -limit]


@pytest.mark.parametrize(
    "values", [[1.0], np.zeros(3, np.float16), np.zeros(3, np.int64), np.zeros(3, ">f8")]
)
def test_values_of_another_type_are_refused(values: NDArray[np.float64]) -> None:
    with pytest.raises(TypeError, match="values: an array of float32, float64 is needed"):
        quantize(values, clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=SEED)


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="values: must be one-dimensional and contiguous"):
        quantize(np.zeros((2, 2)), clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=SEED)


@pytest.mark.parametrize("ring_bits", [0, 65])
def test_rings_of_no_lane_are_refused(ring_bits: int) -> None:
    with pytest.raises(ValueError, match=r"ring_bits: must be in 1\.\.64"):
        quantize(np.zeros(3), clip=1.0, scale=1.0, limit=1, ring_bits=ring_bits, seed=SEED)
    with pytest.raises(ValueError, match=r"ring_bits: must be in 1\.\.64"):
        dequantize(np.zeros(3, np.uint64), step=1.0, ring_bits=ring_bits)


@pytest.mark.parametrize(("seed", "first", "message"), [(bytes(31), 0, "seed: "), (SEED, -1, "first: ")])
def test_seed_and_first_are_those_of_the_masks(seed: bytes, first: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(np.zeros(3), clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=seed, first=first)


@given(data=st.data(), ring_bits=st.integers(1, 64), step=st.floats(-1e6, 1e6))
def test_dequantize_is_bit_equal_to_the_reference(data: st.DataObject, ring_bits: int, step: float) -> None:
    lane = data.draw(st.sampled_from(lanes_for(ring_bits)))
    edges = st.sampled_from([0, 1, 2 ** (ring_bits - 1), 2 ** (ring_bits - 1) - 1, 2**ring_bits - 1])
    values = data.draw(st.lists(st.integers(0, 2 ** (8 * lane) - 1) | edges, max_size=50))
    expected = reference.dequantize(values, step=step, ring_bits=ring_bits)
    out = dequantize(np.array(values, f"u{lane}"), step=step, ring_bits=ring_bits)
    assert out.dtype == np.float64
    assert out.tolist() == expected
    assert (
        dequantize(misaligned(np.array(values, f"u{lane}")), step=step, ring_bits=ring_bits).tolist()
        == expected
    )


@pytest.mark.parametrize("ring_bits", range(1, 65))
def test_dequantize_is_bit_equal_in_every_ring_and_lane(ring_bits: int) -> None:
    half = 2 ** (ring_bits - 1)
    for lane in lanes_for(ring_bits):
        values = np.random.default_rng(lane).integers(0, 2 ** (8 * lane), 75, f"u{lane}")
        values[:3] = half, half - 1, 2**ring_bits - 1
        for step in (1.0, -0.3, 2.0**-40):
            expected = reference.dequantize(values.tolist(), step=step, ring_bits=ring_bits)
            for length in (0, 1, 2, 7, 8, 9, 16, 17, 33, 75):
                out = dequantize(values[:length], step=step, ring_bits=ring_bits)
                assert out.tolist() == expected[:length]


@settings(max_examples=50)
@given(values=st.lists(st.floats(-8, 8), min_size=1, max_size=50), seed=seeds)
def test_what_was_quantized_comes_back_within_a_step(values: list[float], seed: bytes) -> None:
    out = quantize(np.array(values), clip=8.0, scale=1000.0, limit=8000, ring_bits=14, seed=seed)
    back = dequantize(out, step=1 / 1000, ring_bits=14)
    assert np.abs(back - np.array(values)).max() < 1.001e-3


@pytest.mark.parametrize("values", [[1], np.zeros(3), np.zeros(3, np.uint8)])
def test_ring_elements_of_another_type_are_refused(values: NDArray[Any]) -> None:
    with pytest.raises(TypeError, match="values: an array of uint16, uint32, uint64 is needed"):
        dequantize(values, step=1.0, ring_bits=8)


def test_ring_elements_in_narrower_lanes_are_refused() -> None:
    with pytest.raises(ValueError, match="values: uint16 is narrower than ring_bits = 17"):
        dequantize(np.zeros(3, np.uint16), step=1.0, ring_bits=17)


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (9, 2), (0, 11)])
def test_reading_outside_of_the_values_is_refused(first: int, count: int) -> None:
    source = QuantizedVector(np.zeros(10), clip=1.0, scale=10.0, limit=10, ring_bits=8, seed=bytes(32))
    with pytest.raises(ValueError, match="is not within the 10 values"):
        source.read(first, np.empty(count, np.uint16))


def test_lanes_narrower_than_the_ring_are_refused() -> None:
    source = QuantizedVector(np.zeros(10), clip=1.0, scale=1e6, limit=10**6, ring_bits=22, seed=bytes(32))
    with pytest.raises(ValueError, match="out: uint16 is narrower than ring_bits = 22"):
        source.read(0, np.empty(10, np.uint16))


def test_a_limit_that_is_no_integer_is_refused() -> None:
    with pytest.raises(ParameterError, match="limit: must be an integer, is 2147483647.5"):
        QuantizedVector(np.zeros(3), clip=1.0, scale=1.0, limit=2147483647.5, ring_bits=32, seed=SEED)  # type: ignore[arg-type]
