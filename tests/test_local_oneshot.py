from __future__ import annotations

import tracemalloc
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import (
    InfeasibleParameters,
    LocalCommittee,
    LocalProtocolError,
    LocalUpload,
    OneShotPhase,
    ParameterError,
    Phase,
    RoundAbortedError,
    ThreatModel,
    aggregate,
    local_oneshot,
)
from secagg.effects import AbortReason
from secagg.kernels import UIntArray, lane_dtype
from secagg.params import Adversary
from secagg.protocol.oneshot import DecryptorSession
from tests.protocol.network import CounterEntropy
from tests.test_local import check, drawn


@settings(max_examples=25, deadline=None)
@given(
    clients=st.integers(4, 9),
    committee=st.integers(4, 10),
    length=st.integers(1, 3000),
    ring_bits=st.integers(1, 37),
    adversary=st.sampled_from(["active", "passive"]),
    drop=st.dictionaries(st.integers(0, 3), st.sampled_from(Phase), max_size=1),
    lose=st.dictionaries(st.integers(0, 3), st.sampled_from(OneShotPhase), max_size=1),
)
def test_the_sum_is_that_of_the_vectors_that_were_uploaded(
    clients: int,
    committee: int,
    length: int,
    ring_bits: int,
    adversary: Adversary,
    drop: dict[int, Phase],
    lose: dict[int, OneShotPhase],
) -> None:
    vectors = drawn(clients, length, ring_bits)
    result = aggregate(
        vectors,
        ring_bits=ring_bits,
        protocol="one-shot",
        drop=drop,
        committee=committee,
        lose_decryptors=lose,
        post_quantum=False,
        threat_model=ThreatModel(adversary=adversary, dropout=0.2),
        entropy=CounterEntropy("one-shot"),
    )
    check(result, vectors, drop, ring_bits)


def test_who_drops_out_costs_the_others_nothing() -> None:
    vectors = drawn(20, 50, 16)
    sizes = []
    for gone in (0, 8):
        result = aggregate(
            vectors,
            ring_bits=16,
            protocol="one-shot",
            drop=dict.fromkeys(range(gone), Phase.MASKED_INPUT_COLLECTION),
            post_quantum=False,
        )
        assert result.clients == tuple(range(gone, 20))
        sizes.append(sum(result.traffic.up.values()) / len(result.clients))
    assert sizes[1] < 1.1 * sizes[0]


def test_with_post_quantum_keys_and_threads() -> None:
    vectors = drawn(5, 5000, 20)
    result = aggregate(vectors, ring_bits=20, protocol="one-shot", threads=2, post_quantum=True)
    check(result, vectors, {}, 20)


def test_what_cannot_be_is_refused() -> None:
    vectors = drawn(5, 10, 16)
    with pytest.raises(ParameterError, match="protocol: must be 'pairwise' or 'one-shot', is 'two-shot'"):
        aggregate(vectors, ring_bits=16, protocol="two-shot")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"committee: must be in 3..256 decryptors, is 2"):
        aggregate(vectors, ring_bits=16, protocol="one-shot", committee=2)
    with pytest.raises(ParameterError, match=r"lose_decryptors: must be of decryptors in 0..7, is 8"):
        aggregate(vectors, ring_bits=16, protocol="one-shot", lose_decryptors={8: OneShotPhase.OPEN})
    with pytest.raises(ParameterError, match="ring_bits"):
        aggregate(drawn(5, 10, 41), ring_bits=41, protocol="one-shot")
    with pytest.raises(InfeasibleParameters, match="lower corrupt or dropout"):
        aggregate(
            vectors, ring_bits=16, protocol="one-shot", committee=4, threat_model=ThreatModel(corrupt=0.7)
        )


def test_too_few_members_or_uploads_abort_the_round() -> None:
    vectors = drawn(5, 10, 16)
    with pytest.raises(RoundAbortedError) as caught:
        aggregate(
            vectors,
            ring_bits=16,
            protocol="one-shot",
            lose_decryptors=dict.fromkeys(range(5), OneShotPhase.OPEN),
            post_quantum=False,
        )
    assert caught.value.reason is AbortReason.TOO_FEW_OPENINGS
    with pytest.raises(RoundAbortedError) as caught:
        aggregate(
            vectors,
            ring_bits=16,
            protocol="one-shot",
            drop=dict.fromkeys(range(3), Phase.SHARE_KEYS),
            post_quantum=False,
        )
    assert caught.value.reason is AbortReason.TOO_FEW_SURVIVORS


class Zeros:
    """A long vector that nobody holds."""

    length = 2_000_000

    def read(self, first: int, out: UIntArray) -> None:
        out[:] = 0


def test_a_client_streams_its_vector() -> None:
    source = Zeros()
    tracemalloc.start()
    result = aggregate([source] * 4, ring_bits=16, protocol="one-shot", committee=4, post_quantum=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not result.total.any()
    packed = 2_000_016 * 21 // 8  # four of them are kept until the sum is out, and their frames
    assert peak < 12 * packed
    assert result.total.dtype == lane_dtype(16)
    assert np.count_nonzero(result.total) == 0


def test_a_sum_that_too_few_opened_to_notice_a_liar_is_marked() -> None:
    vectors = drawn(5, 10, 16)
    lost = dict.fromkeys(range(4), OneShotPhase.OPEN)
    few = aggregate(vectors, ring_bits=16, protocol="one-shot", lose_decryptors=lost)
    assert few.unprotected
    assert not aggregate(vectors, ring_bits=16, protocol="one-shot").unprotected


def test_decryptors_are_lost_in_the_protocol_that_has_them() -> None:
    with pytest.raises(ParameterError, match="lose_decryptors: must be given with protocol='one-shot' only"):
        aggregate(drawn(5, 10, 16), ring_bits=16, lose_decryptors={0: OneShotPhase.OPEN})


def test_nobody_that_uploads_is_a_round_without_a_result() -> None:
    vectors = drawn(4, 10, 16)
    everybody = dict.fromkeys(range(4), Phase.ADVERTISE_KEYS)
    with pytest.raises(RoundAbortedError, match="nobody uploaded"):
        aggregate(vectors, ring_bits=16, protocol="one-shot", drop=everybody)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"client": 5}, {}, r"uploads\[2\].client: must be in 0..4, is 5"),
        ({"client": -1}, {}, r"uploads\[2\].client: must be in 0..4, is -1"),
        ({"client": 0}, {}, "client 0 has more than one"),
        ({"vector": np.zeros(3, np.uint32)}, {}, r"uploads\[2\].vector: must have shape \(4,\), has \(3,\)"),
        ({"vector": np.full(4, 1 << 16, np.uint32)}, {}, r"uploads\[2\].vector"),
        ({}, {"maximum_uploads": 2}, "maximum_uploads: must be 0, or at least the 3 uploads, is 2"),
        ({}, {"lose_decryptors": {-1: OneShotPhase.OPEN}}, "lose_decryptors: must be of decryptors in 0..7"),
        ({}, {"lose_decryptors": {1: "OPEN"}}, r"lose_decryptors\[1\]: must be a OneShotPhase"),
    ],
)
def test_what_is_wrong_is_found_ahead_of_the_first_upload(
    change: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    """So the right uploads can be summed then: none of them counts as told."""
    committee = LocalCommittee(5, 8, post_quantum=False)
    right = [LocalUpload(i, bytes(32), np.full(4, i, np.uint32)) for i in range(3)]
    wrong = [*right[:2], replace(right[2], **change)]
    with pytest.raises(ParameterError, match=said):
        committee.sum(wrong, length=4, ring_bits=16, **options)
    result, clients = committee.sum(right, length=4, ring_bits=16)
    assert (result.total.tolist(), clients) == ([3] * 4, (0, 1, 2))
    committee.close()
    with pytest.raises(LocalProtocolError, match="the committee is closed"):
        committee.sum(right, length=4, ring_bits=16)


@pytest.mark.parametrize(("lost", "ends"), [(5, True), (1, False)])
def test_no_decryptor_keeps_a_share_of_a_round_that_is_over(lost: int, ends: bool) -> None:
    committee = LocalCommittee(5, 8, post_quantum=False)
    uploads = [LocalUpload(i, bytes(32), np.full(4, i, np.uint32)) for i in range(4)]
    lose = dict.fromkeys(range(lost), OneShotPhase.OPEN)
    expected = pytest.raises(RoundAbortedError) if ends else nullcontext()
    with expected:
        committee.sum(uploads, length=4, ring_bits=16, lose_decryptors=lose)
    for decryptor in committee._epoch.decryptors.values():
        (state,) = decryptor._rounds.values()
        assert state.closed
        assert not state.taken


def test_a_committee_that_does_not_come_about_leaves_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def close(session: DecryptorSession) -> None:
        closed.append(session)

    monkeypatch.setattr(DecryptorSession, "close", close)
    monkeypatch.setattr(local_oneshot, "read_certificate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LocalCommittee(5, 8, post_quantum=False)
    assert len(closed) == 8
