"""Flower's simulation with Ray: rounds of FedAvg plain, with our masks, and with Flower's SecAgg+.

    python -m bench.peers.flower_ray KIND NODES LENGTH ROUNDS      # KIND: plain, pairwise, upload, secagg+

Prints the wall seconds of each round as JSON; the first holds the start of Ray's actors. Every tenth node
raises when it is to train. Nothing is trained: the model has one array of float32, and every node adds 0.25.
Ours keep their state in files, opened for each request. SecAgg+: its own workflow and mod, 51 shares of which
26 are needed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

# "passive": against a server that follows the protocol and is curious, as SecAgg+ takes it to be.
KINDS = ("plain", "pairwise", "pairwise passive", "upload", "upload passive", "secagg+")
DECRYPTORS = 8
_MODEL, _SHARES = "w", 51
_STEP = np.float32(0.25)


def _is_gone(context: Any) -> bool:
    return bool(context.node_config["partition-id"] % 10 == 9)


def apps(kind: str, nodes: int, length: int, rounds: int, home: str, seconds: list[float]) -> Any:
    """Return server and client of Flower's Message API."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg

    from fedcore import Mean
    from fedcore.integrations.flower import SecAggMod, SecAggStrategy
    from secagg import IdentityKey, Policy, ThreatModel
    from secagg.embedding import (
        Committee,
        OneShotPolicy,
        Participant,
        ParticipationLedger,
        Registry,
        SqliteStore,
        StoredCounter,
    )

    seeds = [hashlib.sha256(str(i).encode()).digest() for i in range(nodes)]
    registry = Registry.of(
        (f"node-{i}", IdentityKey.from_seed(seed).identity) for i, seed in enumerate(seeds)
    )
    opening = [f"node-{i}" for i in range(min(DECRYPTORS, nodes))]
    known, decryptors = registry.identities, registry.named(opening)
    mean = Mean(clip=1.0, bits=16)
    model = ThreatModel(adversary="passive" if kind.endswith("passive") else "active")

    def node(context: Any) -> Participant:
        i = int(context.node_config["partition-id"])
        folder = Path(home) / f"node-{i}"
        folder.mkdir(exist_ok=True, mode=0o700)
        stores = [SqliteStore(folder / f"{name}.sqlite") for name in ("rounds", "counter", "ledger")]
        one = Participant(
            IdentityKey.from_seed(seeds[i]),
            Policy(known=known, minimum_cohort=4, adversary=model.adversary),
            store=stores[0],
            counter=StoredCounter(stores[1]),
            ledger=ParticipationLedger(stores[2]),
            oneshot=OneShotPolicy(known=known, decryptors=decryptors, adversary=model.adversary),
        )
        one._owned = stores  # noqa: SLF001 - as `Participant.open`, without reading a registry of so many
        return one

    client, server = ClientApp(), ServerApp()

    @client.train(mods=[] if kind == "plain" else [SecAggMod(mean, node)])
    def train(message: Any, context: Any) -> Any:
        if _is_gone(context):
            raise ConnectionError
        array = message.content["arrays"][_MODEL].numpy() + _STEP
        records = {
            "arrays": ArrayRecord({_MODEL: Array(array)}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(records), reply_to=message)

    @server.main()
    def main(grid: Any, context: Any) -> None:
        strategy: Any = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
        if kind != "plain":
            forming = Committee(decryptors=opening, threat_model=model)
            strategy = SecAggStrategy(
                strategy,
                mean,
                registry=registry,
                threat_model=model,
                attempts=1,
                poll_s=0.01,
                committee=forming if kind.startswith("upload") else None,
            )
        arrays = ArrayRecord({_MODEL: Array(np.zeros(length, np.float32))})
        while len(list(grid.get_node_ids())) < nodes:
            time.sleep(0.1)
        for number in range(1, rounds + 1):
            began = time.perf_counter()
            messages = list(strategy.configure_train(number, arrays, ConfigRecord({}), grid))
            arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(messages) if messages else [])
            seconds.append(time.perf_counter() - began)

    return server, client


def secagg_plus(nodes: int, length: int, rounds: int, seconds: list[float]) -> Any:
    """Return server and client of Flower's older interface, which its SecAgg+ needs."""
    from flwr.client import ClientApp, NumPyClient
    from flwr.client.mod import secaggplus_mod
    from flwr.common import ndarrays_to_parameters
    from flwr.server import LegacyContext, ServerApp, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

    class Node(NumPyClient):
        def __init__(self, *, gone: bool) -> None:
            self._gone = gone

        def fit(self, parameters: Any, _config: Any) -> Any:
            if self._gone:
                raise ConnectionError
            return [parameters[0] + _STEP], 1, {}

    class Timed(SecAggPlusWorkflow):
        def __call__(self, grid: Any, context: Any) -> None:
            began = time.perf_counter()
            super().__call__(grid, context)
            seconds.append(time.perf_counter() - began)

    client = ClientApp(
        client_fn=lambda context: Node(gone=_is_gone(context)).to_client(), mods=[secaggplus_mod]
    )
    server = ServerApp()

    @server.main()
    def main(grid: Any, context: Any) -> None:
        strategy = FedAvg(
            fraction_evaluate=0.0,
            min_fit_clients=nodes,
            min_available_clients=nodes,
            initial_parameters=ndarrays_to_parameters([np.zeros(length, np.float32)]),
        )
        workflow = Timed(
            num_shares=min(_SHARES, nodes),
            reconstruction_threshold=min(_SHARES, nodes) // 2 + 1,
            max_weight=1.0,
            clipping_range=1.0,
            quantization_range=2**16,
        )
        legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=rounds), strategy=strategy)
        DefaultWorkflow(fit_workflow=workflow)(grid, legacy)

    return server, client


def main(kind: str, nodes: int, length: int, rounds: int) -> list[float]:
    """Run the rounds; return their wall seconds."""
    warnings.filterwarnings("ignore")
    from flwr.simulation import run_simulation

    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        if kind == "secagg+":
            server, client = secagg_plus(nodes, length, rounds, seconds)
        else:
            server, client = apps(kind, nodes, length, rounds, home, seconds)
        logging.getLogger("flwr").setLevel(logging.ERROR)
        resources = {"num_cpus": 1, "num_gpus": 0.0}
        run_simulation(server, client, nodes, backend_config={"client_resources": resources})
    return seconds


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:5]))) + "\n")
