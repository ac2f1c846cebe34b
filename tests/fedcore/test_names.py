"""Parts of the parameters by name: one matcher, and a pattern that fits nothing is a slip."""

from __future__ import annotations

import pytest

from fedcore.errors import SettingError
from fedcore.names import matches, select
from fedcore.rounds.instructions import Asks
from fedcore.strategies import FedAvg
from tests.fedcore.strategies.toys import Runner, make_toys

NAMES = ("body.w", "body.b", "head.w")


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["head.*"], {"head.w"}),
        (["*.w"], {"body.w", "head.w"}),
        (["body.?", "head.w"], {"body.w", "body.b", "head.w"}),
        (["body.[bw]", "body.b"], {"body.w", "body.b"}),
        ([], set()),
    ],
)
def test_patterns_choose_names(patterns: list[str], names: set[str]) -> None:
    assert select(NAMES, patterns, "only") == names
    assert {name for name in NAMES if matches(name, patterns)} == names


@pytest.mark.parametrize("pattern", ["tail.*", "HEAD.*", "head", ""])
def test_a_pattern_that_fits_nothing_is_refused_beside_one_that_does(pattern: str) -> None:
    with pytest.raises(SettingError, match=r"^only: .* fits none of \['body\.b', 'body\.w', 'head\.w'\]"):
        select(NAMES, ["body.*", pattern], "only")


@pytest.mark.parametrize("name", ["shared", "personal"])
def test_a_strategys_pattern_that_fits_nothing_is_refused_before_a_round(name: str) -> None:
    strategy = FedAvg(ask=Asks(**{name: ("coef*", "tail")}))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=rf"^ask\.{name}: 'tail' fits none of"):
        Runner(make_toys(4)).run("plain", strategy)
