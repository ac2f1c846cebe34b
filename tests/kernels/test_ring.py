from functools import cache

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
from tests.kernels.helpers import guarded, guards_stand, lanes_for, misaligned

pytestmark = pytest.mark.usefixtures("each_variant")

EVERY_RING = range(1, 65)
every_ring = st.integers(1, 64)


LENGTHS = range(132)  # a vector has 32 lanes at most
LONG = [255, 256, 257, 1000, 2047, 2048, 2049]


def random_ring(length: int, ring_bits: int) -> list[int]:
    words = np.random.default_rng(ring_bits).integers(0, 2**64, length, np.uint64).tolist()
    return [word >> (64 - ring_bits) for word in words]


@cache
def packed_prefixes(ring_bits: int, lengths: tuple[int, ...]) -> tuple[list[int], dict[int, bytes]]:
    """Random ring elements, and what the reference packs the first `length` of them to."""
    values = random_ring(max(lengths), ring_bits)
    return values, {length: reference.pack(values[:length], ring_bits) for length in lengths}


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
    values, expected = packed_prefixes(ring_bits, tuple(LENGTHS))
    for lane in lanes_for(ring_bits):
        array = np.array(values, f"u{lane}")
        for length in LENGTHS:
            assert pack(array[:length], ring_bits) == expected[length], (length, lane)


@pytest.mark.parametrize("ring_bits", EVERY_RING)
def test_unpack_add_equals_the_reference_at_every_short_length(ring_bits: int) -> None:
    values, packed = packed_prefixes(ring_bits, tuple(LENGTHS))
    assert reference.unpack(packed[131], 131, ring_bits) == values
    for lane in lanes_for(ring_bits):
        start = np.random.default_rng(lane).integers(0, 2 ** (8 * lane), 131, f"u{lane}")
        expected = start + np.array(values, f"u{lane}")  # modulo the lane
        for length in LENGTHS:
            acc = start[:length].copy()
            unpack_add(acc, packed[length], ring_bits)
            assert np.array_equal(acc, expected[:length]), (length, lane)


@pytest.mark.parametrize("ring_bits", EVERY_RING)
def test_long_vectors_are_packed_and_added_like_the_reference(ring_bits: int) -> None:
    values, packed = packed_prefixes(ring_bits, tuple(LONG))
    for lane in lanes_for(ring_bits):
        array = np.array(values, f"u{lane}")
        for length in LONG:
            assert pack(array[:length], ring_bits) == packed[length], (length, lane)
            acc = np.ones(length, f"u{lane}")
            unpack_add(acc, packed[length], ring_bits)
            assert np.array_equal(acc, array[:length] + np.ones(1, f"u{lane}")), (length, lane)


@pytest.mark.parametrize("ring_bits", EVERY_RING)
def test_nothing_is_written_around_a_packed_vector_or_a_sum(ring_bits: int) -> None:
    values, packed = packed_prefixes(ring_bits, tuple(LENGTHS))
    for lane in lanes_for(ring_bits):
        array = misaligned(np.array(values, f"u{lane}"))
        for length in (1, 3, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 131):
            memory, inside = guarded(packed_bytes(length, ring_bits), skew=1)
            assert pack(misaligned(array[:length]), ring_bits, out=inside) == b""
            assert inside == packed[length], (length, lane)
            assert guards_stand(memory, inside)
            memory, inside = guarded(length * lane, skew=1)
            acc = np.frombuffer(inside, f"u{lane}")
            expected = acc + array[:length]
            unpack_add(acc, misaligned(np.frombuffer(packed[length], np.uint8)).data, ring_bits)
            assert np.array_equal(acc, expected), (length, lane)
            assert guards_stand(memory, inside)


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
    values = np.array(random_ring(length, ring_bits), lane_dtype(ring_bits))
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


def test_a_bytearray_may_be_packed_into() -> None:
    out = bytearray(3)
    assert pack(np.array([1, 2, 3], np.uint16), 8, out=out) == b""
    assert out == b"\x01\x02\x03"
    empty = bytearray()
    assert pack(np.empty(0, np.uint16), 8, out=empty) == b""


@pytest.mark.parametrize(
    ("out", "has"),
    [
        (bytearray(2), 2),
        (bytearray(4), 4),
        (memoryview(bytes(3)), 3),
        (memoryview(bytearray(6))[::2], 3),
        (bytearray(), 0),
    ],
)
def test_packing_into_other_memory_is_refused(out: bytearray | memoryview, has: int) -> None:
    with pytest.raises(ValueError, match=f"out: must have 3 contiguous writable bytes, has {has}"):
        pack(np.array([1, 2, 3], np.uint16), 8, out=out)
    assert bytes(out) == bytes(has)


def test_packed_bytes_within_the_vector_are_refused() -> None:
    acc = np.zeros(8, np.uint32)
    with pytest.raises(ValueError, match="packed: overlaps the array that is changed"):
        unpack_add(acc, acc.data.cast("B")[:8], 8)
    with pytest.raises(ValueError, match="out: overlaps the array that is changed"):
        pack(acc, 8, acc.data.cast("B")[:8])
