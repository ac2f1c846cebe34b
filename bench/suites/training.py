"""Suite "training": fedcore beside Flower's strategies and Apple's simulator, in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from bench.harness import FULL, TINY, Effort
from bench.machine import ROOT
from bench.peers import flower_strategies
from bench.peers.flower_steps import steps

_STEPS = ((10, 100_000), (100, 100_000), (10, 1_000_000))  # clients, parameters
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


def run(effort: Effort) -> dict[str, Any]:
    """Return agreement and cost of the strategies' steps, and the simulated federation."""
    tiny = effort == TINY
    lacking = flower_strategies.available()
    repeats = 1 if tiny else 25 if effort == FULL else 9
    sizes = ((4, 100),) if tiny else _STEPS
    return {
        "library": None if lacking else flower_strategies.library(),
        "agreement": [] if lacking else _agreement(tiny=tiny),
        "steps": [row for n, d in sizes for row in steps(n, d, repeats, flower=lacking is None)],
        "skipped": {} if lacking is None else {flower_strategies.NAME: lacking},
        "simulation": _simulation(tiny=tiny),
    }


def _agreement(*, tiny: bool) -> list[dict[str, Any]]:
    """Rows of `flower_strategies.agreement`."""
    return flower_strategies.agreement(8 if tiny else 20, 100 if tiny else 10_000, 3 if tiny else 20)


def _simulation(*, tiny: bool) -> dict[str, Any]:
    """Run `bench.suites.simulation` in a process of its own; what it prints as its last line."""
    command = [sys.executable, "-m", "bench.suites.simulation", *(["--tiny"] if tiny else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **_ONE_THREAD}
    )
    if done.returncode:
        raise RuntimeError(f"bench.suites.simulation: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
