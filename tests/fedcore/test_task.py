"""Tasks as bytes: exact both ways, and any other bytes raise TaskError."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedcore.codec import Codec
from fedcore.errors import TaskError
from fedcore.task import Task, TaskKind
from tests.fedcore.test_site import KINDS, make_task

VALID = [make_task(kind).encode() for kind in KINDS]


def header_of(payload: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(payload[4 : 4 + int.from_bytes(payload[:4], "big")])
    return header


def packed(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + body


def equal(one: Task, other: Task) -> bool:
    fields = ("kind", "number", "dimension", "codec", "columns", "classes")
    return (
        all(getattr(one, name) == getattr(other, name) for name in fields)
        and one.arrays.keys() == other.arrays.keys()
        and all(
            array.shape == other.arrays[name].shape and array.tobytes() == other.arrays[name].tobytes()
            for name, array in one.arrays.items()
        )
    )


def decode_or_task_error(payload: bytes) -> Task | None:
    try:
        return Task.decode(payload)
    except TaskError:
        return None


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    shapes = draw(st.dictionaries(st.text(max_size=8), st.lists(st.integers(0, 3), max_size=3), max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrays = {
        name: np.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-300, 300))
        for name, shape in shapes.items()
    }
    for array in arrays.values():
        array[rng.random(array.shape) < 0.2] = -0.0
    bounds = st.floats(allow_nan=False, allow_infinity=False)
    return Task(
        kind=draw(st.sampled_from(TaskKind)),
        number=draw(st.integers(0, 10**9)),
        dimension=draw(st.integers(1, 10**9)),
        codec=Codec(
            clip=draw(st.floats(1e-9, 1e9)),
            bits=draw(st.integers(2, 40)),
            weight_cap=draw(st.integers(1, 10**6)),
            clients=draw(st.integers(1, 10**6)),
        ),
        columns=tuple(draw(st.lists(st.tuples(st.text(max_size=8), bounds, bounds), max_size=4))),
        classes=tuple(draw(st.lists(st.text(max_size=8), max_size=4))),
        arrays=arrays,
    )


@settings(deadline=None)
@given(tasks())
def test_a_task_survives_its_payload_bit_for_bit(task: Task) -> None:
    payload = task.encode()
    again = Task.decode(payload)
    assert equal(again, task)
    assert again.encode() == payload


@pytest.mark.parametrize("kind", KINDS)
def test_equal_tasks_have_equal_payloads_and_name_themselves(kind: TaskKind) -> None:
    task = make_task(kind, number=12)
    backwards = make_task(kind, number=12, arrays=dict(reversed(task.arrays.items())))
    assert task.encode() == backwards.encode()
    assert task.name == f"{kind.value} 12"


def test_whatever_changes_in_a_task_changes_its_payload() -> None:
    task = make_task(TaskKind.TRAIN)
    others = [
        make_task(TaskKind.TRAIN, number=2),
        make_task(TaskKind.TRAIN, dimension=5),
        make_task(TaskKind.TRAIN, classes=("yes", "no")),
        make_task(TaskKind.TRAIN, columns=task.columns[::-1]),
        make_task(TaskKind.TRAIN, codec=Codec(clip=2.0, bits=20, weight_cap=100, clients=5)),
        make_task(TaskKind.TRAIN, arrays=task.arrays | {"mean": task.arrays["mean"] + 1e-9}),
    ]
    assert len({task.encode(), *(other.encode() for other in others)}) == 1 + len(others)


def test_the_model_is_what_the_names_say() -> None:
    task = make_task(TaskKind.TRAIN)
    assert sorted(task.model) == ["coefficients", "intercepts"]
    assert make_task(TaskKind.DEVIATION).model == {}


def test_decoded_arrays_can_be_written_to() -> None:
    task = make_task(TaskKind.TRAIN)
    again = Task.decode(task.encode())
    for name, array in again.arrays.items():
        array[...] = 7.0
        assert again.arrays[name].max() == 7.0
    assert not np.array_equal(task.arrays["mean"], again.arrays["mean"])


@pytest.mark.parametrize("version", [0, 1, 2, -1, "3", None])
def test_another_version_is_refused_by_name(version: object) -> None:
    with pytest.raises(TaskError, match=f"task.version: must be 3, is {version}"):
        Task.decode(packed(header_of(VALID[0]) | {"version": version}))


@pytest.mark.parametrize("payload", VALID)
def test_a_payload_that_is_cut_or_too_long_is_refused(payload: bytes) -> None:
    for cut in range(0, len(payload), 7):
        with pytest.raises(TaskError):
            Task.decode(payload[:cut])
    with pytest.raises(TaskError):
        Task.decode(payload[:-1])
    with pytest.raises(TaskError, match="3 bytes behind the arrays"):
        Task.decode(payload + b"abc")


@pytest.mark.parametrize("name", sorted(header_of(VALID[0])))
def test_a_header_without_one_of_its_fields_is_refused(name: str) -> None:
    header = header_of(VALID[0])
    del header[name]
    with pytest.raises(TaskError, match=name):
        Task.decode(packed(header))


HUGE = 10**400  # a JSON number that no float holds

CODEC: dict[str, Any] = {"clip": 1.0, "bits": 8, "weight_cap": 5, "clients": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "sum"},
        {"kind": []},
        {"number": "one"},
        {"number": None},
        {"number": float("inf")},
        {"number": float("nan")},
        {"dimension": float("inf")},
        {"dimension": {}},
        {"codec": {}},
        {"codec": CODEC | {"more": 1}},
        {"codec": CODEC | {"clip": 0}},
        {"codec": CODEC | {"clip": "1"}},
        {"codec": CODEC | {"clip": HUGE}},
        {"codec": CODEC | {"bits": 41}},
        {"codec": CODEC | {"clients": 1.5}},
        {"codec": CODEC | {"weight_cap": 300.5}},
        {"codec": CODEC | {"weight_cap": float("inf")}},
        {"codec": CODEC | {"clients": HUGE}},
        {"columns": 3},
        {"columns": [["a", 0]]},
        {"columns": [["a", "low", 1]]},
        {"columns": [["a", HUGE, 1]]},
        {"classes": 3},
        {"arrays": 3},
        {"arrays": [["a"]]},
        {"arrays": [["a", 1]]},
        {"arrays": [["a", [1.5]]]},
        {"arrays": [["a", ["1"]]]},
        {"arrays": [["a", [1]]]},
        {"arrays": [["a", [-1]], ["b", [1]]]},
        {"arrays": [["a", [HUGE]]]},
        {"arrays": [["a", [2**62, 4]]]},
        {"arrays": [["a", [0, 2**70]]]},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_header_with_a_bad_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TaskError):
        Task.decode(packed(header_of(VALID[0]) | changes))


def test_a_header_that_is_nested_too_deeply_is_refused() -> None:
    text = b"[" * 100_000
    with pytest.raises(TaskError):
        Task.decode(len(text).to_bytes(4, "big") + text)


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\0\0\0\2{}")
@example(b"\0\0\0\4null")
@example(b"\xff\xff\xff\xff{}")
def test_any_bytes_decode_or_raise_task_error(payload: bytes) -> None:
    task = decode_or_task_error(payload)
    assert task is None or equal(Task.decode(task.encode()), task)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_valid_payload_with_changed_bytes_decodes_or_raises_task_error(
    payload: bytes, changes: list[tuple[int, int]]
) -> None:
    mutated = bytearray(payload)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    task = decode_or_task_error(bytes(mutated))
    assert task is None or isinstance(task, Task)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(VALID), JSON)
def test_a_valid_header_with_any_value_in_a_field_decodes_or_raises_task_error(
    data: st.DataObject, payload: bytes, value: object
) -> None:
    header = header_of(payload)
    body = payload[4 + int.from_bytes(payload[:4], "big") :]
    name = data.draw(st.sampled_from(sorted(header)))
    if name == "codec" and data.draw(st.booleans()):
        header["codec"][data.draw(st.sampled_from(sorted(CODEC)))] = value
    else:
        header[name] = value
    task = decode_or_task_error(packed(header, body))
    assert task is None or isinstance(task, Task)
