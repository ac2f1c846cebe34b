"""Suite "service": what the durable service takes, keeps and survives, on loopback, over TLS.

The server is a process of its own, the parties share another one; both have the machine's cores between
them. A figure is of one run; what it is compared with is measured in the same run.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import grpc.aio
import numpy as np

from bench.harness import TINY, Effort
from secagg import IdentityKey, Phase, Policy, RoundParameters, aggregate, context_digest
from secagg.kernels import UIntArray, lane_dtype
from secagg.service import (
    AggregationClient,
    AggregationServer,
    Deadlines,
    Event,
    Limits,
    PhaseDone,
    Registry,
    RoundOutcome,
    RoundResumed,
    RunSettings,
    ServedRun,
    ServerCredentials,
    UploadTaken,
)
from secagg.service.keys import SERVER_NAME
from secagg.service.line import CLIENT_OPTIONS
from secagg.service.records import METHOD
from secagg.service.seat import BeforeAnswer
from secagg.store import ParticipationLedger
from secagg.store.sql import Database, spool_of

_PAYLOAD = b"bench"
_JUNK = bytes([4]) + bytes(8) + b"\xff" * ((1 << 20) - 9)
_WAVE_S = 2.0  # between the waves of an attack
_LONG = Deadlines(advertise_s=600, phase_s=600)


@dataclass(frozen=True)
class Setting:
    """Parties, and where their server keeps everything."""

    folder: Path
    parties: int
    length: int
    ring_bits: int = 32
    credentials: ServerCredentials = field(default_factory=ServerCredentials.generate)
    port: int = 0
    active: int = 0  # parties that have a part in the rounds; 0: all

    def key(self, i: int) -> IdentityKey:
        return IdentityKey.from_seed(hashlib.sha256(b"%d" % i).digest())

    def registry(self, parties: int | None = None) -> Registry:
        names = range(self.parties if parties is None else parties)
        return Registry.of((f"party-{i}", self.key(i).identity) for i in names)

    def parameters(self, number: int) -> RoundParameters:
        return RoundParameters(
            round_id=hashlib.sha256(b"round %d" % number).digest()[:16],
            vector_length=self.length,
            ring_bits=self.ring_bits,
            context=context_digest(_PAYLOAD),
            minimum_cohort=max(4, (self.active or self.parties) - 1),
        )

    @property
    def bytes_up(self) -> int:
        return self.parties * self.length * self.ring_bits // 8


def _rss() -> int:
    """Resident bytes of this process."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _serve(setting: Setting, pipe: Connection, rounds: int) -> None:
    """Run rounds; tell what happens through the pipe, and answer "usage"."""
    os.environ["GRPC_VERBOSITY"] = "NONE"

    def observe(event: Event) -> None:
        if isinstance(event, UploadTaken | PhaseDone | RoundResumed):
            pipe.send((time.monotonic(), type(event).__name__, getattr(event, "phase", None)))

    async def run() -> None:
        with Database(setting.folder / "server.db") as database:
            server = AggregationServer(
                address=f"127.0.0.1:{setting.port}",
                credentials=setting.credentials,
                database=database,
                spool=spool_of(database),
            )
            began = time.monotonic()
            await server.start()
            one = await server.open(
                RunSettings(
                    registry=setting.registry(),
                    observer=observe,
                    ledger=ParticipationLedger(database, differencing="warn"),
                )
            )
            pipe.send((began, "port", server.port))
            rounding = asyncio.create_task(_rounds(setting, one, rounds))
            loop = asyncio.get_running_loop()
            while not rounding.done():
                if await loop.run_in_executor(None, pipe.poll, 0.05):
                    question = pipe.recv()
                    usage = resource.getrusage(resource.RUSAGE_SELF)
                    answer = {
                        "connected": len(one.connected),
                        "rss": _rss(),
                        "peak": usage.ru_maxrss * 1024,
                        "cpu_s": usage.ru_utime + usage.ru_stime,
                    }
                    pipe.send((time.monotonic(), question, answer))
            await rounding
            pipe.send((time.monotonic(), "done", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
            await asyncio.sleep(0.2)
            os._exit(0)

    asyncio.run(run())


async def _rounds(setting: Setting, run: ServedRun, rounds: int) -> None:
    for number in range(rounds):
        active = [setting.key(i).identity for i in range(setting.active or setting.parties)]
        parameters = setting.parameters(number)
        await run.round(parameters, _PAYLOAD, _LONG, ticket=b"%d" % number, among=active)


class Server:
    """A server process, and what it said."""

    def __init__(self, setting: Setting, rounds: int = 1) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.suites.service"])
        self._pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(setting, theirs, rounds))
        self.started = time.monotonic()
        self.process.start()
        self.said: list[tuple[float, str, Any]] = []
        self.port = int(self.wait_for("port")[2])

    def wait_for(self, name: str, count: int = 1) -> tuple[float, str, Any]:
        while True:
            found = [one for one in self.said if one[1] == name]
            if len(found) >= count:
                return found[count - 1]
            self.said.append(self._pipe.recv())

    async def heard(self, name: str, count: int = 1) -> tuple[float, str, Any]:
        return await asyncio.to_thread(self.wait_for, name, count)

    async def usage(self) -> dict[str, Any]:
        asked = sum(one[1] == "usage" for one in self.said)
        self._pipe.send("usage")
        answer: dict[str, Any] = (await self.heard("usage", asked + 1))[2]
        return answer

    @property
    def peak(self) -> int:
        """The most memory that it took, bytes; once it is done."""
        return int(self.wait_for("done")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@contextmanager
def setting_of(parties: int, length: int) -> Iterator[Setting]:
    with (
        tempfile.TemporaryDirectory(prefix="secagg-bench-", dir=Path.cwd()) as folder,
        socket.socket() as probe,
    ):
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        yield Setting(Path(folder).resolve(), parties, length, port=port)


def client_of(setting: Setting, i: int, before: BeforeAnswer | None = None) -> AggregationClient:
    return AggregationClient(
        address=f"127.0.0.1:{setting.port}",
        credentials=ServerCredentials(setting.credentials.certificate),
        signer=setting.key(i),
        policy=Policy(known=setting.registry().identities, minimum_cohort=4),
        ledger=None,
        before_answer=before,
        patience_s=600,
    )


def vector_of(setting: Setting) -> UIntArray:
    vector: UIntArray = np.arange(setting.length, dtype=lane_dtype(setting.ring_bits))
    return vector


class Gate:
    """Holds the uploads of all parties until the last one is ready."""

    def __init__(self, parties: int) -> None:
        self._parties, self._waiting = parties, 0
        self.ready, self.go = asyncio.Event(), asyncio.Event()

    async def before(self, phase: Phase, _payload: bytes) -> None:
        if phase is Phase.MASKED_INPUT_COLLECTION:
            self._waiting += 1
            if self._waiting >= self._parties:
                self.ready.set()
            await self.go.wait()


def fsync_seconds(folder: Path, files: int, size: int) -> float:
    """Write as many files of this size, each with fsync: what the disk can do."""
    data = os.urandom(size)
    began = time.monotonic()
    for i in range(files):
        with (folder / f"plain-{i}").open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
    seconds = time.monotonic() - began
    for i in range(files):
        (folder / f"plain-{i}").unlink()
    return seconds


async def _uploads(setting: Setting, absent: int = 0) -> dict[str, Any]:
    """Send all uploads at once; then, where a party is absent, kill the server and start it again."""
    present = setting.parties - absent
    plain = fsync_seconds(setting.folder, present, setting.bytes_up // setting.parties)
    server, gate = Server(setting), Gate(present)
    vector = vector_of(setting)
    tasks = [
        asyncio.create_task(client_of(setting, i, gate.before).take_part(lambda _p, _q: vector))
        for i in range(present)
    ]
    silent = [
        asyncio.create_task(_until(setting, i, Phase.MASKED_INPUT_COLLECTION))
        for i in range(present, setting.parties)
    ]
    await gate.ready.wait()
    before = await server.usage()
    began = time.monotonic()
    gate.go.set()
    last = (await server.heard("UploadTaken", present))[0]
    after = await server.usage()
    seconds = last - began
    sent = present * setting.length * setting.ring_bits // 8
    out = {
        "uploads": present,
        "bytes_each": setting.length * setting.ring_bits // 8,
        "seconds": seconds,
        "megabytes_a_second": sent / seconds / 1e6,
        "fsync_megabytes_a_second": sent / plain / 1e6,
        "of_fsync": plain / seconds,
        "server_cpu_seconds": after["cpu_s"] - before["cpu_s"],
        "server_mib_before": before["rss"] / 2**20,
        "server_peak_mib": after["peak"] / 2**20,
    }
    if absent:
        os.kill(server.process.pid or 0, signal.SIGKILL)
        server.process.join()
        again = Server(setting)
        resumed = await again.heard("RoundResumed")
        out["recovery_seconds"] = resumed[0] - again.wait_for("port")[0]
        out["recovery_with_start_seconds"] = resumed[0] - again.started
        server = again
    else:
        await server.heard("done")
    server.kill()
    for task in (*tasks, *silent):
        task.cancel()
    await asyncio.gather(*tasks, *silent, return_exceptions=True)
    return out


async def _until(setting: Setting, i: int, phase: Phase) -> RoundOutcome:
    """Be a party that says nothing any more from a phase on."""

    async def before(at: Phase, _payload: bytes) -> None:
        if at is phase:
            await asyncio.Event().wait()

    return await client_of(setting, i, before).take_part(lambda _p, _q: vector_of(setting))


async def _connected(setting: Setting) -> dict[str, Any]:
    """Connect all parties, let the active ones upload at once; the server's memory with its table full."""
    server, gate = Server(setting), Gate(setting.active)
    vector = vector_of(setting)
    alone = (await server.usage())["rss"]
    tasks = [
        asyncio.create_task(client_of(setting, i, gate.before).take_part(lambda _p, _q: vector))
        for i in reversed(range(setting.parties))  # the idle ones first
    ]
    while (usage := await server.usage())["connected"] < setting.parties:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.2)
    await gate.ready.wait()
    gate.go.set()
    await server.heard("UploadTaken", setting.active)
    peak = (await server.usage())["peak"]
    server.kill()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "parties": setting.parties,
        "uploads": setting.active,
        "server_mib_alone": alone / 2**20,
        "kib_a_connection": (usage["rss"] - alone) / 1024 / setting.parties,
        "server_peak_mib": peak / 2**20,
    }


async def _strangers(setting: Setting, count: int) -> dict[str, Any]:
    """Hold connections and streams that say nothing; what they cost, and whether a party still gets in."""
    server = Server(setting)
    before = await server.usage()
    silent = [await asyncio.open_connection("127.0.0.1", setting.port) for _ in range(count)]
    await asyncio.sleep(0.5)
    after = await server.usage()
    out: dict[str, Any] = {
        "connections": count,
        "kib_a_silent_connection": (after["rss"] - before["rss"]) / 1024 / count,
        "ms_cpu_a_silent_connection": (after["cpu_s"] - before["cpu_s"]) * 1000 / count,
    }
    credentials = grpc.ssl_channel_credentials(setting.credentials.certificate)
    options = (*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
    channels = [
        grpc.aio.secure_channel(f"127.0.0.1:{setting.port}", credentials, options=options)
        for _ in range(count)
    ]
    calls = [channel.stream_stream(METHOD)() for channel in channels]
    reading = [asyncio.create_task(call.read()) for call in calls]
    await asyncio.gather(*reading, return_exceptions=True)
    streams = await server.usage()
    out["kib_a_stream_without_hello"] = (streams["rss"] - after["rss"]) / 1024 / count
    out["ms_cpu_a_stream_without_hello"] = (streams["cpu_s"] - after["cpu_s"]) * 1000 / count
    began = time.monotonic()
    task = asyncio.create_task(client_of(setting, 0).take_part(lambda _p, _q: vector_of(setting)))
    while (await server.usage())["connected"] < 1:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    out["seconds_until_a_party_is_in"] = time.monotonic() - began
    task.cancel()
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    for _, writer in silent:
        writer.close()
    server.kill()
    await asyncio.gather(task, return_exceptions=True)
    return out


async def _full_table(setting: Setting, count: int) -> dict[str, Any]:
    """Open silent connections, far more than may be, while parties come one after the other."""
    Limits(connections=count).raise_descriptors()  # of this process as well
    server = Server(setting)
    before = await server.usage()
    held: list[socket.socket] = []
    filling = asyncio.create_task(_fill(setting.port, count, held))
    tasks, times = [], []
    for i in range(setting.parties):
        while not filling.done() and len(held) < (i + 1) * count // (setting.parties + 1):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        began = time.monotonic()
        tasks.append(asyncio.create_task(client_of(setting, i).take_part(lambda _p, _q: vector_of(setting))))
        while (await server.usage())["connected"] < i + 1:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        times.append(time.monotonic() - began)
    await filling
    after = await server.usage()
    server.kill()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for one in held:
        one.close()
    return {
        "connections": count,
        "seconds_until_a_party_is_in_at_most": max(times),
        "server_mib_before": before["rss"] / 2**20,
        "server_peak_mib": after["peak"] / 2**20,
        "ms_cpu_a_connection": (after["cpu_s"] - before["cpu_s"]) * 1000 / count,
    }


async def _fill(port: int, count: int, held: list[socket.socket]) -> None:
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        with suppress(BlockingIOError):
            one.connect(("127.0.0.1", port))
        held.append(one)
        if len(held) % 50 == 0:
            await asyncio.sleep(0.005)


async def _seconds_a_round(setting: Setting, rounds: int) -> tuple[float, float]:
    """Run rounds; returns seconds for one of them, and the most memory that the server took, MiB."""
    server, vector = Server(setting, rounds), vector_of(setting)

    async def stay(i: int) -> None:
        client = client_of(setting, i)
        while True:
            await client.take_part(lambda _p, _q: vector)

    began = time.monotonic()
    tasks = [asyncio.create_task(stay(i)) for i in range(setting.parties)]
    done = (await server.heard("done"))[0]
    peak = server.peak / 2**20
    server.kill()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (done - began) / rounds, peak


async def _rounds_a_minute(setting: Setting, rounds: int) -> dict[str, Any]:
    vectors = [vector_of(setting)] * setting.parties
    began = time.monotonic()
    for _ in range(max(1, rounds // 4)):
        aggregate(vectors, ring_bits=setting.ring_bits)
    inside = (time.monotonic() - began) / max(1, rounds // 4)
    each, _ = await _seconds_a_round(setting, rounds)
    return {
        "parties": setting.parties,
        "length": setting.length,
        "rounds": rounds,
        "rounds_a_minute": 60 / each,
        "in_process_rounds_a_minute": 60 / inside,
        "of_in_process": inside / each,
    }


def _attack(setting: Setting, streams: int, idle: int, wave_s: float) -> None:
    """Hold connections that say nothing, and send as much nonsense as streams take, again and again.

    wave_s  from one wave of streams to the next; 0: each comes again as soon as it was refused
    """
    os.nice(19)  # an attacker has a machine of its own

    async def junk() -> None:
        credentials = grpc.ssl_channel_credentials(setting.credentials.certificate)
        options = (*CLIENT_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
        while True:
            began = time.monotonic()
            async with grpc.aio.secure_channel(
                f"127.0.0.1:{setting.port}", credentials, options=options
            ) as channel:
                calls = [channel.stream_stream(METHOD)() for _ in range(8)]
                await asyncio.gather(*(call.write(_JUNK) for call in calls), return_exceptions=True)
                await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
            await asyncio.sleep(max(0.0, began + wave_s - time.monotonic()))

    async def run() -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", setting.port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                break
        held: list[socket.socket] = []
        await asyncio.gather(_fill(setting.port, idle, held), *(junk() for _ in range(streams // 8)))

    asyncio.run(run())


def _within(setting: Setting, name: str) -> Setting:
    """Return the setting in a folder of its own: another server keeps nothing of the one before."""
    own = replace(setting, folder=setting.folder / name)
    own.folder.mkdir()
    return own


async def _beside(setting: Setting, rounds: int, streams: int, idle: int, passes: int) -> dict[str, Any]:
    """Compare rounds with the same rounds while somebody attacks, in waves and without a pause.

    passes  medians are over so many: which process gets the cores decides a single one
    """
    Limits(connections=idle).raise_descriptors()
    found = [
        (
            *await _seconds_a_round(_within(setting, f"alone-{i}"), rounds),
            *await _under_attack(_within(setting, f"waves-{i}"), rounds, streams, idle, _WAVE_S),
            *await _under_attack(_within(setting, f"flood-{i}"), rounds, streams, idle, 0.0),
        )
        for i in range(passes)
    ]
    alone, before, waves, peak, flood, flood_peak = map(median, zip(*found, strict=True))
    return {
        "streams": streams,
        "wave_s": _WAVE_S,
        "idle_connections": idle,
        "parties": setting.parties,
        "length": setting.length,
        "rounds": rounds,
        "passes": passes,
        "seconds_alone": alone,
        "seconds_beside": waves,
        "slower": waves / alone,
        "slower_without_pause": flood / alone,
        "server_peak_mib_alone": before,
        "server_peak_mib": peak,
        "server_peak_mib_without_pause": flood_peak,
    }


async def _under_attack(
    setting: Setting, rounds: int, streams: int, idle: int, wave_s: float
) -> tuple[float, float]:
    """Return what `_seconds_a_round` does, of a server that is attacked meanwhile."""
    attacker = multiprocessing.get_context("forkserver").Process(
        target=_attack, args=(setting, streams, idle, wave_s)
    )
    attacker.start()
    try:
        found = await _seconds_a_round(setting, rounds)
        if not attacker.is_alive():
            raise RuntimeError("the attacker gave up")
    finally:
        attacker.kill()
        attacker.join()
    return found


def run(effort: Effort) -> dict[str, Any]:
    """Measure; returns the figures by name."""
    tiny = effort == TINY
    parties, length = (6, 2000) if tiny else (100, 1_000_000)
    out: dict[str, Any] = {}
    with setting_of(parties, length) as setting:
        out["uploads"] = asyncio.run(_uploads(setting))
    with setting_of(parties + 1, length) as setting:
        out["recovery"] = asyncio.run(_uploads(setting, absent=1))
    with setting_of(12 if tiny else 1000, length) as setting:
        out["connected"] = asyncio.run(_connected(replace(setting, active=6 if tiny else 100)))
    with setting_of(6, 100) as setting:
        out["strangers"] = asyncio.run(_strangers(setting, 20 if tiny else 500))
    with setting_of(6, 100) as setting:
        out["full_table"] = asyncio.run(_full_table(setting, 60 if tiny else 8000))
    with setting_of(6, 100 if tiny else 100_000) as setting:
        attack = (2, 16, 20, 1) if tiny else (20, 400, 1100, 3)
        out["beside"] = asyncio.run(_beside(setting, *attack))
    with setting_of(6 if tiny else 100, 100 if tiny else 10_000) as setting:
        out["rounds"] = asyncio.run(_rounds_a_minute(setting, 2 if tiny else 12))
    return {"figures": out}
