"""A real SuperLink and SuperNodes on loopback: rounds as in `flower_ray`, whose kinds these are.

    python -m bench.peers.flower_superlink KIND NODES LENGTH ROUNDS

Prints the wall seconds of each round as JSON. Between two looks for messages a SuperNode sleeps some seconds,
and starts a process for each that it finds: a trip costs that, whatever is in it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_PROJECT = """
[project]
name = "benchapp"
version = "1.0.0"
dependencies = []
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "benchapp.app:server"
clientapp = "benchapp.app:client"
"""
# Flower looks for both names in the text.
_APP = "from bench.peers.flower_superlink import apps\nboth = apps()\nserver = both[0]\nclient = both[1]\n"
_WORK, _LATEST_S = "SECAGG_BENCH_WORK", 900.0
_ROOT = Path(__file__).parents[2]


def apps() -> Any:
    """Return server and client of the work that the environment names; run by Flower's processes."""
    from bench.peers import flower_ray

    kind, nodes, length, rounds, home = json.loads(os.environ[_WORK])
    seconds = _Noted(Path(home) / "seconds.json")
    if kind == "secagg+":
        return flower_ray.secagg_plus(nodes, length, rounds, seconds)
    return flower_ray.apps(kind, nodes, length, rounds, home, seconds)


class _Noted(list[float]):
    """A list that is written down as it grows: the process that has it is Flower's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def append(self, value: float) -> None:
        super().append(value)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self), encoding="utf-8")
        partial.replace(self._path)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class _Processes:
    """Flower's processes, each with a group of its own, so that its children end with it."""

    def __init__(self, home: Path, work: str) -> None:
        self._home, self._bin = home, Path(sys.executable).parent
        self._environment = {
            **os.environ,
            "FLWR_HOME": str(home / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PYTHONPATH": str(_ROOT),
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            _WORK: work,
        }
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._home / f"{len(self._all)}.log").open("ab") as log:
            self._all.append(
                subprocess.Popen(
                    [str(self._bin / command[0]), *command[1:]],
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                    cwd=self._home,
                    start_new_session=True,
                )
            )
        return self._all[-1]

    def close(self) -> None:
        for process in self._all:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(kind: str, nodes: int, length: int, rounds: int) -> list[float]:
    """Run the rounds; return their wall seconds. Raises TimeoutError."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), _free_port()
        app = home / "app" / "benchapp"
        app.mkdir(parents=True)
        (app / "__init__.py").touch()
        (app / "app.py").write_text(_APP, encoding="utf-8")
        (home / "app" / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
        (home / "flwr").mkdir()
        text = f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "127.0.0.1:{port}"\n'
        (home / "flwr" / "config.toml").write_text(f"{text}insecure = true\n", encoding="utf-8")
        processes = _Processes(home, json.dumps([kind, nodes, length, rounds, folder]))
        try:
            listen = ("--host", "127.0.0.1", "--port", str(port))
            processes.start(
                "flower-superlink", "--insecure", "--disable-runtime-dependency-installation", *listen
            )
            with socket.socket() as one:
                while one.connect_ex(("127.0.0.1", port)):
                    time.sleep(0.1)
            link = ("--insecure", "--superlink", f"127.0.0.1:{port}")
            for i in range(nodes):
                own = ("--host", "127.0.0.1", "--port", str(_free_port()))
                config = ("--node-config", f"partition-id={i} num-partitions={nodes}")
                processes.start("flower-supernode", *link, *config, *own)
            submitting = processes.start("flwr", "run", str(home / "app"), "local")
            if submitting.wait():
                raise RuntimeError((home / f"{nodes + 1}.log").read_text(encoding="utf-8"))
            return _seconds(home / "seconds.json", rounds)
        finally:
            processes.close()


def _seconds(path: Path, rounds: int) -> list[float]:
    until = time.monotonic() + _LATEST_S
    while time.monotonic() < until:
        if path.exists() and len(found := json.loads(path.read_text(encoding="utf-8"))) == rounds:
            return [float(one) for one in found]
        time.sleep(0.2)
    raise TimeoutError(f"{rounds} rounds took more than {_LATEST_S} s")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:5]))) + "\n")
