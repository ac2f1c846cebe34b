"""Apple's pfl-research: the federation of `bench.suites.simulation`, trained by its own simulator.

Run, not modelled: `FederatedAveraging` over `SimulatedBackend` and `PyTorchModel`, one process, the CPU,
float32; central noise by `CentrallyAppliedPrivacyMechanism` of its `GaussianMechanism`, calibrated by its
PLD accountant for all rounds with everybody in each.

- Users' tensors are made once and their batches are cached by pfl: its best case. It takes the batches in
  the order of the rows, fedcore shuffles them.
- Cohorts are those of fedcore's plan, by a user sampler; pfl calls any.
- pfl evaluates every user of the first round before and after training; that round is not counted.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import missing
from bench.suites.simulation import CLASSES, Clock, Users, Work

NAME = "pfl-research, PyTorch"


def available() -> str | None:
    return missing("torch", "pfl.model.pytorch", "pfl.privacy")


def library() -> str:
    return f"pfl {version('pfl')}, torch {version('torch')}"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Parameters as fedcore names them, CPU seconds of a round, and noise over norm where there is noise."""

    coefficients: NDArray[np.float64]  # (features, classes)
    intercepts: NDArray[np.float64]
    seconds: float
    noise: float | None = None

    def accuracy(self, users: Users) -> float:
        logits = users.test.features @ self.coefficients + self.intercepts
        return float((logits.argmax(axis=1) == users.test.labels).mean())


def train(work: Work, users: Users) -> Trained:
    """Train by pfl with one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _train(work, users)


def _train(work: Work, users: Users) -> Trained:
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    torch.manual_seed(work.seed)
    np.random.seed(work.seed)  # noqa: NPY002 - where pfl's own seeds come from
    module = softmax_module(users.features)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    postprocessors, noise = _postprocessors(work)
    data = _dataset(work, users)
    clock = Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=work.rounds + 1,
            train_cohort_size=work.cohort or len(users.tables),
            val_cohort_size=0,
        ),
        SimulatedBackend(data, data, postprocessors),
        model,
        NNTrainHyperParams(
            local_num_epochs=work.epochs, local_learning_rate=work.rate, local_batch_size=work.batch
        ),
        NNEvalHyperParams(local_batch_size=None),
        [_callback(clock.tick)],
        send_metrics_to_platform=False,
    )
    weight, bias = (value.detach().numpy().astype(np.float64) for value in module.parameters())
    return Trained(weight.T, bias, clock.seconds(), noise)


def softmax_module(features: int) -> Any:  # noqa: ANN401 - a torch module
    """Return a softmax regression that starts from zero, with the loss and metrics that pfl asks for."""
    return _softmax()(features, len(CLASSES))


@cache
def _softmax() -> Any:  # noqa: ANN401 - a torch module's class
    import torch

    class Softmax(torch.nn.Linear):  # type: ignore[misc]
        def reset_parameters(self) -> None:  # torch's constructor calls it
            torch.nn.init.zeros_(self.weight)
            torch.nn.init.zeros_(self.bias)

        def loss(self, inputs: Any, labels: Any) -> Any:  # noqa: ANN401
            return torch.nn.functional.cross_entropy(self(inputs), labels)

        def metrics(self, inputs: Any, labels: Any) -> Any:  # noqa: ANN401
            from pfl.metrics import Weighted

            with torch.no_grad():
                return {"loss": Weighted(float(self.loss(inputs, labels)) * len(labels), len(labels))}

    return Softmax


def _dataset(work: Work, users: Users) -> Any:  # noqa: ANN401 - pfl's
    import torch
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset

    made = {
        name: PyTorchTensorDataset(
            (torch.tensor(rows.features, dtype=torch.float32), torch.tensor(rows.labels)), user_id=name
        )
        for name, rows in users.tables.items()
    }
    order = itertools.chain.from_iterable(work.cohorts(users))
    return FederatedDataset(made.__getitem__, lambda: next(order))


def _postprocessors(work: Work) -> tuple[list[Any], float | None]:
    from pfl.aggregate.weighting import WeightByDatapoints, WeightByUser
    from pfl.privacy import CentrallyAppliedPrivacyMechanism, GaussianMechanism, PLDPrivacyAccountant

    if not work.private:
        return [WeightByDatapoints()], None
    accountant = PLDPrivacyAccountant(
        num_compositions=work.rounds,
        sampling_probability=1.0,
        mechanism="gaussian",
        epsilon=work.epsilon,
        delta=work.delta,
    )
    mechanism = GaussianMechanism.from_privacy_accountant(accountant, work.norm)
    return [WeightByUser(), CentrallyAppliedPrivacyMechanism(mechanism)], mechanism.relative_noise_stddev


def _callback(tick: Callable[[], None]) -> Any:  # noqa: ANN401 - pfl's
    from pfl.callback.base import TrainingProcessCallback
    from pfl.metrics import Metrics

    class Ticks(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(
            self,
            aggregate_metrics: Any,  # noqa: ANN401
            model: Any,  # noqa: ANN401
            *,
            central_iteration: int,
        ) -> tuple[bool, Any]:
            tick()
            return False, Metrics()

    return Ticks()
