import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels import (
    NotFiniteError,
    QuantizedVector,
    UIntArray,
    VectorSource,
    lane_dtype,
    mask_apply,
    masked_chunks,
    pack,
    pack_masked,
    packed_bytes,
    quantize,
    ring_mask,
)
from secagg.kernels.upload import CHUNK

pytestmark = pytest.mark.usefixtures("each_variant")

SEEDS = np.random.default_rng(1).bytes(32 * 3)
SIGNS = np.array([1, -1, 1], np.int8)
MEBIBYTE = 1 << 20


@dataclass
class Ramp:
    """Entry i is 7 i modulo the ring; fails at entry `fails_at`; keeps the buffers that it was given."""

    length: int
    ring_bits: int = 32
    fails_at: int = -1
    given: list[UIntArray] = field(default_factory=list)

    def read(self, first: int, out: UIntArray) -> None:
        self.given.append(out)
        out[:] = 1  # something to wipe
        if first <= self.fails_at < first + out.size:
            raise LookupError(f"entry {self.fails_at}")
        out[:] = 7 * np.arange(first, first + out.size, dtype=np.uint64) & np.uint64(
            ring_mask(self.ring_bits)
        )


def whole(source: VectorSource, ring_bits: int) -> bytes:
    """Read everything, then mask everything, then pack everything."""
    vector = np.empty(source.length, lane_dtype(ring_bits))
    source.read(0, vector)
    mask_apply(vector, SEEDS, SIGNS)
    return bytes(pack(vector, ring_bits))


def real(length: int) -> NDArray[np.float32]:
    return np.random.default_rng(length).normal(0, 1, length).astype(np.float32)


@pytest.mark.parametrize("ring_bits", [2, 9, 16, 17, 20, 32, 33, 64])
@pytest.mark.parametrize("length", [0, 1, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_the_upload_is_the_packed_masked_vector(length: int, ring_bits: int) -> None:
    expected = whole(Ramp(length, ring_bits), ring_bits)
    for threads in (1, 2, 3, 8):
        assert pack_masked(Ramp(length, ring_bits), SEEDS, SIGNS, ring_bits, threads=threads) == expected
    assert b"".join(masked_chunks(Ramp(length, ring_bits), SEEDS, SIGNS, ring_bits)) == expected


@pytest.mark.parametrize("ring_bits", [12, 24, 48])
def test_quantized_values_are_uploaded_as_if_quantized_before(ring_bits: int) -> None:
    values, limit = real(2 * CHUNK + 77), 2 ** (ring_bits - 2)
    source = QuantizedVector(
        values, clip=3.0, scale=limit / 3, limit=limit, ring_bits=ring_bits, seed=SEEDS[:32], first=3
    )
    vector = quantize(
        values, clip=3.0, scale=limit / 3, limit=limit, ring_bits=ring_bits, seed=SEEDS[:32], first=3
    )
    mask_apply(vector, SEEDS, SIGNS)
    expected = pack(vector, ring_bits)
    for threads in (1, 2, 5):
        assert pack_masked(source, SEEDS, SIGNS, ring_bits, threads=threads) == expected


def test_no_seeds_leave_the_vector_unmasked() -> None:
    vector = np.empty(20, np.uint32)
    Ramp(20).read(0, vector)
    assert pack_masked(Ramp(20), b"", np.empty(0, np.int8), 32) == pack(vector, 32)


@pytest.mark.parametrize("ring_bits", [3, 20, 61])
def test_a_range_of_chunks_is_that_part_of_the_whole(ring_bits: int) -> None:
    length = 2 * CHUNK + 100
    expected = whole(Ramp(length, ring_bits), ring_bits)
    for first, end in (
        (0, 8),
        (8, 9),
        (16, CHUNK + 24),
        (CHUNK, length),
        (length - 4, length),
        (8, 8),
    ):
        got = b"".join(masked_chunks(Ramp(length, ring_bits), SEEDS, SIGNS, ring_bits, first=first, end=end))
        at, behind = packed_bytes(first, ring_bits), packed_bytes(max(first, end), ring_bits)
        spare = -(max(end - first, 0) * ring_bits) % 8
        assert len(got) == behind - at
        if spare == 0:
            assert got == expected[at:behind]
        else:  # the last byte is not shared with the next entry
            assert got[:-1] == expected[at : behind - 1]
            assert got[-1] == expected[behind - 1] & 0xFF >> spare


@pytest.mark.parametrize("first", [1, 7, 12, -1])
def test_ranges_that_start_within_a_byte_are_refused(first: int) -> None:
    with pytest.raises(ValueError, match=f"first: must be a multiple of 8, is {first}"):
        list(masked_chunks(Ramp(20), SEEDS, SIGNS, 20, first=first))


def test_chunks_are_read_in_order_and_once() -> None:
    seen: list[tuple[int, int]] = []

    class Watched(Ramp):
        def read(self, first: int, out: UIntArray) -> None:
            seen.append((first, out.size))
            super().read(first, out)

    for _ in masked_chunks(Watched(2 * CHUNK + 3), SEEDS, SIGNS, 32):
        pass
    assert seen == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, 3)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at", [0, CHUNK + 5, 3 * CHUNK])
def test_errors_of_the_source_pass_through(threads: int, at: int) -> None:
    with pytest.raises(LookupError, match=f"entry {at}"):
        pack_masked(Ramp(3 * CHUNK + 1, fails_at=at), SEEDS, SIGNS, 32, threads=threads)
    values = real(3 * CHUNK + 1)
    values[at] = np.nan
    source = QuantizedVector(values, clip=1.0, scale=9.0, limit=9, ring_bits=16, seed=SEEDS[:32])
    with pytest.raises(NotFiniteError) as caught:
        pack_masked(source, SEEDS, SIGNS, 16, threads=threads)
    assert caught.value.index == at


@pytest.mark.parametrize(
    ("seeds", "signs", "ring_bits", "message"),
    [
        (SEEDS[:-1], SIGNS, 32, "seeds: 3 signs need 96 contiguous bytes, got 95"),
        (SEEDS, np.zeros(3, np.int8), 32, "signs: every entry must be"),
        (SEEDS, SIGNS, 65, r"ring_bits: must be in 1\.\.64, is 65"),
    ],
)
def test_bad_arguments_are_refused(
    seeds: bytes, signs: NDArray[np.int8], ring_bits: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pack_masked(Ramp(20), seeds, signs, ring_bits)
    with pytest.raises(ValueError, match=message):
        list(masked_chunks(Ramp(20), seeds, signs, ring_bits))


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="threads: must be at least 1, is 0"):
        pack_masked(Ramp(20), SEEDS, SIGNS, 32, threads=0)


def exhaust(chunks: Iterator[bytearray]) -> None:
    for _ in chunks:
        pass


def stop_early(chunks: Iterator[bytearray]) -> None:
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]


def fail(chunks: Iterator[bytearray]) -> None:
    with pytest.raises(LookupError):
        exhaust(chunks)


@pytest.mark.parametrize(("use", "fails_at"), [(exhaust, -1), (stop_early, -1), (fail, CHUNK + 1)])
def test_the_unmasked_entries_are_wiped(use: Callable[[Iterator[bytearray]], None], fails_at: int) -> None:
    source = Ramp(2 * CHUNK + 9, fails_at=fails_at)
    use(masked_chunks(source, SEEDS, SIGNS, 32))
    assert source.given
    assert not any(out.any() for out in source.given)


def test_every_thread_wipes_its_own() -> None:
    source = Ramp(4 * CHUNK)
    pack_masked(source, SEEDS, SIGNS, 32, threads=3)
    assert len({out.ctypes.data for out in source.given}) >= 2
    assert not any(out.any() for out in source.given)


def peak(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_chunk_whatever_the_length() -> None:
    class Still(Ramp):
        def read(self, first: int, out: UIntArray) -> None:
            out[:] = first

    length = 64 * CHUNK  # 16 MiB packed
    assert peak(lambda: exhaust(masked_chunks(Still(length), SEEDS, SIGNS, 32))) < 2 * MEBIBYTE
    packed = packed_bytes(length, 32)
    assert peak(lambda: pack_masked(Still(length), SEEDS, SIGNS, 32)) < packed + 2 * MEBIBYTE
    assert peak(lambda: pack_masked(Still(length), SEEDS, SIGNS, 32, threads=3)) < packed + 6 * MEBIBYTE


def test_quantization_needs_no_second_vector() -> None:
    values = real(32 * CHUNK)
    source = QuantizedVector(values, clip=3.0, scale=100.0, limit=300, ring_bits=16, seed=SEEDS[:32])
    packed = packed_bytes(values.size, 16)
    assert peak(lambda: pack_masked(source, SEEDS[:32], SIGNS[:1], 16)) < packed + 3 * MEBIBYTE


@pytest.mark.parametrize(("first", "end"), [(16, 8), (0, 101), (104, None), (-8, 8)])
def test_a_range_outside_of_the_source_is_refused(first: int, end: int | None) -> None:
    with pytest.raises(ValueError, match="are not within the 100 entries"):
        next(masked_chunks(Ramp(100), SEEDS, SIGNS, 32, first=first, end=end))


def test_an_entry_that_is_not_below_the_ring_is_refused_by_its_index() -> None:
    with pytest.raises(ParameterError, match=r"vector\[2\]: must be in 0\.\.2\^3 - 1"):
        pack_masked(Ramp(20, ring_bits=4), SEEDS, SIGNS, 3)
