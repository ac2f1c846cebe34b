"""The aggregation server: gRPC over TLS, one bidirectional stream per client and round."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from traceback import clear_frames
from typing import Any, TypeVar

import grpc
import grpc.aio

from secagg.errors import ParameterError
from secagg.params import Identity, Signer, require
from secagg.service.authority import CertificateError, party_of
from secagg.service.clock import Clock, SystemClock
from secagg.service.connection import Intake
from secagg.service.errors import (
    BusyError,
    CrowdedError,
    HelloError,
    LateError,
    NotHereError,
    ServiceError,
    StreamError,
    code_of,
)
from secagg.service.events import StoreFailed, guarded
from secagg.service.hello import HELLO_BYTES, NONCE_BYTES, Hello, check_hello, read_hello
from secagg.service.keys import ServerCredentials
from secagg.service.led import Entrance, LedRun, Shared
from secagg.service.oneshot.edge import EdgeRun, EdgeSettings
from secagg.service.oneshot.run import DECRYPTORS, EDGES, OneShotRun, OneShotSettings
from secagg.service.reach import host_and_port
from secagg.service.records import GRPC_OPTIONS, METHOD, Record, RecordType, encode_record
from secagg.service.run import RunSettings, ServedRun
from secagg.service.strangers import Strangers
from secagg.service.tasks import end_tasks, first_of, on_thread, to_end
from secagg.store import StoreBusyError, StoreError, StoreFullError, StoreGoneError
from secagg.store.sql import AuditLog, Database, Lease, Leases, Spool, spool_of, sweep_unknown

_OTHER_DESCRIPTORS = 256  # of files, threads, gRPC
_MINUTE_S = 60.0
_THREADS = 8
_WATCH_S = 0.1  # between two looks at the connections
_BURST = 4  # times as many strangers as may be may come meanwhile before descriptors are used up
_LOOK_S = 0.5  # at a run that another server leads
_Led = TypeVar("_Led", ServedRun, OneShotRun, EdgeRun)
_SERVER_OPTIONS = (
    *GRPC_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),  # clients that are gone are found, ours may ask us as often
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # of ours, who may wait for long
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),  # without a stream
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What strangers and parties may take of a server; `AggregationServer.refused` counts what was refused.

    connections   that this process has descriptors for; the limit of the system is raised to it if it can be
    strangers     connections that nobody has said hello on: of more, the oldest end
    greeting      streams that have not said hello yet: one more ends the oldest of whoever has most of them
    hello_s       time for it
    hellos        of one party in a minute: a client that means well comes back less often
    streams       of one connection
    """

    connections: int = 4096
    strangers: int = 1024
    greeting: int = 64
    hello_s: float = 10.0
    hellos: int = 60
    streams: int = 8

    def __post_init__(self) -> None:
        for name in ("connections", "strangers", "greeting", "hellos", "streams"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.hello_s > 0, "hello_s", "above 0", self.hello_s)

    def raise_descriptors(self) -> None:
        """Make room for this many connections. Raises ParameterError when the system's limit is below."""
        wanted = self.connections + self.strangers + _OTHER_DESCRIPTORS
        amply = wanted + _BURST * self.strangers
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft >= amply or soft == resource.RLIM_INFINITY:
            return
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise ParameterError(
                f"limits: {self.connections} connections and {self.strangers} strangers need {wanted} open "
                f"files, the system allows {hard}: raise it (ulimit -n, LimitNOFILE), or allow fewer"
            )
        most = amply if hard == resource.RLIM_INFINITY else min(amply, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Refusal(StrEnum):
    """Why a stream ended before it was anybody's."""

    CONNECTION = "too many connections that nobody had said hello on"
    GREETING = "too many streams had not said hello"
    LATE = "no hello in time"
    BAD_HELLO = "no hello of an enrolled party"
    TOO_OFTEN = "a party came too often"
    NOT_HERE = "its run is not here"
    BAD_STREAM = "something else than records, or too much of it"
    STORE = "the store takes nothing"


@dataclass(frozen=True, slots=True, eq=False)
class _Greeting:
    """A stream that has not said hello; pushed: it gives way to another."""

    owner: str
    connection: str
    pushed: asyncio.Event = field(default_factory=asyncio.Event)


class AggregationServer:
    """Listens for clients; its rounds are those of the runs that are opened on it.

    address      host:port to listen on; port 0 takes a free one, see `port`
    authority    certificate (PEM) of the operator's authority: whoever has none of its certificates ends in
                 the TLS handshake. None: everybody may knock, and hello alone decides
    clock        decides deadlines
    database     keeps rounds, ledgers and leases; the caller closes it. None: in memory, and forgotten
    spool        keeps uploads on their way and sums; None: `spool_of` the database. Servers of one database
                 share it
    auditor      the server's identity, which signs the audit log; None: none is kept
    limits       for strangers and parties
    lease_s      after which another server of the database takes over what this one led
    """

    def __init__(
        self,
        *,
        address: str,
        credentials: ServerCredentials,
        authority: bytes | None = None,
        clock: Clock | None = None,
        database: Database | None = None,
        spool: Spool | None = None,
        auditor: Signer | None = None,
        limits: Limits | None = None,
        lease_s: float = 10.0,
    ) -> None:
        if credentials.private_key is None:
            raise ParameterError("credentials: the server needs its private key")
        self._address = address
        self._credentials = credentials
        self._authority = authority
        self._served: ServerCredentials | None = None  # that gRPC knows of; None: it is to ask
        self._executor = ThreadPoolExecutor(_THREADS, "secagg")
        self._pulse = ThreadPoolExecutor(1, "secagg-lease")
        self._own: Database | None = None  # to be closed with the server
        if database is None:
            database = self._own = Database("sqlite://")
        self._shared = Shared(
            database=database,
            spool=spool_of(database) if spool is None else spool,
            leases=Leases(database, holder=os.urandom(8).hex(), lease_s=lease_s),
            clock=clock or SystemClock(),
            executor=self._executor,
            pulse=self._pulse,
            audit=None if auditor is None else AuditLog(database, auditor, database.now),
        )
        self._limits = limits or Limits()
        self.refused: Counter[Refusal] = Counter()
        self._greeting: list[_Greeting] = []  # streams that have not said hello, oldest first
        self._hellos: dict[Identity, deque[float]] = {}  # when a party came, in the last minute
        self._runs: list[LedRun[Any]] = []
        self._entrances: dict[str, Entrance] = {}  # of these, by place
        self._places: set[str] = set()  # of these, and of those that are being opened
        self._grpc: grpc.aio.Server | None = None
        self._strangers: Strangers | None = None
        self._watch: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises ParameterError: the address cannot be used, or there are too few descriptors."""
        host_and_port(self._address)
        if not self._shared.database.shared:  # nobody else begins rounds
            sweep_unknown(self._shared.database, self._shared.spool)
        self._limits.raise_descriptors()
        options = (*_SERVER_OPTIONS, ("grpc.max_concurrent_streams", self._limits.streams))
        server = grpc.aio.server(options=options)
        handler = grpc.stream_stream_rpc_method_handler(self._join)  # bytes in, bytes out
        service, method = METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._renewed, require_client_authentication=self._authority is not None
        )
        try:
            self.port = server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            raise ParameterError(
                f"address: cannot listen on {self._address!r}: in use, or not of this machine"
            ) from error
        await server.start()
        self._grpc = server
        self._strangers = Strangers(self.port, self._limits.strangers)
        self._watch = asyncio.create_task(self._watch_strangers(self._strangers))

    def renew(self, credentials: ServerCredentials) -> None:
        """Use another certificate for connections from now on; those that are there stay.

        raises  ParameterError: without its private key
        """
        if credentials.private_key is None:
            raise ParameterError("credentials: the server needs its private key")
        self._credentials = credentials
        self._served = None

    def _configuration(self) -> Any:  # noqa: ANN401 - of gRPC
        self._served = self._credentials
        pair = (self._credentials.private_key, self._credentials.certificate)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=self._authority)

    def _renewed(self) -> Any:  # noqa: ANN401
        """Tell gRPC, which asks at every handshake, of another certificate; None: it is the same."""
        return None if self._served is not None else self._configuration()

    async def open(self, settings: RunSettings, *, wait: bool = True) -> ServedRun:
        """Lead a run, and go on with its rounds. While another server of the database leads it: wait.

        raises  ParameterError: it is open here; NotHereError: another server leads it, and `wait` is false;
                StoreError
        """
        async with self._opened(settings, [settings.place], wait=wait) as lease:
            return await self._lead(ServedRun(settings, self._shared, lease))

    async def open_oneshot(self, settings: OneShotSettings, *, wait: bool = True) -> OneShotRun:
        """Lead a run of the one-upload protocol; as `open`."""
        places = [settings.place, settings.place + DECRYPTORS, settings.place + EDGES]
        async with self._opened(settings, places, wait=wait) as lease:
            return await self._lead(OneShotRun(settings, self._shared, lease))

    async def open_edge(self, settings: EdgeSettings, *, wait: bool = True) -> EdgeRun:
        """Be an edge of a run of the one-upload protocol that another server leads; as `open`."""
        async with self._opened(settings, [settings.place], wait=wait) as lease:
            return await self._lead(EdgeRun(settings, self._shared, lease))

    @asynccontextmanager
    async def _opened(
        self, settings: RunSettings | OneShotSettings | EdgeSettings, places: Collection[str], *, wait: bool
    ) -> AsyncIterator[Lease]:
        """Take places, and the lease of the first; all are free again when the run does not start."""
        if taken := self._places.intersection(places):
            raise ParameterError(f"place: {min(taken)} is open on this server already")
        self._places.update(places)
        try:
            yield await self._lease(settings, wait=wait)
        except BaseException:
            self._places.difference_update(places)
            raise

    async def _lead(self, run: _Led) -> _Led:
        try:
            await run.start()
        except BaseException:
            await run.close()
            raise
        self._runs.append(run)
        self._entrances |= run.entrances
        return run

    async def _lease(self, settings: RunSettings | OneShotSettings | EdgeSettings, *, wait: bool) -> Lease:
        """Take the lease; a server that stands by waits for the database as well, and says so once."""
        place, observer = settings.place, guarded(settings.observer)
        stands_by, trouble = False, ""
        while True:
            try:
                lease = await on_thread(self._executor, self._shared.leases.take, place)
                trouble = ""
            except (StoreBusyError, StoreFullError, StoreGoneError) as error:  # these may pass
                if not stands_by:
                    raise
                if str(error) != trouble:
                    trouble = str(error)
                    observer(StoreFailed(b"", trouble))
                lease = None
            if lease is not None:
                return lease
            if not wait:
                raise NotHereError(f"{place}: another server leads it")
            stands_by = True
            await asyncio.sleep(_LOOK_S)

    async def close(self, run: LedRun[Any]) -> None:
        """Leave a run; its rounds stay in the store, for who opens it next."""
        if run in self._runs:
            self._runs.remove(run)
        for place in run.entrances:
            self._entrances.pop(place, None)
            self._places.discard(place)
        await run.close()

    async def stop(self) -> None:
        """Leave every run, close every stream and stop listening. Rounds that go on stay in the store."""
        for run in list(self._runs):
            await self.close(run)
        if self._watch is not None:
            await end_tasks(self._watch)
        if self._grpc is not None:
            await self._grpc.stop(grace=2.0)
        self._executor.shutdown(wait=True)
        self._pulse.shutdown(wait=True)
        if self._own is not None:
            self._own.close()

    async def _watch_strangers(self, strangers: Strangers) -> None:
        """End connections that are too many, as long as the server listens."""
        while True:
            await asyncio.sleep(_WATCH_S)
            # Not on our threads, which may all wait for the disk.
            if ended := await asyncio.to_thread(strangers.look):
                self.refused[Refusal.CONNECTION] += ended

    async def _join(
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        intake = Intake(messages, self._executor, HELLO_BYTES)
        try:
            hello, entrance = await self._greet(intake, context)
            with nullcontext() if self._strangers is None else self._strangers.greeted(context.peer()):
                await entrance.serve(hello, intake, context)
        except ServiceError as error:
            _let_go(error)
            self.refused[_REFUSALS.get(type(error), Refusal.BAD_STREAM)] += 1
            _end(context, code_of(error), str(error))
        except StoreError as error:  # its words are for the operator
            _let_go(error)
            self.refused[Refusal.STORE] += 1
            _end(context, grpc.StatusCode.UNAVAILABLE, "the server's store takes nothing at the moment")
        finally:
            intake.close()

    async def _greet(
        self, intake: Intake, context: grpc.aio.ServicerContext[Any, Any]
    ) -> tuple[Hello, Entrance]:
        """Return who speaks, and of which run. Raises HelloError, StreamError, BusyError, NotHereError."""
        nonce, credentials = os.urandom(NONCE_BYTES), self._credentials
        named = credentials.certificate if self._authority is not None else b""
        first = await self._first(intake, context, nonce + named)
        if first.type is not RecordType.HELLO:
            raise StreamError(f"record: HELLO is wanted, is {first.type.name}")
        hello = read_hello(first.content)
        entrance = self._entrances.get(hello.place)
        if entrance is None:
            raise NotHereError("hello: this run is not here at the moment")
        check_hello(hello, credentials.digest, nonce, entrance.enrolled())
        if self._authority is not None:
            _check_certificate(hello, context)
        self._count_hello(hello.identity)
        return hello, entrance

    async def _first(
        self, intake: Intake, context: grpc.aio.ServicerContext[Any, Any], challenge: bytes
    ) -> Record:
        """Challenge, and wait for the first record; of too many that wait one is given up."""
        greeting = _Greeting(self._owner(context), context.peer())
        if len(self._greeting) >= self._limits.greeting:
            given_up = _least_worthy(self._greeting)
            given_up.pushed.set()
            self._greeting.remove(given_up)
        self._greeting.append(greeting)
        reading = asyncio.create_task(_asked(intake, context, challenge))
        leaving = asyncio.create_task(greeting.pushed.wait())
        try:
            await first_of(reading, leaving, timeout_s=self._limits.hello_s)
            if not reading.done():
                if greeting.pushed.is_set():
                    raise CrowdedError("hello: too many streams wait for theirs, come back")
                raise LateError(f"hello: none within {self._limits.hello_s:g} s")
            record = reading.result()
            if record is None:
                raise StreamError("hello: the stream ended without one")
            return record
        finally:
            if greeting in self._greeting:
                self._greeting.remove(greeting)
            await end_tasks(reading, leaving)

    def _owner(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Return who a stream is of: the party of its certificate, else the address that it comes from."""
        if self._authority is not None:
            with suppress(CertificateError):
                return party_of(_certificate(context)).identity.hex()
        return str(context.peer()).rpartition(":")[0]

    def _count_hello(self, identity: Identity) -> None:
        """Raise BusyError when a party comes more often than anybody who means well."""
        now = time.monotonic()
        came = self._hellos.setdefault(identity, deque())
        while came and came[0] <= now - _MINUTE_S:
            came.popleft()
        if len(came) >= self._limits.hellos:
            raise BusyError(f"hello: {len(came)} of yours in a minute, come back in one")
        came.append(now)


async def _asked(
    intake: Intake, context: grpc.aio.ServicerContext[Any, Any], challenge: bytes
) -> Record | None:
    # By themselves, and to their end: gRPC forgets headers whose write was cut off, sends them again with
    # the status, may not, and leaves the stream open for ever.
    await to_end(asyncio.ensure_future(context.send_initial_metadata(())))
    for message in encode_record(RecordType.CHALLENGE, challenge):
        await context.write(message)
    return await intake.next()


def _end(context: grpc.aio.ServicerContext[Any, Any], code: grpc.StatusCode, details: str) -> None:
    """End a stream when its handler returns: gRPC keeps the error of an abort, and with it our frame."""
    context.set_code(code)
    context.set_details(details)


def _let_go(error: Exception) -> None:
    """Free what the frames of an error hold, such as a message of 1 MiB.

    Tasks keep their errors, errors their frames, and frames the tasks; nobody collects such circles in time.
    """
    clear_frames(error.__traceback__)


def _least_worthy(greeting: Collection[_Greeting]) -> _Greeting:
    """Return the oldest, of the connection with most streams, of the owner with most: it has others."""
    owners = Counter(one.owner for one in greeting)
    connections = Counter(one.connection for one in greeting)
    return max(greeting, key=lambda one: (owners[one.owner], connections[one.connection]))


def _certificate(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    (pem, *_) = context.auth_context().get("x509_pem_cert", (b"",))
    return bytes(pem)


def _check_certificate(hello: Hello, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Raise HelloError unless the party that speaks is the one whose certificate the connection has."""
    try:
        party = party_of(_certificate(context))
    except CertificateError as error:
        raise HelloError("hello: the certificate of this connection is no party's") from error
    if party.identity != hello.identity:
        raise HelloError("hello: the certificate of this connection is another party's")


_REFUSALS: dict[type[ServiceError], Refusal] = {
    HelloError: Refusal.BAD_HELLO,
    LateError: Refusal.LATE,
    CrowdedError: Refusal.GREETING,
    BusyError: Refusal.TOO_OFTEN,
    NotHereError: Refusal.NOT_HERE,
}
