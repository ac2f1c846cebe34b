"""Whatever a file says, it is an experiment or one line about what is wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import SettingError
from fedcore.experiments import parse_experiment
from tests.fedcore.experiments.small import values

SCALARS = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.sampled_from(["FedAvg", "Scaffold", "perceptron", "iid", "dirichlet", "digits", "files", "a:b", ""])
)
NAMES = st.sampled_from(
    [
        *("name", "kind", "bits", "rounds", "norm", "stopping", "target", "clients", "alpha", "options", "x"),
        *(
            "rate",
            "per_round",
            "epsilon",
            "delta",
            "smallest",
            "cohort",
            "keep",
            "hidden",
            "plan",
            "plan.bits",
        ),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
TABLES = st.sampled_from(
    [
        "data",
        "learner",
        "strategy",
        "plan",
        "privacy",
        "dropout",
        "attack",
        "grid",
        "tracking",
        "seeds",
        "compare",
    ]
)


@settings(max_examples=300)
@given(st.dictionaries(TABLES, st.dictionaries(NAMES, VALUES, max_size=3) | VALUES, max_size=3))
def test_any_values_are_an_experiment_or_one_line(changes: dict[str, Any]) -> None:
    said = "an experiment: with points"
    try:
        points = parse_experiment(values(**changes)).points
        assert points
    except SettingError as error:
        said = str(error)
    assert ":" in said
    assert len(said.splitlines()) == 1
