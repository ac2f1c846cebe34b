"""Flower's strategies beside fedcore's: the same updates of clients, compared after every round.

Run, not modelled: the classes of `flwr.serverapp.strategy`. `configure_train` is given the parameters and
`aggregate_train` the replies, as Flower's own loop does; no network, no Ray, no simulation engine. fedcore's
strategies take the exact weighted mean of the same updates. Both compute in float64 here.

Where the two differ as they are, the difference is removed by public means (`Case.variants`) and the rest
is shown: an attribute of Flower's object before round 1, a factor of our steps.

- FedAdam, FedYogi, FedAdagrad: Flower begins with v = 0, Reddi et al. (ICLR 2021, algorithm 2) and fedcore
  with tau^2. tau stands outside the root in both, the update has the sign of the change in both.
- FedAdam: Flower also scales its rate in round t by sqrt(1 - beta2^(t + 1)) / (1 - beta1^(t + 1)): Kingma
  and Ba's bias correction, one step ahead. Algorithm 2 has none, and fedcore has none.
- FedMedian, FedTrimmedAvg: Flower sees every client's update; fedcore sees means of groups, which are of
  four clients or more. Groups of one, which hide nothing, give Flower's result.
- Defaults that differ: FedAvgM's momentum (0 there, 0.9 here), FedYogi's server rate (0.01 there, 0.1 here).
  Settings are the same in both here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import missing
from fedcore.rounds.instructions import UpdateKind
from fedcore.strategies import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedMean,
    FedYogi,
    RoundUpdate,
    Strategy,
)

NAME = "Flower strategies"
AS_THEY_ARE = "nothing"
_ARRAY = "parameters"
_TAU, _BETA1, _BETA2 = 1e-3, 0.9, 0.99
Array = NDArray[np.float64]


def available() -> str | None:
    return missing("flwr.serverapp.strategy", "flwr.app")


def library() -> str:
    return f"flwr {version('flwr')}"


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """What the clients of one round bring: changes (n, d), and weights (n,) that are numbers of rows."""

    changes: Array
    weights: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Variant:
    """One comparison: what was made equal first.

    start   done to Flower's strategy before the first round, with the number of parameters
    factor  of our step in a round; groups: of clients, for the strategies that have some
    """

    equal: str
    start: Callable[[Any, int], None] = lambda _strategy, _dimension: None
    factor: Callable[[int], float] = lambda _number: 1.0
    groups: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A strategy of ours, Flower's class with its settings, and how they are compared."""

    ours: Strategy
    theirs: str
    settings: dict[str, float]
    variants: tuple[Variant, ...] = (Variant(AS_THEY_ARE),)

    def flower(self) -> Any:  # noqa: ANN401 - Flower's
        import flwr.serverapp.strategy as strategies

        logging.getLogger("flwr").setLevel(logging.ERROR)
        return getattr(strategies, self.theirs)(**self.settings)


def cases(clients: int) -> list[Case]:
    """Return what is compared; the settings of both are the same where both have them."""
    rates = {"eta": 0.1, "tau": _TAU}
    moments = {**rates, "beta_1": _BETA1, "beta_2": _BETA2}
    started = Variant("v before round 1: tau^2", _start_v)
    corrected = Variant("that, and the bias correction", _start_v, _bias_correction)
    fours, ones = (Variant(f"groups of {size}", groups=clients // size) for size in (4, 1))
    trim = {"beta": 0.2}
    return [
        Case(FedAvg(), "FedAvg", {}),
        Case(FedAvgM(), "FedAvgM", {"server_momentum": 0.9}),
        Case(FedAdam(tau=_TAU), "FedAdam", moments, (Variant(AS_THEY_ARE), started, corrected)),
        Case(FedYogi(tau=_TAU), "FedYogi", moments, (Variant(AS_THEY_ARE), started)),
        Case(FedAdagrad(tau=_TAU), "FedAdagrad", rates, (Variant(AS_THEY_ARE), started)),
        Case(FedMedian(groups=1, smallest=1), "FedMedian", {}, (fours, ones)),
        Case(FedTrimmedMean(groups=1, smallest=1), "FedTrimmedAvg", trim, (fours, ones)),
    ]


def _start_v(strategy: Any, dimension: int) -> None:  # noqa: ANN401 - Flower's
    strategy.v_t = {_ARRAY: np.full(dimension, _TAU**2)}


def _bias_correction(number: int) -> float:
    return float(np.sqrt(1 - _BETA2 ** (number + 1)) / (1 - _BETA1 ** (number + 1)))


def reports(clients: int, dimension: int, rounds: int, seed: int = 1) -> list[Reports]:
    """Return updates around a common direction, of sizes that differ by coordinate, with 1 to 100 rows."""
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-4, -1, dimension)
    common = rng.normal(size=dimension)
    return [
        Reports(scale * (common + rng.normal(size=(clients, dimension))), rng.integers(1, 101, clients))
        for _ in range(rounds)
    ]


def agreement(clients: int, dimension: int, rounds: int) -> list[dict[str, Any]]:
    """Run every case; `difference`: largest of a parameter in any round; `moved`: how far they went."""
    sent = reports(clients, dimension, rounds)
    rows = []
    for case in cases(clients):
        for variant in case.variants:
            difference, moved = compare(case, variant, sent)
            rows.append(
                {"strategy": case.theirs, "equal": variant.equal, "difference": difference, "moved": moved}
            )
    return rows


def compare(case: Case, variant: Variant, sent: Sequence[Reports]) -> tuple[float, float]:
    """Return the largest difference between the two over all rounds, and the largest change of ours."""
    dimension = sent[0].changes.shape[1]
    theirs, ours = case.flower(), _sized(case.ours, variant.groups)
    variant.start(theirs, dimension)
    begin = np.linspace(-1, 1, dimension)
    mine, yours = begin, begin
    state, worst = ours.start(dimension), 0.0
    for number, round_ in enumerate(sent, 1):
        yours = flower_round(theirs, number, yours, round_)
        after, state = ours.step(mine, ours.combine(_ExactSums(round_)), state)
        mine = mine + variant.factor(number) * (after - mine)  # steps are linear in the rate
        worst = max(worst, float(np.abs(mine - yours).max()))
    return worst, float(np.abs(mine - begin).max())


def _sized(ours: Strategy, groups: int | None) -> Strategy:
    """Give strategies with groups their number; Flower drops int(0.2 n) at either end."""
    if isinstance(ours, FedTrimmedMean) and groups is not None:
        return replace(ours, groups=groups, trim=int(0.2 * groups))
    if isinstance(ours, FedMedian) and groups is not None:
        return replace(ours, groups=groups)
    return ours


@dataclass(frozen=True, slots=True)
class _ExactSums:
    """Exact means for a strategy of ours (strategies.Sums); names are numbers of clients."""

    round_: Reports

    @property
    def sites(self) -> Sequence[str]:
        return [str(i) for i in range(len(self.round_.weights))]

    def shuffled(self) -> Sequence[str]:
        return self.sites

    def mean(
        self, among: Sequence[str] | None = None, *, passes: int = 0, center: Array | None = None
    ) -> RoundUpdate:
        chosen = [int(name) for name in (self.sites if among is None else among)]
        weights = self.round_.weights[chosen]
        mean = np.average(self.round_.changes[chosen], axis=0, weights=weights)
        return RoundUpdate(UpdateKind.DELTA, mean, int(weights.sum()), len(chosen))


def flower_round(strategy: Any, number: int, parameters: Array, round_: Reports) -> Array:  # noqa: ANN401
    """One round of Flower's strategy; returns the parameters after it, (d,)."""
    configure(strategy, number, parameters, len(round_.weights))
    arrays, _ = strategy.aggregate_train(number, replies(parameters + round_.changes, round_.weights))
    return np.asarray(arrays.to_numpy_ndarrays()[0])


def configure(strategy: Any, number: int, parameters: NDArray[Any], clients: int) -> None:  # noqa: ANN401
    """Tell Flower's strategy the parameters of the round; whom it asks does not matter."""
    from flwr.app import ArrayRecord, ConfigRecord

    _identify()
    grid = SimpleNamespace(get_node_ids=lambda: range(1, clients + 1))
    record = ArrayRecord({_ARRAY: _array(parameters)})
    list(strategy.configure_train(number, record, ConfigRecord(), grid))


def replies(trained: NDArray[Any], weights: NDArray[np.int64]) -> list[Any]:
    """Return Flower's messages with the clients' parameters, (n, d), after training."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    _identify()
    out = []
    for node, (row, weight) in enumerate(zip(trained, weights, strict=True), 1):
        content = RecordDict(
            {
                "arrays": ArrayRecord({_ARRAY: _array(row)}),
                "metrics": MetricRecord({"num-examples": int(weight)}),
            }
        )
        out.append(Message(content=content, dst_node_id=node, message_type="train"))
    return out


def _identify() -> None:
    """Messages of Flower name the run that they belong to."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1


def _array(values: NDArray[Any]) -> Any:  # noqa: ANN401 - Flower's
    from flwr.app import Array as FlowerArray

    return FlowerArray(np.asarray(values))
