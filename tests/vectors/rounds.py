"""Recorded rounds: all injected randomness, every frame, the sum."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import numpy as np

from secagg.effects import Aggregate, InputWanted, Send, SignWanted
from secagg.kernels import lane_dtype, ring_mask
from secagg.params import HYBRID, Adversary, Phase
from secagg.primitives import kem
from secagg.primitives.hybrid import MaskKeys
from secagg.protocol.round import parameters_digest
from tests.protocol.network import Cohort, CounterEntropy

Json: TypeAlias = dict[str, Any]
LOST = {
    10: Phase.ADVERTISE_KEYS,
    1: Phase.SHARE_KEYS,
    3: Phase.MASKED_INPUT_COLLECTION,
    5: Phase.CONSISTENCY_CHECK,
    7: Phase.UNMASKING,
}


HYBRID_LOST = {6: Phase.ADVERTISE_KEYS, 1: Phase.MASKED_INPUT_COLLECTION, 3: Phase.UNMASKING}


def cohort(adversary: Adversary) -> Cohort:
    """Eleven admitted; the last never advertises."""
    return Cohort(
        11,
        adversary=adversary,
        corrupt=0.1,
        dropout=0.4,
        ring_bits=11,
        vector_length=10,
        minimum_cohort=10,
        seed=f"vectors/{adversary}",
    )


def hybrid_cohort() -> Cohort:
    """Seven admitted; the last never advertises."""
    return Cohort(
        7, dropout=0.3, ring_bits=11, vector_length=10, minimum_cohort=6, suite=HYBRID, seed="vectors/hybrid"
    )


class Encapsulations:
    """ML-KEM-768 whose ciphertexts are known beforehand.

    known  in hexadecimal, by "RECEIVER/KEY/COUNT": the key is share or mask, the count that of encapsulations
           to it before; what is missing is drawn
    """

    def __init__(self, c: Cohort, known: dict[str, str]) -> None:
        self.known = known
        self._original = kem.encapsulate
        self._calls: Counter[str] = Counter()
        self._secrets: dict[bytes, tuple[str, kem.KemSecret]] = {}
        for i in range(len(c.signers)):
            secrets = c.secrets(i)
            for name, secret in (
                ("share", kem.KemSecret(secrets.kem)),
                ("mask", MaskKeys.of(secrets.mask, parameters_digest(c.parameters)).kem),
            ):
                self._secrets[secret.public] = f"{i}/{name}", secret

    def encapsulate(self, key: bytes) -> tuple[bytes, bytes]:
        name, secret = self._secrets[key]
        name, self._calls[name] = f"{name}/{self._calls[name]}", self._calls[name] + 1
        if name not in self.known:
            self.known[name] = self._original(key)[0].hex()
        ciphertext = bytes.fromhex(self.known[name])
        return ciphertext, secret.decapsulate(ciphertext)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with mock.patch("secagg.primitives.kem.encapsulate", self.encapsulate):
            yield


# --- whole rounds


def hybrid_vectors(file: Path) -> Json:
    """The same in the hybrid suite. file: holds the ciphertexts, where it is there."""
    known = json.loads(file.read_bytes())["ciphertexts"] if file.exists() else {}
    given = Encapsulations(hybrid_cohort(), known)
    with given():
        out = played(hybrid_cohort(), HYBRID_LOST)
    out["_comment"] = [
        "A whole round, active, in suite x25519-mlkem768: six in the roster, a seventh that never",
        "advertises, one lost before MaskedInputCollection, one before Unmasking. As active_round.json, and:",
        "a client draws 64 bytes more, for its share KEM key. Encapsulations cannot be repeated:",
        "`ciphertexts` has them, by receiver, its key (share or mask), and how many were made for that key",
        "before, in the order of the operations.",
    ]
    out["parameters"]["suite"] = HYBRID
    return out | {"ciphertexts": dict(sorted(given.known.items()))}


def round_vectors(adversary: Adversary) -> Json:
    """Every frame of a round, and what each party made of it."""
    return played(cohort(adversary), LOST)


def played(c: Cohort, lost: Mapping[int, Phase]) -> Json:
    """Play a round of which these are lost, and write down everything."""
    count, adversary = len(c.signers), c.parameters.threat_model.adversary
    drawn = 128 + 64 * c.parameters.hybrid
    frames: list[str] = []
    operations: list[Json] = []

    def numbered(frame: bytes) -> int:
        if frame.hex() not in frames:
            frames.append(frame.hex())
        return frames.index(frame.hex())

    def downward(effects: list[Any]) -> list[Json]:
        return [
            {"client": c.index[effect.to], "frame": numbered(bytes(effect.frame))}
            for effect in effects
            if isinstance(effect, Send) and effect.to is not None
        ]

    operations.append({"op": "start", "out": downward(c.take_server(c.server.start()))})
    vectors = {i: vector(c, i) for i in range(count)}
    while (phase := c.server.phase) is not None:
        for i in c.waiting():
            if lost.get(i, len(Phase)) <= phase:
                continue
            request = numbered(c.request(i))
            effects = c.clients[i].receive(c.request(i))
            if any(isinstance(effect, SignWanted) for effect in effects):
                effects = c.clients[i].sign()
            sends = [bytes(effect.frame) for effect in effects if isinstance(effect, Send)]
            operation = {"op": "receive", "client": i, "in": request}
            operations.append(operation | {"out": [numbered(frame) for frame in sends]})
            if any(isinstance(effect, InputWanted) for effect in effects):
                (sent,) = c.clients[i].submit(np.array(vectors[i], lane_dtype(11)))
                assert isinstance(sent, Send)
                sends = [bytes(sent.frame)]
                operations.append({"op": "submit", "client": i, "out": [numbered(sends[0])]})
            (answer,) = sends
            assert c.tell(i, answer) == []
            operations.append({"op": "accept", "client": i, "in": numbered(answer)})
        operations.append({"op": "close", "phase": phase.name, "out": downward(c.close())})
    assert isinstance(c.outcome, Aggregate)
    model = c.parameters.threat_model
    return {
        "_comment": [
            f"A whole round, {adversary}: ten in the roster, an eleventh that never advertises,",
            "one lost in each later phase. `entropy` is what a client draws: agreement key, mask key,",
            "self-mask seed, share seed. Operations in order; `in` and `out` are places in `frames`,",
            "each the hex of a Frame. start, close: the server sends; receive, submit: a client takes",
            "a frame or its vector and sends; accept: the server takes a frame of a client.",
            "Clients are numbered by ascending identity.",
        ],
        "parameters": {
            "round_id": c.parameters.round_id.hex(),
            "vector_length": c.parameters.vector_length,
            "ring_bits": c.parameters.ring_bits,
            "context": c.parameters.context.hex(),
            "corrupt": model.corrupt,
            "dropout": model.dropout,
            "adversary": model.adversary,
            "security_bits": model.security_bits,
            "correctness_bits": model.correctness_bits,
            "grinding_bits": model.grinding_bits,
            "minimum_cohort": c.parameters.minimum_cohort,
            "minimum_survivors": c.parameters.minimum_survivors,
        },
        "policy": {
            "minimum_cohort": c.parameters.minimum_cohort,
            "minimum_survivors": 3,
            "minimum_corrupt": 0.1,
            "minimum_security_bits": 40,
            "minimum_grinding_bits": 40,
            "maximum_vector_length": 10,
            "adversary": adversary,
        },
        "clients": [
            {
                "identity_seed": c.signers[i].seed.hex(),
                "identity": c.identities[i].hex(),
                "entropy": CounterEntropy(f"{c.seed}/{i}")(drawn).hex(),
                "vector": vectors[i],
            }
            for i in range(count)
        ],
        "operations": operations,
        "frames": frames,
        "survivors": [c.index[identity] for identity in c.outcome.survivors],
        "sum": [int(value) for value in c.outcome.total],
    }


def vector(c: Cohort, i: int) -> list[int]:
    """Pseudorandom elements of the ring."""
    draw = CounterEntropy(f"{c.seed}/vector/{i}")
    mask = ring_mask(c.parameters.ring_bits)
    return [int.from_bytes(draw(8), "little") & mask for _ in range(c.parameters.vector_length)]


@cache
def recorded(adversary: Adversary) -> Json:
    return round_vectors(adversary)
