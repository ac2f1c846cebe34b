"""A server and its clients in one event loop, on loopback, over real TLS and gRPC."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np

from secagg import Aggregate, IdentityKey, Phase, Policy, RoundParameters, context_digest
from secagg.kernels import UIntArray
from secagg.service import (
    AggregationClient,
    AggregationServer,
    Clock,
    Deadlines,
    Event,
    Limits,
    ManualClock,
    Registry,
    RoundOutcome,
    RunSettings,
    ServedRun,
    ServerCredentials,
    Transcripts,
)
from secagg.service.driver import RoundDriver
from secagg.service.hello import make_hello
from secagg.service.keys import SERVER_NAME
from secagg.service.records import (
    GRPC_OPTIONS,
    MESSAGE_BYTES,
    METHOD,
    Record,
    RecordReader,
    RecordType,
    encode_record,
)
from secagg.store import ParticipationLedger
from secagg.store.sql import Database, Spool

CREDENTIALS = ServerCredentials.generate()
PINNED = ServerCredentials(CREDENTIALS.certificate)
PAYLOAD = b"what the round is about"
RING_BITS = 20
SOON = Deadlines(advertise_s=100, phase_s=100)  # nobody waits for these: who is late is told by a ManualClock


@dataclass
class Cohort:
    """Parties 0..n-1 with vectors; `server` is listening."""

    keys: list[IdentityKey]
    registry: Registry
    server: AggregationServer
    run: ServedRun
    vectors: list[UIntArray]
    events: list[Event]
    clock: Clock | None = None  # of the server
    outcomes: dict[int, RoundOutcome] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def policy(self) -> Policy:
        return Policy(known=self.registry.identities, minimum_cohort=4)

    def client(self, i: int, **options: Any) -> AggregationClient:
        settings: dict[str, Any] = {
            "address": self.address,
            "credentials": PINNED,
            "signer": self.keys[i],
            "policy": self.policy(),
            "on_refusal": self.refusals.append,
            "patience_s": 60.0,
        }
        return AggregationClient(**(settings | options))

    async def take_part(self, i: int, **options: Any) -> RoundOutcome:
        self.outcomes[i] = await self.client(i, **options).take_part(lambda _p, _q: self.vectors[i])
        return self.outcomes[i]

    def parameters(self, number: int = 1, **changes: Any) -> RoundParameters:
        values: dict[str, Any] = {
            "round_id": hashlib.sha256(b"%d" % number).digest()[:16],
            "vector_length": len(self.vectors[0]),
            "ring_bits": RING_BITS,
            "context": context_digest(PAYLOAD),
        }
        return RoundParameters(**(values | changes))

    def expected(self, members: list[int]) -> UIntArray:
        total = np.sum([self.vectors[i] for i in members], axis=0, dtype=np.uint64)
        return np.asarray(total % 2**RING_BITS, np.uint32)

    def named(self, members: list[int]) -> set[bytes]:
        return {self.keys[i].identity for i in members}

    @property
    def driver(self) -> RoundDriver | None:
        """The round that goes on."""
        return next(iter(self.run.rounds), None)

    def answered(self, phase: Phase, count: int) -> bool:
        """Whether a round is in this phase, and so many have answered."""
        driver = self.driver
        return driver is not None and driver.phase is phase and driver.progress.received == count

    async def run_late(
        self,
        parameters: RoundParameters,
        phase: Phase,
        count: int,
        payload: bytes = PAYLOAD,
        **options: Any,
    ) -> Aggregate:
        """Run a round; once so many have answered in this phase, its deadline passes."""
        assert isinstance(self.clock, ManualClock)
        running = asyncio.create_task(self.run.round(parameters, payload, SOON, **options))
        await settle(lambda: running.done() or self.answered(phase, count))
        self.clock.advance(SOON.advertise_s + 1)
        return await running


@asynccontextmanager
async def cohort(
    n: int = 6,
    length: int = 50,
    clock: Clock | None = None,
    observer: Callable[[Event], None] | None = None,
    database: Database | None = None,
    spool: Spool | None = None,
    auditor: IdentityKey | None = None,
    credentials: ServerCredentials = CREDENTIALS,
    authority: bytes | None = None,
    limits: Limits | None = None,
    ledger: ParticipationLedger | None = None,
    transcripts: Transcripts | None = None,
) -> AsyncIterator[Cohort]:
    """Start a server for n parties."""
    keys = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(n)]
    registry = Registry.of((f"party-{i}", key.identity) for i, key in enumerate(keys))
    events: list[Event] = []

    def observe(event: Event) -> None:
        events.append(event)
        if observer is not None:
            observer(event)

    server = AggregationServer(
        address="127.0.0.1:0",
        credentials=credentials,
        authority=authority,
        limits=limits,
        clock=clock,
        database=database,
        spool=spool,
        auditor=auditor,
    )
    rng = np.random.default_rng(7)
    vectors: list[UIntArray] = [rng.integers(0, 2**RING_BITS, length, dtype=np.uint32) for _ in range(n)]
    await server.start()
    try:
        run = await server.open(
            RunSettings(registry=registry, observer=observe, ledger=ledger, transcripts=transcripts)
        )
        yield Cohort(keys, registry, server, run, vectors, events, clock)
    finally:
        await server.stop()


async def settle(condition: Callable[[], bool], seconds: float = 100.0) -> None:
    """Let the loop run until the condition holds; fail when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class RawStream:
    """A stream to the server that does what a test says, and nothing by itself."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._reader = RecordReader(1 << 30)
        self._records: list[Record] = []

    async def send(self, kind: RecordType, content: bytes) -> None:
        await self.send_bytes(b"".join(encode_record(kind, content)))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes in messages of at most 1 MiB."""
        for at in range(0, len(data), MESSAGE_BYTES):
            await self._call.write(data[at : at + MESSAGE_BYTES])

    async def receive(self, pause_s: float = 0.0) -> Record | None:
        """Return the next record, pausing between messages; None at the end of the stream."""
        while not self._records:
            message = await self._call.read()
            if message is grpc.aio.EOF:
                return None
            self._records.extend(self._reader.feed(message))
            await asyncio.sleep(pause_s)
        return self._records.pop(0)


@asynccontextmanager
async def raw_stream(
    c: Cohort, greeter: int | None = None, *, resume: bytes = b"", options: Collection[tuple[str, int]] = ()
) -> AsyncIterator[RawStream]:
    """Open a stream, and say hello as one of the parties. options: of gRPC, for the channel."""
    credentials = grpc.ssl_channel_credentials(CREDENTIALS.certificate)
    every = (*GRPC_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME), *options)
    async with grpc.aio.secure_channel(c.address, credentials, options=every) as channel:
        call = channel.stream_stream(METHOD)()
        stream = RawStream(call)
        if greeter is not None:
            try:
                challenge = await stream.receive()
            except grpc.aio.AioRpcError:  # a window that is shut kept the challenge, too: once more
                call = channel.stream_stream(METHOD)()
                stream = RawStream(call)
                challenge = await stream.receive()
            assert challenge is not None
            nonce = bytes(challenge.content[:32])
            hello = make_hello(c.keys[greeter], CREDENTIALS.digest, nonce, resume=resume)
            await stream.send(RecordType.HELLO, hello)
            await settle(lambda: c.keys[greeter].identity in c.run.connected)
        try:
            yield stream
        finally:
            call.cancel()  # older gRPC closes a channel and leaves its calls
