"""Suite "embedding": what a round inside another stack costs over its sessions, and over a plain round.

Nodes and server share this process and its cores; a model of d float32, every tenth node gone when its vector
is wanted. Training is nothing: what is measured is the way.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import TINY, Effort
from bench.peers import missing
from bench.peers.flower_ray import DECRYPTORS, KINDS
from bench.suites.cohort import Workload
from bench.suites.hybrid import Round as Bare
from fedcore import Mean
from fedcore.integrations.exchange import SecureMean, Trained
from fedcore.integrations.plain_calls import average, node
from secagg import IdentityKey, Policy
from secagg.embedding import (
    Ask,
    Committee,
    MappingStore,
    MemoryStore,
    OneShotPolicy,
    Participant,
    ParticipationLedger,
    Registry,
    SqliteStore,
    StoredCounter,
)
from secagg.primitives import kem

MEAN = Mean(clip=1.0, bits=16)
MODEL_NAME = "w"


class Nodes:
    """So many nodes, and what each keeps: in memory, or in files as a node's folder has them."""

    def __init__(self, count: int, folder: Path | None = None) -> None:
        self.keys = [IdentityKey.generate(os.urandom) for _ in range(count)]
        self.registry = Registry.of((f"node-{i}", key.identity) for i, key in enumerate(self.keys))
        self.policy = Policy(known=self.registry.identities, minimum_cohort=4)
        self.states: list[dict[str, bytes]] = [{} for _ in self.keys]
        self.elsewhere = [MemoryStore() for _ in self.keys]
        self.folder = folder
        self.decryptors = [f"node-{i}" for i in range(min(count, DECRYPTORS))]
        self.oneshot = OneShotPolicy(
            known=self.registry.identities,
            decryptors=self.registry.named(self.decryptors),
            require_post_quantum=kem.AVAILABLE,
        )

    def participant(self, i: int) -> Participant:
        """Start node i's process, as far as its state is concerned."""
        if self.folder is not None:
            home = self.folder / f"node-{i}"
            home.mkdir(exist_ok=True, mode=0o700)
            stores = [SqliteStore(home / name) for name in ("rounds", "counter", "ledger")]
            rounds, counter, ledger = stores
            one = Participant(
                self.keys[i],
                self.policy,
                store=rounds,
                counter=StoredCounter(counter),
                ledger=ParticipationLedger(ledger),
                oneshot=self.oneshot,
            )
            one._owned = stores  # noqa: SLF001 - as `Participant.open`, without reading a registry of so many
            return one
        return Participant(
            self.keys[i],
            self.policy,
            store=MappingStore(self.states[i]),
            counter=StoredCounter(self.elsewhere[i]),
            ledger=ParticipationLedger(self.elsewhere[i]),
            oneshot=self.oneshot,
        )

    def committee(self) -> Committee:
        """Some decryptors, of the nodes."""
        return Committee(decryptors=self.decryptors, post_quantum=kem.AVAILABLE)

    def secure(self, committee: Committee | None = None) -> SecureMean:
        """The server's end."""
        return SecureMean(mean=MEAN, registry=self.registry, attempts=1, committee=committee)


def model_of(length: int) -> dict[str, Any]:
    return {MODEL_NAME: np.zeros(length, np.float32)}


def train(model: Any) -> Trained:
    return Trained({MODEL_NAME: model[MODEL_NAME] + np.float32(0.25)})


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _over_calls(nodes: Nodes, length: int, committee: Committee | None = None) -> float:
    """A round over plain calls, a process for each request as far as state goes.

    Of the one-upload protocol it is the second round: the committee was formed in the first.
    """
    gone = set(range(9, len(nodes.keys), 10))

    def call(i: int) -> Callable[..., bytes]:
        def answer(request: bytes, model: Any, config: Any) -> bytes:
            if model is not None and i in gone:
                raise ConnectionError
            with nodes.participant(i) as one:
                return node(one, MEAN, train)(request, model, config)

        return answer

    calls = {i: call(i) for i in range(len(nodes.keys))}
    secure, model = nodes.secure(committee), model_of(length)
    if committee is not None:
        model = dict(average(secure, model, calls)[1].arrays)
    return seconds_of(lambda: average(secure, model, calls))


def _calls(count: int, length: int) -> dict[str, Any]:
    bare = Bare(Workload(clients=count, length=length), "x25519")
    with tempfile.TemporaryDirectory() as folder:
        return {
            "nodes": count,
            "length": length,
            "bare_s": seconds_of(bare.run),
            "memory_s": _over_calls(Nodes(count), length),
            "upload_s": _over_calls(nodes := Nodes(count), length, nodes.committee()),
            "files_s": _over_calls(Nodes(count, Path(folder)), length),
        }


def _grid(count: int, length: int) -> dict[str, Any]:
    """Flower's FedAvg in one process, plain and with masks."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp.strategy import FedAvg

    from fedcore.integrations.flower import InProcessGrid, SecAggMod, SecAggStrategy

    nodes, plain, masked = Nodes(count), ClientApp(), ClientApp()

    def handler(message: Any, context: Any) -> Any:
        if context.node_config["partition-id"] % 10 == 9:
            raise ConnectionError
        array = message.content["arrays"][MODEL_NAME].numpy() + np.float32(0.25)
        metrics = MetricRecord({"num-examples": 1})
        records = {"arrays": ArrayRecord({MODEL_NAME: Array(array)}), "metrics": metrics}
        return Message(RecordDict(records), reply_to=message)

    plain.train()(handler)
    mod = SecAggMod(MEAN, lambda context: nodes.participant(context.node_config["partition-id"]))
    masked.train(mods=[mod])(handler)
    arrays = ArrayRecord({MODEL_NAME: Array(np.zeros(length, np.float32))})

    def fedavg() -> Any:
        return FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)

    def plainly() -> None:
        strategy, grid = fedavg(), InProcessGrid(plain, count)
        replies = grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord({}), grid))
        strategy.aggregate_train(1, replies)

    def masking(committee: Committee | None, model: Any = arrays) -> Any:
        strategy = SecAggStrategy(fedavg(), MEAN, registry=nodes.registry, committee=committee)
        grid = InProcessGrid(masked, count)
        strategy.configure_train(1, model, ConfigRecord({}), grid)
        return strategy.aggregate_train(1, [])[0]

    seconds = {"plain_s": seconds_of(plainly), "masked_s": seconds_of(lambda: masking(None))}
    nodes, committee = Nodes(count), nodes.committee()
    model = masking(committee)  # it is formed
    seconds["upload_s"] = seconds_of(lambda: masking(committee, model))
    return {"nodes": count, "length": length, **seconds}


def _http(count: int, length: int) -> dict[str, Any]:
    """A round over HTTP on loopback, by trip."""
    from aiohttp import web

    from fedcore.integrations.http import HttpServer, join

    nodes, phases = Nodes(count), defaultdict[str, float](float)

    class Timed(HttpServer):
        async def _carry(self, ask: Ask[str], model: Any, config: Any) -> None:
            began = time.perf_counter()
            await super()._carry(ask, model, config)
            phases[ask.name] = time.perf_counter() - began

    async def run() -> float:
        server = Timed(nodes.secure())
        runner = web.AppRunner(server.app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        tasks = [asyncio.create_task(join(url, nodes.participant(i), MEAN, train)) for i in range(count)]
        began = time.perf_counter()
        await server.average(model_of(length), nodes=count)
        took = time.perf_counter() - began
        server.close()
        await asyncio.gather(*tasks)
        await runner.cleanup()
        return took

    return {"nodes": count, "length": length, "seconds": asyncio.run(run()), "trips": dict(phases)}


def _in_flower(peer: str, count: int, length: int, rounds: int) -> dict[str, Any]:
    """The median of whole rounds inside Flower, but for the first, each kind in a process of its own."""
    seconds = {}
    for kind in KINDS:
        command = [sys.executable, "-m", f"bench.peers.{peer}", kind, *map(str, (count, length, rounds))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took = json.loads(done.stdout.splitlines()[-1])
        if len(took) != rounds:
            raise RuntimeError(f"{kind}: {len(took)} rounds of {rounds}")
        seconds[kind] = statistics.median(took[1:])
    return {"nodes": count, "length": length, **seconds}


def run(effort: Effort) -> dict[str, Any]:
    tiny = effort == TINY
    skipped = {}
    if (why := missing("flwr.serverapp")) is not None:
        skipped["Flower"] = why
    if (why := missing("aiohttp")) is not None:
        skipped["HTTP"] = why
    if (why := missing("flwr.serverapp", "ray")) is not None:
        skipped["Ray"] = why
    calls, grid, http = [(40, 100_000)], [(100, 100_000), (500, 100_000)], [(12, 1_000_000)]
    ray = [] if tiny else [(100, 100_000, 3), (100, 1_000_000, 3)]
    link = [] if tiny else [(5, 100_000, 4)]
    if tiny:
        calls = grid = http = [(6, 50)]
    return {
        "calls": [_calls(*size) for size in calls],
        "grid": [] if "Flower" in skipped else [_grid(*size) for size in grid],
        "http": [] if "HTTP" in skipped else [_http(*size) for size in http],
        "ray": [] if "Ray" in skipped else [_in_flower("flower_ray", *size) for size in ray],
        "superlink": [] if "Ray" in skipped else [_in_flower("flower_superlink", *size) for size in link],
        "skipped": skipped,
    }
