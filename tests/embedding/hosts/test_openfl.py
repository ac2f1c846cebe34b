"""The recipe for OpenFL, as a user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fedcore

pytestmark = pytest.mark.host
RECIPE = Path(fedcore.__file__).parent / "examples" / "openfl_workflow.py"


@pytest.mark.timeout(200)
def test_the_recipe_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, RECIPE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "USERNAME": "tester"},  # its Metaflow wants one
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "[0.4, 0.4, 0.4]" in done.stdout  # twice the mean of 0.0, 0.1, .. 0.4
