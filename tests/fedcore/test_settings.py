"""Tables become values and values become tables; what is wrong is told by the path of its key."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.cli import progress
from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import FedcoreError, SettingError
from fedcore.experiments import usual
from fedcore.experiments.commands import upload
from fedcore.experiments.tables import DataTable, DropoutTable
from fedcore.learners import LocalSGD, Perceptron, PersonClipped
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.stopping import Stopping
from fedcore.settings import defaults, load, read, require, to_json
from fedcore.strategies import STRATEGIES, FedAvg
from secagg import Phase


class Shade(StrEnum):
    DARK = "dark"
    LIGHT = "light"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: float = 1.0
    sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.size > 0, "size", "positive", self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    count: int
    shade: Shade = Shade.DARK
    inner: Inner | None = None
    either: float | Inner | None = None
    options: dict[str, Any] = field(default_factory=dict)
    name: str = "x"
    on: bool = False


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"count": 1, "colour": 2}, "a.b.colour: is not known, a.b has count, shade, inner"),
        ({}, "a.b.count: is missing"),
        ({"count": "1"}, "a.b.count: must be an integer, is '1'"),
        ({"count": 1.0}, "a.b.count: must be an integer, is 1.0"),
        ({"count": True}, "a.b.count: must be an integer, is True"),
        ({"count": 1, "on": 1}, "a.b.on: must be true or false, is 1"),
        ({"count": 1, "name": 1}, "a.b.name: must be a text, is 1"),
        ({"count": 1, "shade": "grey"}, "a.b.shade: must be one of dark, light, is 'grey'"),
        ({"count": 1, "shade": 1}, "a.b.shade: must be one of dark, light, is 1"),
        ({"count": 1, "inner": 1}, "a.b.inner: must be a table, is 1"),
        ({"count": 1, "inner": {"size": -1}}, "a.b.inner.size: must be positive, is -1.0"),
        ({"count": 1, "inner": {"side": 1}}, "a.b.inner.side: is not known"),
        ({"count": 1, "inner": {"sides": [1, 2, "x"]}}, "a.b.inner.sides[2]: must be an integer, is 'x'"),
        ({"count": 1, "inner": {"sides": 3}}, "a.b.inner.sides: must be a list, is 3"),
        ({"count": 1, "either": "x"}, "a.b.either: must be a number or a table, is 'x'"),
        ({"count": 1, "either": {"size": 0}}, "a.b.either.size: must be positive, is 0.0"),
        ({"count": 1, "either": float("inf")}, "a.b.either: must be finite, is inf"),
        ({"count": 1, "either": 10**400}, "a.b.either: must be finite, is 1000"),
        ({"count": 1, "options": [1]}, "a.b.options: must be a table, is [1]"),
        ([1], "a.b: must be a table, is [1]"),
    ],
)
def test_what_is_wrong_is_one_error_that_starts_with_the_path(table: Any, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read(Outer, table, "a.b")
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, FedcoreError)
    assert isinstance(caught.value, ValueError)


def test_what_the_caller_knows_is_not_the_files_to_set() -> None:
    assert read(Outer, {"on": True}, "a", {"count": 3}) == Outer(count=3, on=True)
    with pytest.raises(SettingError, match=r"^a\.count: is not known, a has shade"):
        read(Outer, {"count": 4}, "a", {"count": 3})


def test_the_keys_of_a_whole_file_have_no_prefix() -> None:
    with pytest.raises(SettingError, match=r"^colour: is not known, the file has count"):
        read(Outer, {"colour": 1})
    with pytest.raises(SettingError, match=r"^inner\.size: must be positive"):
        read(Outer, {"count": 1, "inner": {"size": 0}})


def test_values_of_python_pass_as_they_are() -> None:
    assert read(Outer, {"count": 1, "inner": Inner(size=2.0), "shade": Shade.LIGHT}).inner == Inner(size=2.0)


def test_a_long_value_is_cut_to_a_line() -> None:
    with pytest.raises(SettingError) as caught:
        read(Outer, {"count": "x" * 1000})
    assert len(str(caught.value)) < 120


OUTERS = st.builds(
    Outer,
    count=st.integers(),
    shade=st.sampled_from(Shade),
    inner=st.none() | st.builds(Inner, size=st.integers(1, 9), sides=st.tuples(st.integers(), st.integers())),
    either=st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.builds(Inner),
    options=st.dictionaries(st.text(), st.integers() | st.text()),
    on=st.booleans(),
)


@given(OUTERS)
def test_a_value_comes_back_from_its_json(value: Outer) -> None:
    table = to_json(value)
    assert list(table) == sorted(table)
    assert read(Outer, json.loads(json.dumps(table))) == value


STRATEGY_OPTIONS: dict[str, dict[str, Any]] = {
    "Scaffold": {"sites": 4},
    "FedMedian": {"groups": 3},
    "FedTrimmedMean": {"groups": 3},
    "GeometricMedian": {"smoothing": 1},
}
SETTINGS: list[Any] = [
    TrainingPlan(clients=4),
    TrainingPlan(clients=9, norm=AdaptiveClip(norm=2), evaluate_every=1, stopping=Stopping(target=0.5)),
    TrainingPlan(
        clients=9, norm=2, privacy=PrivacyPlan(epsilon=1, delta=1e-5, rounds=10, smallest=4, sensitivity=2)
    ),
    PrivacyPlan(epsilon=1, delta=0.1, rounds=3, smallest=2, mechanism=Mechanism.DISCRETE_GAUSSIAN),
    Asks(shared=("a*",), update=UpdateKind.WEIGHTS, weighting=Weighting.UNIFORM),
    DataTable(name="digits", clients=3),
    DropoutTable(rate=0.1),
    LogisticRegressionLearner(features=3, classes=2),
    *(kind(**STRATEGY_OPTIONS.get(name, {})) for name, kind in STRATEGIES.items()),
]


@pytest.mark.parametrize("value", SETTINGS, ids=lambda value: type(value).__name__)
def test_every_setting_comes_back_from_its_json(value: Any) -> None:
    table = json.loads(json.dumps(to_json(value)))
    assert read(type(value), table, "setting") == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TrainingPlan(clients=4, norm=2, decay=1), TrainingPlan(clients=4, norm=2.0, decay=1.0)),
        (AdaptiveClip(norm=1), AdaptiveClip(norm=1.0, quantile=0.5)),
        (FedAvg(server_rate=1), FedAvg()),
    ],
)
def test_equal_values_are_equal_bytes(one: Any, other: Any) -> None:
    assert one == other
    assert json.dumps(to_json(one)) == json.dumps(to_json(other))


def test_a_learner_is_told_with_its_model() -> None:
    table = to_json(LocalSGD(model=Perceptron(4, 3, hidden=(5,)), rate=1))
    sizes: dict[str, Any] = {"classes": 3, "features": 4, "hidden": [5]}
    assert table["model"] == {**sizes, "class_weights": [], "penalty": 0.0, "seed": 0}
    assert table["rate"] == 1.0


WRONG: list[Callable[[], object]] = [
    lambda: TrainingPlan(clients=4, bits=0),
    lambda: TrainingPlan(clients=4, norm=0.0),
    lambda: TrainingPlan(clients=4, rotate=True, keep=2.0),
    lambda: TrainingPlan(clients=4, cohort=5),
    lambda: PrivacyPlan(epsilon=0, delta=0.1, rounds=1, smallest=2),
    lambda: AdaptiveClip(norm=-1),
    lambda: Stopping(patience=0),
    lambda: Asks(proximal=-1),
    lambda: STRATEGIES["FedProx"](mu=-1),  # type: ignore[call-arg]
    lambda: STRATEGIES["Scaffold"](sites=0),  # type: ignore[call-arg]
    lambda: STRATEGIES["GeometricMedian"](smoothing=0),  # type: ignore[call-arg]
    lambda: LocalSGD(model=Perceptron(2, 2), rate=0),
    lambda: Perceptron(0, 2),
    lambda: PersonClipped(model=Perceptron(2, 2), clip=0, expected=1),
    lambda: LogisticRegressionLearner(features=1, classes=2, epochs=0),
    lambda: DataTable(name="no such set"),
    lambda: DropoutTable(rate=2),
]


@pytest.mark.parametrize("make", WRONG)
def test_every_constructor_of_a_setting_raises_the_one_error(make: Callable[[], object]) -> None:
    with pytest.raises(SettingError, match=r"^\S+: "):
        make()


def test_the_command_line_has_the_defaults_of_the_declarations() -> None:
    plan, learner = defaults(TrainingPlan), defaults(LogisticRegressionLearner)
    assert {name: plan[name] for name in usual.PLAN} == usual.PLAN
    assert (plan["clip"], plan["keep"]) == (usual.CLIP, usual.KEEP)
    assert defaults(Asks)["weighting"] == usual.WEIGHTING
    assert (learner["epochs"], learner["learning_rate"]) == (usual.EPOCHS, usual.LEARNING_RATE)
    options = inspect.signature(upload).parameters
    names = ("rounds", "clip", "bits", "weight_cap", "keep")
    assert {name: options[name].default for name in names} == {name: plan[name] for name in names}


def test_the_columns_of_the_console_are_the_phases() -> None:
    assert list(progress._PHASES) == [phase.name.lower() for phase in Phase]


@pytest.mark.parametrize("content", [b"a = [", b"\xff", None])
def test_what_is_no_toml_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=r"mine\.toml: not a recipe: "):
        load(path, "a recipe")


OTHERS: tuple[Any, ...] = ("3", b"3", 3.5, True, 1j, Fraction(3), Decimal(3), [3], {"a": 3}, object())


def _numbers(value: Any) -> list[str]:
    """Fields that are one number, or none."""
    return [
        one.name
        for one in fields(value)
        if one.init and type(getattr(value, one.name)) in {int, float, bool} and one.name != "seed"
    ]


@pytest.mark.parametrize("value", SETTINGS, ids=lambda value: type(value).__name__)
def test_every_number_of_numpy_is_as_good_as_pythons(value: Any) -> None:
    for name in _numbers(value):
        number = getattr(value, name)
        kinds = {bool: (np.bool_,), int: (np.int64, np.int32), float: (np.float64,)}[type(number)]
        for kind in kinds:
            if type(number) is int and abs(number) >= 2**31:
                continue
            other = replace(value, **{name: kind(number)})
            assert type(getattr(other, name)) is type(number), name
            assert json.dumps(to_json(other)) == json.dumps(to_json(value)), name


@pytest.mark.parametrize("value", SETTINGS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrong", OTHERS, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_number_of_its_kind_is_refused_by_the_name_of_its_field(value: Any, wrong: Any) -> None:
    for name in _numbers(value):
        kind = str(next(one.type for one in fields(value) if one.name == name))
        if type(wrong).__name__ in kind:
            continue
        with pytest.raises(SettingError, match=rf"^{name}: must be (a number|an integer|true or false), is "):
            replace(value, **{name: wrong})


@pytest.mark.parametrize("value", SETTINGS, ids=lambda value: type(value).__name__)
def test_no_setting_is_not_a_number(value: Any) -> None:
    for name in _numbers(value):
        if type(getattr(value, name)) is float:
            with pytest.raises(SettingError, match=f"^{name}: "):
                replace(value, **{name: float("nan")})


def test_a_strategy_whose_names_are_for_a_type_checker_alone_is_a_strategy() -> None:
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import TYPE_CHECKING\n"
        "from fedcore import Strategy\n"
        "if TYPE_CHECKING:\n    from collections.abc import Sequence\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Own(Strategy):\n    parts: Sequence[int] = ()\n    share: float = 1.0\n"
    )
    module = ModuleType("own_strategy_for_checkers")
    sys.modules[module.__name__] = module
    exec(compile(text, "own.py", "exec"), vars(module))
    assert module.Own(share=0.5).share == 0.5
    del sys.modules[module.__name__]
