from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import hadamard, reference
from tests.kernels.helpers import aes_masks, butterflies, misaligned, seeds

pytestmark = pytest.mark.usefixtures("each_variant")

SEED = bytes(range(7, 39))
Floats = NDArray[np.float32]


def draw(d: int) -> Floats:
    return np.random.default_rng(d).normal(0, 1, d).astype(np.float32)


def signs(seed: bytes, d: int) -> Floats:
    """-1 where bit i % 8 of byte i // 8 of the PRG is set."""
    stream = aes_masks(seed, 0, -(-d // 64), 8).view(np.uint8)
    return 1 - 2 * np.unpackbits(stream, bitorder="little")[:d].astype(np.float32)


def matrix(d: int) -> NDArray[np.float64]:
    """Sylvester's construction."""
    h = np.ones((1, 1))
    while len(h) < d:
        h = np.block([[h, h], [h, -h]])
    return h


@cache
def rotated(d: int) -> Floats:
    return butterflies(draw(d) * signs(SEED, d)) * np.float32(d**-0.5)


def bits(values: Floats) -> NDArray[np.uint32]:
    return values.view(np.uint32)  # tells -0.0 from 0.0


@pytest.mark.parametrize("d", [2**k for k in range(10)])
def test_the_transform_is_the_matrix_of_sylvester(d: int) -> None:
    values = draw(d)
    hadamard(values, seed=SEED)
    expected = matrix(d) @ (draw(d).astype(np.float64) * signs(SEED, d)) / np.sqrt(d)
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("d", [*(2**k for k in range(15)), 2**21])  # one more than the signs drawn at a time
def test_the_result_is_the_same_bits_as_butterflies_in_order(d: int) -> None:
    values = draw(d)
    hadamard(values, seed=SEED)
    assert np.array_equal(bits(values), bits(rotated(d)))


@pytest.mark.parametrize("d", [1, 2, 16, 256, 4096])
def test_the_inverse_is_the_same_bits_as_butterflies_then_signs(d: int) -> None:
    values = draw(d)
    hadamard(values, seed=SEED, inverse=True)
    expected = butterflies(draw(d)) * np.float32(d**-0.5) * signs(SEED, d)
    assert np.array_equal(bits(values), bits(expected))


@pytest.mark.parametrize("k", range(15))
def test_the_inverse_gives_the_values_back(k: int) -> None:
    values = draw(2**k)
    hadamard(values, seed=SEED)
    hadamard(values, seed=SEED, inverse=True)
    np.testing.assert_allclose(values, draw(2**k), atol=2e-6 * (k + 1))


@given(data=st.data(), k=st.integers(0, 8), seed=seeds)
def test_small_integers_come_back_exactly_and_keep_their_norm(
    data: st.DataObject, k: int, seed: bytes
) -> None:
    d = 4 ** (k // 2)  # sqrt(d) is a power of two: nothing is rounded
    start = data.draw(st.lists(st.integers(-1000, 1000), min_size=d, max_size=d))
    values = np.array(start, np.float32)
    hadamard(values, seed=seed)
    assert np.square(values, dtype=np.float64).sum() == sum(x * x for x in start)
    hadamard(values, seed=seed, inverse=True)
    assert values.tolist() == start


@pytest.mark.parametrize("k", [0, 1, 5, 8, 9, 16])
def test_the_norm_is_preserved(k: int) -> None:
    values = draw(2**k)
    hadamard(values, seed=SEED)
    assert np.linalg.norm(values) == pytest.approx(np.linalg.norm(draw(2**k)), rel=1e-5)


def test_a_spike_is_spread_evenly_and_its_signs_are_bits_of_the_prg() -> None:
    d = 1024
    stream = reference.prg(SEED, 0, d // 64, 64)
    for at in (0, 1, 7, 8, 9, 63, 64, 500, d - 1):
        values = np.zeros(d, np.float32)
        values[at] = 32.0
        hadamard(values, seed=SEED)
        assert set(np.abs(values).tolist()) == {1.0}
        assert values[0] == (-1 if stream[at // 64] >> at % 64 & 1 else 1)


def test_another_seed_rotates_otherwise() -> None:
    one, other = draw(256), draw(256)
    hadamard(one, seed=SEED)
    hadamard(other, seed=bytes(32))
    assert not np.array_equal(one, other)


def test_values_that_are_not_finite_stay_visible() -> None:
    for bad in (np.nan, np.inf):
        values = draw(512)
        values[300] = bad
        hadamard(values, seed=SEED)
        assert not np.isfinite(values).any()


@pytest.mark.parametrize("d", [0, 3, 6, 255, 257, 1000])
def test_lengths_that_are_no_power_of_two_are_refused(d: int) -> None:
    values = np.ones(d, np.float32)
    with pytest.raises(ValueError, match=f"values: the length must be a power of two, is {d}"):
        hadamard(values, seed=SEED)
    assert (values == 1).all()


@pytest.mark.parametrize("values", [[1.0], np.zeros(4), np.zeros(4, np.int32), np.zeros(4, ">f4"), None])
def test_other_types_are_refused(values: Any) -> None:
    with pytest.raises(TypeError, match="values: an array of float32 is needed"):
        hadamard(values, seed=SEED)


@pytest.mark.parametrize("values", [np.zeros((2, 2), np.float32), np.zeros(8, np.float32)[::2]])
def test_other_shapes_are_refused(values: Floats) -> None:
    with pytest.raises(ValueError, match="values: must be one-dimensional and contiguous"):
        hadamard(values, seed=SEED)


def test_memory_that_cannot_be_changed_in_place_is_refused() -> None:
    frozen = np.zeros(4, np.float32)
    frozen.flags.writeable = False
    for values in (frozen, misaligned(np.zeros(4, np.float32))):
        with pytest.raises(ValueError, match="values: must be aligned and writable"):
            hadamard(values, seed=SEED)


@pytest.mark.parametrize("size", [0, 31, 33])
@pytest.mark.parametrize("inverse", [False, True])
def test_seeds_of_another_size_are_refused_before_anything_changes(size: int, inverse: bool) -> None:
    values = draw(64)
    with pytest.raises(ValueError, match=rf"^seeds?: .*\b32\b.* {size}$"):
        hadamard(values, seed=bytes(size), inverse=inverse)
    assert np.array_equal(values, draw(64))
