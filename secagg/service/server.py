"""The aggregation server: gRPC over TLS, one bidirectional stream per client and round."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc
import grpc.aio

from secagg.effects import Aggregate, Frame, Refused
from secagg.errors import LocalProtocolError, ParameterError, RoundAbortedError
from secagg.kernels import packed_bytes
from secagg.params import Buffer, Identity, Phase, RoundParameters
from secagg.service.clock import Clock, SystemClock
from secagg.service.context import round_context
from secagg.service.driver import Deadlines, RoundDriver
from secagg.service.errors import HelloError, ServiceError, StreamError, code_of
from secagg.service.events import Observer, ignore
from secagg.service.hello import NONCE_BYTES, Hello, check_hello
from secagg.service.keys import ServerCredentials
from secagg.service.reach import host_and_port
from secagg.service.records import MESSAGE_BYTES, Record, RecordReader, RecordType, encode_record
from secagg.service.registry import Registry
from secagg.service.tasks import end_tasks
from secagg.service.transcripts import Transcripts
from secagg.store import LedgerError, MemoryStore, ParticipationLedger, Store

_QUEUED_RECORDS = 32  # a round has six for a client
_DRAIN_S = 60.0  # without a message of 1 MiB taken

METHOD = "/secagg.v1.Aggregation/Join"
_HELLO_LIMIT = 1024
_HELLO_S = 30.0  # real time: a stranger must not hold a stream
# Around the packed vector of an upload: complaints and signature; around shares: both grow with n.
_FRAME_ALLOWANCE = 4096
_BYTES_PER_CLIENT = 400
GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES + 1024),
    ("grpc.max_send_message_length", MESSAGE_BYTES + 1024),
    ("grpc.so_reuseport", 0),
)


class _Connection:
    """The outgoing records of one client, in order. A client that does not read loses its stream."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.waiting = True  # for the next round: it has no part in the current one, if there is one
        self.dropped = asyncio.Event()
        self.written = 0  # messages that the transport took
        self.queue: asyncio.Queue[tuple[RecordType, Buffer | Frame] | None] = asyncio.Queue()

    def send(self, kind: RecordType, content: Buffer | Frame) -> None:
        if self.queue.qsize() >= _QUEUED_RECORDS:
            self.dropped.set()
        else:
            self.queue.put_nowait((kind, content))

    def close(self) -> None:
        """End the stream once everything is sent, or as soon as the client stops reading."""
        self.queue.put_nowait(None)
        self._watch(-1)

    def _watch(self, written_before: int) -> None:
        if self.written == written_before:
            self.dropped.set()
        elif not self.dropped.is_set():
            asyncio.get_running_loop().call_later(_DRAIN_S, self._watch, self.written)


class AggregationServer:
    """Runs rounds for the parties of a registry. Start it, then await `run_round` as often as needed.

    address      host:port to listen on; port 0 takes a free one, see `port`
    registry     the enrolled parties; strangers are refused at hello
    clock        decides deadlines
    store        keeps the session of a round that is under way
    observer     is told the public facts of each round
    ledger       who was summed with whom; default: in the store, with its own defaults
    transcripts  where to record the rounds; None: nowhere
    agreement    digest of what all parties agreed on before: in the context of every round
    """

    def __init__(
        self,
        *,
        address: str,
        credentials: ServerCredentials,
        registry: Registry,
        clock: Clock | None = None,
        store: Store | None = None,
        observer: Observer = ignore,
        ledger: ParticipationLedger | None = None,
        transcripts: Transcripts | None = None,
        agreement: bytes = b"",
    ) -> None:
        if credentials.private_key is None:
            raise ParameterError("credentials: the server needs its private key")
        self._address = address
        self._credentials = credentials
        self._registry = registry
        self._clock = clock or SystemClock()
        self._store = store or MemoryStore()
        self._ledger = ledger or ParticipationLedger(self._store)
        self._transcripts = transcripts
        self._agreement = agreement
        self._observer = observer
        self._connections: dict[Identity, _Connection] = {}
        self._driver: RoundDriver | None = None
        self._payload: Buffer = b""
        self._final: Buffer | None = None
        self._running: asyncio.Task[Aggregate] | None = None
        self._grpc: grpc.aio.Server | None = None
        self._untold = set(registry.identities)  # who has not heard that there are no more rounds
        self._all_told = asyncio.Event()
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises ParameterError when the address cannot be used."""
        host_and_port(self._address)
        server = grpc.aio.server(options=GRPC_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._join)  # bytes in, bytes out
        service, method = METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        pair = (self._credentials.private_key, self._credentials.certificate)
        try:
            self.port = server.add_secure_port(self._address, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise ParameterError(f"address: cannot listen on {self._address!r}") from error
        await server.start()
        self._grpc = server

    async def stop(self) -> None:
        """End a round that is running, close every stream and stop listening."""
        if self._running is not None:
            self._running.cancel()
        for connection in self._connections.values():
            connection.close()
        if self._grpc is not None:
            await self._grpc.stop(grace=2.0)

    async def run_round(
        self,
        parameters: RoundParameters,
        payload: bytes,
        deadlines: Deadlines | None = None,
        *,
        excluded: Collection[Identity] = (),
        subject: bytes | None = None,
        cohort: Collection[Identity] | None = None,
        floor: int = 0,
    ) -> Aggregate:
        """Run one round about `payload`, whose digest is the round's context.

        excluded  enrolled parties that have no part in it: the guilty of an earlier attempt
        subject   what the ledger is to know the round by; default: its context
        cohort    among whom the subject is summed, in whole cells (`ParticipationLedger.join`)
        floor     fewest members that sums may tell apart; 0: A + 2 of the cohort, or of the round's roster

        raises  RoundAbortedError; LedgerError; InfeasibleParameters; ParameterError when the context is
                another one, or too few may take part;
                LocalProtocolError while another round runs; ServiceError when the server is stopped
        """
        if self._driver is not None:
            raise LocalProtocolError("run_round: a round is running")
        if parameters.context != round_context(payload, self._agreement):
            raise ParameterError("parameters.context: must be round_context(payload, agreement)")
        driver = RoundDriver(
            parameters,
            registry=self._registry,
            clock=self._clock,
            store=self._store,
            observer=self._observer,
            deliver=self._deliver,
            ledger=self._ledger,
            excluded=excluded,
            transcripts=self._transcripts,
            subject=subject,
            cohort=cohort,
            floor=floor,
        )
        self._payload = payload
        self._driver = driver
        for connection in self._connections.values():
            connection.waiting = False
            connection.send(RecordType.PAYLOAD, payload)
        outcome = {"outcome": "aborted"}
        try:
            driver.begin()  # before anything else happens: who connects from now on is welcomed to it
            self._running = asyncio.create_task(driver.run(deadlines or Deadlines()))
            result = await self._running
        except RoundAbortedError as error:
            outcome |= {"reason": str(error.reason), "detail": error.detail}
            raise
        except LedgerError as error:
            outcome |= {"reason": "the ledger refuses", "detail": str(error)}
            raise
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise  # it is our caller that was cancelled
            raise ServiceError("the server was stopped during a round") from None
        else:
            outcome = {"outcome": "completed", "survivors": str(len(result.survivors))}
            return result
        finally:
            self._driver = self._running = None
            self._end_streams(RecordType.ENDED, json.dumps(outcome).encode())

    def finish(self, payload: bytes) -> None:
        """Tell everybody, now or when it next connects, that there are no more rounds."""
        self._final = payload
        self._end_streams(RecordType.FINISHED, payload)

    async def everybody_told(self) -> None:
        """Return when every party of the registry has been sent the last payload of `finish`."""
        await self._all_told.wait()

    def _tell(self, client: Identity) -> None:
        self._untold.discard(client)
        if not self._untold:
            self._all_told.set()

    @property
    def connected(self) -> frozenset[Identity]:
        """The clients that have a stream at the moment."""
        return frozenset(self._connections)

    def _end_streams(self, kind: RecordType, content: Buffer) -> None:
        """Tell those whose round is over and close their streams; the others wait for the next round."""
        for connection in list(self._connections.values()):
            if kind is RecordType.ENDED and connection.waiting:
                continue
            connection.send(kind, content)
            connection.close()
            del self._connections[connection.identity]
            if kind is RecordType.FINISHED:
                self._tell(connection.identity)

    def _deliver(self, client: Identity, item: Frame | Refused) -> None:
        connection = self._connections.get(client)
        if connection is None or connection.waiting:
            return  # the last frame is sent again when the client comes back and resumes
        if isinstance(item, Frame):
            connection.send(RecordType.FRAME, item)
        else:
            connection.send(RecordType.REFUSED, f"{item.reason}: {item.detail}".encode())

    async def _join(
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        try:
            reader = RecordReader(_HELLO_LIMIT)
            nonce = os.urandom(NONCE_BYTES)
            for message in encode_record(RecordType.CHALLENGE, nonce):
                await context.write(message)
            records = _records(reader, messages)
            try:
                async with asyncio.timeout(_HELLO_S):
                    first = await anext(records, None)
            except TimeoutError:
                raise HelloError(f"hello: none within {_HELLO_S:g} s") from None
            if first is None:
                return
            if first.type is not RecordType.HELLO:
                raise StreamError(f"record: HELLO is wanted, is {first.type.name}")
            hello = check_hello(first.content, self._credentials.digest, nonce, self._registry)
            await self._serve(hello, reader, records, context)
        except ServiceError as error:
            await context.abort(code_of(error), str(error))

    async def _serve(
        self,
        hello: Hello,
        reader: RecordReader,
        records: AsyncIterator[Record],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        connection = _Connection(hello.identity)
        if (former := self._connections.get(hello.identity)) is not None:
            former.send(RecordType.REFUSED, b"another process is connected with this identity by now")
            former.close()  # the newest stream of a client counts
        if self._final is not None:
            connection.send(RecordType.FINISHED, self._final)
            connection.close()
            self._tell(hello.identity)
        else:
            self._connections[hello.identity] = connection
            self._welcome(connection, hello)
        reading = asyncio.create_task(self._read(connection, reader, records))
        writing = asyncio.create_task(_write(connection, context))
        dropping = asyncio.create_task(connection.dropped.wait())
        try:
            await asyncio.wait({reading, writing, dropping}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()  # a StreamError ends the stream with its code
        finally:
            if self._connections.get(hello.identity) is connection:
                del self._connections[hello.identity]
            connection.dropped.set()
            await end_tasks(reading, writing, dropping)

    def _welcome(self, connection: _Connection, hello: Hello) -> None:
        """Send what the client missed: its last frame when it resumes, the parameters when it is new."""
        driver = self._driver
        if driver is None or driver.session.phase is None or driver.shuns(hello.identity):
            return
        frame = driver.latest.get(hello.identity)
        resumes = hello.resume == driver.parameters.round_id
        fresh = (
            driver.session.phase is Phase.ADVERTISE_KEYS and hello.identity in driver.session.progress.missing
        )
        if frame is not None and (resumes or fresh):
            connection.waiting = False
            if not resumes:
                connection.send(RecordType.PAYLOAD, self._payload)
            connection.send(RecordType.FRAME, frame)

    async def _read(
        self, connection: _Connection, reader: RecordReader, records: AsyncIterator[Record]
    ) -> None:
        while True:
            reader.limit = self._frame_limit()
            record = await anext(records, None)
            if record is None:
                return
            if record.type is not RecordType.FRAME:
                raise StreamError(f"record: FRAME is wanted, is {record.type.name}")
            current = self._connections.get(connection.identity) is connection
            if self._driver is not None and current and not connection.waiting:
                self._driver.receive(connection.identity, record.content)
            await asyncio.sleep(0)  # many small frames in one message must not starve the others

    def _frame_limit(self) -> int:
        parameters = None if self._driver is None else self._driver.parameters
        vector = 0 if parameters is None else packed_bytes(parameters.vector_length, parameters.ring_bits)
        return vector + _FRAME_ALLOWANCE + _BYTES_PER_CLIENT * len(self._registry.identities)


async def _records(reader: RecordReader, messages: AsyncIterator[bytes]) -> AsyncIterator[Record]:
    async for message in messages:
        for record in reader.feed(message):
            yield record


async def _write(connection: _Connection, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    while (item := await connection.queue.get()) is not None:
        for message in encode_record(*item):
            await context.write(message)
            connection.written += 1
