"""The notebook runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "fedcore" / "examples" / "federated_digits.ipynb"
MISSING = [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("CI") != "true", reason=f"not installed: {', '.join(MISSING)}"
)

# In a process of its own: the kernel's client leaves event loops and sockets behind.
_RUN = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_is_kept_without_outputs() -> None:
    import nbformat

    for cell in nbformat.read(PATH, 4).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.process
def test_the_notebook_runs_and_says_what_its_text_promises(tmp_path: Path) -> None:
    import nbformat

    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {"IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, PATH, tmp_path / "executed.ipynb"],
        cwd=PATH.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [cell for cell in nbformat.read(tmp_path / "executed.ipynb", 4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    plain, secure = (
        float(re.search(rf"{name} +(0\.\d+)", text)[1])  # type: ignore[index]
        for name in ("real numbers, in the clear", "8 bits, secure")
    )
    assert secure > 0.85
    assert abs(plain - secure) < 0.03
    assert text.count("  9 survivors") == 4
    assert text.count(" 10 survivors") == 8
    masked, float32 = (int(re.search(rf"(\d+){what}", text)[1]) for what in (" bytes masked", " in float32"))  # type: ignore[index]
    assert masked < float32 / 2
    assert float(re.search(r"at epsilon (\d+\.\d+)", text)[1]) <= 20  # type: ignore[index]
    assert outputs[-1].data.keys() >= {"image/png"}
