"""Who is there: against the renewal equation, whatever the order in which devices are asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import SettingError
from fedcore.simulation.draws import Draws, Quantiles
from fedcore.simulation.gate import DAY_NS, HOUR_NS, Gate, Sessions

MANY = 60_000
EVERYBODY = np.arange(MANY)
LONG = Quantiles.log_normal(4 * 3600.0, 0.5)


def sessions_of(gate: Gate, devices: int = MANY, seed: int = 1, ahead_h: int = 0) -> Sessions:
    return Sessions(gate, Draws(seed), np.full(devices, ahead_h * HOUR_NS, np.int64))


@pytest.mark.parametrize(
    "gate", [Gate(), Gate(sessions=6.0, stay_s=LONG, swing=1.5, peak_hour=23.5), Gate(swing=1.0)]
)
def test_the_share_of_those_who_are_there_is_that_of_the_renewal_equation(gate: Gate) -> None:
    """M/G/infinity, but that who is there does not come."""
    sessions, expected = sessions_of(gate), gate.there()
    for hour in range(0, 48, 5):
        share = expected[hour % 24 * 12]
        deviation = (sessions.there(EVERYBODY, hour * HOUR_NS).mean() - share) / np.sqrt(share / MANY)
        assert abs(deviation) < 4.5


@pytest.mark.parametrize(("swing", "peak"), [(4.0, 2.0), (1.5, 23.0), (6.0, 12.0)])
def test_the_swing_of_a_day_and_its_peak_are_what_was_asked_for(swing: float, peak: float) -> None:
    there = Gate(swing=swing, peak_hour=peak).there()
    assert there.max() / there.min() == pytest.approx(swing, rel=1e-3)
    assert there.argmax() / 12 == pytest.approx(peak, abs=0.1)


def test_a_device_lives_by_its_own_clock() -> None:
    here, east = sessions_of(Gate()), sessions_of(Gate(), ahead_h=6)
    at_home = here.there(EVERYBODY, DAY_NS + 8 * HOUR_NS).mean()
    assert east.there(EVERYBODY, DAY_NS + 2 * HOUR_NS).mean() == pytest.approx(at_home, abs=0.01)


@settings(max_examples=50)
@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 5 * DAY_NS), min_size=1, max_size=6),
    st.lists(st.integers(0, 20), min_size=1, max_size=8),
)
def test_a_day_is_the_same_whoever_is_asked_and_when(
    seed: int, moments: list[int], others: list[int]
) -> None:
    often, once = sessions_of(Gate(), 21, seed), sessions_of(Gate(), 21, seed)
    for now in sorted(moments):
        often.there(np.array(others), now)
    last, everybody = max(moments), np.arange(21)
    for ask in (Sessions.there, Sessions.begin, Sessions.end):
        assert ask(often, everybody, last).tolist() == ask(once, everybody, last).tolist()


def test_sessions_follow_each_other() -> None:
    sessions, devices, now = sessions_of(Gate(), 500), np.arange(500), 0
    ends = np.full(500, -(2**62))
    for _ in range(50):
        begin, end = sessions.begin(devices, now), sessions.end(devices, now)
        assert (end > now).all()
        assert (begin < end).all()
        assert (sessions.there(devices, now) == (begin <= now)).all()
        assert (end >= ends).all()
        ends, now = end, now + HOUR_NS


def test_time_goes_on() -> None:
    sessions = sessions_of(Gate(), 3)
    sessions.there(np.arange(1), 5)
    sessions.there(np.arange(2), 5)
    with pytest.raises(SettingError, match="now_ns: 4 is before 5, which was asked about"):
        sessions.end(np.arange(3), 4)


def test_what_was_drawn_stays() -> None:
    """The same on every machine: another value here is another simulation of everybody's."""
    sessions = sessions_of(Gate(), 3, seed=7)
    assert sessions.begin(np.arange(3), 0).tolist() == [3777631388742, 3360788662082, 178898331024134]
    assert sessions.end(np.arange(3), 0).tolist() == [7524992004784, 3885464888474, 182737057598516]


@pytest.mark.parametrize(
    ("settings_", "what"),
    [
        ({"sessions": 0.0}, "sessions: must be in 0.001..1000.0 a day, is 0.0"),
        ({"swing": 0.5}, "swing: must be at least 1"),
        ({"peak_hour": 24.0}, "peak_hour: must be in 0..24"),
        ({"stay_s": Quantiles.log_normal(1e7, 0.1)}, "stay_s: must be above 0, and at most 2592000 s"),
    ],
)
def test_what_is_no_gate(settings_: dict[str, object], what: str) -> None:
    with pytest.raises(SettingError, match=what):
        Gate(**settings_)  # type: ignore[arg-type]


def test_long_stays_smooth_the_day_and_the_message_says_how_much() -> None:
    with pytest.raises(SettingError, match=r"at most 4.38, not 8.0: shorten stay_s, or lower the swing"):
        Gate(swing=8.0, stay_s=LONG, sessions=20.0).rates()
