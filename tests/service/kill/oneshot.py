"""Parties of the one-upload protocol, each in a process that dies by SIGKILL at a point."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

from secagg import Frame, IdentityKey, OneShotPolicy
from secagg.service import (
    Decryptor,
    OneShotClient,
    OneShotDeadlines,
    OneShotSettings,
    Registry,
    ServerCredentials,
    line,
)
from secagg.service.oneshot import desks
from secagg.store import LeaseLostError, SealedStore, SqliteStore, Store
from secagg.store.sql import Database, Journal
from tests.service.kill.victim import (
    CLIENT_CALLS,
    KEYS,
    LENGTH,
    LOST,
    PAYLOAD,
    REGISTRY,
    RING_BITS,
    TICKET,
    N,
    Place,
    die_at,
    server_of,
    vector,
)

M = 5
SERVER_CALLS = ("begin", "take", "end", "keep", "remove", "note")
MEMBERS = [IdentityKey.from_seed(bytes([i + 101]) * 32) for i in range(M)]
DECRYPTORS = Registry.of((f"decryptor-{i}", key.identity) for i, key in enumerate(MEMBERS))
POLICY = OneShotPolicy(
    known=REGISTRY.identities,
    decryptors=DECRYPTORS.identities,
    minimum_candidates=M,
    minimum_committee=M,
    require_post_quantum=False,
)


def serve(place: Place, point: int) -> None:
    """Run the round, or go on with it; the sum goes to a file."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    die_at(Journal, SERVER_CALLS, point, place.folder)
    if place.spooled:
        desks._SPOOLED_BYTES = 32

    async def run() -> None:
        with Database(place.url) as database:
            server = server_of(place, database)
            await server.start()
            one = await server.open_oneshot(
                OneShotSettings(
                    registry=REGISTRY,
                    decryptors=DECRYPTORS,
                    minimum_candidates=M,
                    minimum_committee=M,
                    post_quantum=False,
                )
            )
            result = await one.round(
                PAYLOAD,
                vector_length=LENGTH,
                ring_bits=RING_BITS,
                maximum_uploads=N,
                deadlines=OneShotDeadlines(upload_s=60, phase_s=60),
                ticket=TICKET,
            )
            members = [KEYS.index(next(k for k in KEYS if k.identity == who)) for who in result.survivors]
            partial = place.folder / "partial"
            partial.write_bytes(bytes(members) + result.total.astype("<u4").tobytes())
            partial.rename(place.folder / f"sum-{os.getpid()}")
            while not (place.folder / "done").exists():
                await asyncio.sleep(0.01)
            os._exit(0)

    try:
        asyncio.run(run())
    except LeaseLostError:
        os._exit(LOST)


def client_of(place: Place, i: int, store: Store) -> OneShotClient:
    return OneShotClient(
        address=place.address,
        credentials=ServerCredentials(place.credentials.certificate),
        signer=KEYS[i],
        policy=POLICY,
        store=store,
    )


def decryptor_of(place: Place, i: int, store: Store) -> Decryptor:
    return Decryptor(
        address=place.address,
        credentials=ServerCredentials(place.credentials.certificate),
        signer=MEMBERS[i],
        policy=POLICY,
        store=store,
    )


def _note_frames(place: Place, who: str) -> None:
    """Write down what is about to leave, by frame kind: what was sent twice must be the same."""
    log = (place.folder / f"frames-{who}").open("ab", buffering=0)
    original = line.Stream.send

    async def send(stream: Any, frame: Frame) -> None:
        content = bytes(frame)
        log.write(f"{len(content)} {hashlib.sha256(content).hexdigest()}\n".encode())
        await original(stream, frame)

    seam: Any = line.Stream
    seam.send = send


def contribute(place: Place, i: int, point: int) -> None:
    """Be a client until its upload is acknowledged, or in vain; what it heard goes to a file."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    die_at(SqliteStore, CLIENT_CALLS, point, place.folder)
    _note_frames(place, f"client-{i}")
    line._RETRY_S, line._RETRY_MOST_S = 0.02, 0.1
    with SqliteStore(place.folder / f"client-{i}.db") as store:
        said = asyncio.run(client_of(place, i, store).contribute(lambda _p, _q: vector(i)))
        (place.folder / f"outcome-{i}").write_text(f"{said.acknowledged} {said.reason}")
        os._exit(0)


def decrypt(place: Place, i: int, point: int) -> None:
    """Be a decryptor until it is killed."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    die_at(SealedStore, CLIENT_CALLS, point, place.folder)
    _note_frames(place, f"decryptor-{i}")
    line._RETRY_S, line._RETRY_MOST_S = 0.02, 0.1
    with SqliteStore(place.folder / f"decryptor-{i}.db") as beneath:
        asyncio.run(decryptor_of(place, i, SealedStore(beneath, b"k" * 32)).serve())
        os._exit(0)
