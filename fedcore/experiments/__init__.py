"""Experiments: a TOML file says what to compare; runs, records, reports and studies of convergence follow."""

from typing import TYPE_CHECKING

from secagg.lazy import attributes

if TYPE_CHECKING:
    from fedcore.experiments.config import Experiment, Point, load_experiment, parse_experiment
    from fedcore.experiments.results import MODES, Outcome, read_outcomes
    from fedcore.experiments.run import run_experiment

__all__ = [
    "MODES",
    "Experiment",
    "Outcome",
    "Point",
    "load_experiment",
    "parse_experiment",
    "read_outcomes",
    "run_experiment",
]

__getattr__ = attributes(
    __name__,
    {
        "Experiment": "config",
        "MODES": "results",
        "Outcome": "results",
        "Point": "config",
        "load_experiment": "config",
        "parse_experiment": "config",
        "read_outcomes": "results",
        "run_experiment": "run",
    },
)
