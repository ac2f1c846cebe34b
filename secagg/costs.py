"""The cost of a round in primitives alone: calls of each primitive times its measured time on this machine.

This module measures, so it reads a clock: the timer of its caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from secagg.kernels import (
    field_lagrange,
    field_weighted_sums,
    lane_dtype,
    mask_apply,
    pack,
    packed_bytes,
    unpack_add,
)
from secagg.params import GraphParameters
from secagg.primitives import kem
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.sealing import hkdf, seal, unseal
from secagg.primitives.shamir import LIMBS, share_pairs
from secagg.primitives.signatures import IdentityKey, verify

# Seconds of one call, given how often it is made in one measured call.
Timer: TypeAlias = Callable[[Callable[[], object], int], float]

_MANY = 50
_MASKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The work of one round, as counts.

    quorum  signatures that a client verifies, 0 in a passive round
    hybrid  whether the suite is "x25519-mlkem768"
    """

    clients: int
    dropouts: int
    length: int
    ring_bits: int
    graph: GraphParameters
    quorum: int
    hybrid: bool = False


def kem_seconds(one: Callable[[Callable[[], object]], float]) -> tuple[float, float, float, float]:
    """Return seconds of ML-KEM-768: a key pair, checking a key, encapsulation, decapsulation.

    one  times a call
    """
    secret = kem.KemSecret(bytes(kem.SEED_BYTES))
    public = secret.public
    ciphertext, _ = kem.encapsulate(public)
    return (
        one(lambda: kem.KemSecret(bytes(kem.SEED_BYTES)).public),
        one(lambda: kem.is_usable(public)),
        one(lambda: kem.encapsulate(public)),
        one(lambda: secret.decapsulate(ciphertext)),
    )


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Seconds of one call; of one entry and mask; of one byte. Of ML-KEM-768: 0 where there is none."""

    verify: float
    sign: float
    agree: float
    public_key: float
    hkdf: float
    seal: float
    unseal: float
    sha256_byte: float
    mask_entry: float
    pack_entry: float
    unpack_entry: float
    kem_key: float
    kem_check: float
    encapsulate: float
    decapsulate: float
    _timer: Timer = field(repr=False)

    @classmethod
    def measured(cls, timer: Timer, *, length: int, ring_bits: int) -> UnitCosts:
        """Measure every primitive on its own, one thread, vectors of `length` entries."""
        # Nothing here is a secret: public bytes stand for keys.
        key, text = bytes(range(32)), bytes(100)
        signer, public = IdentityKey.from_seed(key), public_key(key)
        signature, sealed = signer.sign(text), seal(key, bytes(80), text)
        values = np.zeros(length, lane_dtype(ring_bits))
        packed = pack(values, ring_bits)
        out = memoryview(bytearray(len(packed)))
        signs = np.ones(_MASKS, np.int8)

        def one(call: Callable[[], object]) -> float:
            def many() -> None:
                for _ in range(_MANY):
                    call()

            return timer(many, _MANY)

        kem_key, kem_check, encapsulated, decapsulated = (
            kem_seconds(one) if kem.AVAILABLE else (0.0, 0.0, 0.0, 0.0)
        )
        return cls(
            verify=one(lambda: verify(signer.identity, text, signature)),
            sign=one(lambda: signer.sign(text)),
            agree=one(lambda: agree(key, public)),
            public_key=one(lambda: public_key(key)),
            hkdf=one(lambda: hkdf(key, key, text)),
            seal=one(lambda: seal(key, bytes(80), text)),
            unseal=one(lambda: unseal(key, sealed, text)),
            sha256_byte=timer(lambda: hashlib.sha256(packed).digest(), len(packed)),
            mask_entry=timer(
                lambda: mask_apply(values, bytes(32 * _MASKS), signs, threads=1), _MASKS * length
            ),
            pack_entry=timer(lambda: pack(values, ring_bits, out), length),
            unpack_entry=timer(lambda: unpack_add(values, packed, ring_bits), length),
            kem_key=kem_key,
            kem_check=kem_check,
            encapsulate=encapsulated,
            decapsulate=decapsulated,
            _timer=timer,
        )

    def client_seconds(self, load: Load) -> float:
        """Return seconds of a client's primitives over all phases (PROTOCOL.md, 3)."""
        k, d, active = load.graph.degree, load.length, load.quorum > 0
        alive = k * (1 - load.dropouts / load.clients)  # surviving neighbors, on average
        seed = bytes(32)
        share = self._timer(
            lambda: share_pairs(
                seed, seed, share_seed=seed, roster_digest=seed, threshold=load.graph.threshold, holders=k
            ),
            1,
        )
        return (
            (2 * k + alive + load.quorum) * self.verify  # advertisements, acceptances, uploads, survivors
            + (3 + active) * self.sign
            + 2 * self.public_key
            + 2 * k * self.agree
            + 3 * k * self.hkdf  # two sealing keys and a mask seed
            + k * (self.seal + self.unseal)
            + share
            + d * ((k + 1) * self.mask_entry + self.pack_entry)
            + packed_bytes(d, load.ring_bits) * self.sha256_byte
            + load.hybrid * self._hybrid_client_seconds(k)
        )

    def _hybrid_client_seconds(self, k: int) -> float:
        """Return what the hybrid suite adds: a share each way per neighbor, a contribution per pair."""
        return (
            4 * self.kem_key  # both keys, when they are advertised and when they open something
            + 2 * k * self.kem_check
            + 1.5 * k * (self.encapsulate + self.decapsulate)
            + k * (self.agree + 2 * self.hkdf)  # of contributions
            + k / 2 * (self.seal + self.unseal)
        )

    def server_seconds(self, load: Load) -> float:
        """Return seconds of the server's primitives over all phases."""
        n, k, t, d = load.clients, load.graph.degree, load.graph.threshold, load.length
        survivors = n - load.dropouts
        answers = max(int(k * survivors / n), t)
        pairs = load.dropouts * k * survivors / n  # masks that dropouts share with survivors
        points = np.arange(1, answers + 1, dtype=np.uint64)
        shares = np.ones((t, LIMBS), np.uint64)

        def rebuild() -> None:  # the secret, and every surplus share predicted
            weights = field_lagrange(points[:t], np.concatenate([np.zeros(1, np.uint64), points[t:]]))
            field_weighted_sums(weights, shares)

        return (
            (2 * n + (1 + (load.quorum > 0)) * survivors) * self.verify
            + n * self._timer(rebuild, 1)
            + load.dropouts * self.public_key
            + pairs * (self.agree + self.hkdf)
            + load.hybrid * 2 * (n * self.kem_check + load.dropouts * self.kem_key)
            + load.hybrid * pairs / 2 * (self.decapsulate + self.agree + 3 * self.hkdf + self.unseal)
            + d * (survivors + pairs) * self.mask_entry
            + survivors * (d * self.unpack_entry + packed_bytes(d, load.ring_bits) * self.sha256_byte)
        )
