"""Secure means in SecretFlow (1.5): a class on each party's device, and the round on the server's.

    pip install . secretflow-lite==1.5.0.dev20240321 'setuptools<70'
    python fedcore/examples/secretflow_pyu.py  # five parties and a server on this machine; prints the model

A party has a folder, made by `python -m secagg.embedding FOLDER`, with its key and the registry; here the
script makes them. Every party runs this script; what goes to a device goes there alone, and what is revealed
goes to all: whether the round goes on, and the model at the end.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import secretflow as sf
from secretflow.device import PYUObject, proxy

from fedcore import Mean
from fedcore.integrations.exchange import SecureMean, Trained, answer_mean
from secagg.embedding import Participant, Registry, read_registry, write_key

MEAN = Mean(clip=1.0, weight_cap=100)
NAMES = [f"node-{i}" for i in range(5)]


class Node:
    """A party."""

    def __init__(self, folder: Path, step: float) -> None:
        self.folder, self.step = folder, step

    def answer(self, request: bytes, model: Any) -> bytes:
        """Answer, and train when the vector is wanted; who is not asked says nothing."""
        if not request:
            return b""

        def train(model: Any) -> Trained:
            return Trained({"w": model["w"] + self.step}, weight=10)

        with Participant.open(self.folder, minimum_cohort=4) as participant:
            return answer_mean(participant, MEAN, request, model=lambda: model, train=train)


class Server:
    """Where the round runs."""

    def __init__(self, registry: Path, model: dict[str, Any]) -> None:
        self.registry, self.now = read_registry(registry), model

    def begin(self) -> None:
        """Begin a round."""
        (self.round,) = SecureMean(mean=MEAN, registry=self.registry, attempts=1).rounds(self.now, NAMES)
        self.asks = iter(self.round)

    def goes_on(self) -> bool:
        """Make the next requests; when there are none, use the mean."""
        self.ask = next(self.asks, None)
        if self.ask is None:
            self.now = MEAN.decode(self.round.parameters, self.now, self.round.result).arrays
        return self.ask is not None

    def request(self, name: str) -> bytes:
        """Return what a party is asked, if it is."""
        return self.ask.frames.get(name, b"") if self.ask else b""

    def take(self, name: str, reply: bytes) -> None:
        """Hand a reply in."""
        if self.ask and reply:
            self.ask.take(name, reply)

    def model(self) -> dict[str, Any]:
        """Return the newest model."""
        return self.now


def run(folders: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Run rounds of means; returns the model."""
    party_of = proxy(PYUObject)(Node)
    parties = {name: party_of(folders[name], i / 10, device=sf.PYU(name)) for i, name in enumerate(NAMES)}
    registry, home = folders[NAMES[0]] / "registry.toml", sf.PYU("server")
    server = proxy(PYUObject)(Server)(registry, {"w": np.zeros(3)}, device=home)
    for _ in range(rounds):
        server.begin()
        while sf.reveal(server.goes_on()):
            for name, party in parties.items():
                request, model = server.request(name), server.model()
                reply = party.answer(request.to(party.device), model.to(party.device))
                server.take(name, reply.to(home))
    last: dict[str, Any] = sf.reveal(server.model())
    return last


def main() -> None:
    """Run two rounds on this machine."""
    sf.init([*NAMES, "server"], address="local", num_cpus=8, log_to_driver=False)
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in NAMES}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        keys = {name: write_key(folder / "party.key").identity for name, folder in folders.items()}
        for folder in folders.values():
            (folder / "registry.toml").write_text(Registry.of(keys.items()).dump(), encoding="utf-8")
        model = run(folders, rounds=2)
    sf.shutdown()
    sys.stdout.write(f"{model['w'].round(3).tolist()}\n")


if __name__ == "__main__":
    main()
