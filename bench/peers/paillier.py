"""python-paillier (phe): a sum of entries encrypted one by one, one key pair for the whole cohort.

Only a few entries are run; every stage is then scaled linearly to the vector's length. The trust is that of
any additive encryption: whoever holds the secret key must not meet the server. A client that vanishes costs
nothing.

- `client_vector`: `PaillierPublicKey.encrypt` of each integer of value_bits bits; the median over `sample`
  clients of the seconds per entry, times the length. Quantization is left out.
- `server`: the homomorphic sum of all surviving clients' entries. Only `sample` of them are distinct: they
  are added over and over, as often as there are clients to add, and the decrypted sum is checked exactly.
- `key_holder`: one decryption of each entry of the sum.
- `total`: extrapolated from the medians, see the package.

Settings: a key of 2048 bits (about 112-bit security; the library's default of 3072 costs about three times
as much), gmpy2 where it is installed, no packing (the library has none). `upload_bytes` is the bare
ciphertexts.
"""

from __future__ import annotations

import statistics
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from bench.peers import Settings, Workload, cpu_seconds, missing

NAME = "python-paillier"
_KEY_BITS = 2048
_ENTRIES = 32  # of a vector that are really encrypted


def available() -> str | None:
    return missing("phe")


def settings(workload: Workload) -> Settings:
    entries = min(_ENTRIES, workload.length)
    return {
        "library": f"phe {version('phe')}",
        "arithmetic": _arithmetic(),
        "key_bits": _KEY_BITS,
        "entries_run": entries,
        "dropouts": workload.dropouts,
        "threshold": "none: one key holder",
        "extrapolated": f"every stage and the bytes: {entries} entries to {workload.length}, linearly",
    }


def measure(workload: Workload, *, sample: int) -> dict[str, float]:
    """Encrypt, add, decrypt a few entries; the stages of the module's docstring, CPU seconds."""
    import phe

    entries = min(_ENTRIES, workload.length)
    scale = workload.length / entries
    public, secret = phe.generate_paillier_keypair(n_length=_KEY_BITS)
    clients = range(min(sample, workload.survivors))
    inputs = [_integers(workload, client, entries) for client in clients]
    timed = [cpu_seconds(partial(_encrypt, public, row)) for row in inputs]
    encrypted = [row for _, row in timed]
    turns = [client % len(inputs) for client in range(workload.survivors)]

    def add() -> list[Any]:
        total = list(encrypted[turns[0]])
        for turn in turns[1:]:
            total = [into + entry for into, entry in zip(total, encrypted[turn], strict=True)]
        return total

    server, summed = cpu_seconds(add)
    key_holder, result = cpu_seconds(lambda: [secret.decrypt(entry) for entry in summed])
    if result != [sum(inputs[turn][entry] for turn in turns) for entry in range(entries)]:
        raise RuntimeError(f"{NAME}: the sum is wrong")
    client_vector = scale * statistics.median(seconds for seconds, _ in timed)
    return {
        "client_vector": client_vector,
        "server": scale * server,
        "key_holder": scale * key_holder,
        "total": workload.survivors * client_vector + scale * (server + key_holder),
        "upload_bytes": workload.length * ((public.nsquare.bit_length() + 7) // 8),
    }


def _integers(workload: Workload, client: int, entries: int) -> list[int]:
    rng = np.random.default_rng([workload.seed, client])
    return [int(value) for value in rng.integers(0, 2**workload.value_bits, entries)]


def _encrypt(public: Any, row: list[int]) -> list[Any]:  # noqa: ANN401 - phe's
    return [public.encrypt(value) for value in row]


def _arithmetic() -> str:
    try:
        return f"gmpy2 {version('gmpy2')}"
    except PackageNotFoundError:
        return "Python integers"
