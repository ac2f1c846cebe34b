"""python -m bench task NAME: run a task, print its table and, as the last line, one JSON object."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.machine import RESULTS, describe, machine_class
from bench.tasks import files
from bench.tasks.result import TaskResult
from fedcore.errors import FedcoreError

TASKS = (*files.NAMES, "ner")
STUDIES = {
    "ner-neural": "ner_neural",
    "privacy": "private_heart",
    "users": "private_writers",
    "scale": "private_scale",
    "bytes": "compression",
}


def main(arguments: list[str]) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench task", description=__doc__)
    parser.add_argument("name", choices=[*TASKS, *STUDIES])
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--save", action="store_true", help="keep the result and renew the tables beside it")
    options = parser.parse_args(arguments)
    console = Console(width=110)
    began, machine = time.perf_counter(), describe()
    try:
        found = run(options.name, console, quick=options.quick)
    except FedcoreError as error:
        parser.exit(2, f"bench: {error}\n")
    if options.save:
        save(options.name, found, time.perf_counter() - began, machine)
    print(json.dumps(found))


def run(name: str, console: Console, *, quick: bool) -> dict[str, Any]:
    """Run a task or a study; returns what its JSON object holds."""
    if name in files.NAMES:
        found: Any = files.main(name, console, quick=quick)
    else:
        call: Callable[..., Any] = import_module(f"bench.tasks.{STUDIES.get(name, name)}").main
        found = call(console, quick=quick)
    if isinstance(found, TaskResult):
        return dict(json.loads(found.to_json()))
    return {"study": name, "rows": found}


def save(name: str, found: dict[str, Any], seconds: float, machine: dict[str, str | int]) -> None:
    """Write the JSON file of this machine's class, the plot of a study, and the tables."""
    from bench.report import write_tables
    from bench.tasks.compression import draw

    folder: Path = RESULTS / machine_class()
    folder.mkdir(parents=True, exist_ok=True)
    report = {"command": f"python -m bench task {name}", "seconds": seconds, "machine": machine, **found}
    (folder / f"task-{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if name == "bytes":
        draw(found["rows"], folder / "task-bytes.png")
    write_tables(folder)
