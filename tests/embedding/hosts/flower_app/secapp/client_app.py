"""The client: a train function, and the mod around it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedcore.integrations.flower import SecAggMod
from secagg.embedding import Participant
from secapp.common import MEAN


def node(context: Context) -> Participant:
    """Return the participant of this node's folder."""
    return Participant.open(str(context.node_config["secagg-folder"]), minimum_cohort=4)


app = ClientApp()


@app.train(mods=[SecAggMod(MEAN, node)])
def train(message: Message, context: Context) -> Message:
    """Move every coordinate by a tenth of the node's number; a node that is to be killed waits for it."""
    i = int(context.node_config["partition-id"])
    waits = Path(str(context.node_config["secagg-folder"])) / "wait"
    if waits.exists():
        waits.rename(waits.with_name("waiting"))
        while os.getppid() != 1:
            time.sleep(0.1)
    arrays = {
        name: Array(np.add(array.numpy(), i / 10, dtype=array.numpy().dtype))
        for name, array in message.content["arrays"].items()
    }
    metrics = MetricRecord({"num-examples": 10 * (i + 1), "loss": float(i)})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)
