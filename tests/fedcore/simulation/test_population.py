"""Devices: arrays that agree whoever is asked for, with the distributions that were asked for."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import SettingError
from fedcore.simulation.draws import Quantiles
from fedcore.simulation.gate import HOUR_NS
from fedcore.simulation.population import FLASH, DeviceClass, Links, Population

MANY = np.arange(50_000)
ZONES = {-5: 0.25, 1: 0.75}


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 999_999), min_size=1, max_size=10))
def test_a_device_is_the_same_whoever_else_is_asked_for(seed: int, devices: list[int]) -> None:
    people = Population(10**6, seed, zones=ZONES)
    together, asks = np.array(devices), (Population.class_of, Population.zone_of)
    for ask in (*asks, Population.down_mbps, Population.up_mbps):
        alone = [ask(people, np.array([one]))[0] for one in devices]
        assert ask(people, together).tolist() == alone
    alone = [people.training_s(np.array([one]), 1e9)[0] for one in devices]
    assert people.training_s(together, 1e9).tolist() == alone


def test_shares_are_those_that_were_asked_for() -> None:
    people = Population(len(MANY), 3, zones=ZONES)
    classes = np.bincount(people.class_of(MANY)) / len(MANY)
    assert classes == pytest.approx([one.share for one in FLASH], abs=0.01)
    assert (people.zone_of(MANY) == 1).mean() == pytest.approx(0.75, abs=0.01)


def test_speeds_are_those_of_the_class() -> None:
    people = Population(len(MANY), 3)
    index, took = people.class_of(MANY), people.training_s(MANY, 1e9, steps=3)
    for number, one in enumerate(FLASH):
        expected = 3 * (one.start_s + one.second_op * 1e9)
        assert np.median(took[index == number]) == pytest.approx(expected, rel=0.02)
    exact = replace(people, classes=[replace(one, spread=0.0) for one in FLASH])
    assert len(np.unique(exact.training_s(MANY, 1e9))) == len(FLASH)


def test_links_are_drawn_apart() -> None:
    people = Population(len(MANY), 3)
    down, up = people.down_mbps(MANY), people.up_mbps(MANY)
    assert np.median(down) == pytest.approx(5.41, rel=0.02)
    assert np.median(up) == pytest.approx(1.04, rel=0.02)
    assert abs(np.corrcoef(down, up)[0, 1]) < 0.02
    measured = replace(people, links=Links(Quantiles.measured([1.0, 3.0]), Quantiles.measured([2.0])))
    assert set(measured.up_mbps(MANY).tolist()) == {2.0}


def test_two_seeds_are_two_populations() -> None:
    one, other = (Population(len(MANY), seed).class_of(MANY) for seed in (1, 2))
    assert (one != other).mean() > 0.5


def test_a_million_devices_are_a_few_arrays() -> None:
    tracemalloc.start()
    try:
        people = Population(10**6, zones=ZONES)
        sessions = people.sessions()
        few = np.arange(0, 10**6, 1000)
        assert 0 < sessions.there(few, 30 * HOUR_NS).sum() < len(few)
        lasting, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lasting < 40 * 10**6
    assert peak < 300 * 10**6


def test_what_is_modelled_is_said() -> None:
    said = "\n".join(Population(10).about())
    assert "measured" in said
    assert "modelled, 4 times as many" in said


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Population(0), r"size: must be in 1..2\^32, is 0"),
        (lambda: Population(1, -1), "seed: must be in 0"),
        (lambda: Population(1, zones={15: 1.0}), "zones: must be hours in -12..14, has 15"),
        (lambda: Population(1, zones={1: 0.5}), "zones: shares must sum to 1, sum to 0.5"),
        (lambda: Population(1, classes=[]), "classes: shares must sum to 1, sum to 0"),
        (lambda: DeviceClass("x", 2.0, 0, 1), "share: must be in 0..1, is 2.0"),
        (lambda: DeviceClass("x", 1.0, 0, 0), "start_s, spread: must not be below 0"),
        (lambda: Links(Quantiles([0.0] * 4097), Quantiles.measured([1])), "down: must be above 0"),
    ],
)
def test_what_is_no_population(make: object, what: str) -> None:
    with pytest.raises(SettingError, match=what):
        make()  # type: ignore[operator]
