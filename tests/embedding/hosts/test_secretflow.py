"""The recipe for SecretFlow, as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fedcore

pytestmark = [pytest.mark.host, pytest.mark.timeout(200)]
RECIPE = Path(fedcore.__file__).parent / "examples" / "secretflow_pyu.py"
MORTAL = """
import os
from fedcore.examples import secretflow_pyu as recipe

class Mortal(recipe.Node):
    def answer(self, request, model):
        if self.step == 0.4:
            os._exit(1)
        return super().answer(request, model)

recipe.Node = Mortal
recipe.main()
"""


@pytest.mark.parametrize(
    ("script", "model"),
    [([str(RECIPE)], 0.4), (["-c", MORTAL], 0.3)],  # twice the mean of 0.0, 0.1, .. 0.4, or 0.3
    ids=["all", "one dies"],
)
def test_the_recipe_runs(tmp_path: Path, script: list[str], model: float) -> None:
    done = subprocess.run(
        [sys.executable, *script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"[{model}, {model}, {model}]" in done.stdout
