"""python -m bench: run the suites, write bench/results/MACHINE/*.json, their plots and their tables.

`python -m bench task NAME` runs one training task instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import FULL, NORMAL, TINY, Effort
from bench.machine import RESULTS, describe, machine_class
from bench.plots import draw
from bench.report import write_tables
from bench.suites import (
    beside,
    contribution,
    embedding,
    hybrid,
    kernels,
    oneshot,
    phases,
    primitives,
    scaling,
    service,
    training,
)

SUITES: dict[str, Callable[[Effort], dict[str, Any]]] = {
    "kernels": kernels.run,
    "primitives": primitives.run,
    "phases": phases.run,
    "hybrid": hybrid.run,
    "embedding": embedding.run,
    "oneshot": oneshot.run,
    "peers": beside.run,
    "scaling": scaling.run,
    "training": training.run,
    "contribution": contribution.run,
    "service": service.run,
}


def main() -> None:
    if sys.argv[1:2] == ["task"]:
        from bench.tasks.command import main as run_task

        run_task(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more repeats, more rounds, n = 10 000")
    parser.add_argument("--tiny", action="store_true", help="every benchmark once, on small inputs")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES), help="these suites")
    parser.add_argument("--output", type=Path, help="folder for the JSON files; no tables are written then")
    options = parser.parse_args()
    effort = FULL if options.full else TINY if options.tiny else NORMAL
    folder = options.output or RESULTS / machine_class()
    run(effort, options.only, folder)
    if options.output is None:
        draw(folder)
        write_tables(folder)


def run(effort: Effort, suites: list[str], folder: Path) -> None:
    """Run suites and write one JSON file for each."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = describe()
    for name in suites:
        began = time.perf_counter()
        result = SUITES[name](effort)
        took = time.perf_counter() - began
        options = "" if effort == NORMAL else " --full" if effort == FULL else " --tiny"
        report = {
            "suite": name,
            "command": f"python -m bench{options} --only {name}",
            "seconds": took,
            "machine": machine,
            **result,
        }
        (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {took:.0f} s -> {folder / f'{name}.json'}")


if __name__ == "__main__":
    main()
