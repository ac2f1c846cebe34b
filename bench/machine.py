"""Where a figure comes from: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from secagg import kernels

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def describe() -> dict[str, str | int]:
    """Return what a reader needs to judge a figure."""
    packages = ("numpy", "cffi", "cryptography", "pynacl")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "kernel_variant": kernels.variant(),
        "compiler": _first_line("cc", "--version"),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "commit": _first_line("git", "rev-parse", "--short", "HEAD"),
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    numbers = (f"{key} {names.get(key)}" for key in ("cpu family", "model", "stepping"))
    return f"{names.get('model name', 'unknown')} ({', '.join(numbers)})"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return "unknown"
    return done.stdout.splitlines()[0] if done.stdout else "unknown"
