"""declearn itself, over websockets on loopback: run by `make test-hosts` in an environment of its own."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from declearn.aggregator import SumAggregator
from declearn.communication import build_client, build_server
from declearn.dataset import InMemoryDataset
from declearn.main import FederatedServer
from declearn.main.config import FLRunConfig
from declearn.messaging import GenericMessage
from declearn.model.sklearn import SklearnSGDModel
from declearn.secagg.api import SecaggSetupQuery
from declearn.secagg.utils import IdentityKeys

from fedcore.errors import SettingError
from fedcore.integrations.declearn import (
    SecAggClient,
    SecAggConfigClient,
    SecAggConfigServer,
    SecAggServer,
    average,
)
from fedcore.integrations.exchange import Trained
from secagg.embedding import AnyRound, Committee, Registry, conformance
from secagg.params import Identity
from tests.embedding.models import Nodes

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore"),
]  # what declearn says is not ours to mend


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Config(SecAggConfigClient, register=False):  # type: ignore[call-arg]
    """A client whose participant is a node of the suite."""

    node: Any = None
    number: int = 0

    def participant(self) -> Any:
        return self.node

    def train(self, model: Any) -> Trained:
        return Trained({"updates": np.full(20, self.number / 10)}, weight=self.number + 1)


def over_websockets(
    tmp_path: Path, nodes: Nodes, registry: Registry, committee: Committee | None
) -> AnyRound[Any]:
    (tmp_path / "registry.toml").write_text(registry.dump(), encoding="utf-8")
    config = SecAggConfigServer(20, 1.0, registry=str(tmp_path / "registry.toml"), phase_s=15.0, input_s=15.0)
    config.committee = committee
    port = free_port()

    async def client(number: int) -> None:
        keys = IdentityKeys(Ed25519PrivateKey.generate(), [])
        mine = Config(keys, bitsize=20, clipval=1.0)
        mine.node, mine.number = nodes[number], number
        async with build_client("websockets", f"ws://127.0.0.1:{port}", f"client-{number}") as netwk:
            assert await netwk.register()
            while True:
                message = await netwk.recv_message()
                if not issubclass(message.message_cls, SecaggSetupQuery):
                    return
                await mine.setup_encrypter(netwk, message)

    async def run() -> AnyRound[Any]:
        async with build_server("websockets", "127.0.0.1", port) as netwk:
            tasks = [asyncio.create_task(client(i)) for i in range(len(nodes))]
            await netwk.wait_for_clients(min_clients=5, max_clients=5, timeout=20)
            request = GenericMessage("train", {})
            arrays = {"updates": np.zeros(20)}
            one, _ = await average(netwk, config, request, netwk.client_names, arrays)
            for name, task in zip(sorted(netwk.client_names), tasks, strict=True):
                if not task.done():
                    await netwk.send_message(GenericMessage("stop", {}), name)
            await asyncio.gather(*tasks, return_exceptions=True)
            return one

    return asyncio.run(run())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All cases side by side: declearn looks for messages once a second, so each waits most of its time."""
    homes = {str(case): tmp_path_factory.mktemp("case") for case in conformance.CASES}

    def run(case: conformance.Case) -> str:
        home = homes[str(case)]
        try:
            conformance.check(case, partial(over_websockets, home))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test shows
            return repr(error)
        return ""

    with ThreadPoolExecutor(len(conformance.CASES)) as pool:
        return dict(zip(map(str, conformance.CASES), pool.map(run, conformance.CASES), strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", conformance.CASES, ids=str)
def test_declearn_passes(case: conformance.Case, found: dict[str, str]) -> None:
    assert found[str(case)] == ""


def rows(seed: int) -> InMemoryDataset:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(60, 4))
    return InMemoryDataset(features, (features.sum(axis=1) > 0).astype(int), expose_classes=True)


def test_a_run_of_declearn_is_a_run_of_means(tmp_path: Path) -> None:
    keys = [Ed25519PrivateKey.generate() for _ in range(5)]
    public = [key.public_key() for key in keys]
    registry = Registry.of((f"client-{i}", Identity(key.public_bytes_raw())) for i, key in enumerate(public))
    (tmp_path / "registry.toml").write_text(registry.dump(), encoding="utf-8")
    port = free_port()

    async def client(i: int) -> None:
        folder = tmp_path / f"client-{i}"
        folder.mkdir(mode=0o700)
        (folder / "registry.toml").write_text(registry.dump(), encoding="utf-8")
        config = SecAggConfigClient(IdentityKeys(keys[i], public), folder=str(folder))
        netwk = build_client("websockets", f"ws://127.0.0.1:{port}", f"client-{i}")
        await SecAggClient(netwk, rows(i), rows(100 + i), secagg=config, verbose=False).async_run()

    async def run() -> SecAggServer:
        model = SklearnSGDModel.from_parameters(kind="classifier", loss="log_loss", penalty="none")
        config = SecAggConfigServer(20, 1.0, registry=str(tmp_path / "registry.toml"))
        netwk = build_server("websockets", "127.0.0.1", port)
        optim = {"client_opt": 0.1, "server_opt": 1.0, "aggregator": "averaging"}
        server = SecAggServer(model, netwk, optim, secagg=config)
        flow = FLRunConfig.from_params(
            rounds=3,
            register={"min_clients": 5, "max_clients": 5, "timeout": 20},
            training={"batch_size": 10},
        )
        await asyncio.gather(server.async_run(flow), *(client(i) for i in range(5)))
        return server

    server = asyncio.run(run())
    assert len(server._losses) == 3
    assert server._losses[-1] < server._losses[0]


def test_a_server_that_is_not_ours_begins_no_round() -> None:
    config = SecAggConfigServer(20, 1.0)
    with pytest.raises(SettingError, match="needs SecAggServer"):
        config.prepare_secagg_setup_query()


def test_an_aggregator_that_needs_more_than_the_mean_is_refused() -> None:
    model = SklearnSGDModel.from_parameters(kind="classifier", loss="log_loss")
    optim = {"client_opt": 0.1, "aggregator": SumAggregator()}
    netwk = {"protocol": "websockets", "host": "127.0.0.1", "port": 1}
    with pytest.raises(SettingError, match="'sum' needs more than the mean"):
        SecAggServer(model, netwk, optim, secagg=SecAggConfigServer(20, 1.0))
    assert issubclass(SecAggServer, FederatedServer)
