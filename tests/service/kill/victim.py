"""A server, or a client, in a process of its own that dies by SIGKILL at a point of its work.

Points are counted at what a round does to its store: before and after every call of these. Before one is a
request that was lost, after one a reply.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from secagg import Frame, IdentityKey, Policy, RoundParameters, context_digest
from secagg.kernels import UIntArray
from secagg.messages import decode_frame
from secagg.service import (
    AggregationClient,
    AggregationServer,
    Deadlines,
    Limits,
    Registry,
    RunSettings,
    ServerCredentials,
    Transcripts,
    line,
)
from secagg.store import LeaseLostError, SealedStore, SqliteStore
from secagg.store.sql import Database, Journal, spool_of

N, LENGTH, RING_BITS = 5, 40, 20
PAYLOAD, TICKET = b"what the round is about", b"the first"
LOST = 77  # exit status of a server that does not lead any more
SERVER_CALLS = ("begin", "take", "checkpoint", "end", "keep", "remove")
CLIENT_CALLS = ("put",)
KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(N)]
SERVER = IdentityKey.from_seed(b"t" * 32)
REGISTRY = Registry.of((f"party-{i}", key.identity) for i, key in enumerate(KEYS))


def vector(i: int) -> UIntArray:
    return np.random.default_rng(i).integers(0, 2**RING_BITS, LENGTH, dtype=np.uint32)


def parameters(number: int = 1) -> RoundParameters:
    return RoundParameters(
        round_id=hashlib.sha256(b"%d" % number).digest()[:16],
        vector_length=LENGTH,
        ring_bits=RING_BITS,
        context=context_digest(PAYLOAD),
    )


@dataclass(frozen=True)
class Place:
    """Where a server keeps everything, and listens."""

    url: str
    folder: Path
    port: int
    credentials: ServerCredentials = field(default_factory=ServerCredentials.generate)
    others: tuple[int, ...] = ()  # ports of further servers of the database
    spooled: bool = False  # uploads go through the spool, however small
    lease_s: float = 10.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def die_at(owner: type, names: tuple[str, ...], wanted: int, folder: Path) -> None:
    """Let the process die at a point, from 1; 0: at none; below 0: stop there until somebody wakes it up."""
    passed = 0

    def point() -> None:
        nonlocal passed
        passed += 1
        if passed == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        if passed == -wanted:
            (folder / "stopped").touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            point()
            result = call(*arguments, **options)
            point()
            return result

        return wrapped

    for name in names:
        setattr(owner, name, dying(getattr(owner, name)))


def server_of(place: Place, database: Database, limits: Limits | None = None) -> AggregationServer:
    return AggregationServer(
        address=place.address,
        credentials=place.credentials,
        database=database,
        spool=spool_of(database, place.folder / "spool"),
        auditor=SERVER,
        limits=limits,
        lease_s=place.lease_s,
    )


def serve(place: Place, point: int) -> None:
    """Run the round, or go on with it; the sum goes to a file."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    die_at(Journal, SERVER_CALLS, point, place.folder)
    if place.spooled:
        import secagg.service.streams

        secagg.service.streams._SPOOLED_BYTES = 1

    async def run() -> None:
        with Database(place.url) as database:
            transcripts = place.folder / "transcripts"
            transcripts.mkdir(exist_ok=True)
            server = server_of(place, database)
            await server.start()
            one = await server.open(
                RunSettings(
                    registry=REGISTRY,
                    transcripts=Transcripts(folder=transcripts, signer=SERVER),
                )
            )
            (place.folder / "leads").touch()
            deadlines = Deadlines(advertise_s=60, phase_s=60)
            result = await one.round(parameters(), PAYLOAD, deadlines, ticket=TICKET)
            members = [KEYS.index(next(k for k in KEYS if k.identity == who)) for who in result.survivors]
            partial = place.folder / "partial"
            partial.write_bytes(bytes(members) + result.total.astype("<u4").tobytes())
            partial.rename(place.folder / f"sum-{os.getpid()}")
            while not (place.folder / "done").exists():  # clients come back to hear of the end
                await asyncio.sleep(0.01)
            os._exit(0)  # a stop waits for streams that are gone

    try:
        asyncio.run(run())
    except LeaseLostError:
        os._exit(LOST)


def client_of(place: Place, i: int, store: SealedStore | None = None, **options: Any) -> AggregationClient:
    settings: dict[str, Any] = {
        "address": [f"127.0.0.1:{port}" for port in (place.port, *place.others)],
        "credentials": ServerCredentials(place.credentials.certificate),
        "signer": KEYS[i],
        "policy": Policy(known=REGISTRY.identities, minimum_cohort=4),
        "store": store,
        "patience_s": 60.0,
    }
    return AggregationClient(**(settings | options))


def note_frames(path: Path) -> None:
    """Let this process write down what is about to leave: what was sent twice must be the same."""
    log = path.open("ab", buffering=0)
    original = line.Stream.send

    async def send(stream: Any, frame: Frame) -> None:
        round_id, message = decode_frame(bytes(frame))
        digest = hashlib.sha256(bytes(frame)).hexdigest()
        log.write(f"{round_id.hex()}/{type(message).__name__} {digest}\n".encode())
        await original(stream, frame)

    seam: Any = line.Stream
    seam.send = send


def take_part(place: Place, i: int, point: int) -> None:
    """Be a client until its round is over; what it heard goes to a file."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    die_at(SealedStore, CLIENT_CALLS, point, place.folder)
    note_frames(place.folder / f"frames-{i}")
    line._RETRY_S, line._RETRY_MOST_S = 0.02, 0.1
    with SqliteStore(place.folder / f"client-{i}.db") as beneath:
        store = SealedStore(beneath, b"k" * 32)
        outcome = asyncio.run(client_of(place, i, store).take_part(lambda _p, _q: vector(i)))
        said = f"{outcome.completed} {outcome.reason}"
        (place.folder / f"outcome-{i}").write_text(said)
        os._exit(0)
