from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import (
    InfeasibleParameters,
    LocalAggregate,
    LocalProtocolError,
    ParameterError,
    Phase,
    RoundAbortedError,
    ThreatModel,
    aggregate,
)
from secagg.effects import AbortReason
from secagg.kernels import UIntArray, lane_dtype, ring_mask
from secagg.params import Adversary
from tests.protocol.network import CounterEntropy


def drawn(clients: int, length: int, ring_bits: int, seed: str = "local") -> list[UIntArray]:
    """Pseudorandom vectors of the ring."""
    draw = CounterEntropy(seed)
    lane = lane_dtype(ring_bits)
    wide = np.dtype("<u8")
    mask = np.uint64(ring_mask(ring_bits))
    return [(np.frombuffer(draw(8 * length), wide) & mask).astype(lane) for _ in range(clients)]


def plain_sum(vectors: list[UIntArray], clients: tuple[int, ...], ring_bits: int) -> list[int]:
    columns = zip(*(vectors[i].tolist() for i in clients), strict=True)
    return [sum(column) % 2**ring_bits for column in columns]


def uploaders(clients: int, drop: Mapping[int, Phase]) -> tuple[int, ...]:
    late = Phase.CONSISTENCY_CHECK
    return tuple(i for i in range(clients) if drop.get(i, late) >= late)


def check(
    result: LocalAggregate, vectors: list[UIntArray], drop: Mapping[int, Phase], ring_bits: int
) -> None:
    assert result.clients == uploaders(len(vectors), drop)
    assert result.total.tolist() == plain_sum(vectors, result.clients, ring_bits)
    assert result.total.dtype == lane_dtype(ring_bits)
    assert len(result.survivors) == len(result.clients)
    assert result.blamed == ()


@settings(max_examples=60, deadline=None)
@given(
    clients=st.integers(4, 14),
    length=st.integers(1, 70),
    ring_bits=st.integers(1, 64),
    adversary=st.sampled_from(["active", "passive"]),
)
def test_the_sum_is_the_plain_modular_sum(
    clients: int, length: int, ring_bits: int, adversary: Adversary
) -> None:
    vectors = drawn(clients, length, ring_bits)
    result = aggregate(
        vectors,
        ring_bits=ring_bits,
        threat_model=ThreatModel(adversary=adversary),
        entropy=CounterEntropy("a"),
    )
    check(result, vectors, {}, ring_bits)


@st.composite
def drops(draw: st.DrawFn) -> tuple[int, dict[int, Phase]]:
    """Fewer lost than the dropout rate allows, each before any answer."""
    clients = draw(st.sampled_from([7, 8, 10, 12, 13]))
    lost = draw(st.dictionaries(st.integers(0, clients - 1), st.sampled_from(Phase), max_size=clients // 5))
    return clients, lost


@settings(max_examples=60, deadline=None)
@given(drops(), st.sampled_from(["active", "passive"]))
def test_who_drops_before_the_upload_is_not_in_the_sum_and_who_drops_after_it_is(
    case: tuple[int, dict[int, Phase]], adversary: Adversary
) -> None:
    clients, drop = case
    vectors = drawn(clients, 9, 20)
    result = aggregate(
        vectors,
        ring_bits=20,
        drop=drop,
        threat_model=ThreatModel(dropout=0.2, adversary=adversary),
        entropy=CounterEntropy("b"),
    )
    check(result, vectors, drop, 20)


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.name)
def test_one_dropout_in_each_phase(phase: Phase, adversary: Adversary) -> None:
    vectors = drawn(10, 5, 16)
    result = aggregate(
        vectors,
        ring_bits=16,
        drop={3: phase},
        threat_model=ThreatModel(dropout=0.2, adversary=adversary),
        entropy=CounterEntropy("c"),
    )
    check(result, vectors, {3: phase}, 16)


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_sparse_graph_gives_the_same_sum(adversary: Adversary) -> None:
    model = ThreatModel(
        corrupt=0.03,
        dropout=0.1,
        adversary=adversary,
        security_bits=1,
        correctness_bits=1,
        grinding_bits=0,
    )
    vectors = drawn(70, 3, 32)
    drop = {10: Phase.MASKED_INPUT_COLLECTION, 40: Phase.SHARE_KEYS, 60: Phase.UNMASKING}
    result = aggregate(vectors, ring_bits=32, drop=drop, threat_model=model, entropy=CounterEntropy("d"))
    check(result, vectors, drop, 32)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads: int) -> None:
    vectors = drawn(4, 40_000, 18)
    drop: dict[int, Phase] = {}
    results = [
        aggregate(vectors, ring_bits=18, entropy=CounterEntropy("e"), threads=number)
        for number in (1, threads)
    ]
    for result in results:
        check(result, vectors, drop, 18)
    assert results[0].survivors == results[1].survivors
    assert results[0].traffic == results[1].traffic


def test_the_same_entropy_gives_the_same_round() -> None:
    vectors = drawn(5, 4, 16)
    first, second = (aggregate(vectors, ring_bits=16, entropy=CounterEntropy("f")) for _ in range(2))
    assert first.survivors == second.survivors
    assert first.traffic == second.traffic


def test_without_arguments_it_draws_from_the_operating_system() -> None:
    vectors = drawn(5, 4, 16)
    first, second = (aggregate(vectors, ring_bits=16) for _ in range(2))
    assert first.total.tolist() == second.total.tolist() == plain_sum(vectors, (0, 1, 2, 3, 4), 16)
    assert set(first.survivors).isdisjoint(second.survivors)


def test_the_vectors_are_left_as_they_are() -> None:
    vectors = drawn(4, 6, 16)
    before = [vector.copy() for vector in vectors]
    aggregate(vectors, ring_bits=16, entropy=CounterEntropy("g"))
    assert all((a == b).all() for a, b in zip(vectors, before, strict=True))


def test_the_traffic_names_every_phase_that_took_place() -> None:
    active = aggregate(drawn(5, 4, 16), ring_bits=16, entropy=CounterEntropy("h")).traffic
    assert set(active.up) == set(active.down) == set(Phase)
    model = ThreatModel(adversary="passive")
    passive = aggregate(
        drawn(5, 4, 16), ring_bits=16, threat_model=model, entropy=CounterEntropy("h")
    ).traffic
    assert set(passive.up) == set(passive.down) == set(Phase) - {Phase.CONSISTENCY_CHECK}
    assert all(passive.up[phase] > 0 and passive.down[phase] > 0 for phase in passive.up)


def test_too_many_dropouts_end_the_round_with_a_reason() -> None:
    drop = {0: Phase.MASKED_INPUT_COLLECTION, 1: Phase.MASKED_INPUT_COLLECTION}
    with pytest.raises(RoundAbortedError, match="survivors") as caught:
        aggregate(drawn(4, 4, 16), ring_bits=16, drop=drop, entropy=CounterEntropy("i"))
    assert caught.value.reason is AbortReason.TOO_FEW_SURVIVORS


def test_too_few_signers_end_the_round_and_are_named() -> None:
    drop = dict.fromkeys(range(3), Phase.CONSISTENCY_CHECK)
    with pytest.raises(RoundAbortedError, match="quorum") as caught:
        aggregate(drawn(5, 4, 16), ring_bits=16, drop=drop, entropy=CounterEntropy("j"))
    assert caught.value.reason is AbortReason.NO_QUORUM
    assert len(caught.value.blamed) == 3


def test_too_few_answers_end_the_round() -> None:
    drop = dict.fromkeys(range(3), Phase.UNMASKING)
    with pytest.raises(RoundAbortedError, match="answers") as caught:
        aggregate(drawn(5, 4, 16), ring_bits=16, drop=drop, entropy=CounterEntropy("k"))
    assert caught.value.reason is AbortReason.TOO_FEW_ANSWERS


def test_a_cohort_that_cannot_be_protected_is_refused() -> None:
    with pytest.raises(InfeasibleParameters, match="what helps"):
        aggregate(drawn(3, 4, 16), ring_bits=16)
    with pytest.raises(InfeasibleParameters, match="what helps"):
        aggregate(drawn(5, 4, 16), ring_bits=16, drop=dict.fromkeys(range(2), Phase.ADVERTISE_KEYS))


@pytest.mark.parametrize("clients", [1, 2])
def test_one_or_two_vectors_are_refused(clients: int) -> None:
    with pytest.raises(ParameterError):
        aggregate(drawn(clients, 4, 16), ring_bits=16)


def test_no_vectors_are_refused() -> None:
    with pytest.raises(ParameterError, match="vectors"):
        aggregate([], ring_bits=16)


@pytest.mark.parametrize("index", [-1, 5])
def test_a_dropout_that_is_no_client_is_refused(index: int) -> None:
    with pytest.raises(ParameterError, match="drop"):
        aggregate(drawn(5, 4, 16), ring_bits=16, drop={index: Phase.UNMASKING})


@pytest.mark.parametrize("ring_bits", [0, 65, -1])
def test_a_ring_that_does_not_exist_is_refused(ring_bits: int) -> None:
    with pytest.raises(ParameterError, match="ring_bits"):
        aggregate(drawn(5, 4, 16), ring_bits=ring_bits)


def test_vectors_of_no_entries_are_refused() -> None:
    with pytest.raises(ParameterError, match="vector_length"):
        aggregate([np.zeros(0, np.uint16)] * 5, ring_bits=16)


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros(3, np.uint16),
        np.full(4, 2**12, np.uint16),
        np.zeros((4, 1), np.uint16),
        np.full(4, np.nan),
        np.full(4, -1),
    ],
    ids=["length", "range", "shape", "not a number", "negative"],
)
def test_one_vector_that_does_not_fit_is_refused(odd: UIntArray) -> None:
    vectors = drawn(5, 4, 12)
    vectors[3] = odd
    with pytest.raises(LocalProtocolError, match="vector"):
        aggregate(vectors, ring_bits=12)


class Counted:
    """A source over an array that keeps what was read of it."""

    def __init__(self, array: UIntArray) -> None:
        self.array = array
        self.read_of: list[int] = []

    @property
    def length(self) -> int:
        return self.array.size

    def read(self, first: int, out: UIntArray) -> None:
        self.read_of.append(first)
        out[:] = self.array[first : first + out.size]


@pytest.mark.parametrize("length", [1, 65_537])
def test_sources_sum_to_what_the_arrays_do_and_are_read_only_where_they_upload(length: int) -> None:
    vectors = drawn(6, length, 20)
    drop = {2: Phase.MASKED_INPUT_COLLECTION}
    sources = [Counted(vector) for vector in vectors]
    given_, wanted = (
        aggregate(them, ring_bits=20, drop=drop, entropy=CounterEntropy("s")) for them in (sources, vectors)
    )
    assert given_.total.tolist() == wanted.total.tolist()
    assert given_.survivors == wanted.survivors
    for i, source in enumerate(sources):
        assert source.read_of == ([] if i == 2 else list(range(0, length, 65_536)))
    mixed: list[UIntArray | Counted] = [*vectors[:3], *sources[3:]]
    assert aggregate(mixed, ring_bits=20, drop=drop).total.tolist() == wanted.total.tolist()
