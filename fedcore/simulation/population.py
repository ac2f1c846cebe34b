"""A population of devices: arrays, and no object of any, drawn when somebody asks.

What is modelled and what is measured `Population.about` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import SettingError
from fedcore.simulation.draws import Draws, Purpose, Quantiles, shares_of
from fedcore.simulation.gate import HOUR_NS, Gate, Sessions

_MOST_DEVICES = 1 << 32
_HOURS = range(-12, 15)


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Devices of one kind.

    name       as reports have it
    share      of the population
    start_s    what a step of training takes whatever its size, seconds
    second_op  seconds a floating-point operation, of a dense layer
    spread     sigma of the log-normal factor by which devices of the class differ
    """

    name: str
    share: float
    start_s: float
    second_op: float
    spread: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise SettingError(f"share: must be in 0..1, is {self.share}")
        if not (self.start_s >= 0 and self.second_op > 0 and self.spread >= 0):
            raise SettingError("start_s, spread: must not be below 0, and second_op must be above 0")


# Least squares of seconds over operations (6 in out batch) on FLASH's measurements of a dense layer on three
# phones (PKU-Chengxu/FLASH, models/utils/device_util/regression: nexus6, redmi_note8, sumsung_note10). The
# shares are those of the 307 phones of its list of AI-Benchmark scores that are nearest to each of these, by
# the logarithm; the first has no score there, and is put as far below the second as it is slower.
FLASH = (
    DeviceClass("low", 0.5, 0.098, 3.37e-9),
    DeviceClass("middle", 0.25, 0.075, 1.16e-9),
    DeviceClass("high", 0.25, 0.043, 4.19e-10),
)


@dataclass(frozen=True, slots=True)
class Links:
    """What devices have of the network, Mbit/s each way: log-normal, the ways drawn apart.

    The defaults' medians are those of ATT-LTE-driving-2016 in mahimahi's traces (Winstein et al., NSDI 2013).
    """

    down: Quantiles
    up: Quantiles

    @classmethod
    def usual(cls) -> Links:
        """Return the defaults."""
        return cls(Quantiles.log_normal(5.41, 0.8), Quantiles.log_normal(1.04, 0.8))

    def __post_init__(self) -> None:
        for name in ("down", "up"):
            if not getattr(self, name).values[0] > 0:
                raise SettingError(f"{name}: must be above 0")


@dataclass(frozen=True, slots=True)
class Population:
    """So many devices of a seed.

    size     devices, up to 2^32
    classes  whose shares sum to 1
    zones    share of devices by hours ahead of the simulation's clock; default: all have that clock
    gate     when each is there
    """

    size: int
    seed: int = 0
    classes: Sequence[DeviceClass] = FLASH
    links: Links = field(default_factory=Links.usual)
    zones: dict[int, float] = field(default_factory=lambda: {0: 1.0})
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _MOST_DEVICES:
            raise SettingError(f"size: must be in 1..2^32, is {self.size}")
        if wrong := sorted(set(self.zones) - set(_HOURS)):
            raise SettingError(f"zones: must be hours in -12..14, has {wrong[0]}")
        for name, shares in (
            ("classes", [one.share for one in self.classes]),
            ("zones", list(self.zones.values())),
        ):
            if abs(sum(shares) - 1) > 1e-9 or min(shares, default=-1) < 0:
                raise SettingError(f"{name}: shares must sum to 1, sum to {sum(shares):.6g}")
        Draws(self.seed)

    def class_of(self, devices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the class of each, as an index into `classes`."""
        return shares_of(self._bits(Purpose.CLASS, devices), [one.share for one in self.classes])

    def zone_of(self, devices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the hours that each is ahead."""
        hours = np.array(list(self.zones), np.int64)
        return np.asarray(hours[shares_of(self._bits(Purpose.ZONE, devices), list(self.zones.values()))])

    def training_s(
        self, devices: NDArray[np.integer], operations: float, steps: int = 1
    ) -> NDArray[np.float64]:
        """Return how long each takes to train, seconds.

        operations  floating-point operations of one step: 6 a weight of a dense layer and example
        """
        classes, index = self.classes, self.class_of(devices)
        start = np.array([one.start_s for one in classes])[index]
        second = np.array([one.second_op for one in classes])[index]
        factors, bits = np.ones(len(devices)), self._bits(Purpose.SPEED, devices)
        for number, one in enumerate(classes):
            mine = index == number
            factors[mine] = Quantiles.log_normal(1.0, one.spread).draw(bits[mine])
        return np.asarray((start + second * operations) * factors * steps)

    def down_mbps(self, devices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what comes to each, Mbit/s."""
        return self.links.down.draw(self._bits(Purpose.DOWN, devices))

    def up_mbps(self, devices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return what each can send, Mbit/s."""
        return self.links.up.draw(self._bits(Purpose.UP, devices))

    def sessions(self) -> Sessions:
        """Return when each is there, from the beginning of a simulation on."""
        zones = self.zone_of(np.arange(self.size)) * HOUR_NS
        return Sessions(self.gate, Draws(self.seed), zones)

    def about(self) -> list[str]:
        """Say what is measured, and what is a model."""
        return [
            "speed: measured on three phones (FLASH), a log-normal spread within their classes is modelled",
            "links: medians measured (mahimahi), log-normal, up and down apart: modelled",
            f"presence: modelled, {self.gate.swing:g} times as many at the peak of a day as at its trough",
        ]

    def _bits(self, purpose: Purpose, devices: NDArray[np.integer]) -> NDArray[np.uint64]:
        return Draws(self.seed).bits(purpose, devices)
