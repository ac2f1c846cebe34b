"""What a strategy asks of every site in a training round."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from fedcore.errors import TaskError
from fedcore.learner import Parameters


class UpdateKind(StrEnum):
    """What the vector of a site is."""

    DELTA = "delta"  # parameters after local training less those before
    WEIGHTS = "weights"  # parameters after local training
    GRADIENT = "gradient"  # of the mean loss at the round's parameters: no local training


class Weighting(StrEnum):
    """How much a site counts."""

    ROWS = "rows"  # its number of rows, at most the cap
    CAPPED = "capped"  # the same
    UNIFORM = "uniform"  # all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What sites do in a training round.

    proximal    mu of FedProx; 0: none
    rate        factor of the local learning rate in this round
    normalized  FedNova: the update divided by its local steps, and the steps as a precise value
    steps_cap   largest number of local steps, when they are sent
    control     SCAFFOLD: scale with which changes of control variates follow the update; 0: none
    quantile    one more value: 1 where the update was within the norm, else -1, times this share of
                the norm; 0: none. With noise it hides in it like the update.
    shared      patterns of the parameters that are trained and sent; none: all
    personal    patterns of the parameters that stay at the site; never sent
    smoothing   geometric median: nu, the smallest distance that counts; 0: plain means
    raises      TaskError
    """

    update: UpdateKind = UpdateKind.DELTA
    weighting: Weighting = Weighting.ROWS
    proximal: float = 0.0
    rate: float = 1.0
    normalized: bool = False
    steps_cap: float = 10_000.0
    control: float = 0.0
    quantile: float = 0.0
    shared: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("proximal", "rate", "control", "quantile", "smoothing"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TaskError(f"asks.{name}: must be finite and at least 0, is {value}")
        if not (math.isfinite(self.steps_cap) and self.steps_cap >= 1):
            raise TaskError(f"asks.steps_cap: must be finite and at least 1, is {self.steps_cap}")
        if self.update is UpdateKind.GRADIENT and (self.normalized or self.control or self.proximal):
            raise TaskError("asks.update: a gradient has no local steps to normalize or to steer")
        if self.control and self.weighting is not Weighting.UNIFORM:
            raise TaskError("asks.control: control variates are averaged with uniform weights")
        for name in ("shared", "personal"):
            if isinstance(patterns := getattr(self, name), str):  # its characters would be the patterns
                raise TaskError(f"asks.{name}: must be a tuple of patterns, is {patterns!r}")

    @property
    def precise(self) -> int:
        """Precise values beside the vector."""
        return int(self.normalized)

    def dimension(self, size: int) -> int:
        """Values of a vector about `size` parameters."""
        return size * (2 if self.control else 1) + bool(self.quantile)

    def encode(self) -> dict[str, Any]:
        """Return JSON values; only what differs from the defaults."""
        default = asdict(Asks())
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    @classmethod
    def decode(cls, values: dict[str, Any]) -> Asks:
        """Undo `encode`. Raises TaskError."""
        known = {field.name: field for field in fields(cls)}
        if unknown := values.keys() - known.keys():
            raise TaskError(f"asks: {min(unknown)!r} is not known")
        typed: dict[str, Any] = {}
        for name, value in values.items():
            default = getattr(_DEFAULT, name)
            if isinstance(default, tuple):
                if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
                    raise TaskError(f"asks.{name}: must be a list of patterns, is {value!r}")
                typed[name] = tuple(value)
            elif isinstance(default, bool):
                if not isinstance(value, bool):
                    raise TaskError(f"asks.{name}: must be true or false, is {value!r}")
                typed[name] = value
            elif isinstance(default, StrEnum):
                typed[name] = type(default)(value)
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise TaskError(f"asks.{name}: must be a number, is {value!r}")
            else:
                typed[name] = float(value)
        return cls(**typed)


_DEFAULT = Asks()


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether a parameter's name fits one of the patterns (* and ? as in file names)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def sent(parameters: Parameters, asks: Asks) -> Parameters:
    """Return the parameters that are trained and sent. Raises TaskError when there are none."""
    chosen = {
        name: array
        for name, array in parameters.items()
        if (not asks.shared or matches(name, asks.shared)) and not matches(name, asks.personal)
    }
    if not chosen:
        raise TaskError(f"asks.shared, asks.personal: leave nothing of {sorted(parameters)} to send")
    return chosen
