"""A learner of one's own: Poisson regression, for counts such as admissions per day.

Three methods make a learner. What they are handed and what they return is parameters by name, arrays of
float64; rows are anything with a length, here a `fedcore.Table` whose labels are the counts. Sites do not
exchange more than that, so nothing here knows about rounds, other sites or sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcore import Metrics, Parameters, Table


@dataclass(frozen=True)
class PoissonRegression:
    """Counts of mean exp(x w + b), by gradient steps on the negative log-likelihood."""

    features: int
    steps: int = 20
    rate: float = 0.1

    def initial(self) -> Parameters:
        """All zero: a mean of one for everybody."""
        return {"coefficients": np.zeros(self.features), "intercept": np.zeros(1)}

    def fit(self, parameters: Parameters, rows: Table, seed: int) -> Parameters:
        """Take full steps; the seed is for learners that shuffle."""
        now = dict(parameters)
        for _ in range(self.steps):
            excess = self.means(now, rows) - rows.labels
            now["coefficients"] = now["coefficients"] - self.rate * (rows.features.T @ excess) / len(rows)
            now["intercept"] = now["intercept"] - self.rate * excess.mean()
        return now

    def evaluate(self, parameters: Parameters, rows: Table) -> Metrics:
        """Mean negative log-likelihood, up to what no parameter changes."""
        means = self.means(parameters, rows)
        return {"loss": float((means - rows.labels * np.log(means)).mean())}

    def means(self, parameters: Parameters, rows: Table) -> np.ndarray:
        """Return the expected counts, (rows,)."""
        return np.asarray(np.exp(rows.features @ parameters["coefficients"] + parameters["intercept"]))
