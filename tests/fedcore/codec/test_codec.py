"""Sums of encoded vectors decode to weighted means, never wrap, and bad values are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore.codec.codec import Codec, WeightedMean
from fedcore.errors import CodecError, SettingError, SpoiledError
from secagg.kernels import UIntArray, lane_dtype, ring_mask

SEED = bytes(range(32))


def make(**changes: float) -> Codec:
    values: dict[str, float] = {"clip": 1.0, "bits": 16, "weight_cap": 100, "clients": 5}
    return Codec(**(values | changes))  # type: ignore[arg-type]


def ring_sum(codec: Codec, vectors: list[UIntArray]) -> UIntArray:
    """What secure aggregation gives: the sum modulo 2^ring_bits, in Python's integers."""
    columns = zip(*(vector.tolist() for vector in vectors), strict=True)
    total = [sum(column) & ring_mask(codec.ring_bits) for column in columns]
    return np.array(total, lane_dtype(codec.ring_bits))


def centred(codec: Codec, vector: UIntArray) -> list[int]:
    """Ring elements as signed integers."""
    half = 1 << (codec.ring_bits - 1)
    return [value - 2 * half if value >= half else value for value in vector.tolist()]


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Codec, NDArray[np.float64], list[int], list[bytes]]:
    """A codec, no more clients than it plans for, their vectors (some beyond the clip) and weights."""
    codec = Codec(
        clip=draw(st.floats(1e-6, 1e6)),
        bits=draw(st.integers(1, 40)),
        weight_cap=draw(st.integers(1, 100_000)),
        clients=draw(st.integers(1, 50)),
    )
    n = draw(st.integers(1, min(codec.clients, 8)))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1.5, 1.5, (n, draw(st.integers(1, 20)))) * codec.clip
    values[rng.random(values.shape) < 0.1] = 0.0
    weights = draw(st.lists(st.integers(1, codec.weight_cap), min_size=n, max_size=n))
    return codec, values, weights, [rng.bytes(32) for _ in range(n)]


@settings(deadline=None)
@given(cohorts())
def test_a_sum_decodes_to_the_weighted_mean_of_the_clipped_vectors_within_the_bound(
    cohort: tuple[Codec, NDArray[np.float64], list[int], list[bytes]],
) -> None:
    codec, values, weights, seeds = cohort
    encoded = [codec.encode(*client) for client in zip(values, weights, seeds, strict=True)]
    decoded = codec.decode(ring_sum(codec, encoded), len(encoded))
    assert decoded.weight == sum(weights)
    wanted = np.average(np.clip(values, -codec.clip, codec.clip), axis=0, weights=weights)
    bound = codec.error_bound(len(weights), sum(weights))
    # Kernels and numpy calculate in float64: 40 bits leave 2^-12 of a step to it.
    assert np.abs(decoded.mean - wanted).max() <= bound * (1 + 2**-12)


@settings(deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 2**20),
    st.integers(1, 30),
    st.floats(1e-6, 1e6),
    st.integers(0, 2**32),
)
def test_at_extreme_values_the_sum_of_all_clients_never_wraps(
    bits: int, weight_cap: int, clients: int, clip: float, seed: int
) -> None:
    codec = Codec(clip=clip, bits=bits, weight_cap=weight_cap, clients=clients)
    rng = np.random.default_rng(seed)
    values = np.array([clip, -clip, 1e300, -1e300])
    encoded = [codec.encode(values, weight_cap, rng.bytes(32)) for _ in range(clients)]
    exact = [sum(column) for column in zip(*(centred(codec, v) for v in encoded), strict=True)]
    assert centred(codec, ring_sum(codec, encoded)) == exact
    digits = exact[4:]
    assert sum(digit * (codec.levels + 1) ** i for i, digit in enumerate(digits)) == clients * weight_cap * (
        weight_cap > 1
    )
    assert all(0 <= digit <= clients * codec.levels for digit in digits)
    exact = exact[:4]
    assert all(abs(value) <= clients * codec.levels for value in exact)
    # and the extremes are reached, up to one step of rounding in clip * (levels / clip)
    assert all(abs(value) >= clients * (codec.levels - 1) for value in exact)
    assert [value > 0 for value in exact] == [True, False, True, False] or codec.levels == 1


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 5000)), min_size=1, max_size=9),
)
def test_precise_values_survive_any_number_of_bits(bits: int, clients: list[tuple[float, int]]) -> None:
    codec = Codec(clip=1.0, bits=bits, weight_cap=5000, clients=9, precise=2)
    vectors = [
        codec.encode(np.zeros(3), weight, SEED, np.array([value, -value])) for value, weight in clients
    ]
    assert vectors[0].size == codec.length(3)
    decoded = codec.decode(ring_sum(codec, vectors), len(clients))
    values, weights = zip(*clients, strict=True)
    wanted = np.average(values, weights=weights)
    assert np.abs(decoded.precise - [wanted, -wanted]).max() <= 2**-24 + 1e-15
    assert decoded.weight == sum(weights)


@pytest.mark.parametrize("value", [0.3, -0.9, 0.0])
def test_one_bit_is_an_unbiased_sign(value: float) -> None:
    codec = make(bits=1, weight_cap=1, clients=3)
    n = 200_000
    total = ring_sum(codec, [codec.encode(np.full(n, value), 1, bytes([i]) * 32) for i in range(3)])
    assert codec.ring_bits == 2
    mean = codec.decode(total, 3).mean
    assert set(np.round(mean, 9)) <= {-1.0, round(-1 / 3, 9), round(1 / 3, 9), 1.0}
    assert mean.mean() == pytest.approx(value, abs=5 / np.sqrt(3 * n))


def test_a_weight_takes_as_many_digits_as_the_bits_need() -> None:
    assert [make(bits=bits, weight_cap=1000).overhead for bits in (1, 2, 4, 8, 11, 20)] == [
        10,
        10,
        4,
        2,
        1,
        1,
    ]


@pytest.mark.parametrize("bad", [1.001, -2.0, float("nan"), float("inf")])
def test_a_precise_value_out_of_range_is_refused(bad: float) -> None:
    with pytest.raises(CodecError, match=r"precise\[1\]: must be in \[-1, 1\]"):
        make(precise=2).encode(np.zeros(1), 1, SEED, np.array([0.0, bad]))
    with pytest.raises(CodecError, match="precise: must be 2 values, are 0"):
        make(precise=2).encode(np.zeros(1), 1, SEED)


@pytest.mark.parametrize("clients", [1, 2, 3, 8, 1000])
@pytest.mark.parametrize(("bits", "weight_cap"), [(2, 1), (2, 1000), (16, 1), (16, 2**15), (40, 7)])
def test_the_ring_holds_every_sum_and_is_not_twice_as_large_as_needed(
    bits: int, weight_cap: int, clients: int
) -> None:
    codec = Codec(clip=1.0, bits=bits, weight_cap=weight_cap, clients=clients)
    largest = clients * (2 ** (bits - 1) - 1)
    assert 2 ** (codec.ring_bits - 2) <= largest < 2 ** (codec.ring_bits - 1)


def test_the_largest_plan_of_64_bits_is_exact() -> None:
    codec = make(weight_cap=2**62, clients=2**24, bits=40)
    assert codec.ring_bits == 64
    total = codec.encode(np.array([1.0, -1.0]), 2**62, SEED)
    decoded = codec.decode(total, 1)
    assert decoded.weight == 2**62
    assert decoded.mean.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("value", [0.3, -0.3, 0.05, -0.95, 0.9999])
@pytest.mark.parametrize("weight", [1, 3, 7])
def test_rounding_is_unbiased(value: float, weight: int) -> None:
    codec = make(bits=4, weight_cap=7, clients=1)
    n = 200_000
    total = codec.encode(np.full(n, value), weight, SEED)
    steps = np.array(centred(codec, total)[:-1])
    exact = value * codec.levels * weight / 7
    low = int(np.floor(exact))
    assert set(steps.tolist()) == {low, low + 1}
    up = exact - low
    assert abs(steps.mean() - exact) < 5 * np.sqrt(up * (1 - up) / n)


def test_the_mean_over_many_roundings_is_closer_than_one_rounding() -> None:
    codec = make(bits=3, clients=400)
    values = np.linspace(-0.97, 0.97, 50)
    rng = np.random.default_rng(5)
    total = ring_sum(codec, [codec.encode(values, 100, rng.bytes(32)) for _ in range(400)])
    step = codec.clip / codec.levels
    assert np.abs(codec.decode(total, 400).mean - values).max() < 5 * 0.5 * step / np.sqrt(400)


def test_rounding_repeats_with_its_seed_and_only_with_it() -> None:
    codec = make(bits=8)
    values = np.random.default_rng(0).uniform(-1, 1, 1000)
    first = codec.encode(values, 100, SEED)
    assert np.array_equal(first, codec.encode(values, 100, SEED))
    assert not np.array_equal(first, codec.encode(values, 100, bytes(32)))


def test_the_weight_is_the_last_coordinate_and_exact() -> None:
    codec = make(weight_cap=1000)
    encoded = codec.encode(np.zeros(3), 777, SEED)
    assert encoded.shape == (codec.length(3),) == (4,)
    assert encoded.tolist() == [0, 0, 0, 777]
    assert encoded.dtype == lane_dtype(codec.ring_bits)


def test_encoding_leaves_the_values_as_they_are_and_takes_any_memory_layout() -> None:
    codec = make()
    values = np.linspace(-3, 3, 20)
    before = values.copy()
    strided = codec.encode(values[::2], 10, SEED)
    assert np.array_equal(values, before)
    assert np.array_equal(strided, codec.encode(values[::2].copy(), 10, SEED))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 0.0}, r"clip: must be in 1e-100..1e100, is 0\.0"),
        ({"clip": -1.0}, r"clip: .* is -1\.0"),
        ({"clip": float("nan")}, "clip: .* is nan"),
        ({"clip": float("inf")}, "clip: .* is inf"),
        ({"bits": 0}, r"bits: must be in 1\.\.40, is 0"),
        ({"bits": 41}, r"bits: must be in 1\.\.40, is 41"),
        ({"weight_cap": 0}, r"weight_cap: must be in 1\.\.2\^62, is 0"),
        ({"weight_cap": -3}, "weight_cap.* -3"),
        ({"clients": 0}, "clients: must be at least 1, is 0"),
        ({"bits": 40, "clients": 2**24 + 1}, "bits: .* need 65 ring bits, 64 is the limit"),
        ({"weight_cap": 2**62 + 1}, "weight_cap: must be in"),
        ({"precise": -1}, "precise: must be in .* is -1"),
        ({"headroom": 2**63}, "headroom: must be in .* is "),
        ({"bits": 1, "headroom": 4}, "bits: noise needs 2 or more"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make(**changes)


@pytest.mark.parametrize("weight", [-1, 101, 2**64])
def test_a_weight_outside_its_cap_is_refused(weight: int) -> None:
    with pytest.raises(CodecError, match=rf"weight: must be in 0\.\.100, is {weight}"):
        make().encode(np.zeros(2), weight, SEED)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 20_000])
def test_a_value_that_is_not_finite_is_refused_with_its_place(bad: float, place: int) -> None:
    values = np.zeros(20_001)
    values[place] = bad
    with pytest.raises(CodecError, match=rf"update\[{place}\]: must be finite"):
        make().encode(values, 1, SEED)


@pytest.mark.parametrize("survivors", [0, -1, 6])
def test_other_numbers_of_survivors_than_planned_are_refused(survivors: int) -> None:
    codec = make()
    with pytest.raises(CodecError, match=rf"survivors: must be in 1\.\.5, are {survivors}"):
        codec.decode(codec.encode(np.zeros(2), 1, SEED), survivors)


@pytest.mark.parametrize("weight", [0, 301, 2**10])
def test_a_sum_of_weights_that_cannot_be_is_spoiled(weight: int) -> None:
    codec = make()
    total = np.zeros(3, lane_dtype(codec.ring_bits))
    total[-1] = weight
    with pytest.raises(SpoiledError, match=rf"weights of 3 clients sum to 1\.\.300, not to {weight}"):
        codec.decode(total, 3)


def test_a_digit_above_what_the_survivors_can_send_spoils_a_sum() -> None:
    codec = make(bits=4, weight_cap=100)  # two digits to the base 8
    total = np.zeros(2 + codec.overhead, lane_dtype(codec.ring_bits))
    assert codec.overhead == 3
    total[2:] = [22, 0, 0]
    with pytest.raises(SpoiledError, match="total: a digit is above 21"):
        codec.decode(total, 3)
    total[2:] = [21, 0, 0]
    assert codec.decode(total, 3).weight == 21


def test_precise_values_out_of_range_spoil_a_sum() -> None:
    codec = make(weight_cap=1, precise=1)
    total = codec.encode(np.zeros(2), 1, SEED, np.array([1.0]))
    assert codec.decode(total, 1).precise.tolist() == [1.0]
    total[-1] += 1
    with pytest.raises(SpoiledError, match=r"precise values are outside \[-1, 1\]"):
        codec.decode(total, 1)


@given(bits=st.integers(2, 40), weight=st.integers(1, 100), seed=st.binary(min_size=32, max_size=32))
def test_a_vector_of_weight_zero_is_zeros_and_changes_no_mean(bits: int, weight: int, seed: bytes) -> None:
    codec = make(bits=bits, precise=1)
    values = np.array([0.5, -2.0, 1e300])
    nothing = codec.encode(values, 0, seed, np.array([1.0]))
    assert nothing.size == codec.length(3)
    assert not nothing.any()
    other = codec.encode(values, weight, seed, np.array([-0.5]))
    alone, joined = codec.decode(other, 1), codec.decode(ring_sum(codec, [other, nothing]), 2)
    assert joined.weight == alone.weight == weight
    assert joined.mean.tolist() == alone.mean.tolist()
    assert joined.precise.tolist() == alone.precise.tolist()


def test_under_a_cap_of_one_no_weight_is_sent_and_all_count() -> None:
    codec = make(weight_cap=1)
    assert (codec.overhead, codec.length(3)) == (0, 3)
    vectors = [codec.encode(np.full(3, value), 1, SEED) for value in (0.5, -0.25)]
    found = codec.decode(ring_sum(codec, vectors), 2)
    assert found.weight == 2
    assert found.mean == pytest.approx([0.125] * 3, abs=codec.error_bound(2, 2))
    assert codec.encode(np.full(3, 0.5), 0, SEED).tolist() == [0, 0, 0]
    with pytest.raises(CodecError, match=r"weight: must be in 0\.\.1, is 2"):
        codec.encode(np.zeros(3), 2, SEED)


@pytest.mark.parametrize("weight", [1, 300])
def test_the_least_and_the_largest_sum_of_weights_are_taken(weight: int) -> None:
    codec = make()
    total = np.zeros(3, lane_dtype(codec.ring_bits))
    total[-1] = weight
    decoded = codec.decode(total, 3)
    assert isinstance(decoded, WeightedMean)
    assert (decoded.weight, decoded.mean.tolist()) == (weight, [0.0, 0.0])


def test_a_sum_outside_the_ring_is_refused() -> None:
    codec = make()
    total = codec.encode(np.zeros(2), 1, SEED)
    total[0] = 2**codec.ring_bits
    with pytest.raises(CodecError, match=rf"total: values must be below 2\^{codec.ring_bits}"):
        codec.decode(total, 1)


@given(split=st.integers(0, 50), dtype=st.sampled_from([np.float32, np.float64]))
def test_a_source_read_in_pieces_is_the_encoded_vector(
    split: int, dtype: type[np.float32 | np.float64]
) -> None:
    codec = make()
    values: NDArray[np.floating[Any]] = np.linspace(-2, 2, 49).astype(dtype)
    source = codec.source(values, 7, SEED)
    whole = codec.encode(values.astype(np.float64), 7, SEED)
    pieces = np.empty_like(whole)
    assert source.length == whole.size == 50
    source.read(0, pieces[:split])
    source.read(split, pieces[split:])
    assert np.array_equal(pieces, whole)


def test_a_source_names_the_value_that_is_not_finite_when_it_is_read() -> None:
    source = make().source(np.array([0.0, 0.5, np.inf]), 1, SEED)
    with pytest.raises(CodecError, match=r"update\[2\]: must be finite"):
        source.read(1, np.empty(2, lane_dtype(make().ring_bits)))
