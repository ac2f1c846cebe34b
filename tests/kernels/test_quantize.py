import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels import NotFiniteError, UIntArray, dequantize, lane_dtype, quantize, reference
from tests.kernels.helpers import LANES, misaligned, seeds

pytestmark = pytest.mark.usefixtures("each_variant")

SEED = bytes(range(32))
TILE = 1 << 14  # values
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


@pytest.mark.parametrize("length", [0, 1, TILE - 1, TILE, TILE + 1, 2 * TILE + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantize_is_bit_equal_across_tiles(length: int, dtype: type[np.float32] | type[np.float64]) -> None:
    values = np.random.default_rng(5).normal(0, 3, length).astype(dtype)
    settings_ = {"clip": 4.0, "scale": 1000.0, "limit": 4000, "ring_bits": 24}
    out = quantize(values, seed=SEED, first=9, **settings_)  # type: ignore[arg-type]
    words = reference.prg(SEED, 9, length, 32)
    expected = reference.quantize(values.tolist(), words, **settings_)  # type: ignore[arg-type]
    assert out.tolist() == expected


def test_quantize_is_bit_equal_on_misaligned_values() -> None:
    values = np.random.default_rng(6).normal(0, 1, 1001)
    for array in (values, values.astype(np.float32)):
        one = quantize(array, clip=2.0, scale=99.0, limit=500, ring_bits=16, seed=SEED)
        other = quantize(misaligned(array), clip=2.0, scale=99.0, limit=500, ring_bits=16, seed=SEED)
        assert np.array_equal(one, other)


def test_a_vector_may_be_quantized_in_pieces() -> None:
    values = np.random.default_rng(7).normal(0, 1, 300)
    whole = quantize(values, clip=3.0, scale=50.0, limit=150, ring_bits=12, seed=SEED, first=4)
    pieces = [
        quantize(values[at : at + 77], clip=3.0, scale=50.0, limit=150, ring_bits=12, seed=SEED, first=4 + at)
        for at in range(0, 300, 77)
    ]
    assert np.array_equal(whole, np.concatenate(pieces))


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
@pytest.mark.parametrize("index", [0, 1, TILE - 1, TILE, TILE + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_is_not_finite_is_named_by_its_index(
    bad: float, index: int, dtype: type[np.float32] | type[np.float64]
) -> None:
    values: NDArray[Any] = np.zeros(TILE + 9, dtype)
    values[index] = bad
    values[-1] = math.nan  # the first one counts
    with pytest.raises(NotFiniteError, match=rf"^values\[{index}\]: must be finite, is {bad}$") as caught:
        quantize(values, clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=SEED)
    assert caught.value.index == index
    assert isinstance(caught.value, ParameterError)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_clip_and_scale_are_positive_and_finite(bad: float) -> None:
    for clip, scale in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(ParameterError, match="clip, scale: must be positive and finite"):
            quantize(np.zeros(3), clip=clip, scale=scale, limit=1, ring_bits=8, seed=SEED)


@pytest.mark.parametrize(
    ("limit", "ring_bits"), [(0, 8), (-1, 8), (128, 8), (2**31, 32), (2**52, 54), (2**52, 64), (1, 1)]
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


@pytest.mark.parametrize(("seed", "first", "message"), [(bytes(31), 0, "seeds: "), (SEED, -1, "first: ")])
def test_seed_and_first_are_those_of_the_masks(seed: bytes, first: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(np.zeros(3), clip=1.0, scale=1.0, limit=1, ring_bits=8, seed=seed, first=first)


@given(data=st.data(), ring_bits=st.integers(1, 64), step=st.floats(-1e6, 1e6))
def test_dequantize_is_bit_equal_to_the_reference(data: st.DataObject, ring_bits: int, step: float) -> None:
    lane = data.draw(st.sampled_from([lane for lane in LANES if 8 * lane >= ring_bits]))
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
