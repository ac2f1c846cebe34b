"""Tasks as bytes: exact both ways, and any other bytes raise TaskError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.errors import TaskError
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.noise import Noise
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from secagg import context_digest
from tests.fedcore.sites import KINDS, make_task

VALID = [make_task(kind).encode() for kind in KINDS]


def header_of(payload: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(payload[4 : 4 + int.from_bytes(payload[:4], "big")])
    return header


def packed(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + body


def equal(one: Task, other: Task) -> bool:
    fields = (
        *("kind", "number", "dimension", "codec", "columns", "classes"),
        *("asks", "shaping", "noise", "passes", "previous"),
    )
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


PATTERNS = st.lists(st.text(max_size=6), max_size=3).map(tuple)
SIZES = st.floats(0, 1e9)


@st.composite
def codecs(draw: st.DrawFn) -> Codec:
    bits = draw(st.integers(1, 40))
    return Codec(
        clip=draw(st.floats(1e-9, 1e9)),
        bits=bits,
        weight_cap=draw(st.integers(1, 10**6)),
        clients=draw(st.integers(1, 10**6)),
        precise=draw(st.integers(0, 1000)),
        headroom=draw(st.integers(0, 2**62 - 1)) if bits > 1 else 0,
    )


@st.composite
def asked(draw: st.DrawFn) -> Asks:
    update = draw(st.sampled_from(UpdateKind))
    steered = update is not UpdateKind.GRADIENT  # a gradient has no local steps
    control = draw(SIZES) if steered else 0.0
    return Asks(
        update=update,
        weighting=Weighting.UNIFORM if control else draw(st.sampled_from(Weighting)),
        proximal=draw(SIZES) if steered else 0.0,
        rate=draw(SIZES),
        normalized=steered and draw(st.booleans()),
        steps_cap=draw(st.floats(1, 1e9)),
        control=control,
        quantile=draw(SIZES),
        shared=draw(PATTERNS),
        personal=draw(PATTERNS),
        smoothing=draw(SIZES),
    )


SHAPINGS = st.builds(
    Shaping,
    norm=st.none() | st.floats(1e-9, 1e9),
    rotate=st.booleans(),
    keep=st.floats(1e-9, 1),
    seed=st.binary(min_size=32, max_size=32),
)
NOISES = st.builds(
    Noise,
    mechanism=st.sampled_from([Mechanism.DISCRETE_GAUSSIAN, Mechanism.SKELLAM]),
    variance=SIZES,
    sensitivity=SIZES,
    norm=SIZES,
    smallest=st.integers(0, 10**6),
)
NEWS = st.lists(
    st.tuples(st.text(max_size=8), st.lists(st.text(max_size=4), max_size=3).map(tuple)), max_size=3
).map(tuple)


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
        codec=draw(codecs()),
        columns=tuple(draw(st.lists(st.tuples(st.text(max_size=8), bounds, bounds), max_size=4))),
        classes=tuple(draw(st.lists(st.text(max_size=8), max_size=4))),
        arrays=arrays,
        asks=draw(asked()),
        shaping=draw(SHAPINGS),
        noise=draw(st.none() | NOISES),
        passes=draw(st.integers(0, 2**53 - 1)),
        previous=draw(NEWS),
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


FULL = make_task(
    TaskKind.TRAIN,
    asks=Asks(proximal=0.5, shared=("a*",), personal=("b*",), normalized=True, quantile=0.1, smoothing=0.2),
    shaping=Shaping(norm=2.0, rotate=True, keep=0.5, seed=bytes(range(32))),
    noise=Noise(mechanism=Mechanism.SKELLAM, variance=3.0, sensitivity=4.0, norm=5.0, smallest=2),
    codec=Codec(clip=1.0, bits=20, weight_cap=100, clients=5, precise=2, headroom=7),
    passes=1,
    previous=(("train 1", ("one", "two")), ("train 2", ("three",))),
)
CHANGED: list[dict[str, Any]] = [
    *(
        {"asks": replace(FULL.asks, **change)}
        for change in (
            *({"update": UpdateKind.WEIGHTS}, {"weighting": Weighting.CAPPED}, {"proximal": 0.25}),
            *({"rate": 0.5}, {"normalized": False}, {"steps_cap": 9.0}, {"quantile": 0.2}),
            *({"shared": ()}, {"shared": ("b*",)}, {"personal": ("b*", "c*")}, {"smoothing": 0.0}),
            {"control": 1.0, "weighting": Weighting.UNIFORM},
            {"control": 2.0, "weighting": Weighting.UNIFORM},
        )
    ),
    *(
        {"shaping": replace(FULL.shaping, **change)}
        for change in ({"norm": None}, {"norm": 2.5}, {"rotate": False}, {"keep": 1.0}, {"seed": bytes(32)})
    ),
    {"noise": None},
    *(
        {"noise": replace(FULL.noise, **change)}  # type: ignore[type-var]
        for change in (
            *({"mechanism": Mechanism.DISCRETE_GAUSSIAN}, {"variance": 3.5}, {"sensitivity": 0.0}),
            *({"norm": 0.0}, {"smallest": 3}),
        )
    ),
    *(
        {"codec": replace(FULL.codec, **change)}
        for change in (
            *({"clip": 1.5}, {"bits": 21}, {"weight_cap": 101}, {"clients": 6}),
            *({"precise": 1}, {"headroom": 8}),
        )
    ),
    {"passes": 0},
    {"passes": 2},
    {"previous": ()},
    {"previous": (("train 1", ("one", "two", "three")),)},
    {"previous": (("train 1", ("one",)), ("train 2", ("two", "three")))},
    {"number": 2},
    {"dimension": 5},
    {"kind": TaskKind.EVALUATE},
]


def test_whatever_changes_in_a_rounds_rules_changes_its_digest() -> None:
    others = [replace(FULL, **change) for change in CHANGED]
    assert len({context_digest(task.encode()) for task in (FULL, *others)}) == 1 + len(CHANGED)
    for task in others:
        assert equal(Task.decode(task.encode()), task)


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
        {"arrays": [["a", [0]], ["a", [0]]]},
        {"arrays": [["a", [True]]]},
        {"arrays": [[1, [0]]]},
        {"more": 1},
        {"number": True},
        {"classes": "ab"},
        {"classes": ["a", 1]},
        {"columns": [[1, 0, 1]]},
        {"columns": [["a", "0", 1]]},
        {"columns": [["a", float("nan"), 1]]},
        {"columns": [["a", False, 1]]},
        {"codec": CODEC | {"bits": True}},
        {"asks": {"more": 1}},
        {"asks": {"update": "all"}},
        {"asks": {"rate": "1"}},
        {"asks": {"rate": True}},
        {"asks": {"rate": float("inf")}},
        {"asks": {"normalized": 1}},
        {"asks": {"personal": "head*"}},
        {"asks": {"personal": [1]}},
        {"asks": {"steps_cap": 0}},
        {"asks": {"control": 1.0}},
        {"previous": None},
        {"previous": ["train 1", ["a"]]},
        {"previous": [["train 1", "a"]]},
        {"previous": [["train 1", [1]]]},
        {"previous": [[1, ["a"]]]},
        {"passes": -1},
        {"passes": 2**53},
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


FITS_NOTHING = {"": [[None]]}
JUNK: list[object] = [
    *(None, True, False, -1, 0, 1.5, HUGE, -HUGE, float("nan"), float("inf"), "", "x", "1"),
    *([], [1], [[]], ["x"], [["x", 1, 2]], {}, {"x": 1}, [["x", "x"]], {"clip": {}}),
]


def places(header: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values of a header, the inner ones too."""
    inner: list[Any] = []
    if isinstance(header, dict):
        inner = list(header.items())
    elif isinstance(header, list):
        inner = list(enumerate(header))
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(header: Any, path: tuple[Any, ...], value: object) -> Any:
    """Copy a header with another value in one place."""
    copy = json.loads(json.dumps(header))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return copy


def test_junk_in_any_place_of_a_full_header_raises_nothing_but_task_error() -> None:
    payload = FULL.encode()
    header, body = header_of(payload), payload[4 + int.from_bytes(payload[:4], "big") :]
    paths = list(places(header))
    assert {path[0] for path in paths} == set(header)
    assert len(paths) > 60
    refused = 0
    for path in paths:
        for junk in JUNK:
            task = decode_or_task_error(packed(replaced(header, path, junk), body))
            refused += task is None
            assert task is None or equal(Task.decode(task.encode()), task)
        assert decode_or_task_error(packed(replaced(header, path, FITS_NOTHING), body)) is None, path
    assert refused > 0.7 * len(paths) * len(JUNK)


@settings(deadline=None, max_examples=300)
@given(st.data(), JSON)
def test_any_value_in_any_place_of_a_full_header_decodes_or_raises_task_error(
    data: st.DataObject, value: object
) -> None:
    payload = FULL.encode()
    header, body = header_of(payload), payload[4 + int.from_bytes(payload[:4], "big") :]
    path = data.draw(st.sampled_from(list(places(header))))
    task = decode_or_task_error(packed(replaced(header, path, value), body))
    assert task is None or equal(Task.decode(task.encode()), task)


@settings(deadline=None, max_examples=100)
@given(tasks(), tasks())
def test_two_tasks_have_one_digest_only_if_they_are_equal(one: Task, other: Task) -> None:
    digests = [context_digest(task.encode()) for task in (one, Task.decode(one.encode()), other)]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2] or equal(one, other)
