"""Fed-BioMed's researcher and nodes, each in a process of its own.

python -m tests.embedding.hosts.fedbiomed_nodes HOME research MEANS LOST    # LOST nodes are killed on the way
python -m tests.embedding.hosts.fedbiomed_nodes HOME NODE
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcore.integrations.exchange import SecureMean
from secagg.embedding import Registry, read_registry, write_key

# Fed-BioMed imports torchvision, for images; the index has it for the CUDA build of torch, and beside the one
# for CPUs its import fails, as it misses these. Nobody calls them here.
for _operator in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )

NAMES = [f"node-{i}" for i in range(5)]
TAGS, TRUTH = ["means"], [1.0, -2.0, 0.5]


def be_a_node(root: Path) -> None:
    """Do what `dataset add`, `training-plan register` and `node start` do."""
    from fedbiomed.node.config import NodeComponent
    from fedbiomed.node.node import Node
    from fedbiomed.node.node_pm import _start_node_process

    node = Node(NodeComponent().initiate(str(root)))
    rows = {"name": root.name, "data_type": "csv", "tags": TAGS, "description": "rows"}
    node.dataset_manager.add_database(**rows, path=str(root / "rows.csv"))
    node.tp_security_manager.register_training_plan("secure means", "-", str(root.parent / "plan.py"))
    _start_node_process(str(root), {})


def make(home: Path) -> Registry:
    """Make the nodes' components, with keys, the registry and rows."""
    from fedbiomed.node.config import NodeComponent

    from fedcore.examples.fedbiomed_plan import Plan

    rng, keys = np.random.default_rng(1), {}
    for name in NAMES:
        NodeComponent().initiate(str(home / name))
        (home / name / "secagg").mkdir(mode=0o700)
        keys[name] = write_key(home / name / "secagg" / "party.key").identity
        x = rng.normal(size=(40, 3))
        table = np.column_stack([x, x @ TRUTH + 0.1 * rng.normal(size=40)])
        np.savetxt(home / name / "rows.csv", table, delimiter=",", header="a,b,c,y", comments="")
    for name in NAMES:
        path = home / name / "secagg" / "registry.toml"
        path.write_text(Registry.of(keys.items()).dump(), encoding="utf-8")
    Plan().save_code(str(home / "plan.py"))
    return read_registry(home / NAMES[0] / "secagg" / "registry.toml")


def start(home: Path, name: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "FBM_NODE_COMPONENT_ROOT": str(home / name),
        "FBM_RESEARCHER_IP": "localhost",
        "FBM_RESEARCHER_PORT": os.environ["FBM_SERVER_PORT"],
        "FBM_SECURITY_TRAINING_PLAN_APPROVAL": "True",
        "FBM_SECURITY_ALLOW_DEFAULT_TRAINING_PLANS": "False",
    }
    with (home / f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", "tests.embedding.hosts.fedbiomed_nodes", str(home), name]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def research(home: Path, means: int, lost: int) -> list[dict[str, Any]]:
    """Run means over all nodes; some are killed when their vector is wanted."""
    from fedbiomed.researcher.config import config
    from fedbiomed.researcher.federated_workflows import Experiment
    from fedbiomed.researcher.requests import Requests

    from fedcore.examples.fedbiomed_plan import Plan, SecAgg

    class Losing(SecAgg):
        def create_aggregator_args(self, model: Any = None, nodes: Any = None) -> dict[str, Any]:
            told: dict[str, Any] = super().create_aggregator_args(model, nodes)
            for node in processes[:lost] if self.ask.wants_vector else ():
                node.kill()
            return told

    registry = make(home)
    processes = [start(home, name) for name in NAMES]
    try:
        requests = Requests(config)
        while len(requests.ping_nodes()) < len(NAMES):
            if gone := [name for name, one in zip(NAMES, processes, strict=True) if one.poll() is not None]:
                raise RuntimeError((home / f"{gone[0]}.log").read_text(encoding="utf-8"))
            time.sleep(0.2)
        both = Losing(SecureMean(mean=Plan.mean(), registry=registry))
        experiment = Experiment(
            tags=TAGS,
            training_plan_class=Plan,
            aggregator=both,
            node_selection_strategy=both,
            model_args={"n_features": 3, "learning_rate": "constant", "eta0": 0.1, "penalty": None},
            training_args={"epochs": 5, "loader_args": {"batch_size": 8}},
            retain_full_history=False,
        )
        found = []
        for _ in range(means):
            one = both.mean_of(experiment)
            now = experiment.training_plan().get_model_params()["coef_"]
            found.append(
                {"clients": one.clients, "mean": one.arrays["coef_"].tolist(), "model": now.tolist()}
            )
        return found
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[2] == "research":
        said = research(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
        (Path(sys.argv[1]) / "means.json").write_text(json.dumps(said), encoding="utf-8")
    else:
        be_a_node(Path(sys.argv[1]) / sys.argv[2])
