"""TenSEAL: a sum of CKKS-encrypted vectors, one key pair for the whole cohort.

The trust is another: whoever holds the secret key must not meet the server, or every vector is open to it.
A client that vanishes costs nothing.

- `client_vector`: `ckks_vector` on each chunk of a vector (poly_modulus_degree / 2 floats), public key; no
  quantization, CKKS takes floats. The median over `sample` clients.
- `server`: the sum of all surviving vectors. Only `sample` of them are distinct: they are added over and
  over, as often as there are clients to add, and the decrypted sum is checked against just that.
- `key_holder`: one decryption of the sum.
- `total`: extrapolated from the medians, see the package.

Settings: 128-bit security by SEAL's table, poly_modulus_degree 8192, coeff_mod_bit_sizes 60, 40, 60, scale
2^40; public-key encryption, no Galois or relinearization keys used. For sums alone 4096 with 54, 55 would
do as well, with about half the bytes. `upload_bytes` is TenSEAL's own encoding.
"""

from __future__ import annotations

import statistics
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import Settings, Workload, check, cpu_seconds, missing

NAME = "TenSEAL CKKS"
_DEGREE = 8192
_MODULUS_BITS = (60, 40, 60)
_SCALE_BITS = 40
_TOLERANCE = 1e-4  # per added vector; CKKS is approximate, far closer than this


def available() -> str | None:
    return missing("tenseal")


def settings(workload: Workload) -> Settings:
    return {
        "library": f"tenseal {version('tenseal')}",
        "poly_modulus_degree": _DEGREE,
        "coeff_mod_bit_sizes": " ".join(map(str, _MODULUS_BITS)),
        "scale": f"2^{_SCALE_BITS}",
        "dropouts": workload.dropouts,
        "threshold": "none: one key holder",
        "extrapolated": "total: median client times clients; server: sampled vectors added repeatedly",
    }


def measure(workload: Workload, *, sample: int) -> dict[str, float]:
    """Encrypt, add, decrypt; the stages of the module's docstring, CPU seconds."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, _DEGREE, coeff_mod_bit_sizes=list(_MODULUS_BITS))
    context.global_scale = 2.0**_SCALE_BITS
    vectors = [
        workload.vector(client).astype(np.float64) for client in range(min(sample, workload.survivors))
    ]
    timed = [cpu_seconds(partial(_encrypt, context, vector)) for vector in vectors]
    encrypted = [result for _, result in timed]
    upload_bytes = sum(len(chunk.serialize()) for chunk in encrypted[0])
    turns = [client % len(encrypted) for client in range(workload.survivors)]

    summed = _encrypt(context, vectors[0])  # not encrypted[0], which is added again; a copy() costs far more

    def add() -> None:
        for turn in turns[1:]:
            for into, chunk in zip(summed, encrypted[turn], strict=True):
                into.add_(chunk)

    server, _ = cpu_seconds(add)
    key_holder, chunks = cpu_seconds(lambda: [chunk.decrypt() for chunk in summed])
    expected = np.sum([vectors[turn] for turn in turns], axis=0)
    check(np.concatenate(chunks), expected, tolerance=_TOLERANCE * workload.survivors, peer=NAME)
    client = statistics.median(seconds for seconds, _ in timed)
    return {
        "client_vector": client,
        "server": server,
        "key_holder": key_holder,
        "total": workload.survivors * client + server + key_holder,
        "upload_bytes": upload_bytes,
    }


def _encrypt(context: object, vector: NDArray[np.float64]) -> list[Any]:
    """Encrypt chunk by chunk, as the library itself splits a long vector (it prints a warning then)."""
    import tenseal

    slots = _DEGREE // 2
    chunks = [vector[first : first + slots] for first in range(0, len(vector), slots)]
    return [tenseal.ckks_vector(context, chunk) for chunk in chunks]
