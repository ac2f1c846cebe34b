"""The client side of the service: one stream per round, reconnecting until the round is over."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from secagg.effects import Frame
from secagg.errors import ParameterError
from secagg.params import Buffer, Entropy, Policy, Signer
from secagg.service.clock import Clock, SystemClock
from secagg.service.errors import ConnectionLostError, HelloError, StreamError
from secagg.service.hello import make_hello
from secagg.service.keys import SERVER_NAME, ServerCredentials
from secagg.service.reach import Obstacle, host_and_port, is_loopback, obstacle, outdated, printable
from secagg.service.records import Record, RecordReader, RecordType, encode_record
from secagg.service.seat import (
    BeforeAnswer,
    BeforeSign,
    Compute,
    QuestionOf,
    RoundOutcome,
    Seat,
    Settings,
    context_is_subject,
)
from secagg.service.server import GRPC_OPTIONS, METHOD
from secagg.service.tasks import end_tasks
from secagg.store import Counter, MemoryStore, ParticipationLedger, Store, StoredCounter

_RECORD_LIMIT = 1 << 34  # a payload may be a large model
_RETRY_S = 0.5

_Call: TypeAlias = Any  # gRPC's stream call has no public type


def _print_nothing(_text: str) -> None:
    pass


class _BrokenStreamError(Exception):
    """The stream ended while we were writing; the client connects again."""


class AggregationClient:
    """Takes part in rounds of one server.

    address        host:port
    credentials    the server's pinned certificate
    policy         what the client demands of a round; `known` comes from its own registry file
    entropy        for the secrets of each round
    store          keeps the ids of accepted rounds; secrets of a round are in memory only: a client that is
                   killed has no part in the rest of its round
    counter        counts what was released; default: in the store
    ledger         what this client uploaded before, and how often; default: in the store, it warns only
    agreement      digest of what was agreed on before: in the context of every round, so that nobody takes
                   part who agreed to something else
    question_of    what (payload, parameters) ask, for the ledger; default: the context is the subject
    before_answer  awaited with (phase, payload) before an answer is released; for drills and tests
    before_sign    called in a thread with (parameters, payload, finished, survivors) before the client signs
                   a set S of survivors (passive: before it answers), again when the server asks again. A
                   LedgerError or ConsentError that it raises ends this client's round, and is its reason;
                   S gets no signature. What else it raises ends the round, and is raised by `take_part`
    on_refusal     told why the server's message, or ours, counts as not sent
    patience_s     how long to try to reach the server, without a word of it; math.inf: for ever. Until it was
                   reached once, what waiting does not mend ends this at once: another certificate, no such
                   host, something else that listens there
    most_bytes     of one record of the server, such as a round's payload: more ends the stream
    """

    def __init__(
        self,
        *,
        address: str,
        credentials: ServerCredentials,
        signer: Signer,
        policy: Policy,
        entropy: Entropy = os.urandom,
        store: Store | None = None,
        counter: Counter | None = None,
        ledger: ParticipationLedger | None = None,
        question_of: QuestionOf = context_is_subject,
        agreement: bytes = b"",
        clock: Clock | None = None,
        before_answer: BeforeAnswer | None = None,
        before_sign: BeforeSign | None = None,
        on_refusal: Callable[[str], None] = _print_nothing,
        patience_s: float = 60.0,
        most_bytes: int = _RECORD_LIMIT,
    ) -> None:
        host, _ = host_and_port(address)
        # gRPC asks the proxy of the environment even for a server on this machine.
        self._options = GRPC_OPTIONS + ((("grpc.enable_http_proxy", 0),) if is_loopback(host) else ())
        if math.isnan(patience_s) or patience_s < 0:
            raise ParameterError(f"patience_s: must be at least 0, is {patience_s}")
        self._address = address
        self._reached = False  # the server said something, once
        self._trouble: str | None = ""
        self._credentials = credentials
        self._clock = clock or SystemClock()
        store = store or MemoryStore()
        self._settings = Settings(
            signer=signer,
            policy=policy,
            entropy=entropy,
            store=store,
            counter=counter or StoredCounter(store),
            ledger=ledger or ParticipationLedger(store),
            wall=self._clock.wall,
            before_answer=before_answer,
            before_sign=before_sign,
            on_refusal=on_refusal,
            question_of=question_of,
            agreement=agreement,
        )
        self._patience_s, self._most_bytes = patience_s, most_bytes

    @property
    def trouble(self) -> str | None:
        """Why there is no stream at the moment; "": not known yet; None: there is one."""
        return self._trouble

    async def take_part(self, compute: Compute) -> RoundOutcome:
        """Take part in the next round.

        compute  (payload, parameters) -> vector (d,) below 2^ring_bits, or a VectorSource of it; called in a
                 thread, once the parameters are accepted. What it raises, or the source when it is read,
                 ends this client's round and is raised here.
        raises   ConnectionLostError: with the cause; HelloError, StreamError
        """
        if not self._reached and (cause := outdated(self._credentials, self._clock.wall())):
            raise ConnectionLostError(f"{self._address}: {cause}")
        seat = Seat(self._settings, compute)
        lost_at: float | None = None
        try:
            while True:
                broken: grpc.aio.AioRpcError | _BrokenStreamError = _BrokenStreamError()
                try:
                    await self._connect(seat)
                except (grpc.aio.AioRpcError, _BrokenStreamError) as error:
                    broken = error
                if seat.outcome is not None:
                    return seat.outcome
                now = self._clock.now()
                lost_at = now if lost_at is None or seat.heard else lost_at
                seat.heard = False
                self._check_patience(broken, now - lost_at)
                await self._clock.sleep(_RETRY_S)
        finally:
            seat.leave()

    def _check_patience(self, error: grpc.aio.AioRpcError | _BrokenStreamError, lost_s: float) -> None:
        """Raise unless it makes sense to connect again."""
        if isinstance(error, grpc.aio.AioRpcError):
            details = str(error.details())
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise HelloError(printable(details)) from error
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise StreamError(printable(details)) from error
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                found = obstacle(details, self._address)
            else:  # in the server's own words, which decide nothing
                found = Obstacle(f"{self._address}: {printable(details)}", passes=True)
        else:
            found = Obstacle(f"{self._address}: the stream broke", passes=True)
        self._trouble = found.cause
        if lost_s > self._patience_s or not (found.passes or self._reached):
            raise ConnectionLostError(found.cause) from error

    async def _connect(self, seat: Seat) -> None:
        """Hold one stream until it breaks or the round is over."""
        credentials = grpc.ssl_channel_credentials(self._credentials.certificate)
        options = (*self._options, ("grpc.ssl_target_name_override", SERVER_NAME))
        async with grpc.aio.secure_channel(self._address, credentials, options=options) as channel:
            stream = _Stream(channel.stream_stream(METHOD)(), self._most_bytes)
            reading = asyncio.create_task(self._read(seat, stream))
            submitting = asyncio.create_task(seat.submit_when_wanted(stream))
            try:
                done, _ = await asyncio.wait({reading, submitting}, return_when=asyncio.FIRST_COMPLETED)
                if submitting in done:
                    submitting.result()
                await reading
            finally:
                stream.close()
                await end_tasks(reading, submitting)

    async def _read(self, seat: Seat, stream: _Stream) -> None:
        async for record in stream.records():
            await self._on_record(seat, stream, record)
            if seat.outcome is not None:
                return

    async def _on_record(self, seat: Seat, stream: _Stream, record: Record) -> None:
        match record.type:
            case RecordType.CHALLENGE:
                self._reached, self._trouble = True, None
                digest, nonce = self._credentials.digest, bytes(record.content)
                hello = make_hello(self._settings.signer, digest, nonce, seat.round_id)
                await stream.write(RecordType.HELLO, hello)
            case RecordType.PAYLOAD:
                seat.take_payload(bytes(record.content))
            case RecordType.FRAME:
                await seat.take_frame(record.content, stream)
            case RecordType.REFUSED:
                self._settings.on_refusal(printable(bytes(record.content).decode(errors="replace")))
            case RecordType.ENDED:
                seat.end(*_read_outcome(record.content))
            case RecordType.FINISHED:
                seat.finish(bytes(record.content))
            case RecordType.HELLO:
                raise StreamError("record: HELLO comes from clients only")


def _read_outcome(content: Buffer) -> tuple[bool, str]:
    """Return whether the round was completed, and why not. Raises StreamError."""
    try:
        outcome = json.loads(bytes(content))
        words = [printable(outcome[key]) for key in ("reason", "detail") if key in outcome]
        return outcome["outcome"] == "completed", ": ".join(words)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise StreamError("record: ENDED is not an outcome") from error


class _Stream:
    """Records over one gRPC call; one writer at a time."""

    def __init__(self, call: _Call, most_bytes: int) -> None:
        self._call, self._most_bytes = call, most_bytes
        self._writing = asyncio.Lock()

    async def records(self) -> AsyncIterator[Record]:
        reader = RecordReader(self._most_bytes)
        while (message := await self._call.read()) is not grpc.aio.EOF:
            for record in reader.feed(message):
                yield record

    async def write(self, kind: RecordType, content: Buffer | Frame) -> None:
        async with self._writing:
            try:
                for message in encode_record(kind, content):
                    await self._call.write(message)
            except asyncio.InvalidStateError as error:  # gRPC's word for a call that is over
                raise _BrokenStreamError from error

    async def send(self, frame: Frame) -> None:
        await self.write(RecordType.FRAME, frame)

    def close(self) -> None:
        self._call.cancel()
