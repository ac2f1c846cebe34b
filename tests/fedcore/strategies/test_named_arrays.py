"""A strategy sees parameters by name: the mean of an embedding's rows over the sites that have them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.data.table import Table
from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters, flatten
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.strategies import RoundUpdate, State, Strategy, Vector

WORDS, WIDTH = 6, 2


@dataclass(frozen=True)
class Embedding:
    """Moves the rows of the words that a site has by 1, and marks them."""

    def initial(self) -> Parameters:
        return {"embedding": np.zeros((WORDS, WIDTH)), "touched": np.zeros(WORDS), "zeta": np.zeros(1)}

    def fit(self, parameters: Parameters, rows: Table, _seed: int) -> Parameters:
        words = np.unique(rows.features[:, 0].astype(int))
        after = {name: array.copy() for name, array in parameters.items()}
        after["embedding"][words] += 1.0
        after["touched"][words] += 1.0
        after["zeta"] += 0.5
        return after

    def evaluate(self, parameters: Parameters, rows: Table) -> Metrics:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMean(Strategy):
    """Divides the change of a row by the share of the sites that have it."""

    ask: Asks = field(default_factory=lambda: Asks(weighting=Weighting.UNIFORM))

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        now, mean = update.named(parameters), update.named(update.of(UpdateKind.DELTA))
        share = np.maximum(mean["touched"], 0.01)
        now["embedding"] += mean["embedding"] / share[:, None]
        now["zeta"] += mean["zeta"]
        return flatten(now), state  # the marks start anew


def site(name: str, words: list[int]) -> Site:
    features: NDArray[np.float64] = np.array(words, float)[:, None]
    return Site(name, Table(features, np.zeros(len(words), np.int64)), None, Embedding(), 0)


@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_rows_are_averaged_over_the_sites_that_have_them(kind: type[PlainSum]) -> None:
    words = {"a": [0, 1], "b": [0, 1, 2], "c": [0], "d": [0, 2, 5]}
    sites = {name: site(name, mine) for name, mine in words.items()}
    plan = TrainingPlan(rounds=2, clients=4, clip=2.0, bits=12, weight_cap=1, standardize=False)
    model = Federation(kind(sites), None, Embedding(), plan, RowMean(), classes=("none",)).run()
    moved = model.parameters["embedding"][:, 0]
    assert moved.tolist() == pytest.approx([2, 2, 2, 0, 0, 2], abs=0.02)
    assert model.parameters["touched"].tolist() == [0] * WORDS
    assert model.parameters["zeta"].tolist() == pytest.approx([1.0], abs=0.01)


def test_a_vector_of_another_length_has_no_names() -> None:
    update = RoundUpdate(UpdateKind.DELTA, np.zeros(3), 1, 1, like={"one": np.zeros(3)})
    assert list(update.named(np.ones(3))) == ["one"]
    with pytest.raises(TaskError, match="3 values are needed, got 2"):
        update.named(np.ones(2))
