"""A server and clients that go on for many rounds, in processes of their own that anybody may kill."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from secagg import RoundAbortedError, context_digest
from secagg.kernels import UIntArray
from secagg.service import Deadlines, Limits, RunSettings, line, streams
from secagg.store import SealedStore, SqliteStore
from secagg.store.sql import Database
from tests.service.kill import victim
from tests.service.kill.victim import KEYS, REGISTRY, N, Place


def _resident_kib() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _put(path: Path, data: bytes) -> None:
    partial = path.parents[1] / f"{path.name}.{os.getpid()}"
    partial.write_bytes(data)
    partial.rename(path)


def serve(place: Place, rounds: int, grace_s: float = 1.0) -> None:
    """Run what rounds have no outcome yet; the outcome of each, and how large we are, goes into a file."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    deadlines = Deadlines(advertise_s=20, phase_s=5, grace_s=grace_s, advertise_grace_s=grace_s)
    if place.spooled:
        streams._SPOOLED_BYTES = 1

    (place.folder / "outcomes").mkdir(exist_ok=True)

    async def run() -> None:
        with Database(place.url) as database:
            server = victim.server_of(place, database, Limits(hello_s=2.0, hellos=100_000))
            await server.start()
            one = await server.open(RunSettings(registry=REGISTRY))
            for number in range(1, rounds + 1):
                outcome = place.folder / "outcomes" / str(number)
                if outcome.exists():
                    continue
                payload = b"question %d" % number
                parameters = replace(victim.parameters(number), context=context_digest(payload))
                said: dict[str, Any]
                try:
                    result = await one.round(parameters, payload, deadlines, ticket=b"%d" % number)
                except RoundAbortedError as error:
                    said = {"aborted": str(error)}
                else:
                    members = [i for i in range(N) if KEYS[i].identity in result.survivors]
                    said = {"members": members, "total": result.total.tolist()}
                size = {"rss": _resident_kib(), "fds": len(os.listdir("/proc/self/fd"))}  # noqa: PTH208
                _put(outcome, json.dumps({"pid": os.getpid(), **said, **size}).encode())
            one.finish(b"over")
            while not (place.folder / "done").exists():
                await asyncio.sleep(0.02)
            os._exit(0)

    asyncio.run(run())


def take_part(place: Place, i: int) -> None:
    """Be a client until there are no more rounds; what is released goes into a file, by its kind."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    line._RETRY_S, line._RETRY_MOST_S = 0.02, 0.2
    victim.note_frames(place.folder / f"frames-{i}")

    async def run(store: SealedStore) -> None:
        client = victim.client_of(place, i, store)
        while not (await client.take_part(_vector(i))).finished:
            pass

    with SqliteStore(place.folder / f"client-{i}.db") as beneath:
        asyncio.run(run(SealedStore(beneath, b"k" * 32)))
    os._exit(0)


def _vector(i: int) -> Callable[..., UIntArray]:
    return lambda _payload, _parameters: victim.vector(i)
