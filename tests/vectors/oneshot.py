"""A recorded round of the one-upload protocol: all injected randomness, every frame or its digest, the sum.

Encapsulations cannot be repeated: their ciphertexts are inputs, read from the vectors that are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

from secagg.effects import OneShotAggregate, UploadTaken
from secagg.params import Adversary, Identity
from secagg.primitives import kem
from tests.protocol.network import CounterEntropy
from tests.protocol.oneshot.network import Round, message_of

_ENCAPSULATE = kem.encapsulate
Json: TypeAlias = dict[str, Any]
FOLDER = Path(__file__).parent
CLIENTS, MEMBERS, LOST = 4, 4, 2  # the last client never uploads
_COMMENT = (
    "A round of the one-upload protocol (PROTOCOL.md, part 2). Parties are named by their place among the "
    "identities of their kind. Entropy of a party is SHA-256(seed || counter), counter 8 bytes big-endian, "
    "read on. Frames are hexadecimal, or their SHA-256 where that is said. A client's vector has its place "
    "plus one at the entry of its place."
)


def seed_of(adversary: Adversary, *, post_quantum: bool) -> str:
    return f"vectors/oneshot/{adversary}{'/kem' if post_quantum else ''}"


@contextmanager
def given_ciphertexts(one: Round, known: dict[str, str]) -> Iterator[None]:
    """Encapsulate to a member's key with the ciphertext that is known for it, in the order of the calls."""
    seeds = {}
    for i, signer in enumerate(one.epoch.signers):
        entropy = CounterEntropy(f"{one.seed}/{i}")
        entropy(32)
        secret = kem.KemSecret(entropy(64))
        seeds[secret.public] = (signer.identity.hex(), secret)
    calls: dict[str, int] = {}

    def encapsulate(key: bytes) -> tuple[bytes, bytes]:
        member, secret = seeds[key]
        calls[member] = calls.get(member, 0) + 1
        name = f"{member}/{calls[member]}"
        if name not in known:
            known[name] = _ENCAPSULATE(key)[0].hex()
        ciphertext = bytes.fromhex(known[name])
        return ciphertext, secret.decapsulate(ciphertext)

    with mock.patch("secagg.protocol.oneshot.dealing.kem.encapsulate", encapsulate):
        yield


def oneshot_vectors(adversary: Adversary, *, post_quantum: bool, file: str) -> Json:
    """Everything that is said in one round, and what came out."""
    path = FOLDER / file
    known: dict[str, str] = json.loads(path.read_bytes())["ciphertexts"] if path.exists() else {}
    seed = seed_of(adversary, post_quantum=post_quantum)
    one = Round(
        CLIENTS,
        MEMBERS,
        adversary,
        ring_bits=11,
        vector_length=10,
        seed=seed,
        epoch_changes={"post_quantum": post_quantum},
    )
    said: list[Json] = []

    def heard(member: Identity, frame: bytes) -> list[bytes]:
        said.append({"to": one.committee.index[member], **_told(frame)})
        return [frame]

    def answered(member: Identity, frame: bytes) -> list[bytes]:
        said.append({"from": one.committee.index[member], **_told(frame)})
        return [frame]

    one.change, one.change_answer = heard, answered
    one.carry(one.server.start())
    uploads = []
    with given_ciphertexts(one, known) if post_quantum else nullcontext():
        for client in range(CLIENTS - 1):
            frame = one.upload(client)
            (taken,) = one.server.receive(one.signers[client].identity, frame)
            assert isinstance(taken, UploadTaken)
            upload: Json = {"client": client, "digest": taken.digest.hex(), "sha256": _sha256(frame)}
            uploads.append(upload | ({"frame": frame.hex()} if client == LOST else {}))
    one.close()
    assert isinstance(one.outcome, OneShotAggregate)
    names = [signer.identity for signer in one.signers]
    return {
        "_comment": _COMMENT,
        "adversary": adversary,
        "post_quantum": post_quantum,
        "entropy_of_client": f"{seed}/client/PLACE",
        "entropy_of_decryptor": f"{seed}/PLACE",
        "client_identity_seeds": [signer.seed.hex() for signer in one.signers],
        "decryptor_identity_seeds": [signer.seed.hex() for signer in one.epoch.signers],
        "certificate": one.epoch.certificate.hex(),
        "committee_digest": one.committee.committee_digest.hex(),
        "parameters": bytes(one.server.parameters_frame).hex(),
        "round_digest": one.view.round_digest.hex(),
        "ciphertexts": dict(sorted(known.items())) if post_quantum else {},
        "uploads": uploads,
        "said": said,
        "survivors": [place for place, name in enumerate(names) if name in one.outcome.survivors],
        "sum": one.outcome.total.tolist(),
    }


def _told(frame: bytes) -> Json:
    """A frame, or its digest where it is large."""
    kind = type(message_of(frame)).__name__
    return {"kind": kind} | ({"sha256": _sha256(frame)} if len(frame) > 4096 else {"frame": frame.hex()})


def _sha256(frame: bytes) -> str:
    return hashlib.sha256(frame).hexdigest()


@cache
def recorded_oneshot(adversary: Adversary, *, post_quantum: bool, file: str) -> Json:
    return oneshot_vectors(adversary, post_quantum=post_quantum, file=file)
