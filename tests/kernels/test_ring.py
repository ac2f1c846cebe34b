import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.kernels import (
    UIntArray,
    lane_bytes,
    lane_dtype,
    pack,
    packed_bytes,
    reference,
    ring_mask,
    spare_bits_clear,
    unpack_add,
)
from tests.kernels.helpers import LANES, misaligned

pytestmark = pytest.mark.usefixtures("each_variant")

EVERY_RING = range(1, 65)
every_ring = st.integers(1, 64)


def lanes_for(ring_bits: int) -> list[int]:
    return [lane for lane in LANES if 8 * lane >= ring_bits]


def random_ring(length: int, ring_bits: int, rng: np.random.Generator) -> list[int]:
    words = rng.integers(0, 2**64, length, np.uint64).tolist()
    return [word >> (64 - ring_bits) for word in words]


@pytest.mark.parametrize("ring_bits", EVERY_RING)
def test_lane_is_the_smallest_that_holds_the_ring(ring_bits: int) -> None:
    lane = min(lanes_for(ring_bits))
    assert lane_bytes(ring_bits) == lane
    assert lane_dtype(ring_bits) == np.dtype(f"u{lane}")
    assert ring_mask(ring_bits) == 2**ring_bits - 1


@pytest.mark.parametrize("ring_bits", [-1, 0, 65])
def test_rings_of_no_lane_are_refused(ring_bits: int) -> None:
    for function in (lane_bytes, lane_dtype, ring_mask):
        with pytest.raises(ValueError, match=rf"ring_bits: must be in 1\.\.64, is {ring_bits}"):
            function(ring_bits)
    with pytest.raises(ValueError, match="ring_bits: must be in"):
        pack(np.zeros(1, np.uint64), ring_bits)
    with pytest.raises(ValueError, match="ring_bits: must be in"):
        unpack_add(np.zeros(1, np.uint64), bytes(8), ring_bits)


@given(length=st.integers(0, 10_000), ring_bits=every_ring)
def test_packed_size_is_the_ceiling(length: int, ring_bits: int) -> None:
    assert 0 <= 8 * packed_bytes(length, ring_bits) - length * ring_bits < 8


@pytest.mark.parametrize("ring_bits", EVERY_RING)
def test_pack_equals_the_reference_at_every_short_length(ring_bits: int) -> None:
    rng = np.random.default_rng(ring_bits)
    for length in range(71):
        values = random_ring(length, ring_bits, rng)
        expected = reference.pack(values, ring_bits)
        for lane in lanes_for(ring_bits):
            assert pack(np.array(values, f"u{lane}"), ring_bits) == expected, (length, lane)


@pytest.mark.parametrize("ring_bits", EVERY_RING)
def test_unpack_add_equals_the_reference_at_every_short_length(ring_bits: int) -> None:
    rng = np.random.default_rng(ring_bits)
    for length in range(71):
        values = random_ring(length, ring_bits, rng)
        packed = reference.pack(values, ring_bits)
        assert reference.unpack(packed, length, ring_bits) == values
        for lane in lanes_for(ring_bits):
            start = rng.integers(0, 2 ** (8 * lane), length, f"u{lane}")
            acc = start.copy()
            unpack_add(acc, packed, ring_bits)
            expected = [(a + b) % 2 ** (8 * lane) for a, b in zip(start.tolist(), values, strict=True)]
            assert acc.tolist() == expected, (length, lane)


@given(data=st.data(), ring_bits=every_ring)
def test_what_was_packed_is_added_back(data: st.DataObject, ring_bits: int) -> None:
    lane = data.draw(st.sampled_from(lanes_for(ring_bits)))
    values = data.draw(st.lists(st.integers(0, 2**ring_bits - 1), max_size=200))
    packed = pack(np.array(values, f"u{lane}"), ring_bits)
    assert packed == reference.pack(values, ring_bits)
    acc = np.zeros(len(values), f"u{lane}")
    unpack_add(acc, packed, ring_bits)
    assert acc.tolist() == values


@given(data=st.data(), ring_bits=every_ring)
def test_pack_takes_the_low_bits_only(data: st.DataObject, ring_bits: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=40))
    reduced = [value % 2**ring_bits for value in values]
    assert pack(np.array(values, np.uint64), ring_bits) == reference.pack(reduced, ring_bits)


@given(data=st.data(), ring_bits=every_ring, length=st.integers(0, 80))
def test_unpack_add_does_not_look_at_spare_bits(data: st.DataObject, ring_bits: int, length: int) -> None:
    size = packed_bytes(length, ring_bits)
    packed = data.draw(st.binary(min_size=size, max_size=size))
    acc = np.zeros(length, np.uint64)
    unpack_add(acc, packed, ring_bits)
    assert acc.tolist() == reference.unpack(packed, length, ring_bits)


@pytest.mark.parametrize("ring_bits", [1, 7, 16, 17, 31, 33, 63, 64])
@pytest.mark.parametrize("length", [1, 8, 9, 1000])
def test_misaligned_buffers_are_packed_alike(ring_bits: int, length: int) -> None:
    values = np.array(random_ring(length, ring_bits, np.random.default_rng(1)), lane_dtype(ring_bits))
    packed = pack(values, ring_bits)
    assert pack(misaligned(values), ring_bits) == packed
    acc = misaligned(np.zeros_like(values))
    unpack_add(acc, misaligned(np.frombuffer(packed, np.uint8)).data, ring_bits)
    assert np.array_equal(acc, values)


@given(data=st.data(), ring_bits=every_ring, length=st.integers(0, 40))
def test_spare_bits_are_seen(data: st.DataObject, ring_bits: int, length: int) -> None:
    size = packed_bytes(length, ring_bits)
    packed = data.draw(st.binary(min_size=size, max_size=size))
    clear = int.from_bytes(packed, "little") < 2 ** (length * ring_bits)
    assert spare_bits_clear(packed, length, ring_bits) is clear
    assert spare_bits_clear(memoryview(packed), length, ring_bits) is clear


def test_packing_leaves_spare_bits_clear() -> None:
    for ring_bits in EVERY_RING:
        for length in range(9):
            ones = np.full(length, ring_mask(ring_bits), lane_dtype(ring_bits))
            assert spare_bits_clear(pack(ones, ring_bits), length, ring_bits)


@pytest.mark.parametrize("array", [[1, 2], np.zeros(3), np.zeros(3, np.int64), np.zeros(3, np.uint8), b"abc"])
def test_other_types_are_refused(array: UIntArray) -> None:
    with pytest.raises(TypeError, match="values: an array of uint16, uint32, uint64 is needed"):
        pack(array, 8)
    with pytest.raises(TypeError, match="acc: an array of uint16, uint32, uint64 is needed"):
        unpack_add(array, bytes(3), 8)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.uint32), np.zeros(8, np.uint32)[::2]])
def test_other_shapes_are_refused(array: UIntArray) -> None:
    with pytest.raises(ValueError, match="values: must be one-dimensional and contiguous"):
        pack(array, 8)
    with pytest.raises(ValueError, match="acc: must be one-dimensional and contiguous"):
        unpack_add(array, bytes(4), 8)


@pytest.mark.parametrize(("lane", "ring_bits"), [(2, 17), (4, 33), (2, 64)])
def test_lanes_narrower_than_the_ring_are_refused(lane: int, ring_bits: int) -> None:
    array = np.zeros(3, f"u{lane}")
    with pytest.raises(ValueError, match=f"values: uint{8 * lane} is narrower than ring_bits = {ring_bits}"):
        pack(array, ring_bits)
    with pytest.raises(ValueError, match=f"acc: uint{8 * lane} is narrower than ring_bits = {ring_bits}"):
        unpack_add(array, bytes(packed_bytes(3, ring_bits)), ring_bits)


@pytest.mark.parametrize("size", [0, 6, 8, 100])
def test_packed_vectors_of_another_size_are_refused(size: int) -> None:
    acc = np.zeros(3, np.uint32)
    with pytest.raises(ValueError, match=f"packed: must have 7 contiguous bytes, has {size}"):
        unpack_add(acc, bytes(size), 18)
    assert not acc.any()


def test_read_only_acc_is_refused() -> None:
    acc = np.zeros(4, np.uint32)
    acc.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        unpack_add(acc, bytes(16), 32)
