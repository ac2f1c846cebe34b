from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.kernels import MAXIMUM_KEYSTREAM_BYTES, UIntArray, mask, mask_apply, reference
from tests.kernels.helpers import LANES, aes_masks, guarded, guards_stand, misaligned, period_251, seeds

pytestmark = pytest.mark.usefixtures("each_variant")

SEED = bytes(range(100, 132))
OTHER_SEED = bytes(range(32))
PLUS = np.ones(1, np.int8)
BLOCK, GROUPS, TILE = 16, (128, 256, 512), 1 << 16  # bytes; variants take 8, 16 or 32 blocks at a time


def around(*sizes: int) -> list[int]:
    return [size + step for size in sizes for step in (-1, 0, 1)]


@cache
def stream(seed: bytes, first: int, length: int, lane: int) -> UIntArray:
    return aes_masks(seed, first, length, lane)


@given(data=st.data(), lane=st.sampled_from(LANES), first=st.integers(0, 3000))
def test_masks_equal_the_reference(data: st.DataObject, lane: int, first: int) -> None:
    words = st.integers(0, 2 ** (8 * lane) - 1)
    start = data.draw(st.lists(words, max_size=150))
    terms = data.draw(st.lists(st.tuples(seeds, st.sampled_from([1, -1])), max_size=4))
    acc = np.array(start, f"u{lane}")
    signs = np.array([sign for _, sign in terms], np.int8)
    mask_apply(acc, b"".join(seed for seed, _ in terms), signs, first=first)
    expected = reference.mask_apply(start, [seed for seed, _ in terms], signs.tolist(), 8 * lane, first)
    assert acc.tolist() == expected


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("first", [0, 1, 7, 8, 63, 255, 1000, 8191, 8192, 100_003])
def test_masks_equal_aes_around_blocks_groups_and_tiles(lane: int, first: int) -> None:
    sizes = [size // lane for size in (BLOCK, *GROUPS, 1024, TILE - GROUPS[-1], TILE, 2 * TILE)]
    longest = 2 * TILE // lane + 1
    one, other = (stream(seed, first, longest, lane) for seed in (SEED, OTHER_SEED))
    start = period_251(longest, lane)
    for length in sorted({0, 1, 2, *around(*sizes)}):
        acc = start[:length].copy()
        mask_apply(acc, SEED + OTHER_SEED, np.array([1, -1], np.int8), first=first)
        assert np.array_equal(acc, start[:length] + one[:length] - other[:length]), length


@pytest.mark.parametrize("lane", LANES)
def test_a_range_may_start_and_end_anywhere_within_a_group(lane: int) -> None:
    group = GROUPS[-1] // lane
    whole = stream(SEED, 0, 5 * group, lane)
    for first in range(group + 2):
        for length in {1, group - first % group, group, group + 1, 2 * group + 7, 4 * group - first}:
            acc = np.zeros(length, f"u{lane}")
            mask_apply(acc, SEED, PLUS, first=first)
            assert np.array_equal(acc, whole[first : first + length]), (first, length)


@pytest.mark.parametrize(("lane", "length"), [(2, 300), (4, 1), (4, 129), (8, 70)])
def test_any_number_of_seeds_up_to_300(lane: int, length: int) -> None:
    many = np.random.default_rng(300).bytes(32 * 300)
    signs = np.array([(1, -1, -1)[j % 3] for j in range(300)], np.int8)
    start = period_251(length, lane)
    total = start.copy()
    for count in range(301):
        acc = start.copy()
        mask_apply(acc, many[: 32 * count], signs[:count], first=9)
        assert np.array_equal(acc, total), count
        if count < 300:
            last = stream(many[32 * count : 32 * count + 32], 9, length, lane)
            total += last if signs[count] > 0 else -last


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("blocks", [2**8, 2**16, 2**24, 2**31, 2**32 - 2**8])
def test_the_counter_carries_into_all_its_bytes(lane: int, blocks: int) -> None:
    first, length = (blocks * BLOCK - 1024) // lane + 3, 2500 // lane
    acc = np.zeros(length, f"u{lane}")
    mask_apply(acc, SEED, PLUS, first=first)
    assert np.array_equal(acc, stream(SEED, first, length, lane))


@pytest.mark.parametrize("lane", LANES)
def test_nothing_is_written_around_a_range(lane: int) -> None:
    for length in (1, 7, 64, 65, 1000):
        for skew in (0, 1):
            memory, inside = guarded(length * lane, skew)
            acc = np.frombuffer(inside, f"u{lane}")
            expected = acc + stream(SEED, 5, length, lane)
            mask_apply(acc, SEED, PLUS, first=5)
            assert np.array_equal(acc, expected)
            assert guards_stand(memory, inside)


@pytest.mark.parametrize("lane", LANES)
def test_masks_are_the_keystream_of_nist_sp_800_38a(lane: int) -> None:
    # F.5.1 CTR-AES128.Encrypt, output blocks 1 to 4; the initial counter ends in fcfdfeff.
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    nonce = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafb")
    stream = bytes.fromhex(
        "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae"
        "6a2cc3787889374fbeb4c81b17ba6c44e89c399ff0f198c6d40a31db156cabfe"
    )
    acc = np.zeros(64 // lane, f"u{lane}")
    mask_apply(acc, key + nonce + b"rest", PLUS, first=0xFCFDFEFF * BLOCK // lane)
    assert acc.astype(f"<u{lane}").tobytes() == stream


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("length", [1, 7, 8, 9, 1000, TILE // 2 + 3])
def test_misaligned_arrays_get_the_same_masks(lane: int, length: int) -> None:
    start = period_251(length, lane)
    acc, aligned = misaligned(start), start.copy()
    assert acc.ctypes.data % 2 == 1
    mask_apply(acc, misaligned(np.frombuffer(SEED, np.uint8)).data, PLUS, first=3)
    mask_apply(aligned, SEED, PLUS, first=3)
    assert np.array_equal(acc, aligned)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("length", [1, 255, 256, 257, 3 * 256 + 7, TILE + 1])
def test_threads_do_not_change_the_result(lane: int, length: int) -> None:
    start = period_251(length, lane)
    expected = start + stream(SEED, 11, length, lane) - stream(OTHER_SEED, 11, length, lane)
    for threads in (None, 1, 2, 3, 4, 17):
        acc = start.copy()
        mask_apply(acc, SEED + OTHER_SEED, np.array([1, -1], np.int8), first=11, threads=threads)
        assert np.array_equal(acc, expected), threads


@pytest.mark.parametrize(
    ("cpus", "lanes", "threads"), [(1, 70_000, 1), (3, 70_000, 3), (64, 70_000, 5), (64, 500, 1), (2, 0, 1)]
)
def test_threads_are_as_many_as_cpus_and_work_allow(
    cpus: int, lanes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ranges(length: int, parts: int, _: int) -> list[tuple[int, int]]:
        asked.append(parts)
        return [(0, length)]

    monkeypatch.setattr(mask, "_WORTH_A_THREAD", 1 << 13)
    monkeypatch.setattr(mask, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(mask, "ranges", ranges)
    acc = np.zeros(lanes, np.uint32)
    mask_apply(acc, SEED + OTHER_SEED, np.ones(2, np.int8))
    assert asked == ([threads] if lanes else [])


def test_the_default_takes_long_ranges_apart() -> None:
    length = 2 * mask._WORTH_A_THREAD // 8 + 5
    acc = np.zeros(length, np.uint64)
    mask_apply(acc, SEED, -PLUS, first=1)
    assert np.array_equal(acc, -stream(SEED, 1, length, 8))


@given(lane=st.sampled_from(LANES), cuts=st.lists(st.integers(0, 500), max_size=5), first=st.integers(0, 99))
def test_a_vector_may_be_masked_in_pieces(lane: int, cuts: list[int], first: int) -> None:
    whole, pieces = np.zeros(500, f"u{lane}"), np.zeros(500, f"u{lane}")
    mask_apply(whole, SEED, PLUS, first=first)
    edges = [0, *sorted(cuts), 500]
    for start, stop in pairwise(edges):
        mask_apply(pieces[start:stop], SEED, PLUS, first=first + start)
    assert np.array_equal(whole, pieces)


@given(many=st.lists(seeds, min_size=1, max_size=6), lane=st.sampled_from(LANES))
def test_opposite_signs_cancel(many: list[bytes], lane: int) -> None:
    acc = period_251(100, lane)
    mask_apply(acc, b"".join(many), np.ones(len(many), np.int8))
    mask_apply(acc, b"".join(many), -np.ones(len(many), np.int8))
    assert np.array_equal(acc, period_251(100, lane))


@settings(max_examples=30)
@given(seed=seeds, tail=st.binary(min_size=4, max_size=4))
def test_the_last_four_bytes_of_a_seed_are_not_used(seed: bytes, tail: bytes) -> None:
    one, other = np.zeros(20, np.uint32), np.zeros(20, np.uint32)
    mask_apply(one, seed, PLUS)
    mask_apply(other, seed[:28] + tail, PLUS)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("lane", LANES)
def test_the_keystream_can_be_used_to_its_last_byte_and_no_further(lane: int) -> None:
    end = MAXIMUM_KEYSTREAM_BYTES // lane
    longest = (TILE + 600) // lane
    last = stream(SEED, end - longest, longest, lane)
    for length in (1, 7, 8, 100, 256, 300, longest):
        acc = np.zeros(length, f"u{lane}")
        mask_apply(acc, SEED, PLUS, first=end - length)
        assert np.array_equal(acc, last[longest - length :])
        before = acc.copy()
        for first in (end - length + 1, end, 2**62):
            with pytest.raises(ValueError, match=rf"first: {first} with {length} lanes passes 2\^36 bytes"):
                mask_apply(acc, SEED, PLUS, first=first)
        assert np.array_equal(acc, before)
    mask_apply(np.zeros(0, f"u{lane}"), SEED, PLUS, first=end)


def test_seeds_may_be_any_buffer_and_are_left_alone() -> None:
    results = []
    for seed in (SEED, bytearray(SEED), memoryview(SEED), memoryview(b"x" + SEED)[1:]):
        acc = np.zeros(50, np.uint32)
        mask_apply(acc, seed, PLUS)
        assert seed == SEED
        results.append(acc.tolist())
    assert results == [reference.prg(SEED, 0, 50, 32)] * 4


def test_no_seeds_and_no_lanes_change_nothing() -> None:
    acc = period_251(9, 4)
    mask_apply(acc, b"", np.empty(0, np.int8))
    assert np.array_equal(acc, period_251(9, 4))
    empty = np.empty(0, np.uint64)
    mask_apply(empty, SEED, PLUS, threads=4)
    assert empty.size == 0


@pytest.mark.parametrize("acc", [[1, 2], np.zeros(3), np.zeros(3, np.int32), np.zeros(3, np.uint8), None])
def test_acc_of_another_type_is_refused(acc: UIntArray) -> None:
    with pytest.raises(TypeError, match="acc: an array of uint16, uint32, uint64 is needed"):
        mask_apply(acc, SEED, PLUS)


@pytest.mark.parametrize(
    "acc", [np.zeros((2, 2), np.uint32), np.zeros(8, np.uint32)[::2], np.zeros((), np.uint16)]
)
def test_acc_of_another_shape_is_refused(acc: UIntArray) -> None:
    with pytest.raises(ValueError, match="acc: must be one-dimensional and contiguous"):
        mask_apply(acc, SEED, PLUS)


def test_read_only_acc_is_refused() -> None:
    acc = np.zeros(4, np.uint32)
    acc.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        mask_apply(acc, SEED, PLUS)


def test_signs_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="signs: an array of int8 is needed, got int64"):
        mask_apply(np.zeros(3, np.uint32), SEED, np.ones(1, np.int64))


@pytest.mark.parametrize("sign", [0, 2, -2, 127, -128])
def test_signs_other_than_one_are_refused(sign: int) -> None:
    with pytest.raises(ValueError, match=r"signs: every entry must be \+1 or -1"):
        mask_apply(np.zeros(3, np.uint32), SEED, np.array([sign], np.int8))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_seeds_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"seeds: 1 signs need 32 contiguous bytes, got {size}"):
        mask_apply(np.zeros(3, np.uint32), bytes(size), PLUS)


def test_negative_first_is_refused() -> None:
    with pytest.raises(ValueError, match="first: -1 with 3 lanes"):
        mask_apply(np.zeros(3, np.uint32), SEED, PLUS, first=-1)


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads: must be at least 1, is {threads}"):
        mask_apply(np.zeros(3, np.uint32), SEED, PLUS, threads=threads)


def test_seeds_within_the_vector_are_refused() -> None:
    acc = np.zeros(100, np.uint32)
    with pytest.raises(ValueError, match="seeds: overlaps the array that is changed"):
        mask_apply(acc, acc.data.cast("B")[:32], PLUS)
