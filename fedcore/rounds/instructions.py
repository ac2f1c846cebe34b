"""Instructions of a strategy to every site in a training round."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fedcore.errors import SettingError, TaskError
from fedcore.learner import Parameters
from fedcore.names import matches
from fedcore.settings import at_least, require, settle


class UpdateKind(StrEnum):
    """Meaning of a site's vector."""

    DELTA = "delta"  # parameters after local training less those before
    WEIGHTS = "weights"  # parameters after local training
    GRADIENT = "gradient"  # of the mean loss at the round's parameters: no local training


class Weighting(StrEnum):
    """Weight of a site in a sum."""

    ROWS = "rows"  # its number of rows, at most the cap
    UNIFORM = "uniform"  # all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """Instructions to the sites in a training round.

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
    raises      SettingError
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
        settle(self)
        at_least(self, 0, "proximal", "rate", "control", "quantile", "smoothing")
        at_least(self, 1, "steps_cap")
        if self.update is UpdateKind.GRADIENT and (self.normalized or self.control or self.proximal):
            raise SettingError("update: a gradient has no local steps to normalize or to steer")
        if self.control and self.weighting is not Weighting.UNIFORM:
            raise SettingError("control: control variates are averaged with uniform weights")
        for name in ("shared", "personal"):  # the characters of a text would be the patterns
            patterns = getattr(self, name)
            require(not isinstance(patterns, str), name, "a tuple of patterns", patterns)


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
