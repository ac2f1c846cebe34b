"""Named arrays as bytes: exact round trips, and nothing but DataError for other bytes."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fedcore.arrays import pack, read, unpack, write
from fedcore.errors import DataError

KINDS = st.sampled_from([np.float64, np.float32, np.int64, np.uint8])


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "__metadata__"),
        KINDS.flatmap(lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, min_side=0))),
        max_size=3,
    ),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=5), max_size=3),
)
def test_arrays_and_header_come_back_as_they_were(arrays: dict[str, Any], header: dict[str, Any]) -> None:
    found, told = unpack(pack(arrays, header))
    assert told == header
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


GOOD = pack({"w": np.arange(6.0).reshape(2, 3)}, {"version": 1})


@given(st.binary(max_size=200) | st.integers(0, len(GOOD) - 1).map(lambda size: GOOD[:size]))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not named arrays"):
        unpack(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_decodes_or_is_refused(at: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= change
    with suppress(DataError):
        unpack(bytes(changed))


def test_what_is_no_number_is_not_written() -> None:
    with pytest.raises(DataError, match="arrays: w must be numbers, is <U1"):
        pack({"w": np.array(["a"])}, {})


def test_a_file_is_written_whole_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path, {"w": np.ones(2)}, {"number": 3})
    arrays, header = read(path)
    assert (arrays["w"].tolist(), header) == ([1.0, 1.0], {"number": 3})
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    path.write_bytes(b"no")
    with pytest.raises(DataError, match=r"model\.safetensors: not named arrays"):
        read(path)
    with pytest.raises(DataError, match=r"absent: No such file"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match=r"cannot be written: No such file"):
        write(tmp_path / "no" / "folder", {}, {})


def test_a_file_in_which_a_value_has_changed_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path, {"w": np.ones(2)}, {"number": 3})
    changed = path.read_bytes().replace(b'number\\":3', b'number\\":4')
    for data in (changed, path.read_bytes()[:-1] + b"\x40"):
        path.write_bytes(data)
        with pytest.raises(DataError, match="is damaged"):
            read(path)
