from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg import arrays_digest
from secagg.errors import ParameterError


def test_the_digest_of_arrays_is_the_documented_one() -> None:
    arrays: dict[str, NDArray[Any]] = {"w": np.array([[1.0, -2.0]], np.float32), "b": np.array(3, np.int64)}
    text = b"secagg/v1/arrays\0" + (8).to_bytes(4, "big") + (2).to_bytes(8, "big")
    for name, kind, shape, entries in (
        (b"b", b"i8", b"", bytes([3, 0, 0, 0, 0, 0, 0, 0])),
        (b"w", b"f4", (1).to_bytes(8, "big") + (2).to_bytes(8, "big"), bytes.fromhex("0000803f000000c0")),
    ):
        text += b"secagg/v1/array\0"
        for part in (name, kind, shape):
            text += len(part).to_bytes(4, "big") + part
        text += entries
    assert arrays_digest(arrays) == hashlib.sha256(text).digest()


@given(st.integers(0, 40), st.integers(1, 7), st.sampled_from(["<f4", ">f4", "<i8", ">u2", "?"]))
def test_order_byte_order_and_layout_do_not_matter(rows: int, columns: int, kind: str) -> None:
    values = (np.arange(rows * columns).reshape(rows, columns) % 3).astype(kind)
    wanted = arrays_digest({"a": values, "b": values[:1]})
    native = values.astype(values.dtype.newbyteorder("="))
    assert arrays_digest({"b": values[:1].copy(), "a": native}) == wanted
    assert arrays_digest({"a": np.asfortranarray(values), "b": values[:1]}) == wanted
    wide = np.zeros((2 * rows, columns), kind)
    wide[::2] = values
    assert arrays_digest({"a": wide[::2], "b": values[:1]}) == wanted


A = np.arange(6, dtype=np.float64)


@pytest.mark.parametrize(
    "other",
    [
        {"a": A},
        {"a": A, "b": A, "c": A},
        {"b": A, "a": A[::-1]},
        {"a": A.reshape(2, 3), "b": A},
        {"a": A.reshape(1, 6), "b": A},
        {"a": A.astype(np.float32), "b": A},
        {"a": A.view(np.int64), "b": A},
        {"a": A, "B": A},
        {"ab": A, "": A},
        {"a": np.concatenate([A, A]), "b": A[:0]},
    ],
)
def test_other_arrays_have_another_digest(other: dict[str, NDArray[Any]]) -> None:
    assert arrays_digest(other) != arrays_digest({"a": A, "b": A})


def test_more_than_a_chunk_of_entries_is_digested_whole() -> None:
    large = np.zeros(2**20 + 3, np.uint8)
    before = arrays_digest({"a": large})
    large[-1] = 1
    assert arrays_digest({"a": large}) != before


@pytest.mark.parametrize(
    "array", [np.array(["x"]), np.array([None]), np.array([1j]), np.array([1], np.longdouble)]
)
def test_what_has_no_one_form_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ParameterError, match="arrays: w must be of numbers"):
        arrays_digest({"w": array})


def test_a_name_that_has_no_bytes_is_refused() -> None:
    with pytest.raises(ParameterError, match="is no name in UTF-8"):
        arrays_digest({"\ud800": A})
