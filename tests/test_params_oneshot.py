"""Every limit of the one-upload protocol's parameters, and the noise bits against exact arithmetic."""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels import CHECKS as KERNEL_CHECKS
from secagg.kernels import LATTICE_FIELD, RING, LatticeSecret, lattice_values
from secagg.params import ThreatModel
from secagg.params_oneshot import (
    CHECKS,
    MAXIMUM_UPLOAD_BITS,
    CommitteeParameters,
    EpochPhase,
    OneShotParameters,
    OneShotPhase,
    OneShotPolicy,
    noise_bits,
)

Words = NDArray[np.uint64]
Q = LATTICE_FIELD.modulus
EPOCH = CommitteeParameters(epoch_id=bytes(16))
PARAMETERS = OneShotParameters(
    round_id=bytes(16),
    committee_digest=bytes(32),
    vector_length=10,
    ring_bits=20,
    contexts=(bytes(32),),
    maximum_uploads=100,
)
POLICY = OneShotPolicy(known=None, decryptors=None)
DIGESTS = tuple(bytes([i]) * 32 for i in range(17))

# --- limits ----------------------------------------------------------------------------------------


def test_phases_are_numbered_in_their_order() -> None:
    assert [(phase.value, phase.name) for phase in EpochPhase] == [(0, "KEYS"), (1, "ACCEPTANCE")]
    assert [(phase.value, phase.name) for phase in OneShotPhase] == [
        (0, "UPLOAD"),
        (1, "REVIEW"),
        (2, "FETCH"),
        (3, "AGREE"),
        (4, "OPEN"),
    ]


def test_the_defaults_are_those_of_the_specification() -> None:
    assert EPOCH.threat_model == ThreatModel()
    assert (EPOCH.minimum_candidates, EPOCH.minimum_committee, EPOCH.committee_size) == (4, 4, 256)
    assert EPOCH.post_quantum is True
    assert (PARAMETERS.minimum_survivors, PARAMETERS.minimum_per_context, PARAMETERS.colluding) == (3, 3, 1)
    assert dataclasses.astuple(POLICY) == (
        *(None, None, 4, 4, 0.1, 40, 40, 3, 3, 1),
        *(2**27, 40, 2**20, True, "active"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch_id": b""}, r"epoch_id: must be 16 bytes, is 0"),
        ({"epoch_id": bytes(17)}, r"epoch_id: must be 16 bytes, is 17"),
        ({"committee_size": 2}, r"committee_size: must be in 3\.\.256, is 2"),
        ({"committee_size": 257}, r"committee_size: must be in 3\.\.256, is 257"),
        ({"minimum_committee": 2}, r"minimum_committee: must be in 3\.\.256, is 2"),
        ({"minimum_committee": 257}, r"minimum_committee: must be in 3\.\.256, is 257"),
        (
            {"committee_size": 10, "minimum_committee": 11, "minimum_candidates": 11},
            r"minimum_committee: must be in 3\.\.10, is 11",
        ),
        ({"minimum_candidates": 3}, r"minimum_candidates: must be in 4\.\.2\^16, is 3"),
        ({"minimum_candidates": 2**16 + 1}, r"minimum_candidates: must be in 4\.\.2\^16, is 65537"),
        (
            {"minimum_committee": 20, "minimum_candidates": 19},
            r"minimum_candidates: must be in 20\.\.2\^16, is 19",
        ),
    ],
)
def test_committee_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{message}$"):
        dataclasses.replace(EPOCH, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"committee_size": 3, "minimum_committee": 3, "minimum_candidates": 3},
        {"committee_size": 256, "minimum_committee": 256, "minimum_candidates": 256},
        {"minimum_candidates": 2**16},
        {"committee_size": 4},
        {"minimum_committee": 3},
    ],
)
def test_committee_parameters_at_their_limits_are_taken(changes: dict[str, int]) -> None:
    for name, value in changes.items():
        assert getattr(dataclasses.replace(EPOCH, **changes), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round_id": bytes(15)}, r"round_id: must be 16 bytes, is 15"),
        ({"round_id": bytes(17)}, r"round_id: must be 16 bytes, is 17"),
        ({"committee_digest": bytes(31)}, r"committee_digest: must be 32 bytes, is 31"),
        ({"vector_length": 0}, r"vector_length: must be in 1\.\.2\^27, is 0"),
        ({"vector_length": 2**27 + 1}, r"vector_length: must be in 1\.\.2\^27, is 134217729"),
        ({"ring_bits": 0}, r"ring_bits: must be in 1\.\.40, is 0"),
        ({"ring_bits": 41}, r"ring_bits: must be in 1\.\.40, is 41"),
        ({"contexts": ()}, r"contexts: must be 1 to 16 digests, is 0"),
        ({"contexts": DIGESTS}, r"contexts: must be 1 to 16 digests, is 17"),
        ({"contexts": (bytes(31),)}, r"contexts: must be digests of 32 bytes, is 31"),
        ({"contexts": DIGESTS[1::-1]}, r"contexts: must be ascending, is \['010101010101', '000000000000'\]"),
        ({"contexts": DIGESTS[:1] * 2}, r"contexts: must be ascending, is .*"),
        ({"maximum_uploads": 1}, r"maximum_uploads: must be in 2\.\.2\^20, is 1"),
        ({"maximum_uploads": 2**20 + 1}, r"maximum_uploads: must be in 2\.\.2\^20, is 1048577"),
        ({"minimum_survivors": 1}, r"minimum_survivors: must be at least 2, is 1"),
        ({"minimum_survivors": -1}, r"minimum_survivors: must be at least 2, is -1"),
        (
            {"minimum_survivors": 101},
            r"effective minimum: must be at most maximum_uploads = 100, is 101",
        ),
        ({"minimum_per_context": -1}, r"minimum_per_context: must be at least 1, is -1"),
        (
            {"minimum_per_context": 101},
            r"effective minimum per context: must be at most maximum_uploads = 100, is 101",
        ),
        ({"colluding": -1}, r"colluding: must be in 0\.\.2\^20 - 2, is -1"),
        ({"colluding": 2**20 - 1}, r"colluding: must be in 0\.\.2\^20 - 2, is 1048575"),
        ({"colluding": 99}, r"effective minimum: must be at most maximum_uploads = 100, is 101"),
        (
            {"ring_bits": 38},
            r"ring_bits, maximum_uploads: must leave room for the noise in 44 bits, are 38 and 100: lower .*",
        ),
    ],
)
def test_round_parameters_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{message}$"):
        dataclasses.replace(PARAMETERS, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"vector_length": 1},
        {"vector_length": 2**27},
        {"ring_bits": 1},
        {"ring_bits": 40, "maximum_uploads": 4},
        {"contexts": DIGESTS[:16]},
        {"maximum_uploads": 2**20},
        {"maximum_uploads": 2, "minimum_survivors": 2, "minimum_per_context": 1, "colluding": 0},
        {"maximum_uploads": 2**20, "colluding": 2**20 - 2},
        {"minimum_survivors": 100, "minimum_per_context": 100, "colluding": 98},
        {"minimum_survivors": 2},
    ],
)
def test_round_parameters_at_their_limits_are_taken(changes: dict[str, Any]) -> None:
    made = dataclasses.replace(PARAMETERS, **changes)
    for name, value in changes.items():
        assert getattr(made, name) == value


def test_fewest_per_context_are_the_fewest_survivors_unless_it_is_said() -> None:
    def made(**changes: int) -> OneShotParameters:
        return OneShotParameters(
            round_id=bytes(16),
            committee_digest=bytes(32),
            vector_length=1,
            ring_bits=1,
            contexts=DIGESTS[:2],
            maximum_uploads=100,
            **changes,
        )

    assert made(minimum_survivors=7).minimum_per_context == 7
    assert made(minimum_survivors=7, minimum_per_context=1).minimum_per_context == 1
    assert made(minimum_survivors=7) == made(minimum_survivors=7, minimum_per_context=7)


@given(survivors=st.integers(2, 100), per_context=st.integers(1, 100), colluding=st.integers(0, 98))
def test_a_sum_and_each_context_in_it_have_two_that_do_not_collude(
    survivors: int, per_context: int, colluding: int
) -> None:
    made = dataclasses.replace(
        PARAMETERS, minimum_survivors=survivors, minimum_per_context=per_context, colluding=colluding
    )
    assert made.effective_minimum == max(survivors, colluding + 2)
    assert made.effective_minimum_per_context == max(per_context, colluding + 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum_committee": 2}, r"minimum_committee: must be at least 3, is 2"),
        ({"minimum_candidates": 3}, r"minimum_candidates: must be at least minimum_committee = 4, is 3"),
        ({"minimum_corrupt": -0.1}, r"minimum_corrupt: must be in \[0, 1\), is -0.1"),
        ({"minimum_corrupt": 1.0}, r"minimum_corrupt: must be in \[0, 1\), is 1.0"),
        ({"minimum_corrupt": math.nan}, r"minimum_corrupt: must be in \[0, 1\), is nan"),
        ({"minimum_security_bits": -1}, r"minimum_security_bits: must be in 0\.\.256, is -1"),
        ({"minimum_security_bits": 257}, r"minimum_security_bits: must be in 0\.\.256, is 257"),
        ({"minimum_grinding_bits": -1}, r"minimum_grinding_bits: must be in 0\.\.256, is -1"),
        ({"minimum_grinding_bits": 257}, r"minimum_grinding_bits: must be in 0\.\.256, is 257"),
        ({"minimum_survivors": 1}, r"minimum_survivors: must be at least 2, is 1"),
        ({"minimum_per_context": 0}, r"minimum_per_context: must be at least 1, is 0"),
        ({"minimum_colluding": -1}, r"minimum_colluding: must be at least 0, is -1"),
        ({"adversary": "lazy"}, r"adversary: must be 'passive' or 'active', is 'lazy'"),
    ],
)
def test_policies_that_protect_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{message}$"):
        dataclasses.replace(POLICY, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"minimum_committee": 3, "minimum_candidates": 3},
        {"minimum_corrupt": 0.0},
        {"minimum_security_bits": 256, "minimum_grinding_bits": 0},
        {"minimum_survivors": 2, "minimum_per_context": 1, "minimum_colluding": 0},
        {"require_post_quantum": False, "adversary": "passive"},
    ],
)
def test_policies_at_their_limits_are_taken(changes: dict[str, Any]) -> None:
    made = dataclasses.replace(POLICY, **changes)
    for name, value in changes.items():
        assert getattr(made, name) == value


@pytest.mark.parametrize("kind", [CommitteeParameters, OneShotParameters, OneShotPolicy])
def test_values_are_given_by_keyword_and_frozen(kind: type) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        kind(1, 2)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_what_is_sent_of_a_vector_includes_the_checks() -> None:
    assert CHECKS == KERNEL_CHECKS == 16
    assert PARAMETERS.entries == 26
    assert PARAMETERS.upload_bits == 27


# --- how many bits the noise takes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("uploads", "bits", "most"), [(100, 7, 30), (1000, 8, 30), (10**4, 10, 30), (10**5, 12, 30)]
)
def test_the_examples_of_the_specification(uploads: int, bits: int, most: int) -> None:
    assert {noise_bits(ring_bits, uploads) for ring_bits in range(1, most + 1)} == {bits}


def test_a_million_uploads_leave_28_bits_at_most() -> None:
    assert [noise_bits(b, 10**6) for b in range(1, 29)] == [13] * 25 + [14] * 2 + [15]
    for b in range(29, 41):
        with pytest.raises(ParameterError, match="use the pairwise protocol"):
            noise_bits(b, 10**6)


@given(b=st.integers(1, 40), M=st.integers(2, 2**20))
def test_noise_bits_are_the_fewest_that_meet_the_condition(b: int, M: int) -> None:
    """In exact numbers: a square root, rounded down, and a shift."""

    def meets(g: int) -> bool:
        root = next(r for r in range(math.isqrt(12 * M), -1, -1) if r * r <= 12 * M)
        return (1 << g - 1) >= min(M, root + 1) + int(Fraction(3 * M, (1 << 51 - b - g)) // 1) + 4

    fits = [g for g in range(1, MAXIMUM_UPLOAD_BITS - b + 1) if meets(g)]
    if fits:
        assert noise_bits(b, M) == min(fits)
    else:
        with pytest.raises(ParameterError):
            noise_bits(b, M)


# --- the noise bits suffice ------------------------------------------------------------------------
#
# Of n <= M uploads, with k = 50 - b', the truncation takes r / 2^k off each entry, 0 <= r < 2^k, and moves
# it by less than 2^-k in either direction; an error is within 32 / 2^k; a scaled value is above its
# exact one by less than 1 / 2^k; the mask's truncation gives back less than 1. The sum is right while all
# that, with n // 2 added, stays within 2^(g - 1) to either side.


def truncated(z: Words, upload_bits: int) -> Words:
    return (z + (z >> np.uint64(36))) >> np.uint64(50 - upload_bits)


def masked(scaled_position: Words) -> Words:
    """z with z + (z >> 36) at a position, or one below it where there is none."""
    return scaled_position - scaled_position // np.uint64(2**36 + 1)


def scaled(x: Words, b: int) -> Words:
    return (x << np.uint64(50 - b)) - ((x * np.uint64(16383)) >> np.uint64(b))


def decoded(z: Words, e: NDArray[np.int64], x: Words, b: int, g: int) -> tuple[Words, Words]:
    """Sum and what comes out, by step 2 of an upload and the end of a sum, for entries (n, d)."""
    upload_bits = b + g
    mask = (z.astype(object) - e.astype(object) - scaled(x, b).astype(object)) % Q
    total = truncated(z, upload_bits).sum(axis=0, dtype=np.uint64)
    w = truncated((mask.sum(axis=0) % Q).astype(np.uint64), upload_bits)
    rounding = np.uint64(z.shape[0] // 2 + (1 << g - 1))
    out = ((total - w + rounding) & np.uint64((1 << upload_bits) - 1)) >> np.uint64(g)
    return x.sum(axis=0, dtype=np.uint64) & np.uint64((1 << b) - 1), out


def extreme_value(b: int) -> int:
    """The value whose scaling is rounded up most."""
    return -pow(16383, -1, 1 << b) % (1 << b)


def extremes(
    rng: np.random.Generator, n: int, d: int, b: int, g: int, *, upward: bool
) -> tuple[Words, NDArray[np.int64], Words]:
    """Entries (n, d) that all err to the same side as far as they can; at random places of the ring."""
    cell = 50 - b - g
    places = rng.integers(0, (1 << b + g), (n, d), np.uint64)
    within = 0 if upward else (1 << cell) - 1
    z = masked((places << np.uint64(cell)) + np.uint64(within))
    e = np.full((n, d), 32 if upward else -32, np.int64)
    x = np.full((n, d), extreme_value(b) if upward else 0, np.uint64)
    return z, e, x


certain = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(2, 30)), st.tuples(st.integers(1, 35), st.integers(31, 50))
)


def fits(b: int, M: int) -> bool:
    try:
        noise_bits(b, M)
    except ParameterError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(
    case=certain.filter(lambda one: fits(*one)),
    seed=st.integers(0, 2**32),
    upward=st.booleans(),
    fewer=st.integers(0, 5),
)
def test_few_uploads_decode_however_they_err(
    case: tuple[int, int], seed: int, upward: bool, fewer: int
) -> None:
    b, M = case
    n, g, rng = max(M - fewer, 2), noise_bits(b, M), np.random.default_rng(seed)
    expected, out = decoded(*extremes(rng, n, 200, b, g, upward=upward), b, g)
    assert (expected == out).all()


@pytest.mark.parametrize(("b", "M"), [(38, 30), (35, 50), (40, 4), (39, 12), (1, 30), (16, 50), (20, 2)])
@pytest.mark.parametrize("upward", [True, False])
def test_the_sharpest_cases_decode_however_they_err(b: int, M: int, upward: bool) -> None:
    g = noise_bits(b, M)
    expected, out = decoded(*extremes(np.random.default_rng(b), M, 3000, b, g, upward=upward), b, g)
    assert (expected == out).all()


def worst(n: int, b: int, g: int) -> tuple[Fraction, Fraction]:
    """Bounds of all errors together, the rounding included, below and above."""
    step = Fraction(1, (1 << 50 - b - g))
    below = -32 * n * step - n * (1 + step) - step + n // 2
    above = 32 * n * step + n * step + n * step + 1 + n // 2
    return below, above


def always_right(n: int, b: int, g: int) -> bool:
    below, above = worst(n, b, g)
    return below >= -(1 << g - 1) and above <= (1 << g - 1)


def test_nothing_fails_up_to_30_uploads_and_with_35_bits_up_to_50() -> None:
    for b in range(1, 41):
        for M in range(2, 51 if b <= 35 else 31):
            if fits(b, M):
                for n in (max(M - 1, 2), M):  # fewer err less
                    assert always_right(n, b, noise_bits(b, M)), (b, M, n)


def test_the_simulation_finds_what_is_beyond_the_bound() -> None:
    """31 uploads of 38 bits: the bound is passed by half a step, and extreme ones do not decode."""
    b, M = 38, 31
    g = noise_bits(b, M)
    assert not always_right(M, b, g)
    expected, out = decoded(*extremes(np.random.default_rng(1), M, 3000, b, g, upward=True), b, g)
    assert (expected != out).any()
    # and one bit of noise less does not do for 30
    expected, out = decoded(*extremes(np.random.default_rng(1), 30, 3000, b, g - 1, upward=True), b, g - 1)
    assert (expected != out).any()


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 38),
    exponent=st.floats(1, 20),
    seed=st.integers(0, 2**32),
    worst_value=st.booleans(),
)
def test_many_uploads_decode_with_random_masks(b: int, exponent: float, seed: int, worst_value: bool) -> None:
    """Their truncation errors are uniform; values that are rounded up most, and the largest errors."""
    M = min(int(2**exponent), 2**20)
    if not fits(b, M):
        return
    rng, g = np.random.default_rng(seed), noise_bits(b, M)
    n = min(M, 2000)
    z = rng.integers(0, Q, (n, 8), np.uint64)
    flips = rng.binomial(32, 0.5, (2, n, 8)).astype(np.int64)
    x = rng.integers(0, 1 << b, (n, 8), np.uint64)
    if worst_value:
        x[:] = extreme_value(b)
    expected, out = decoded(z, flips[0] - flips[1], x, b, g)
    assert (expected == out).all()


def log2_failure(n: int, b: int, g: int) -> float:
    """Bound of the probability that an entry of a sum of n uploads is wrong, masks uniform.

    Certain are the scaling errors, below n steps; half a step for each upload, by which the mean of its place
    within its cell is below the middle; and less than 2 of the roundings. The rest has mean zero: for each
    upload that place, uniform (sub-Gaussian with its own variance, below 1/12), less than a step that moves
    it, and an error (cosh(t/2)^64 <= exp(8 t^2)); deviations add at most.
    """
    step = 1 / (1 << 50 - b - g)
    room = (1 << g - 1) - 1.5 * n * step - 2
    if room <= 0:
        return 0.0
    deviation = math.sqrt(1 / 12 + 16 * step**2) + step
    return 1 - room**2 / (2 * n * deviation**2) / math.log(2)


@pytest.mark.parametrize("b", range(1, 41))
def test_an_entry_fails_with_less_than_2_to_the_minus_80(b: int) -> None:
    sizes = sorted({*range(2, 2000), *(int(1.01**k) for k in range(700, 1394)), 10**5, 10**6, 2**20})
    for M in sizes:
        if not fits(b, M):
            continue
        g = noise_bits(b, M)
        if always_right(M, b, g):
            continue
        assert log2_failure(M, b, g) < -80, (M, b, g)


# --- the same with the kernel that servers use -----------------------------------------------------


@pytest.mark.parametrize(("b", "M"), [(38, 30), (35, 50), (20, 30), (8, 50)])
@pytest.mark.parametrize("upward", [True, False])
def test_the_kernel_decodes_extreme_uploads(b: int, M: int, upward: bool) -> None:
    """Masks that add up to zero: the last upload takes what the others leave, and errs as it may."""
    g, rng = noise_bits(b, M), np.random.default_rng(b)
    z, e, x = extremes(rng, M - 1, RING, b, g, upward=upward)
    last = (-(z.astype(object) - e.astype(object) - scaled(x, b).astype(object)).sum(axis=0)) % Q
    total = truncated(z, b + g).sum(axis=0, dtype=np.uint64)
    total += truncated(last.astype(np.uint64), b + g)  # of the value 0, without an error
    values = lattice_values(
        total,
        LatticeSecret(np.zeros(RING, np.uint64)),
        public_seed=bytes(32),
        ring_bits=b,
        upload_bits=b + g,
        uploads=M,
    )
    expected = x.sum(axis=0, dtype=np.uint64) & np.uint64((1 << b) - 1)
    assert values.astype(np.uint64).tolist() == expected.tolist()
