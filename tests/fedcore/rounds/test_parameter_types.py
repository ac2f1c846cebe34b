"""Parameters of every type: single and double precision train, all others are refused by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters
from fedcore.rounds.aggregation import FloatSum, PlainSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.strategies import FedAvg, Strategy
from tests.fedcore.sites import make_table

FINE = ("f4", "f8")
OTHERS = ("i1", "u1", "i4", "u4", "i8", "u8", "f2", "g", "c8", "c16", "?", "O", "U3", "S3", "M8[s]", ">f8")


@dataclass(frozen=True)
class Typed:
    """Starts from one type, returns another."""

    first: str
    then: str

    def initial(self) -> Parameters:
        return {"weights": np.ones(3, "i8").astype(self.first), "bias": np.zeros(1)}

    def fit(self, parameters: Parameters, _rows: Any, _seed: int) -> Parameters:
        return {"weights": np.full(3, 3).astype(self.then), "bias": np.zeros(1)}

    def gradient(self, parameters: Parameters, _rows: Any) -> Parameters:
        return {"weights": np.full(3, 2).astype(self.then), "bias": np.zeros(1)}

    def evaluate(self, parameters: Parameters, _rows: Any) -> Metrics:
        return {}


PLAN = TrainingPlan(rounds=1, clients=3, clip=4.0, standardize=False)
STRATEGIES: dict[UpdateKind, Strategy] = {
    UpdateKind.DELTA: FedAvg(),
    UpdateKind.WEIGHTS: FedAvg(ask=Asks(update=UpdateKind.WEIGHTS)),
}


def sites(learner: Any) -> dict[str, Site]:
    return {f"site-{i}": Site(f"site-{i}", make_table(5, i), None, learner, 0) for i in range(3)}


def train(learner: Any, strategy: Strategy, kind: type[PlainSum] = PlainSum) -> tuple[Any, dict[str, Site]]:
    parties = sites(learner)
    federation = Federation(kind(parties), None, learner, PLAN, strategy, classes=("one",))
    return federation.run(), parties


@pytest.mark.parametrize("update", [UpdateKind.DELTA, UpdateKind.WEIGHTS])
@pytest.mark.parametrize("kind", [PlainSum, FloatSum])
@pytest.mark.parametrize("first", FINE)
@pytest.mark.parametrize("then", FINE)
def test_single_and_double_precision_train(first: str, then: str, update: UpdateKind, kind: Any) -> None:
    state, parties = train(Typed(first, then), STRATEGIES[update], kind)
    assert state.parameters["weights"].tolist() == pytest.approx([3.0] * 3, abs=0.01)
    assert not any(site.trouble for site in parties.values())


@pytest.mark.parametrize("first", OTHERS)
def test_a_model_of_another_type_is_refused_before_the_first_round(first: str) -> None:
    kind = np.dtype(first)
    with pytest.raises(TaskError, match="learner.initial: weights must be float32 or float64, is ") as caught:
        train(Typed(first, "f8"), FedAvg())
    assert str(kind) in str(caught.value)


@pytest.mark.parametrize("then", [one for one in OTHERS if not one.startswith("M")])
def test_a_result_of_another_type_says_nothing_and_the_site_says_why(then: str) -> None:
    said = f"the learner's result: weights must be float32 or float64, is {np.dtype(then)}: convert it"
    with pytest.raises(TaskError, match=f"no site could contribute: .*{re.escape(said)}"):
        train(Typed("f8", then), FedAvg())


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ([np.zeros(2)], "must be arrays by name, are list"),
        ({}, "must be arrays by name, there are none"),
        ({"w": [1.0]}, "w must be an array of numpy, is list"),
        ({"w": 1.0}, "w must be an array of numpy, is float"),
        ({3: np.zeros(1)}, "names must be texts, one is 3"),
        (None, "must be arrays by name, are NoneType"),
    ],
)
def test_what_is_no_table_of_arrays_is_refused(given: Any, fault: str) -> None:
    class Other(Typed):
        def initial(self) -> Any:
            return given

    with pytest.raises(TaskError, match=f"learner.initial: {fault}"):
        train(Other("f8", "f8"), FedAvg())
