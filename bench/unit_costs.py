"""What a round costs in primitives alone: how often each is called, times its own time in the same run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np

from bench.cohort import RING_BITS, Workload
from bench.harness import Effort, measure
from secagg import GraphParameters
from secagg.kernels import field_lagrange, field_weighted_sums, mask_apply, pack, unpack_add
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.bounds import quorum
from secagg.primitives.sealing import hkdf, seal, unseal
from secagg.primitives.shamir import LIMBS, share_pairs
from secagg.primitives.signatures import IdentityKey, verify

MANY = 50


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Seconds of one call; of one entry and mask; of one byte."""

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

    @classmethod
    def measured(cls, effort: Effort, length: int = 1_000_000) -> UnitCosts:
        """Measure every primitive on its own, one thread."""
        signer, text, key = IdentityKey.generate(os.urandom), os.urandom(100), os.urandom(32)
        public, signature = public_key(key), signer.sign(text)
        sealed = seal(key, bytes(80), text)
        length = max(int(length * effort.scale), 4096)
        values = np.zeros(length, np.uint32)
        packed = pack(values, RING_BITS)
        out = memoryview(bytearray(len(packed)))
        signs = np.ones(64, np.int8)

        def one(call: object) -> float:
            def many() -> None:
                for _ in range(MANY):
                    call()  # type: ignore[operator]

            return measure(many, effort, calls=MANY).median

        return cls(
            verify=one(lambda: verify(signer.identity, text, signature)),
            sign=one(lambda: signer.sign(text)),
            agree=one(lambda: agree(key, public)),
            public_key=one(lambda: public_key(key)),
            hkdf=one(lambda: hkdf(key, key, text)),
            seal=one(lambda: seal(key, bytes(80), text)),
            unseal=one(lambda: unseal(key, sealed, text)),
            sha256_byte=measure(lambda: hashlib.sha256(packed), effort, calls=len(packed)).median,
            mask_entry=measure(
                lambda: mask_apply(values, bytes(32 * 64), signs, threads=1), effort, calls=64 * length
            ).median,
            pack_entry=measure(lambda: pack(values, RING_BITS, out), effort, calls=length).median,
            unpack_entry=measure(lambda: unpack_add(values, packed, RING_BITS), effort, calls=length).median,
        )

    def client(self, work: Workload, graph: GraphParameters, effort: Effort) -> float:
        """Return seconds of a client's primitives over all phases (PROTOCOL.md)."""
        n, k, d = work.clients, graph.degree, work.length
        alive = k * (1 - work.dropouts / n)  # surviving neighbors, on average
        signatures = quorum(n, k, work.model) if work.adversary == "active" else 0
        seed = bytes(32)
        share = measure(
            lambda: share_pairs(
                seed, seed, share_seed=seed, roster_digest=seed, threshold=graph.threshold, holders=k
            ),
            effort,
        ).median
        return (
            (2 * k + alive + signatures) * self.verify  # advertisements, acceptances, uploads, survivors
            + (3 + (work.adversary == "active")) * self.sign
            + 2 * self.public_key
            + 2 * k * self.agree
            + 3 * k * self.hkdf  # two sealing keys and a mask seed
            + k * (self.seal + self.unseal)
            + share
            + d * ((k + 1) * self.mask_entry + self.pack_entry)
            + d * RING_BITS / 8 * self.sha256_byte
        )

    def server(self, work: Workload, graph: GraphParameters, effort: Effort) -> float:
        """Return seconds of the server's primitives over all phases."""
        n, k, t, d = work.clients, graph.degree, graph.threshold, work.length
        survivors = n - work.dropouts
        answers = max(int(k * survivors / n), t)
        pairs = work.dropouts * k * survivors / n  # masks that dropouts share with survivors
        points = np.arange(1, answers + 1, dtype=np.uint64)
        shares = np.ones((t, LIMBS), np.uint64)

        def rebuild() -> None:  # the secret, and every surplus share predicted
            weights = field_lagrange(points[:t], np.concatenate([np.zeros(1, np.uint64), points[t:]]))
            field_weighted_sums(weights, shares)

        return (
            (2 * n + (1 + (work.adversary == "active")) * survivors) * self.verify
            + n * measure(rebuild, effort).median
            + work.dropouts * self.public_key
            + pairs * (self.agree + self.hkdf)
            + d * (survivors + pairs) * self.mask_entry
            + d * survivors * (self.unpack_entry + RING_BITS / 8 * self.sha256_byte)
        )
