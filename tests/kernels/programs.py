"""The programs of csrc/tests: built by make, kept in build/, run as they are."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def need(*commands: str) -> None:
    """Skip the test where a command is missing; on CI that is a failure."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the checkout."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def program(name: str) -> Path:
    """Path of build/FLAVOR/PROGRAM, made anew where a source is newer."""
    need("make")
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / ".lock").open("w") as lock:  # tests run side by side, and so would their makes
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = run("make", "--silent", f"-j{os.cpu_count()}", f"build/{name}")
    assert made.returncode == 0, made.stderr
    return ROOT / "build" / name
