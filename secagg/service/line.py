"""The way to a server: one stream over gRPC and TLS at a time, until what sits on it is over."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio

from secagg.effects import Frame
from secagg.errors import ParameterError
from secagg.params import ROUND_ID_BYTES, Buffer, Signer
from secagg.service.authority import CertificateError, PartyCredentials, check_issued
from secagg.service.clock import Clock, SystemClock
from secagg.service.errors import ConnectionLostError, HelloError, StreamError
from secagg.service.hello import DEFAULT_PLACE, NONCE_BYTES, check_place, check_tags, make_hello
from secagg.service.keys import SERVER_NAME, ServerCredentials
from secagg.service.reach import Obstacle, host_and_port, is_loopback, obstacle, outdated, printable
from secagg.service.records import GRPC_OPTIONS, METHOD, Record, RecordReader, RecordType, encode_record
from secagg.service.tasks import end_tasks

RECORD_LIMIT = 1 << 34  # a payload may be a large model
_RETRY_S, _RETRY_MOST_S = 0.25, 10.0  # before another attempt, give or take a half

_REFUSALS, _HOUR_S = 64, 3600.0  # of a server, in so long: more would fill our log
_PACE_BYTES = 8
_MOST_PACED_S = 86_400.0  # a server may send us away for so long
_GREETING_S = 15.0  # to connect, and to be challenged

CLIENT_OPTIONS = (
    *GRPC_OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),  # no waiting for what another channel failed at
    ("grpc.keepalive_time_ms", 30_000),  # a stream that nobody holds any more is found
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # of a peer whose system still acknowledges; default: a minute
    ("grpc.http2.max_pings_without_data", 0),  # any number: a round may wait for long
)

_Call: TypeAlias = Any  # gRPC's stream call has no public type


def print_nothing(_text: str) -> None:
    pass


class BrokenStreamError(Exception):
    """The stream ended while we were writing, or must; the client connects again."""


class Sitting(Protocol):
    """What a line is held for; it outlives streams."""

    heard: bool  # anything that it waits for, since the stream was opened

    @property
    def over(self) -> bool:
        """Whether the line may be hung up."""

    @property
    def round_id(self) -> bytes:
        """The round to resume, or nothing."""

    @property
    def tags(self) -> tuple[str, ...]:
        """What it says of itself, beside the tags of the line."""

    async def go_on(self, stream: Stream) -> None:
        """Take up, on a new stream, what was under way. Called after hello."""

    async def on_record(self, record: Record, stream: Stream) -> None:
        """Take a record of the server."""

    async def speak(self, stream: Stream) -> None:
        """Send what becomes ready by itself, as long as the stream holds."""


class Line:
    """Connects to one server, or one of several, as one party.

    address        host:port, or several: of the servers of one database, tried in turn
    credentials    the server's pinned certificate; or, where an operator's authority lets parties in, our own
                   certificate and key, and the authority's
    place          FEDERATION/RUN, as the server calls it
    tags           what the party says of itself
    on_refusal     told why the server's message, or ours, counts as not sent
    patience_s     how long to try to reach the server, without a word of it; math.inf: for ever. Until it was
                   reached once, what waiting does not mend ends this at once: another certificate, no such
                   host, something else that listens there
    most_bytes     of one record of the server: more ends the stream
    """

    def __init__(
        self,
        *,
        address: str | Sequence[str],
        credentials: ServerCredentials | PartyCredentials,
        signer: Signer,
        place: str = DEFAULT_PLACE,
        tags: Collection[str] = (),
        clock: Clock | None = None,
        on_refusal: Callable[[str], None] = print_nothing,
        patience_s: float = 60.0,
        most_bytes: int = RECORD_LIMIT,
    ) -> None:
        self._addresses = (address,) if isinstance(address, str) else tuple(address)
        if not self._addresses:
            raise ParameterError("address: must be one at least")
        for one in self._addresses:
            host_and_port(one)
        if math.isnan(patience_s) or patience_s < 0:
            raise ParameterError(f"patience_s: must be at least 0, is {patience_s}")
        self._turn = 0  # of the address that is tried next
        self._signer = signer
        self._place, self._tags = check_place(place), check_tags(tags)
        self._paced_s = 0.0  # until when the server has nothing for us
        self._reached = False  # the server said something, once
        self._challenged: float | None = None  # when it did on this stream
        self._trouble: str | None = ""
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._on_refusal = on_refusal
        self._refusals: deque[float] = deque()  # when they came
        self._patience_s, self._most_bytes = patience_s, most_bytes

    @property
    def trouble(self) -> str | None:
        """Why there is no stream at the moment; "": not known yet; None: there is one."""
        return self._trouble

    def check(self) -> None:
        """Raise ConnectionLostError when our certificate, or the pinned one, does not hold any more."""
        if not self._reached and (cause := self._outdated()):
            raise ConnectionLostError(f"{self._address}: {cause}")

    def _outdated(self) -> str:
        """Return why our certificate, or the pinned one, does not hold; "": it does."""
        now = self._clock.wall()
        if isinstance(self._credentials, PartyCredentials):
            return self._credentials.outdated(now)
        return outdated(self._credentials, now)

    async def hold(self, seat: Sitting) -> None:
        """Connect, again and again, until it is over.

        raises  ConnectionLostError, with the cause; HelloError, StreamError
        """
        lost_at: float | None = None
        wait_s = _RETRY_S
        while True:
            broken: grpc.aio.AioRpcError | BrokenStreamError = BrokenStreamError()
            try:
                await self._connect(seat)
            except (grpc.aio.AioRpcError, BrokenStreamError) as error:
                broken = error
            if seat.over:
                return
            now = self._clock.now()
            # A round was heard of, or the server held the stream for long: it was not lost until now.
            held = seat.heard or (self._challenged is not None and now - self._challenged > _GREETING_S)
            lost_at = now if lost_at is None or held else lost_at
            wait_s = _RETRY_S if held else min(2 * wait_s, _RETRY_MOST_S)
            seat.heard, self._challenged = False, None
            self._check_patience(broken, now - lost_at)
            self._turn += 1
            wait_s, self._paced_s = max(wait_s, self._paced_s), 0.0
            # So that a thousand clients of a server that was started again do not come at once.
            await self._clock.sleep(wait_s * (0.5 + random.random()))  # noqa: S311 - no secret

    @property
    def _address(self) -> str:
        return self._addresses[self._turn % len(self._addresses)]

    def _check_patience(self, error: grpc.aio.AioRpcError | BrokenStreamError, lost_s: float) -> None:
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

    async def _connect(self, seat: Sitting) -> None:
        """Hold one stream until it breaks or the round is over."""
        own = self._credentials
        credentials = (
            grpc.ssl_channel_credentials(own.authority, own.private_key, own.certificate)
            if isinstance(own, PartyCredentials)
            else grpc.ssl_channel_credentials(own.certificate)
        )
        options = [*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME)]
        if is_loopback(host_and_port(self._address)[0]):
            # gRPC asks the proxy of the environment even for a server on this machine.
            options.append(("grpc.enable_http_proxy", 0))
        async with grpc.aio.secure_channel(self._address, credentials, options=options) as channel:
            stream = Stream(channel.stream_stream(METHOD)(), self._most_bytes)
            reading = asyncio.create_task(self._read(seat, stream))
            speaking = asyncio.create_task(seat.speak(stream))
            try:
                done, _ = await asyncio.wait({reading, speaking}, return_when=asyncio.FIRST_COMPLETED)
                if speaking in done:
                    speaking.result()
                await reading
            finally:
                stream.close()
                await end_tasks(reading, speaking)

    async def _read(self, seat: Sitting, stream: Stream) -> None:
        async for record in stream.records():
            await self._on_record(seat, stream, record)
            if seat.over:
                return

    async def _on_record(self, seat: Sitting, stream: Stream, record: Record) -> None:
        match record.type:
            case RecordType.CHALLENGE:
                await self._say_hello(seat, stream, bytes(record.content))
            case RecordType.REFUSED:
                self._refused(printable(bytes(record.content).decode(errors="replace")))
            case RecordType.PACE:
                if len(record.content) != _PACE_BYTES:
                    raise StreamError(f"record: PACE has {_PACE_BYTES} bytes")
                seat.heard = True
                self._paced_s = min(int.from_bytes(bytes(record.content), "big") / 1000, _MOST_PACED_S)
            case RecordType.HELLO:
                raise StreamError("record: HELLO comes from clients only")
            case _:
                await seat.on_record(record, stream)

    def _refused(self, why: str) -> None:
        """Pass a refusal on; of too many in an hour the last says that the rest is not shown."""
        now = self._clock.now()
        while self._refusals and self._refusals[0] <= now - _HOUR_S:
            self._refusals.popleft()
        if len(self._refusals) >= _REFUSALS:
            return
        self._refusals.append(now)
        last = len(self._refusals) == _REFUSALS
        self._on_refusal(f"{why} (no more are shown within the hour)" if last else why)

    async def _say_hello(self, seat: Sitting, stream: Stream, challenge: bytes) -> None:
        """Prove who we are, and take up what we were at."""
        self._reached, self._trouble = True, None
        self._challenged = self._clock.now()
        nonce, certificate = challenge[:NONCE_BYTES], challenge[NONCE_BYTES:]
        hello = make_hello(
            self._signer,
            self._server_digest(certificate),
            nonce,
            place=self._place,
            resume=seat.round_id,
            tags=check_tags([*self._tags, *seat.tags]),
        )
        await stream.write(RecordType.HELLO, hello)
        await seat.go_on(stream)

    def _server_digest(self, certificate: bytes) -> bytes:
        """Return the digest of the server's certificate. Raises HelloError: no authority of ours issued it.

        TLS has checked what the server holds; gRPC does not show it, so that the server says it once more.
        Who says another one is a server of the same authority: a hello that it passes on lets it carry our
        frames, which are signed, and nothing else.
        """
        if isinstance(self._credentials, ServerCredentials):
            return self._credentials.digest
        try:
            check_issued(
                certificate, self._credentials.authority, self._clock.wall(), "the server's certificate"
            )
        except CertificateError as error:
            raise HelloError(str(error)) from error
        return ServerCredentials(certificate).digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a round ended, in a server's words.

    word      "completed", "aborted", "over"; "closed": it goes on, and takes no more uploads
    why       it was not completed, printable
    round_id  which round it was, for who may be in several; or nothing
    """

    word: str
    why: str
    round_id: bytes

    @property
    def completed(self) -> bool:
        """Whether there is a sum."""
        return self.word == "completed"

    @property
    def closed(self) -> bool:
        """Whether it is not over, and only takes no more."""
        return self.word == "closed"


def read_outcome(content: Buffer) -> Outcome:
    """Read an ENDED record. Raises StreamError."""
    try:
        said = json.loads(bytes(content))
        words = [printable(said[key]) for key in ("reason", "detail") if key in said]
        return Outcome(printable(said["outcome"]), ": ".join(words), bytes.fromhex(said.get("round", "")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise StreamError("record: ENDED is not an outcome") from error


def read_rounds(content: Buffer) -> set[bytes]:
    """Read the ids of a ROUNDS record. Raises StreamError."""
    ids = bytes(content)
    if len(ids) % ROUND_ID_BYTES:
        raise StreamError(f"record: ROUNDS are ids of {ROUND_ID_BYTES} bytes")
    return {ids[at : at + ROUND_ID_BYTES] for at in range(0, len(ids), ROUND_ID_BYTES)}


class Stream:
    """Records over one gRPC call; one writer at a time."""

    def __init__(self, call: _Call, most_bytes: int) -> None:
        self._call, self._most_bytes = call, most_bytes
        self._writing = asyncio.Lock()

    async def records(self) -> AsyncIterator[Record]:
        reader = RecordReader(self._most_bytes)
        message = await self._first()
        while message is not grpc.aio.EOF:
            for record in reader.feed(message):
                yield record
            message = await self._call.read()

    async def _first(self) -> Any:  # noqa: ANN401 - a message, or the end
        """Return the first message. Who listens and says nothing is given up for the next address."""
        try:
            async with asyncio.timeout(_GREETING_S):
                return await self._call.read()
        except TimeoutError:
            raise BrokenStreamError from None

    async def write(self, kind: RecordType, content: Buffer | Frame) -> None:
        async with self._writing:
            try:
                for message in encode_record(kind, content):
                    await self._call.write(message)
            except asyncio.InvalidStateError as error:  # gRPC's word for a call that is over
                raise BrokenStreamError from error

    async def send(self, frame: Frame) -> None:
        await self.write(RecordType.FRAME, frame)

    def close(self) -> None:
        self._call.cancel()
