"""The recipe for Fed-BioMed, with its researcher and its nodes in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


@pytest.mark.parametrize("lost", [0, 1])
def test_the_mean_of_a_regression_over_nodes(tmp_path: Path, lost: int) -> None:
    """A node that is killed when its vector is wanted costs itself."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {
        **os.environ,
        "FBM_RESEARCHER_COMPONENT_ROOT": str(tmp_path / "researcher"),
        "FBM_SERVER_HOST": "localhost",
        "FBM_SERVER_PORT": str(port),
    }
    nodes = "tests.embedding.hosts.fedbiomed_nodes"
    command = [sys.executable, "-m", nodes, str(tmp_path), "research", "2", str(lost)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    means = json.loads((tmp_path / "means.json").read_text(encoding="utf-8"))
    assert [one["clients"] for one in means] == [5 - lost] * 2
    for one in means:
        assert one["model"] == one["mean"]
    assert means[1]["mean"] == pytest.approx([1.0, -2.0, 0.5], abs=0.2)
