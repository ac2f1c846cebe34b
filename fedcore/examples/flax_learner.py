"""A learner by JAX and Flax: any `flax.linen` module of logits, trained by plain SGD.

Flax keeps parameters in nested dictionaries of float32 arrays, a learner hands out flat ones of float64:
`flatten_dict` joins the names with a slash, and the way back is exact. A step is compiled once per shape
of batch, so a round takes the same full batch `epochs` times.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fedcore import Metrics, Parameters, Table
from fedcore.evaluation.metrics import classification_metrics


class FlaxLearner:
    """Classification by a module; every site must use the same seed for the initial weights."""

    def __init__(
        self, module: Any, features: int, *, epochs: int = 5, rate: float = 0.3, seed: int = 0
    ) -> None:
        self.module, self.features, self.seed = module, features, seed
        self.epochs, self.rate = epochs, rate
        self.slope = jax.jit(jax.grad(self.loss))

    def initial(self) -> Parameters:
        tree = self.module.init(jax.random.key(self.seed), jnp.zeros((1, self.features)))
        return {name: np.asarray(a, float) for name, a in flatten_dict(tree, sep="/").items()}

    def fit(self, parameters: Parameters, rows: Table, seed: int) -> Parameters:
        now = {name: jnp.asarray(array, jnp.float32) for name, array in parameters.items()}
        features, labels = jnp.asarray(rows.features, jnp.float32), jnp.asarray(rows.labels, jnp.int32)
        for _ in range(self.epochs):
            change = self.slope(now, features, labels)
            now = {name: now[name] - self.rate * change[name] for name in now}
        return {name: np.asarray(array, float) for name, array in now.items()}

    def logits(self, flat: Any, features: Any) -> Any:
        return self.module.apply(unflatten_dict(flat, sep="/"), jnp.asarray(features, jnp.float32))

    def loss(self, flat: Any, features: Any, labels: Any) -> Any:
        chances = jax.nn.log_softmax(self.logits(flat, features))
        return -jnp.take_along_axis(chances, labels[:, None], axis=1).mean()

    def evaluate(self, parameters: Parameters, rows: Table) -> Metrics:
        logits = self.logits({n: jnp.asarray(a, jnp.float32) for n, a in parameters.items()}, rows.features)
        return classification_metrics(rows.labels, np.asarray(jax.nn.softmax(logits), float))
