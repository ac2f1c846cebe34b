"""Public errors and results go through pickle and deepcopy: process pools carry them."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fedcore
import secagg
from fedcore.evaluation import baselines
from fedcore.evaluation.personal import compare as compare_models
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.model import Model
from secagg import RoundAbortedError, SecAggError
from secagg.audit import Finding, Report, SignedHead
from secagg.store.concerns import Concern, ConcernKind
from tests.fedcore.sites import LEARNER, SCHEMA, make_plan, make_sites, make_table

ROWS = {f"site-{i}": make_table(20, i) for i in range(4)}
HEAD = SignedHead(bytes(32), 3, bytes(32), 4, bytes(64))
ARGUMENTS: dict[str, Any] = {  # of constructors, by the names of their parameters
    "breaches": ("one", "two"),
    "blamed": (b"b" * 32,),
    "guilty": (b"g" * 32,),
    "likely": (b"l" * 32,),
    "concerns": (Concern(ConcernKind.TOO_FEW, (b"c" * 32,), "of 3"),),
    "survivors": ("a", "b"),
    "failures": {"a": "why"},
    "index": 3,
    "value": float("inf"),
    "seen": HEAD,
    "shown": HEAD,
    "report": Report(b"", 0, 0, (), HEAD, {}, (Finding(None, "why"),)),
}


HOSTS = (
    *(f"fedcore.integrations.{name}" for name in ("flower", "flare", "declearn", "pfl")),
    "fedcore.examples.openfl_workflow",
    "fedcore.examples.secretflow_pyu",
    "fedcore.examples.fedbiomed_plan",
)


def _modules() -> Iterator[Any]:
    for package in (secagg, fedcore):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(HOSTS):
                continue  # of stacks that are not installed here
            if not found.name.endswith(("__main__", "flax_learner", "serving", "migrations.env")):
                yield importlib.import_module(found.name)


def _errors() -> list[type[SecAggError]]:
    tuple(_modules())
    found, left = [SecAggError], [SecAggError]
    while left:
        inner = left.pop().__subclasses__()
        left += inner
        found += [one for one in inner if one.__module__.startswith(("secagg", "fedcore"))]
    return list(dict.fromkeys(found))


def _made(kind: type[SecAggError]) -> SecAggError:
    if kind.__init__ is Exception.__init__ or kind.__init__ is ValueError.__init__:
        return kind("field: must be this, is that")
    names = list(inspect.signature(kind.__init__).parameters)[1:]
    return kind(*(ARGUMENTS.get(name, f"the {name}") for name in names))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(_same(getattr(one, n), getattr(other, n)) for n in names)
    return bool(one == other)


def _copies(value: Any) -> Iterator[Any]:
    yield copy.deepcopy(value)
    yield copy.copy(value)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize("kind", _errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_carried_whole(kind: type[SecAggError]) -> None:
    error = _made(kind)
    error.add_note("said later")
    for other in _copies(error):
        assert type(other) is kind
        assert (str(other), other.args, other.__dict__) == (str(error), error.args, error.__dict__)


def test_an_error_in_a_process_pool_comes_back_as_itself() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        error = pool.submit(_aborts).exception(timeout=60)
    assert isinstance(error, RoundAbortedError)
    assert (error.reason, error.detail, error.guilty) == ("too few", "2 of 3", (b"g" * 32,))


def _aborts() -> None:
    raise RoundAbortedError("too few", "2 of 3", guilty=(b"g" * 32,))


def _results() -> dict[str, Any]:
    sites = make_sites(4)
    records: list[RoundRecord] = []
    plan = replace(make_plan(rounds=2, clients=4), evaluate_every=1)
    federation = Federation(PlainSum(sites), SCHEMA, LEARNER, plan, on_round=records.append)
    state = federation.run()
    evaluation = federation.evaluate(state.parameters, state.standardizer)
    spread = federation.evaluate_sites(state.parameters, state.standardizer)
    model = Model(state.parameters, state.standardizer, state.number, SCHEMA)
    updates = [np.arange(5, dtype=np.uint32) + i for i in range(5)]
    parts: Any = {"rows": ROWS, "held_out": tuple(ROWS.values()), "schema": SCHEMA}
    trial = baselines.Trial(**parts, learner=LEARNER, plan=plan)
    planned = secagg.plan(clients=100, vector_length=10, value_bits=8)
    return {
        "aggregate": secagg.aggregate(updates, ring_bits=20),
        "comparison": compare_models(state, sites, seed=0),
        "evaluation": evaluation,
        "explanation": secagg.explain(planned),
        "model": model,
        "plan": planned,
        "record": records[-1],
        "result": baselines.run(trial, baselines.Mode.SECURE),
        "spread": spread,
        "state": state,
        "sum": records[-1].result,
    }


def test_every_result_is_carried_whole() -> None:
    for name, value in _results().items():
        for other in _copies(value):
            assert _same(value, other), name
