"""Suite "primitives": the two libraries side by side, and Shamir by (t, k) beside plain Python."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from nacl import bindings

from bench.harness import Effort, measure
from bench.suites import pure_shamir
from secagg.kernels import field_evaluate, field_lagrange, field_weighted_sums, map_in_threads, usable_cpus
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.sealing import hkdf, seal, unseal
from secagg.primitives.shamir import LIMBS, Words, share_pairs, to_limbs
from secagg.primitives.signatures import IdentityKey, verify

MANY = 50  # calls per measurement of what takes microseconds


def run(effort: Effort) -> dict[str, Any]:
    """Return microseconds by operation, and Shamir's by threshold and holders."""
    rows = [
        {"operation": operation, "library": library, **_microseconds(call, effort)}
        for operation, libraries in _operations().items()
        for library, call in libraries.items()
    ]
    return {"rows": rows, "threads": _threads(effort), "shamir": _shamir(effort)}


def _microseconds(call: Callable[[], object], effort: Effort, calls: int = MANY) -> dict[str, float]:
    def many() -> None:
        for _ in range(calls):
            call()

    figure = measure(many, effort, calls=calls)
    return {"median_us": figure.median * 1e6, "low_us": figure.low * 1e6, "high_us": figure.high * 1e6}


def _operations() -> dict[str, dict[str, Callable[[], object]]]:
    mine, theirs = os.urandom(32), public_key(os.urandom(32))
    x_secret, x_public = X25519PrivateKey.generate(), X25519PublicKey.from_public_bytes(theirs)
    signer, text = IdentityKey.generate(os.urandom), os.urandom(100)
    e_secret = Ed25519PrivateKey.from_private_bytes(signer.seed)
    e_public, signature = e_secret.public_key(), signer.sign(text)
    key, sealed = os.urandom(32), seal(bytes(32), bytes(80), b"label")
    million = os.urandom(2**20)
    return {
        "X25519 agreement": {
            "cryptography": lambda: x_secret.exchange(x_public),
            "cryptography, keys from bytes": lambda: X25519PrivateKey.from_private_bytes(mine).exchange(
                X25519PublicKey.from_public_bytes(theirs)
            ),
            "PyNaCl (used)": lambda: agree(mine, theirs),
        },
        "X25519 key pair": {
            "cryptography": lambda: X25519PrivateKey.generate().public_key(),
            "PyNaCl (used)": lambda: public_key(mine),
        },
        "Ed25519 signature": {
            "cryptography": lambda: e_secret.sign(text),
            "PyNaCl (used)": lambda: signer.sign(text),
        },
        "Ed25519 verification": {
            "cryptography": lambda: e_public.verify(signature, text),
            "PyNaCl (used)": lambda: verify(signer.identity, text, signature),
        },
        "HKDF-SHA256 to 32 bytes": {"cryptography (used)": lambda: hkdf(key, mine, text)},
        "ChaCha20-Poly1305, 80 bytes": {
            "cryptography, seal (used)": lambda: seal(key, bytes(80), b"label"),
            "cryptography, open (used)": lambda: unseal(bytes(32), sealed, b"label"),
            "PyNaCl, seal": lambda: bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
                bytes(80), b"label", bytes(12), key
            ),
        },
        "SHA-256 of 1 MiB": {"hashlib (used)": lambda: hashlib.sha256(million).digest()},
    }


def _threads(effort: Effort) -> list[dict[str, Any]]:
    """Agreements per second by threads: PyNaCl gives the interpreter lock back, `cryptography` does not."""
    pairs = [(os.urandom(32), public_key(os.urandom(32))) for _ in range(max(int(400 * effort.scale), 8))]
    x_secret = X25519PrivateKey.generate()
    keys = [X25519PublicKey.from_public_bytes(public) for _, public in pairs]
    rows = []
    for threads in sorted({1, usable_cpus()}):
        for library, call in (
            ("PyNaCl (used)", partial(map_in_threads, lambda pair: agree(*pair), pairs, threads=threads)),
            ("cryptography", partial(map_in_threads, x_secret.exchange, keys, threads=threads)),
        ):
            figure = measure(call, effort, calls=len(pairs))
            rows.append({"library": library, "threads": threads, "median_us": figure.median * 1e6})
    return rows


def _shamir(effort: Effort) -> list[dict[str, Any]]:
    """One 32-byte secret; `share_pairs` (with its random coefficients) shares two of them, so half of it."""
    rows = []
    for threshold, holders in ((27, 48), (56, 128), (67, 100), (73, 234), (550, 999)):
        if effort.scale < 1 and holders > 100:
            continue
        secret, seed = os.urandom(32), os.urandom(32)

        ours = partial(
            share_pairs,
            secret,
            seed,
            share_seed=seed,
            roster_digest=seed,
            threshold=threshold,
            holders=holders,
        )
        polynomials = np.random.default_rng(1).integers(0, 2**52, (threshold, LIMBS), np.uint64)
        points = np.arange(1, holders + 1, dtype=np.uint64)
        values = field_evaluate(polynomials, points)[-threshold:]
        chosen = points[-threshold:]

        rebuild = partial(_rebuild, chosen, values)
        limbs, columns = to_limbs(secret), [[int(v) for v in column] for column in values.T]
        plain = [int(x) for x in chosen]
        slow = Effort(effort.seconds, min(effort.repeats, 5), effort.scale)
        rows.append(
            {
                "threshold": threshold,
                "holders": holders,
                "share_us": measure(ours, effort).median * 1e6 / 2,
                "share_python_us": measure(partial(pure_shamir.share, limbs, threshold, holders), slow).median
                * 1e6,
                "rebuild_us": measure(rebuild, effort).median * 1e6,
                "rebuild_python_us": measure(partial(pure_shamir.rebuild, plain, columns), slow).median * 1e6,
            }
        )
    return rows


def _rebuild(points: Words, values: Words) -> Words:
    return field_weighted_sums(field_lagrange(points, np.zeros(1, np.uint64)), values)
