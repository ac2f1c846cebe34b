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
        "runnable_variants": ", ".join(kernels.runnable()),
        "compiler": _first_line("cc", "--version"),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "commit": _first_line("git", "rev-parse", "--short", "HEAD"),
    }


def machine_class() -> str:
    """Name of the folder of this machine's results: vendor, family and model of the CPU, cores."""
    fields = _cpu_fields()
    vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(fields.get("vendor_id", ""), "")
    if not vendor:
        return f"{platform.machine()}-{os.cpu_count()}-cores"
    return f"{vendor}-family{fields['cpu family']}-model{fields['model']}-{os.cpu_count()}-cores"


def _cpu_fields() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpu_model() -> str:
    fields = _cpu_fields()
    if not fields:
        return platform.processor()
    numbers = (f"{key} {fields.get(key)}" for key in ("cpu family", "model", "stepping"))
    return f"{fields.get('model name', 'unknown')} ({', '.join(numbers)})"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return "unknown"
    return done.stdout.splitlines()[0] if done.stdout else "unknown"
