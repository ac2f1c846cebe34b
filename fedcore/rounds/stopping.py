"""When training ends before its last round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedcore.errors import SettingError
from fedcore.learner import Metrics
from fedcore.settings import at_least, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Stops when a metric has reached a target, or has not improved for a while.

    metric    name, such as accuracy; lower: smaller is better (log_loss)
    target    stop once it is reached; None: never for that
    patience  stop after so many evaluations without improvement by more than `least`; None: never
    raises    SettingError
    """

    metric: str = "accuracy"
    lower: bool = False
    target: float | None = None
    patience: int | None = None
    least: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 1, "patience")

    def reason(self, evaluations: Sequence[Metrics]) -> str:
        """Return why training ends after these evaluations; empty: it goes on. Raises SettingError."""
        values = []
        for metrics in evaluations:
            if self.metric not in metrics:
                raise SettingError(f"metric: must be one of {sorted(metrics)}, is {self.metric!r}")
            value = -metrics[self.metric] if self.lower else metrics[self.metric]
            values.append(-math.inf if math.isnan(value) else value)  # undefined: no improvement
        if not values:
            return ""
        if self.target is not None and values[-1] >= (-self.target if self.lower else self.target):
            return f"{self.metric} reached {self.target:g}"
        if self.patience is not None and len(values) > self.patience:
            before = max(values[: -self.patience])
            if max(values[-self.patience :]) <= before + self.least:
                return f"{self.metric} has not improved for {self.patience} evaluations"
        return ""
