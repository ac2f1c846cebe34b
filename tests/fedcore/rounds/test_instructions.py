"""Instructions of a strategy: equal as settings, and refused by name where they make no sense."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import SettingError, TaskError
from fedcore.names import matches
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting, sent
from fedcore.settings import read, to_json

NUMBERS = ("proximal", "rate", "quantile", "smoothing")


@given(
    numbers=st.fixed_dictionaries({name: st.floats(0, 1e9) for name in NUMBERS}),
    update=st.sampled_from([UpdateKind.DELTA, UpdateKind.WEIGHTS]),
    weighting=st.sampled_from(Weighting),
    normalized=st.booleans(),
    names=st.lists(st.text(max_size=5), max_size=3),
)
def test_asks_come_back_from_json(
    numbers: dict[str, float], update: UpdateKind, weighting: Weighting, normalized: bool, names: list[str]
) -> None:
    asks = Asks(
        **numbers,
        update=update,
        weighting=weighting,
        normalized=normalized,
        shared=tuple(names),
        personal=tuple(reversed(names)),
    )
    assert read(Asks, json.loads(json.dumps(to_json(asks))), "asks") == asks


@pytest.mark.parametrize("name", [*NUMBERS, "control"])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_numbers_out_of_range_are_refused(name: str, bad: float) -> None:
    with pytest.raises(SettingError, match=rf"{name}: must be (finite and at least 0|a number)"):
        Asks(**{name: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"steps_cap": 0.5}, "^steps_cap: must be finite and at least 1"),
        ({"steps_cap": math.inf}, "^steps_cap: must be finite and at least 1"),
        ({"update": UpdateKind.GRADIENT, "normalized": True}, "a gradient has no local steps"),
        ({"update": UpdateKind.GRADIENT, "proximal": 1.0}, "a gradient has no local steps"),
        ({"control": 1.0}, "control variates are averaged with uniform weights"),
    ],
)
def test_asks_that_exclude_each_other_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        Asks(**options)


@pytest.mark.parametrize("values", [{"more": 1}, {"normalized": 1}])
def test_unknown_and_mistyped_asks_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"asks.*(not known|true or false)"):
        read(Asks, values, "asks")


def test_patterns_choose_what_is_sent() -> None:
    parameters = {name: np.zeros(1) for name in ("body.w", "body.b", "head.w", "head.b")}
    assert set(sent(parameters, Asks())) == set(parameters)
    assert set(sent(parameters, Asks(shared=("body.*",)))) == {"body.w", "body.b"}
    assert set(sent(parameters, Asks(personal=("head.*",)))) == {"body.w", "body.b"}
    assert set(sent(parameters, Asks(shared=("*.w",), personal=("head.?",)))) == {"body.w"}
    assert not matches("Body.w", ("body.*",))
    with pytest.raises(TaskError, match="leave nothing of"):
        sent(parameters, Asks(personal=("*",)))


@pytest.mark.parametrize("name", ["shared", "personal"])
def test_one_pattern_without_its_tuple_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=rf"{name}: must be a tuple of patterns, is 'head\*'"):
        Asks(**{name: "head*"})  # type: ignore[arg-type]
