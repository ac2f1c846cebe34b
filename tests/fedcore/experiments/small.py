"""A small experiment, to be changed: twelve sites with digits, one of which drops out of every round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedcore.experiments import Experiment, Outcome, parse_experiment, run_experiment

EXAMPLES = Path(__file__).parents[3] / "fedcore" / "examples"


def values(**tables: Any) -> dict[str, Any]:
    """What a file would say; tables are merged into the small ones, others replaced."""
    out: dict[str, Any] = {
        "data": {"name": "digits", "partition": "iid", "clients": 12},
        "learner": {"kind": "softmax", "rate": 0.1},
        "plan": {"rounds": 3, "bits": 16},
        "dropout": {"per_round": 1},
        "compare": ["secure"],
    }
    for name, value in tables.items():
        merged = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = out[name] | value if merged else value
    return {name: value for name, value in out.items() if value is not None}


def small(**tables: Any) -> Experiment:
    return parse_experiment(values(**tables), text=repr(tables))


def run(folder: Path, **tables: Any) -> list[Outcome]:
    folder.mkdir(exist_ok=True)
    return run_experiment(small(**tables), folder)
