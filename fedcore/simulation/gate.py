"""When devices may take part: sessions (charging, idle, on a network without costs), more of them by night.

A device is away or there, by turns. Away, it comes back at a rate that swings with the hour where it lives;
there, it stays as long as a distribution says, whatever the hour: a two-state semi-Markov process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import SettingError
from fedcore.simulation.draws import Draws, Purpose, Quantiles, exponential

HOUR_NS: Final = 3_600 * 10**9
DAY_NS: Final = 24 * HOUR_NS
_STEPS = 288  # of a day, in each of which the rate is constant
_STEP_NS = DAY_NS // _STEPS
_WARM_DAYS = 4  # before the beginning, so that nobody remembers how it began
_DIGITS = 12
_HALVINGS = 40
_FEWEST, _MOST = 0.001, 1000.0
_LONGEST_S = 30 * 86_400.0
_STAY_S = Quantiles.log_normal(5400.0, 0.9)  # a judgement: nothing is published


@dataclass(frozen=True, slots=True)
class Gate:
    """A model of when one device is there.

    sessions   a day, of a device that is away all the time
    stay_s     how long it is there, seconds
    swing      most over fewest devices there, in a day
    peak_hour  when most are there, by its own clock
    """

    sessions: float = 1.5
    stay_s: Quantiles = _STAY_S
    swing: float = 4.0  # Bonawitz et al. 2019, section 9
    peak_hour: float = 2.0

    def __post_init__(self) -> None:
        if not _FEWEST <= self.sessions <= _MOST:
            raise SettingError(f"sessions: must be in {_FEWEST}..{_MOST} a day, is {self.sessions}")
        if not (self.stay_s.values[0] > 0 and self.stay_s.values[-1] <= _LONGEST_S):
            raise SettingError(f"stay_s: must be above 0, and at most {_LONGEST_S:.0f} s")
        if not self.swing >= 1:
            raise SettingError(f"swing: must be at least 1, is {self.swing}")
        if not 0 <= self.peak_hour < 24:
            raise SettingError(f"peak_hour: must be in 0..24, is {self.peak_hour}")

    def rates(self) -> NDArray[np.float64]:
        """Return the rate of coming in each step of a day, 1/s, so that those who are there swing as wanted.

        raises  SettingError: sessions are too long for such a swing
        """
        return _rates_of(self)

    def there(self) -> NDArray[np.float64]:
        """Return the share of devices that are there at the beginning of each step of a day, by its hour."""
        return _stationary(self.rates(), self.stay_s)


@cache  # it takes longer than a million sessions
def _rates_of(gate: Gate) -> NDArray[np.float64]:
    def rates(amplitude: float) -> NDArray[np.float64]:
        hours = (np.arange(_STEPS) + 0.5) / _STEPS
        wave = 1 + amplitude * np.cos(2 * np.pi * hours)
        return np.asarray(np.round(wave * gate.sessions / (24 * 3600), _DIGITS))

    def swing(amplitude: float) -> float:
        there = _stationary(rates(amplitude), gate.stay_s)
        return float(there.max() / there.min())

    low, high = 0.0, 1.0
    if (most := swing(high)) < gate.swing:
        raise SettingError(
            f"swing: with stays so long it is at most {most:.2f}, not {gate.swing}: "
            "shorten stay_s, or lower the swing"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if swing(middle) < gate.swing else (low, middle)
    late = int(_stationary(rates(high), gate.stay_s).argmax()) - gate.peak_hour * _STEPS / 24
    return np.roll(rates(high), -round(late))


def _stationary(rates: NDArray[np.float64], stay_s: Quantiles) -> NDArray[np.float64]:
    """Return who is there, in the long run, at each step: those who came when they were away, and stayed.

    there(t) = integral of rate(s) (1 - there(s)) P(stay > t - s) ds over all s < t, taken step by step.
    """
    step_s = _STEP_NS / 10**9
    longest = int(np.ceil(stay_s.values[-1] / step_s))
    stays = stay_s.survival((np.arange(longest) + 0.5) * step_s)
    folded = np.zeros(_STEPS)
    np.add.at(folded, np.arange(longest) % _STEPS, stays)
    # What came in step s is there at t = s + 1, .. with the survival of t - s - 1/2 steps.
    at = (np.arange(_STEPS)[:, np.newaxis] - np.arange(_STEPS) - 1) % _STEPS
    kernel = folded[at] * (rates * step_s)
    return np.asarray(np.linalg.solve(np.eye(_STEPS) + kernel, kernel.sum(axis=1)))


class Sessions:
    """The sessions of every device of a population, found when somebody asks, and not before.

    zones_ns  (n,) what a device's clock is ahead of the simulation's

    Time goes on: after a moment nobody is asked about an earlier one. 28 bytes a device.

    raises  SettingError: an earlier one
    """

    def __init__(self, gate: Gate, draws: Draws, zones_ns: NDArray[np.int64]) -> None:
        self._draws, self._stay_s, self._zones_ns = draws, gate.stay_s, zones_ns
        steps = gate.rates() * (_STEP_NS / 10**9)
        self._until = np.concatenate([[0.0], np.cumsum(steps)])  # expected arrivals since midnight
        self._number = np.zeros(len(zones_ns), np.uint32)
        self._begin = np.full(len(zones_ns), -_WARM_DAYS * DAY_NS, np.int64)
        self._end = self._begin.copy()
        self._now_ns = -_WARM_DAYS * DAY_NS

    def there(self, devices: NDArray[np.integer], now_ns: int) -> NDArray[np.bool_]:
        """Return which of these devices are there now."""
        self._go_on(devices, now_ns)
        return np.asarray(self._begin[devices] <= now_ns)

    def begin(self, devices: NDArray[np.integer], now_ns: int) -> NDArray[np.int64]:
        """Return when the session begins that goes on now, or else comes next."""
        self._go_on(devices, now_ns)
        return np.asarray(self._begin[devices])

    def end(self, devices: NDArray[np.integer], now_ns: int) -> NDArray[np.int64]:
        """Return when the session ends that goes on now, or else comes next."""
        self._go_on(devices, now_ns)
        return np.asarray(self._end[devices])

    def _go_on(self, devices: NDArray[np.integer], now_ns: int) -> None:
        if now_ns < self._now_ns:
            raise SettingError(f"now_ns: {now_ns} is before {self._now_ns}, which was asked about")
        self._now_ns = now_ns
        late = np.unique(devices[self._end[devices] <= now_ns])
        while len(late):
            number = self._number[late]
            waits = exponential(self._draws.bits(Purpose.ABSENCE, late, number))
            stays = self._stay_s.draw(self._draws.bits(Purpose.PRESENCE, late, number))
            begin = self._after(self._end[late], waits, self._zones_ns[late])
            self._begin[late], self._number[late] = begin, number + 1
            self._end[late] = begin + np.maximum(np.rint(stays * 10**9), 1).astype(np.int64)
            late = late[self._end[late] <= now_ns]

    def _after(
        self, since_ns: NDArray[np.int64], waits: NDArray[np.float64], zones_ns: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return when so much of the rate has passed since then."""
        local = since_ns + zones_ns
        day, into = np.divmod(local, DAY_NS)
        step, rest = np.divmod(into, _STEP_NS)
        passed = self._until[step] + (self._until[step + 1] - self._until[step]) * (rest / _STEP_NS)
        days, wanted = np.divmod(passed + waits, self._until[-1])
        at = np.minimum(np.searchsorted(self._until, wanted, side="right") - 1, _STEPS - 1)
        share = (wanted - self._until[at]) / (self._until[at + 1] - self._until[at])
        found = (
            (day + days.astype(np.int64)) * DAY_NS
            + at * _STEP_NS
            + np.rint(share * _STEP_NS).astype(np.int64)
        )
        return np.asarray(np.maximum(found - zones_ns, since_ns))
