"""The cost of a round of the one-upload protocol in primitives alone, each measured on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from secagg.costs import Timer, kem_seconds
from secagg.kernels import (
    LATTICE_FIELD,
    RING,
    LatticeSecret,
    lattice_mask,
    lattice_values,
    modq_words,
    pack,
    packed_bytes,
    unpack_add,
)
from secagg.params_oneshot import OneShotParameters
from secagg.primitives import kem
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.committee import CommitteeNumbers
from secagg.primitives.packed_sharing import TESTS, dealing_matrix, passes_tests, rows_of, words_bytes
from secagg.primitives.sealing import hkdf, seal, unseal
from secagg.primitives.signatures import IdentityKey, verify

_MANY = 50
_BLOCKS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotLoad:
    """The work of one round, as counts. uploads: in the sum; clients that vanish cost nobody anything."""

    uploads: int
    parameters: OneShotParameters
    numbers: CommitteeNumbers
    post_quantum: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotCosts:
    """Seconds of one call; of one entry; of one byte; of dealing and of checking one share."""

    verify: float
    sign: float
    agree: float
    public_key: float
    hkdf: float
    seal: float
    unseal: float
    encapsulate: float
    decapsulate: float
    sha256_byte: float
    lattice_entry: float
    pack_entry: float
    unpack_entry: float
    decode_entry: float
    deal: float
    check: float

    @classmethod
    def measured(cls, timer: Timer, load: OneShotLoad) -> OneShotCosts:
        """Measure every primitive on its own, one thread."""
        # Nothing here is a secret: public bytes stand for keys.
        numbers, parameters = load.numbers, load.parameters
        key, text = bytes(range(32)), bytes(200)
        signer, public = IdentityKey.from_seed(key), public_key(key)
        signature, count = signer.sign(text), rows_of(numbers.packing)
        blob = bytes(words_bytes(count + TESTS))
        sealed, length = seal(key, blob, text), _BLOCKS * RING
        values, bits = np.zeros(length, np.uint64), parameters.upload_bits
        packed = pack(values, bits)
        secret = LatticeSecret(np.zeros(RING, np.uint64))
        rows = np.zeros((numbers.base, count + TESTS), np.uint64)
        weights = dealing_matrix(numbers.members, numbers.base)
        gamma, tests = np.zeros((TESTS, count), np.uint64), np.zeros((TESTS, numbers.base), np.uint64)
        share = np.zeros(count + TESTS, np.uint64)
        drawn = RING + count * numbers.privacy_threshold + TESTS * numbers.base

        def one(call: Callable[[], object]) -> float:
            def many() -> None:
                for _ in range(_MANY):
                    call()

            return timer(many, _MANY)

        def mask() -> None:
            lattice_mask(
                values,
                None,
                secret,
                public_seed=key,
                noise_seed=key,
                ring_bits=parameters.ring_bits,
                upload_bits=bits,
            )

        def decode() -> None:
            lattice_values(
                values,
                secret,
                public_seed=key,
                ring_bits=parameters.ring_bits,
                upload_bits=bits,
                uploads=load.uploads,
            )

        def deal() -> None:
            modq_words(key, drawn)
            LATTICE_FIELD.weighted_sums(weights, rows)
            LATTICE_FIELD.weighted_sums(gamma, np.ascontiguousarray(rows[:, :count].T))
            modq_words(key, TESTS * count)

        def check() -> None:
            modq_words(key, TESTS * count)
            passes_tests(share, tests, gamma, weights[0])

        encapsulated, decapsulated = kem_seconds(one)[2:] if load.post_quantum else (0.0, 0.0)
        return cls(
            verify=one(lambda: verify(signer.identity, text, signature)),
            sign=one(lambda: signer.sign(text)),
            agree=one(lambda: agree(key, public)),
            public_key=one(lambda: public_key(key)),
            hkdf=one(lambda: hkdf(key, key, text)),
            seal=one(lambda: seal(key, blob, text)),
            unseal=one(lambda: unseal(key, sealed, text)),
            encapsulate=encapsulated,
            decapsulate=decapsulated,
            sha256_byte=timer(lambda: hashlib.sha256(packed).digest(), len(packed)),
            lattice_entry=timer(mask, length),
            pack_entry=timer(lambda: pack(values, bits), length),
            unpack_entry=timer(lambda: unpack_add(values, packed, bits), length),
            decode_entry=timer(decode, length),
            deal=one(deal),
            check=one(check),
        )

    def client_seconds(self, load: OneShotLoad) -> float:
        """Return seconds of a client's primitives: all that it ever does in a round, certificate checked."""
        parameters, members = load.parameters, load.numbers.members
        entries = parameters.entries
        plain = packed_bytes(parameters.vector_length, parameters.ring_bits)
        packed = packed_bytes(entries, parameters.upload_bits)
        sealed = members * (words_bytes(rows_of(load.numbers.packing) + TESTS) + self._ciphertext(load))
        return (
            self.sign
            + self.public_key
            + members * (self.agree + self.hkdf + self.seal + self.encapsulate)
            + self.deal
            + entries * (self.lattice_entry + 2 * self.pack_entry)
            + (plain + packed + 2 * sealed) * self.sha256_byte
        )

    def decryptor_seconds(self, load: OneShotLoad) -> float:
        """Return seconds of one member's primitives for a round."""
        each = self.verify + self.agree + self.hkdf + self.unseal + self.decapsulate + self.check
        return load.uploads * each + load.numbers.quorum * self.verify + 2 * self.sign

    def server_seconds(self, load: OneShotLoad) -> float:
        """Return seconds of the server's primitives for a round."""
        parameters, members = load.parameters, load.numbers.members
        packed = packed_bytes(parameters.entries, parameters.upload_bits)
        sealed = members * (words_bytes(rows_of(load.numbers.packing) + TESTS) + self._ciphertext(load))
        each = self.verify + parameters.entries * self.unpack_entry + (packed + 2 * sealed) * self.sha256_byte
        return load.uploads * each + 3 * members * self.verify + parameters.entries * self.decode_entry

    @staticmethod
    def _ciphertext(load: OneShotLoad) -> int:
        return kem.CIPHERTEXT_BYTES if load.post_quantum else 0
