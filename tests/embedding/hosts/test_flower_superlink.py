"""A real SuperLink and five SuperNodes on loopback; one is killed in its training, one is started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from secagg.embedding import Registry, write_key
from tests.embedding.models import MODEL, expected

pytestmark = [pytest.mark.host, pytest.mark.process]

BIN = Path(sys.executable).parent
VERSION = tuple(map(int, version("flwr").split(".")[:2]))
APP = Path(__file__).parent / "flower_app"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Federation:
    """The processes; each leads a group of its own, so that killing it takes its children along."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        (home / "flwr").mkdir()
        keys = {}
        for i in range(5):
            (home / f"n{i}").mkdir(mode=0o700)
            keys[f"n{i}"] = write_key(home / f"n{i}" / "party.key").identity
        for folder in (home, *(home / f"n{i}" for i in range(5))):
            (folder / "registry.toml").write_text(Registry.of(keys.items()).dump(), encoding="utf-8")
        text = f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "127.0.0.1:{self.port}"\n'
        (home / "flwr" / "config.toml").write_text(f"{text}insecure = true\n", encoding="utf-8")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        environment = {
            **os.environ,
            "FLWR_HOME": str(self.home / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
            )

    def node(self, i: int) -> None:
        config = f'partition-id={i} num-partitions=5 secagg-folder="{self.home}/n{i}"'
        link = ("--insecure", "--superlink", f"127.0.0.1:{self.port}", "--node-config", config)
        own = ("--host", "127.0.0.1", "--port", str(free_port()))
        self.start(f"node{i}", "flower-supernode", *link, *own)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, number)
        process.wait()

    def wait_for(self, path: Path) -> None:
        """Wait for a file, as long as the run goes on."""
        while not path.exists():
            assert self.processes["run"].poll() in {None, 0}, self.tail("run")
            time.sleep(0.1)

    def says(self, name: str, word: str, times: int) -> None:
        """Wait until a process has said something so often."""
        log = self.home / f"{name}.log"
        while log.read_text(errors="replace").count(word) < times:
            assert self.processes[name].poll() is None, self.tail(name)
            time.sleep(0.1)

    def tail(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")[-4000:]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    one = Federation(tmp_path)
    try:
        yield one
    finally:
        for name in list(one.processes):
            if one.processes[name].poll() is None:
                one.kill(name)


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.timeout(600)
@pytest.mark.skipif(VERSION < (1, 41), reason="commands of flwr 1.41 and later")
def test_a_node_that_is_killed_in_its_training_costs_its_own_part_and_comes_back(
    federation: Federation,
) -> None:
    one = federation
    (one.home / "n4" / "wait").touch()
    listen = ("--host", "127.0.0.1", "--port", str(one.port))
    one.start("link", "flower-superlink", "--insecure", "--disable-runtime-dependency-installation", *listen)
    while not answers(one.port):
        assert one.processes["link"].poll() is None, one.tail("link")
        time.sleep(0.1)
    for i in range(5):
        one.node(i)
    for i in range(5):
        one.says(f"node{i}", "SuperNode ID", 1)
    out = one.home / "out.json"
    config = f'registry="{one.home}/registry.toml" out="{out}"'
    one.start("run", "flwr", "run", str(APP), "local", "--stream", "--run-config", config)
    one.wait_for(one.home / "n4" / "waiting")
    one.kill("node4")
    one.wait_for(out.with_suffix(".0"))
    one.node(4)
    first = json.loads(out.with_suffix(".0").read_text(encoding="utf-8"))
    assert first["survivors"] == ["n0", "n1", "n2", "n3"]
    np.testing.assert_allclose(first["b"], MODEL["b"] + expected(range(4))[0], atol=1e-4)
    one.says("node4", "SuperNode ID", 2)
    out.with_suffix(".go").touch()
    one.wait_for(out)
    second = json.loads(out.read_text(encoding="utf-8"))[1]
    assert second["survivors"] == ["n0", "n1", "n2", "n3", "n4"]
    np.testing.assert_allclose(second["b"], np.array(first["b"]) + expected(range(5))[0], atol=1e-4)
