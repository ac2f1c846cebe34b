import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.errors import ParameterError
from secagg.kernels import (
    CHECKS,
    LATTICE_FIELD,
    RING,
    LatticeSecret,
    UIntArray,
    lane_dtype,
    lattice_chunks,
    lattice_mask,
    lattice_values,
    mask_apply,
    modq_words,
    pack_lattice,
    reference,
    unpack_add,
)
from tests.kernels.helpers import seeds

pytestmark = pytest.mark.usefixtures("each_variant")

Words = NDArray[np.uint64]
Q = LATTICE_FIELD.modulus
PUBLIC, NOISE = bytes(range(32)), bytes(range(1, 33))


@dataclass
class Vector:
    array: UIntArray

    @property
    def length(self) -> int:
        return self.array.size

    def read(self, first: int, out: UIntArray) -> None:
        out[:] = self.array[first : first + out.size]


def drawn(bits: int, length: int, seed: int = 0) -> Vector:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, length, np.uint64).astype(lane_dtype(bits))
    values[:1] = 2**bits - 1
    return Vector(values)


def secret(seed: int = 0) -> Words:
    words = np.random.default_rng(seed).integers(0, Q, RING, np.uint64)
    words[:3] = 0, 1, Q - 1
    return words


def upload(
    vector: Vector, words: Words, noise: bytes, bits: int, upload_bits: int, threads: int = 1
) -> bytes:
    return bytes(
        pack_lattice(
            vector,
            LatticeSecret(words),
            public_seed=PUBLIC,
            noise_seed=noise,
            ring_bits=bits,
            upload_bits=upload_bits,
            threads=threads,
        )
    )


def test_the_modulus_is_prime_and_has_the_roots() -> None:
    assert Q == 2**50 - 2**14 + 1 == reference.Q
    assert all(pow(a, Q - 1, Q) == 1 for a in (2, 3, 5, 7))
    assert pow(11, (Q - 1) // 4096, Q) == reference.PSI
    assert pow(reference.PSI, 2048, Q) == Q - 1


def test_the_transform_of_the_reference_evaluates_the_polynomial() -> None:
    rng = np.random.default_rng(3)
    coefficients = rng.integers(0, Q, RING, np.uint64).tolist()
    values = reference.lattice_transform(coefficients)
    for i in (0, 1, 2, 1023, 2047):
        point = pow(reference.PSI, 2 * int(f"{i:011b}"[::-1], 2) + 1, Q)
        assert values[i] == reference.evaluate(coefficients, point, Q)
    assert reference.lattice_inverse(values) == coefficients


@pytest.mark.parametrize(
    ("bits", "upload_bits", "length"),
    [(1, 2, 1), (1, 44, 2031), (15, 22, 2032), (16, 24, 2033), (18, 26, 5000), (32, 40, 70), (40, 44, 4096)],
)
def test_an_upload_equals_the_reference(bits: int, upload_bits: int, length: int) -> None:
    vector, words = drawn(bits, length), secret(length)
    entries = reference.lattice_mask(
        [*vector.array.tolist(), *[0] * CHECKS],
        words.tolist(),
        PUBLIC,
        NOISE,
        ring_bits=bits,
        upload_bits=upload_bits,
    )
    assert upload(vector, words, NOISE, bits, upload_bits) == reference.pack(entries, upload_bits)


@settings(max_examples=20, deadline=None)
@given(
    bits=st.integers(1, 37),
    count=st.integers(1, 5),
    length=st.integers(1, 5000),
    seed=st.integers(0, 2**32),
)
def test_the_mask_comes_off_a_sum_with_the_sum_of_the_secrets(
    bits: int, count: int, length: int, seed: int
) -> None:
    upload_bits = bits + 7
    total, whole = np.zeros(length + CHECKS, np.uint64), np.zeros(RING, object)
    expected = np.zeros(length, np.uint64)
    for i in range(count):
        vector, words = drawn(bits, length, seed + i), secret(seed + i)
        unpack_add(total, upload(vector, words, i.to_bytes(32, "big"), bits, upload_bits), upload_bits)
        whole += words.astype(object)
        expected += vector.array
    values = lattice_values(
        total,
        LatticeSecret((whole % Q).astype(np.uint64)),
        public_seed=PUBLIC,
        ring_bits=bits,
        upload_bits=upload_bits,
        uploads=count,
    )
    assert values.dtype == lane_dtype(bits)
    assert values[:length].tolist() == (expected % np.uint64(2**bits)).tolist()
    assert not values[length:].any()


def test_neither_threads_nor_pieces_change_an_upload() -> None:
    vector, words = drawn(18, 100_000), secret()
    whole = upload(vector, words, NOISE, 18, 26)
    assert upload(vector, words, NOISE, 18, 26, threads=2) == whole
    assert upload(vector, words, NOISE, 18, 26, threads=5) == whole
    cut = 3 * RING
    pieces = [
        b"".join(
            lattice_chunks(
                vector,
                LatticeSecret(words),
                public_seed=PUBLIC,
                noise_seed=NOISE,
                ring_bits=18,
                upload_bits=26,
                first=first,
                end=end,
            )
        )
        for first, end in ((0, cut), (cut, None))
    ]
    assert b"".join(pieces) == whole


def test_an_entry_out_of_the_ring_is_refused_by_its_place() -> None:
    vector = drawn(18, 70_000)
    vector.array[69_999] = 2**18
    with pytest.raises(ParameterError, match=r"vector\[69999\]: must be in 0..2\^18 - 1"):
        upload(vector, secret(), NOISE, 18, 26)


@given(seed=seeds, count=st.integers(0, 300))
def test_words_are_those_of_the_keystream_cut_to_50_bits(seed: bytes, count: int) -> None:
    stream = reference.prg(seed, 0, count + 8, 64)
    expected = [word for word in (value % 2**50 for value in stream) if word < Q]
    assert modq_words(seed, count).tolist() == expected[:count]


def test_words_of_the_modulus_and_above_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(acc: Words, *_: object) -> None:
        acc += np.resize(np.array([5, Q, 2**50 - 1 + 2**60, Q - 1, 7], np.uint64), acc.size)

    monkeypatch.setattr("secagg.kernels.lattice.mask_apply", apply)
    assert modq_words(bytes(32), 7).tolist() == [5, Q - 1, 7, 5, Q - 1, 7, 5]
    assert mask_apply is not apply


def test_arguments_out_of_range_are_refused() -> None:
    out, key = np.zeros(RING, np.uint64), LatticeSecret(secret())
    options = {"public_seed": PUBLIC, "noise_seed": NOISE}

    def mask(**changed: object) -> None:
        given = {"out": out, "values": None, "ring_bits": 18, "upload_bits": 26} | options | changed
        lattice_mask(given.pop("out"), given.pop("values"), key, **given)  # type: ignore[arg-type]

    for bits in (0, 41):
        with pytest.raises(ValueError, match=f"ring_bits: must be in 1..40, is {bits}"):
            mask(ring_bits=bits)
    for bits in (18, 45):
        with pytest.raises(ValueError, match=f"upload_bits: must be in 19..44, is {bits}"):
            mask(upload_bits=bits)
    with pytest.raises(ValueError, match="out: must be whole blocks of 2048"):
        mask(out=np.zeros(RING + 1, np.uint64))
    with pytest.raises(ValueError, match="out: must be whole blocks of 2048, for 2049 values"):
        mask(values=np.zeros(RING + 1, np.uint32))
    with pytest.raises(TypeError, match="out: an array of uint64 is needed"):
        mask(out=np.zeros(RING, np.uint32))
    for name in options:
        with pytest.raises(ValueError, match="seeds: must have 32 bytes"):
            mask(**{name: bytes(31)})
    with pytest.raises(ValueError, match="first, end: 7, 116 are no blocks of 100"):
        next(lattice_chunks(drawn(18, 100), key, ring_bits=18, upload_bits=26, first=7, **options))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="values: must be 2048 words, are 3"):
        LatticeSecret(np.zeros(3, np.uint64))
    with pytest.raises(ValueError, match=r"values: every word must be below 2\^50 - 2\^14 \+ 1"):
        LatticeSecret(np.full(RING, Q, np.uint64))


def test_a_secret_does_not_show_is_not_pickled_and_can_be_wiped() -> None:
    key = LatticeSecret(secret())
    assert repr(key) == "LatticeSecret()"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
    key.wipe()
    assert not key.prepared.any()
