"""Experiments: a TOML file says what to compare; runs, records, reports and studies of convergence follow."""

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
