"""declearn's masking SecAgg: a round of its own encrypters and decrypter; it has no dropout recovery.

All clients encrypt and the decrypted sum is checked, so the workload's dropouts are left out: every client
stays. The graph is always complete.

- `client_agree_keys`: X3DH (`X3DHManager`) with every other client, half of the handshakes begun by this
  one; `sample` clients run it against managers whose own work is not timed. The other stages take fresh
  random seeds in place of what is agreed.
- `client_vector`: the encrypter (`MaskingEncrypter`) and `SecaggTrainReply.from_cleartext_message` on a
  reply with one vector: quantize, expand one mask per neighbor, add. Masks come from numpy's PCG64.
- `server`: `SecaggTrainReply.aggregate` over all clients as the replies come, then the decryption. No
  unmasking is left to do, and none would be possible if a client were missing.
- `total`: extrapolated from the medians, see the package; the rest runs in full.

Settings: bitsize is value_bits and ceil(log2 n) bits of headroom (the library's default is 64), clipping at
1. `upload_bytes` is declearn's MessagePack message.
"""

from __future__ import annotations

import secrets
import statistics
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from bench.peers import Settings, Workload, check, cpu_seconds, missing

NAME = "declearn masking"
_CLIPPING = 1.0


def available() -> str | None:
    return missing("declearn.secagg.masking", "declearn.secagg.messaging", "declearn.model.sklearn")


def settings(workload: Workload) -> Settings:
    return {
        "library": f"declearn {version('declearn')}",
        "bitsize": _bitsize(workload),
        "clipval": _CLIPPING,
        "dropouts": 0,
        "threshold": "none: no dropout recovery",
        "extrapolated": "total: median client times clients",
    }


def measure(workload: Workload, *, sample: int) -> dict[str, float]:
    """Run one round without dropouts; the stages of the module's docstring, CPU seconds."""
    from declearn.secagg.masking import MaskingDecrypter

    n = workload.clients
    sample = min(sample, n)
    seeds = {(i, j): secrets.randbits(256) for j in range(n) for i in range(j)}
    decrypter = MaskingDecrypter(n, bitsize=_bitsize(workload), clipval=_CLIPPING)
    expected = np.zeros(workload.length)
    server, vector_seconds, upload_bytes = 0.0, [], 0
    aggregate: Any = None
    for client in range(n):
        vector = workload.vector(client)
        expected += vector
        seconds, message = _encrypt(workload, client, vector, seeds)
        if client < sample:
            vector_seconds.append(seconds)
            upload_bytes = len(message.serialize())
        if aggregate is None:
            aggregate = message
            continue
        seconds, aggregate = cpu_seconds(partial(aggregate.aggregate, message, decrypter))
        server += seconds
    seconds, reply = cpu_seconds(lambda: aggregate.decrypt_wrapped_message(decrypter))
    server += seconds
    step = 2 * _CLIPPING / 2**workload.value_bits
    total = np.asarray(reply.updates.updates.coefs["w"], dtype=np.float64)
    check(total, expected, tolerance=n * step, peer=NAME)
    agree = statistics.median(_agree_seconds(n) for _ in range(sample))
    vector_median = statistics.median(vector_seconds)
    return {
        "client_agree_keys": agree,
        "client_vector": vector_median,
        "server": server,
        "total": n * (agree + vector_median) + server,
        "upload_bytes": upload_bytes,
    }


def _bitsize(workload: Workload) -> int:
    return workload.value_bits + (workload.clients - 1).bit_length()


def _encrypt(
    workload: Workload, client: int, vector: object, seeds: dict[tuple[int, int], int]
) -> tuple[float, Any]:
    from declearn.aggregator import ModelUpdates
    from declearn.messaging import TrainReply
    from declearn.model.sklearn import NumpyVector
    from declearn.secagg.masking import MaskingEncrypter
    from declearn.secagg.messaging import SecaggTrainReply

    updates = ModelUpdates(NumpyVector({"w": vector}), 1)
    reply = TrainReply(n_epoch=1, n_steps=1, t_spent=0.0, updates=updates, aux_var={})
    added = [seeds[client, other] for other in range(client + 1, workload.clients)]
    subtracted = [seeds[other, client] for other in range(client)]

    def encrypt() -> Any:  # noqa: ANN401 - declearn's
        encrypter = MaskingEncrypter(added, subtracted, bitsize=_bitsize(workload), clipval=_CLIPPING)
        return SecaggTrainReply.from_cleartext_message(reply, encrypter)

    return cpu_seconds(encrypt)


def _agree_seconds(clients: int) -> float:
    """Return what one client spends on X3DH with all others."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from declearn.secagg.x3dh import X3DHManager

    keys = [Ed25519PrivateKey.generate() for _ in range(clients)]
    trusted = [key.public_key() for key in keys]
    manager, *others = (X3DHManager(key, trusted) for key in keys)
    asked, asking = others[: clients // 2], others[clients // 2 :]
    spent, requests = cpu_seconds(lambda: [manager.create_handshake_request() for _ in asked])
    theirs = [other.create_handshake_request() for other in asking]
    seconds, _ = cpu_seconds(lambda: [manager.process_handshake_request(request) for request in theirs])
    spent += seconds
    answers = [
        other.process_handshake_request(request) for other, request in zip(asked, requests, strict=True)
    ]
    seconds, _ = cpu_seconds(lambda: [manager.process_handshake_response(answer) for answer in answers])
    if len(manager.secrets) != clients - 1:
        raise RuntimeError(f"{NAME}: X3DH left a neighbor without a secret")
    return spent + seconds
