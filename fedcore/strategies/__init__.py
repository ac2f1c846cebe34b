"""Strategies: what sites are asked for, how sums become an update, and the server's step."""

from fedcore.strategies.adaptive import FedAdagrad, FedAdam, FedYogi
from fedcore.strategies.averaging import FedAvg, FedAvgM, FedNova, FedProx
from fedcore.strategies.base import RoundUpdate, State, Strategy, Sums, Vector
from fedcore.strategies.robust import FedMedian, FedTrimmedMean, GeometricMedian
from fedcore.strategies.scaffold import Scaffold

STRATEGIES: dict[str, type[Strategy]] = {
    kind.__name__: kind
    for kind in (
        *(FedAvg, FedAvgM, FedProx, FedNova, FedAdam, FedYogi, FedAdagrad, Scaffold),
        *(FedMedian, FedTrimmedMean, GeometricMedian),
    )
}

__all__ = [
    "STRATEGIES",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedMedian",
    "FedNova",
    "FedProx",
    "FedTrimmedMean",
    "FedYogi",
    "GeometricMedian",
    "RoundUpdate",
    "Scaffold",
    "State",
    "Strategy",
    "Sums",
    "Vector",
]
