"""Secure means in OpenFL (1.9): a flow of its workflow interface, each trip a step of the collaborators.

    pip install . openfl==1.9 dill==0.3.6 metaflow==2.7.15 nbdev==2.3.37 'fastcore<2' 'execnb<0.2' ray \
        tabulate nbformat
    python fedcore/examples/openfl_workflow.py        # five collaborators in this process; prints the model

A collaborator has a folder, made by `python -m secagg.embedding FOLDER`, with its key and the registry; here
the script makes them. The flow's state goes to all collaborators alike, so that each sees the requests of
others: what is secret in them is sealed for whom they are for.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from openfl.experimental.workflow.interface import Aggregator, Collaborator, FLSpec
from openfl.experimental.workflow.placement import aggregator, collaborator
from openfl.experimental.workflow.runtime import LocalRuntime

from fedcore import Mean
from fedcore.integrations.exchange import SecureMean, Trained, answer_mean
from secagg.embedding import Participant, Registry, read_registry, write_key

MEAN = Mean(clip=1.0, weight_cap=100)
NAMES = [f"node-{i}" for i in range(5)]


class Means(FLSpec):
    """Rounds of means. The running round stays with the aggregator: its private attribute `running`."""

    def __init__(self, model: dict[str, Any], rounds: int) -> None:
        super().__init__(checkpoint=False)
        self.model, self.left = model, rounds

    @aggregator
    def start(self) -> None:
        """Begin a round."""
        self.left -= 1
        (one,) = SecureMean(mean=MEAN, registry=self.registry, attempts=1).rounds(self.model, NAMES)
        self.running["round"], self.running["asks"] = one, iter(one)
        self.next(self.ask)

    @aggregator
    def ask(self) -> None:
        """Send the next requests; when there are none, use the mean."""
        ask = next(self.running["asks"], None)
        if ask is not None:
            self.running["ask"] = ask
            self.requests, self.asked = ask.frames, list(ask.frames)
            self.next(self.answer, foreach="asked")
        else:
            one = self.running["round"]
            self.model = MEAN.decode(one.parameters, self.model, one.result).arrays
            self.next(self.start if self.left else self.end)

    @collaborator
    def answer(self) -> None:
        """Answer, and train when the vector is wanted."""

        def train(model: Any) -> Trained:
            return Trained({"w": model["w"] + self.step}, weight=10)

        with Participant.open(self.folder, minimum_cohort=4) as participant:
            request = self.requests[self.input]
            self.reply = answer_mean(participant, MEAN, request, model=lambda: self.model, train=train)
        self.next(self.take)

    @aggregator
    def take(self, inputs: Any) -> None:
        """Hand the replies in."""
        ask = self.running["ask"]
        for one in inputs:
            ask.take(one.input, one.reply)
        self.model, self.left = inputs[0].model, inputs[0].left
        self.next(self.ask)

    @aggregator
    def end(self) -> None:
        """Show the model."""
        sys.stdout.write(f"{self.model['w'].round(3).tolist()}\n")


def main() -> None:
    """Run two rounds in this process."""
    with tempfile.TemporaryDirectory() as home:
        folders = {name: Path(home) / name for name in NAMES}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        keys = {name: write_key(folder / "party.key").identity for name, folder in folders.items()}
        for folder in folders.values():
            (folder / "registry.toml").write_text(Registry.of(keys.items()).dump(), encoding="utf-8")
        registry = read_registry(folders[NAMES[0]] / "registry.toml")
        server = Aggregator(
            name="server", private_attributes_callable=lambda: {"registry": registry, "running": {}}
        )
        nodes = [
            Collaborator(
                name=name,
                private_attributes_callable=lambda folder, step: {"folder": folder, "step": step},
                folder=folders[name],
                step=i / 10,
            )
            for i, name in enumerate(NAMES)
        ]
        flow = Means({"w": np.zeros(3)}, rounds=2)
        flow.runtime = LocalRuntime(aggregator=server, collaborators=nodes, backend="single_process")
        flow.run()


if __name__ == "__main__":
    main()
