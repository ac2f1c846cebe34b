"""Tasks as bytes: exact both ways, other bytes raise TaskError; what is derived does not travel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fedcore import arrays
from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.errors import TaskError
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.noise import Noise
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks
from fedcore.rounds.model import model_arrays
from fedcore.rounds.questions import (
    QUESTIONS,
    STATISTICS,
    AboutModel,
    Count,
    Covariance,
    Cumulative,
    Deviation,
    Evaluate,
    Mean,
    Moments,
    Question,
    Sites,
    TaskKind,
    Train,
    take_model,
)
from fedcore.rounds.task import Task
from fedcore.statistics.standardizer import Standardizer
from secagg import context_digest
from tests.fedcore.sites import asked, make_question, make_task, model_of, same

ENCODING = Encoding(dimension=4, codec=Codec(clip=1.0, bits=20, weight_cap=100, clients=5))
TASKS = {kind: make_task(kind) for kind in TaskKind}
VALID = [task.encode() for task in TASKS.values()]
FULL = Task(
    question=Train(
        number=3,
        model={"a": np.arange(3.0), "b/c.d": np.ones((1, 2))},
        standardizer=Standardizer(np.zeros(2), np.ones(2)),
        norm=0.25,
        control=np.arange(5.0),
        center=np.arange(4.0),
        again=2,
    ),
    encoding=ENCODING,
    step=17,
    attempt=2,
    group=3,
)


def decode(payload: bytes) -> Task:
    return Task.decode(payload, same(ENCODING))


def decode_or_task_error(payload: bytes) -> Task | None:
    try:
        return decode(payload)
    except TaskError:
        return None


def header_of(payload: bytes) -> dict[str, Any]:
    return arrays.unpack(payload)[1]


def changed(payload: bytes, header: Mapping[str, Any], **more: NDArray[Any]) -> bytes:
    """The payload with another header, and with more arrays."""
    found, _ = arrays.unpack(payload)
    return arrays.pack(found | more, header)


def equal(one: Task, other: Task) -> bool:
    mine, theirs = one.question.arrays(), other.question.arrays()
    return (
        (one.kind, one.step, one.attempt, one.group) == (other.kind, other.step, other.attempt, other.group)
        and one.question.header() == other.question.header()
        and mine.keys() == theirs.keys()
        and all(
            (array.dtype, array.shape, array.tobytes())
            == (theirs[name].dtype, theirs[name].shape, theirs[name].tobytes())
            for name, array in mine.items()
        )
    )


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)
SIDES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
NUMBERS = st.integers(0, 2**31 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def vectors(dimensions: int) -> st.SearchStrategy[NDArray[Any]]:
    shapes = st.tuples(*[st.integers(0, 3)] * dimensions)
    return hnp.arrays(np.float64, shapes, elements=FINITE)


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """A model, in either precision, with or without a standardizer."""
    model = {}
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        kind: type[Any] = draw(st.sampled_from([np.float64, np.float32]))
        elements = {"allow_nan": False, "allow_infinity": False}
        model[name] = np.asarray(draw(hnp.arrays(kind, draw(SIDES), elements=elements)))
    columns = draw(st.integers(0, 3))
    both = [draw(hnp.arrays(np.float64, columns, elements=FINITE)) for _ in range(2)]
    return {"model": model, "standardizer": Standardizer(*both) if columns else Standardizer.none()}


@st.composite
def questions(draw: st.DrawFn) -> Question:
    kind = draw(st.sampled_from(TaskKind))
    values: dict[str, Any] = {"number": draw(NUMBERS)}
    if kind in {TaskKind.DEVIATION, TaskKind.COVARIANCE}:
        values["mean"] = draw(vectors(1))
    elif kind is TaskKind.CUMULATIVE:
        values["edges"] = draw(vectors(2))
    elif kind is TaskKind.COUNT:
        values["cells"] = draw(vectors(2))
    elif kind not in {TaskKind.MEAN, TaskKind.MOMENTS}:
        values |= draw(models())
    if kind is TaskKind.TRAIN:
        values["norm"] = draw(st.none() | st.floats(1e-300, 1e300))
        values |= {name: draw(st.none() | vectors(1)) for name in ("control", "center")}
        values["again"] = draw(NUMBERS)
    return QUESTIONS[kind](**values)


PLACE = dict.fromkeys(("step", "attempt", "group"), NUMBERS)
TASK = st.builds(Task, question=questions(), encoding=st.just(ENCODING), **PLACE)


@settings(deadline=None)
@given(TASK)
def test_a_task_survives_its_payload_bit_for_bit(task: Task) -> None:
    payload = task.encode()
    again = decode(payload)
    assert equal(again, task)
    assert type(again.question) is type(task.question)
    assert again.encode() == payload
    assert again.encoding is ENCODING


@settings(deadline=None, max_examples=100)
@given(TASK, TASK)
def test_two_tasks_have_one_digest_only_if_they_are_equal(one: Task, other: Task) -> None:
    digests = [context_digest(task.encode()) for task in (one, decode(one.encode()), other)]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2] or equal(one, other)


@pytest.mark.parametrize("kind", TaskKind)
def test_every_kind_has_one_type_and_names_itself(kind: TaskKind) -> None:
    task = make_task(kind, number=12)
    assert (task.kind, task.number, task.name) == (kind, 12, f"{kind.value} 12")
    assert type(task.question) is QUESTIONS[kind]
    assert type(decode(task.encode()).question) is QUESTIONS[kind]
    assert (kind in STATISTICS) is not isinstance(task.question, AboutModel)


def test_the_order_of_a_models_parameters_does_not_matter() -> None:
    task = make_task(TaskKind.TRAIN)
    backwards = asked(task, model=dict(reversed(model_of(task).items())))
    assert task.encode() == backwards.encode()


# --- what changes a payload, and what does not travel ---

EMPTY = np.zeros(0)
CHANGED: dict[type[Question], list[dict[str, Any]]] = {
    Mean: [],
    Moments: [],
    Deviation: [{"mean": np.full(3, 1e-9)}, {"mean": EMPTY}, {"mean": -np.zeros(3)}],
    Covariance: [{"mean": np.full(3, 1e-9)}],
    Cumulative: [{"edges": np.zeros((3, 3))}, {"edges": np.ones((3, 2))}],
    Count: [{"cells": np.zeros((1, 2))}, {"cells": np.ones((2, 2))}],
    Evaluate: [{"model": {"a": np.zeros(2)}}, {"standardizer": Standardizer.none()}],
    Sites: [{"model": {}}, {"standardizer": Standardizer(np.ones(3), np.ones(3))}],
    Train: [
        *({"norm": None}, {"norm": 0.5}, {"control": None}, {"control": np.ones(5)}, {"center": None}),
        *({"center": np.ones(4)}, {"again": 0}, {"again": 3}, {"standardizer": Standardizer.none()}),
        {"standardizer": Standardizer(np.zeros(2), np.full(2, 2.0))},
        {"standardizer": Standardizer(np.full(2, 2.0), np.ones(2))},
        *({"model": {"a": np.arange(3.0)}}, {"model": {"a": np.arange(3.0), "b/c.e": np.ones((1, 2))}}),
        {"model": {"a": np.arange(3.0), "b/c.d": np.ones((2, 1))}},
        {"model": {"a": np.arange(3.0), "b/c.d": np.ones((1, 2), np.float32)}},
    ],
}


@pytest.mark.parametrize("kind", TaskKind)
def test_whatever_changes_in_a_task_changes_its_payload(kind: TaskKind) -> None:
    task = FULL if kind is TaskKind.TRAIN else replace(FULL, question=make_question(kind, 3))
    cases = [{"number": 4}, *CHANGED[QUESTIONS[kind]]]
    named = {name for case in cases for name in case}
    assert named == {one.name for one in fields(task.question)}  # no field is forgotten
    others = [asked(task, **case) for case in cases]
    others += [replace(task, step=18), replace(task, attempt=1), replace(task, group=0)]
    everything = [task, *others]
    assert len({context_digest(one.encode()) for one in everything}) == len(everything)
    for one in everything:
        assert equal(decode(one.encode()), one)


def test_kinds_with_equal_fields_have_other_payloads() -> None:
    pairs = [(TaskKind.DEVIATION, TaskKind.COVARIANCE), (TaskKind.EVALUATE, TaskKind.SITES)]
    for one, other in pairs:
        first = TASKS[one].question
        second = QUESTIONS[other](**{f.name: getattr(first, f.name) for f in fields(first)})
        assert replace(FULL, question=first).encode() != replace(FULL, question=second).encode()


def test_the_form_of_the_answer_does_not_travel_but_is_derived() -> None:
    """A server that changes it sends the same bytes: nobody hears of its wishes."""
    noise = Noise(mechanism=Mechanism.SKELLAM, variance=3.0, sensitivity=4.0)
    changes: dict[str, Any] = {
        "dimension": 9, "codec": replace(ENCODING.codec, clip=7.0), "shaping": Shaping(norm=1.0),
        "noise": noise, "asks": Asks(proximal=0.5), "schema": None, "classes": ("x",),
    }  # fmt: skip
    assert changes.keys() == {one.name for one in fields(Encoding)}
    for name, value in changes.items():
        other = replace(FULL, encoding=replace(ENCODING, **{name: value}))
        assert other.encode() == FULL.encode()
        assert other.digest == FULL.digest
    assert not any(name in FULL.encode().decode("latin-1") for name in ("clip", "weight", "shaping", "noise"))


def test_the_form_is_derived_from_the_question_that_was_read() -> None:
    seen: list[Question] = []

    def derive(question: Question) -> Encoding:
        seen.append(question)
        return ENCODING

    task = Task.decode(FULL.encode(), derive)
    assert seen == [task.question]


@pytest.mark.parametrize("error", [TaskError("no"), ValueError("no")])
def test_what_the_derivation_raises_is_not_hidden(error: Exception) -> None:
    def derive(_question: Question) -> Encoding:
        raise error

    with pytest.raises(type(error), match="no"):
        Task.decode(FULL.encode(), derive)


def test_the_digest_is_of_what_is_asked_whatever_the_attempt_the_group_and_the_pass() -> None:
    assert len(FULL.digest) == 32
    assert replace(FULL, attempt=7, group=0).digest == FULL.digest
    first = asked(replace(FULL, attempt=0, group=0), center=None, again=0)
    assert FULL.digest == hashlib.sha256(first.encode()).digest()
    assert replace(FULL, step=18).digest != FULL.digest
    assert asked(FULL, again=3, center=np.zeros(7)).digest == FULL.digest
    assert asked(FULL, number=FULL.number + 1).digest != FULL.digest


# --- models ---


@settings(deadline=None)
@given(models())
def test_a_model_is_taken_back_out_of_its_arrays(one: dict[str, Any]) -> None:
    found = model_arrays(parameters=one["model"], standardizer=one["standardizer"])
    found["other"] = np.ones(1)
    model, standardizer = take_model(found)
    assert list(found) == ["other"]
    assert model.keys() == one["model"].keys()
    assert all(array is model[name] for name, array in one["model"].items())
    assert standardizer.mean.tolist() == one["standardizer"].mean.tolist()


@pytest.mark.parametrize("name", ["mean", "deviation"])
def test_half_a_standardizer_is_refused(name: str) -> None:
    missing = {"mean": "deviation", "deviation": "mean"}[name]
    with pytest.raises(TaskError, match=rf"task\.arrays: {missing} is missing"):
        take_model({"model.a": np.ones(1), name: np.ones(3)})


def test_decoded_arrays_can_be_written_to() -> None:
    again = decode(FULL.encode())
    for name, array in again.question.arrays().items():
        array[...] = 7.0
        assert again.question.arrays()[name].max() == 7.0
    assert FULL.question.arrays()["control"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


# --- strictness ---


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, -1, "4", None, True])
def test_another_version_is_refused_by_name(version: object) -> None:
    with pytest.raises(TaskError, match=f"task.version: must be 4, is {version}"):
        decode(changed(VALID[0], header_of(VALID[0]) | {"version": version}))


@pytest.mark.parametrize("payload", VALID, ids=list(TASKS))
def test_a_payload_that_is_cut_or_too_long_is_refused(payload: bytes) -> None:
    for cut in range(0, len(payload), 7):
        with pytest.raises(TaskError):
            decode(payload[:cut])
    with pytest.raises(TaskError):
        decode(payload[:-1])
    with pytest.raises(TaskError):
        decode(payload + b"abc")


@pytest.mark.parametrize("kind", TaskKind)
def test_a_header_without_one_of_its_fields_is_refused(kind: TaskKind) -> None:
    payload = TASKS[kind].encode()
    header = header_of(payload)
    for name in sorted(header.keys() - {"norm"}):
        with pytest.raises(TaskError, match=name):
            decode(changed(payload, {key: value for key, value in header.items() if key != name}))


@pytest.mark.parametrize("kind", TaskKind)
def test_what_no_kind_knows_and_what_belongs_to_another_is_refused(kind: TaskKind) -> None:
    payload = TASKS[kind].encode()
    header, known = header_of(payload), TASKS[kind].question.arrays()
    for name in ("more", "codec", "previous", "dimension", "again", "norm"):
        if name not in header:
            with pytest.raises(TaskError, match=f"task: '{name}' is not known"):
                decode(changed(payload, header | {name: 1}))
    for name in ("more", "edges", "cells", "center", "control", "models.a"):
        if name not in known and not (kind is TaskKind.TRAIN and name in {"center", "control"}):
            with pytest.raises(TaskError, match=rf"task\.arrays: '{name}' is not known"):
                decode(changed(payload, header, **{name: np.ones(1)}))


ARRAYS = [(kind, name) for kind, task in TASKS.items() for name in task.question.arrays()]


@pytest.mark.parametrize(("kind", "name"), ARRAYS)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: np.full_like(a, np.nan), "must be finite"),
        (lambda a: np.full_like(a, -np.inf), "must be finite"),
        (lambda a: a.astype(np.int64), "must be float64 or float32, is int64"),
        (lambda a: a.astype(bool), "must be float64 or float32, is bool"),
        (lambda a: a.astype(np.float16), "must be float64 or float32, is float16"),
    ],
)
def test_arrays_that_are_not_finite_numbers_are_refused(
    kind: TaskKind, name: str, change: Callable[[Any], Any], why: str
) -> None:
    payload = TASKS[kind].encode()
    array = change(TASKS[kind].question.arrays()[name])
    with pytest.raises(TaskError, match=rf"task\.arrays: {name} {why}"):
        decode(changed(payload, header_of(payload), **{name: array}))


@pytest.mark.parametrize(("kind", "name"), [pair for pair in ARRAYS if not pair[1].startswith("model.")])
def test_arrays_of_other_dimensions_or_none_are_refused(kind: TaskKind, name: str) -> None:
    payload = TASKS[kind].encode()
    array = TASKS[kind].question.arrays()[name]
    with pytest.raises(TaskError, match=rf"task\.arrays: {name} must have {array.ndim} dimensions"):
        decode(changed(payload, header_of(payload), **{name: array[None]}))
    found, header = arrays.unpack(payload)
    with pytest.raises(TaskError, match=rf"task\.arrays: {name} is missing"):
        decode(arrays.pack({key: value for key, value in found.items() if key != name}, header))


HUGE = 10**400  # a JSON number that no float holds
JUNK: list[object] = [
    *(None, True, False, -1, 1.5, 2**31, HUGE, -HUGE, "", "x", "1"),
    *([], [1], [[]], {}, {"x": 1}),
]


def test_junk_in_any_field_of_a_full_header_is_refused() -> None:
    payload = FULL.encode()
    header = header_of(payload)
    assert header.keys() == {
        *("version", "kind", "step", "attempt", "group", "cohort"), *("number", "norm", "again")
    }  # fmt: skip
    fine: dict[str, set[object]] = {
        "norm": {1.5, None},
        "cohort": {one for one in JUNK if isinstance(one, str)},
    }
    for name in header:
        for junk in JUNK:
            task = decode_or_task_error(changed(payload, header | {name: junk}))
            hashable = not isinstance(junk, list | dict)
            assert (task is not None) == (hashable and junk is not True and junk in fine.get(name, set())), (
                name,
                junk,
            )


@pytest.mark.parametrize("norm", [0.0, -1.0, 1, True, "1.0", HUGE])
def test_a_norm_that_cannot_be_is_refused(norm: object) -> None:
    with pytest.raises(TaskError, match=r"task\.norm: must be positive and finite"):
        decode(changed(FULL.encode(), header_of(FULL.encode()) | {"norm": norm}))


def raw(header: object, metadata: object = None) -> bytes:
    """A file of safetensors without arrays, whose header is any JSON."""
    text = {"header": json.dumps(header)} if metadata is None else metadata
    head = json.dumps({"__metadata__": text}).encode()
    return len(head).to_bytes(8, "little") + head


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", bytes(8), b"\2" + bytes(7) + b"{}", b"\xff" * 20, b"\4" + bytes(7) + b"null"),
        *(raw([]), raw(None), raw("x"), raw({}), raw(1), raw({"version": 4})),
        *(raw(None, {}), raw(None, {"header": "["}), raw(None, {"header": 3}), raw(None, [])),
        raw({"version": 4, "kind": "mean", "step": 0, "attempt": 1, "group": 0}),
        raw({"version": 4, "kind": "sum", "step": 0, "attempt": 1, "group": 0, "number": 1}),
        raw({"version": float("nan"), "kind": []}),
        len(b"[" * 100_000).to_bytes(8, "little") + b"[" * 100_000,
        raw(None, {"header": "[" * 100_000}),
    ],
)
def test_bytes_that_are_no_task_are_refused(payload: bytes) -> None:
    with pytest.raises(TaskError):
        decode(payload)
    assert decode(raw(header_of(make_task(TaskKind.MEAN).encode()))).kind is TaskKind.MEAN


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_decode_or_raise_task_error(payload: bytes) -> None:
    task = decode_or_task_error(payload)
    assert task is None or equal(decode(task.encode()), task)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([*VALID, FULL.encode()]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_valid_payload_with_changed_bytes_decodes_or_raises_task_error(
    payload: bytes, changes: list[tuple[int, int]]
) -> None:
    mutated = bytearray(payload)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    task = decode_or_task_error(bytes(mutated))
    assert task is None or equal(decode(task.encode()), task)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from([*VALID, FULL.encode()]), JSON)
def test_a_valid_header_with_any_value_in_a_field_decodes_or_raises_task_error(
    data: st.DataObject, payload: bytes, value: object
) -> None:
    header = header_of(payload)
    name = data.draw(st.sampled_from(sorted(header)))
    task = decode_or_task_error(changed(payload, header | {name: value}))
    assert task is None or equal(decode(task.encode()), task)


@pytest.mark.parametrize("one", TaskKind)
@pytest.mark.parametrize("other", TaskKind)
def test_a_task_under_the_name_of_another_kind_is_that_kind_or_refused(
    one: TaskKind, other: TaskKind
) -> None:
    payload = TASKS[one].encode()
    task = decode_or_task_error(changed(payload, header_of(payload) | {"kind": str(other)}))
    twins = [{TaskKind.DEVIATION, TaskKind.COVARIANCE}, {TaskKind.EVALUATE, TaskKind.SITES}]
    empty = {TaskKind.MEAN, TaskKind.MOMENTS}  # or a model of no parameters
    bare = one in empty and other in {TaskKind.EVALUATE, TaskKind.SITES, *empty}
    assert (task is not None) == (one is other or bare or {one, other} in twins)
    assert task is None or task.kind is other
