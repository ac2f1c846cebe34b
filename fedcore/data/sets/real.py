"""Real sets of the folder that SECAGG_DATA names: digits by writer, breast cancer at two parties.

The hospitals are in `heart`, the news stories in `conll`. Nothing here is part of the package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.data.files import read_table
from fedcore.data.partition import Partition, natural
from fedcore.data.schema import Column, Schema
from fedcore.data.sets.folder import data_folder, read_bytes, read_rows
from fedcore.data.table import Table
from fedcore.errors import DataError

MNIST_SCHEMA = Schema(
    tuple(Column(f"pixel {row},{column}", 0.0, 1.0) for row in range(28) for column in range(28)),
    tuple(str(digit) for digit in range(10)),
)
_STANDARDIZED = (-20.0, 20.0)  # no value of a standardised column of some hundred rows lies further out
_DIAGNOSES = ("0", "1")


@dataclass(frozen=True, slots=True)
class MnistWriters:
    """10000 digits with their writers, and the split within each writer."""

    images: NDArray[np.float64]  # (10000, 784), in [0, 1]
    labels: NDArray[np.int64]  # (10000,)
    writers: NDArray[np.int64]  # (10000,), NIST's numbers
    train: Table  # rows in the order of the file
    test: Table
    train_by_writer: Partition  # of the rows of `train`; names are the writers' numbers
    test_by_writer: Partition  # of the rows of `test`
    schema: Schema = MNIST_SCHEMA


def mnist_writers() -> MnistWriters:
    """Load the MNIST test digits with their writers (QMNIST, Yadav and Bottou 2019): 297 natural clients.

    Of each writer's n digits, in the file's order, the first ceil(0.8 n) are for training: 8122, and 1878
    for testing. Raises DataError.
    """
    images = _idx("t10k-images-idx3-ubyte.gz", (10000, 28, 28)).reshape(10000, 784) / 255.0
    labels = _idx("t10k-labels-idx1-ubyte.gz", (10000,)).astype(np.int64)
    rows = read_rows("mnist_writers", "t10k-writers.csv", columns=("index", "label", "writer"))
    try:
        listed = np.array([(int(r["index"]), int(r["label"]), int(r["writer"])) for r in rows], np.int64)
    except ValueError:
        raise DataError("t10k-writers.csv: index, label and writer must be integers") from None
    if not np.array_equal(listed[:, :2], np.stack([np.arange(10000), labels], axis=1)):
        raise DataError("t10k-writers.csv: must list the 10000 digits in order, with their labels")
    writers = listed[:, 2]
    training = np.zeros(len(writers), bool)
    for part in natural(writers).parts.values():
        training[part[: -(-len(part) * 4 // 5)]] = True  # ceil, in integers
    whole = Table(images, labels)
    first, last = np.flatnonzero(training), np.flatnonzero(~training)
    return MnistWriters(
        *(images, labels, writers, whole.take(first), whole.take(last)),
        *(natural(writers[first]), natural(writers[last])),
    )


@dataclass(frozen=True, slots=True)
class BreastHomo:
    """Two parties with the same 30 columns and different patients, and a test set."""

    guest: Table
    host: Table
    test: Table
    schema: Schema


def breast_homo() -> BreastHomo:
    """Load FATE's horizontal breast cancer set: 227, 228 and 114 rows, standardised. Raises DataError."""
    schema = Schema(_columns(30), _DIAGNOSES)
    folder = data_folder() / "fate"
    guest, host, test = (
        read_table(folder / f"breast_homo_{name}.csv", schema, "y") for name in ("guest", "host", "test")
    )
    return BreastHomo(guest, host, test, schema)


@dataclass(frozen=True, slots=True)
class BreastHetero:
    """Two parties with the same patients and different columns; only the guest has labels."""

    guest: Table  # (569, 10)
    guest_ids: tuple[str, ...]
    guest_schema: Schema
    host: NDArray[np.float64]  # (569, 20)
    host_ids: tuple[str, ...]
    host_columns: tuple[Column, ...]  # called x0 ... as the guest's are


def breast_hetero() -> BreastHetero:
    """Load FATE's vertical breast cancer set, standardised; ids are to be aligned by. Raises DataError."""
    schema = Schema(_columns(10), _DIAGNOSES)
    guest = read_table(data_folder() / "fate" / "breast_hetero_guest.csv", schema, "y")
    host_schema = Schema(_columns(20), _DIAGNOSES)
    names = tuple(column.name for column in host_schema.columns)
    rows = read_rows("fate", "breast_hetero_host.csv", columns=("id", *names))
    try:
        host = np.array([[float(row[name]) for name in names] for row in rows])
    except ValueError:
        raise DataError("breast_hetero_host.csv: features must be numbers") from None
    host_schema.check(host, "breast_hetero_host.csv")
    guest_rows = read_rows("fate", "breast_hetero_guest.csv", columns=("id",))
    return BreastHetero(guest, _ids(guest_rows), schema, host, _ids(rows), host_schema.columns)


def _columns(number: int) -> tuple[Column, ...]:
    return tuple(Column(f"x{i}", *_STANDARDIZED) for i in range(number))


def _ids(rows: list[dict[str, str]]) -> tuple[str, ...]:
    ids = tuple(row["id"] for row in rows)
    if len(set(ids)) != len(ids):
        raise DataError("id: must be there once in each file")
    return ids


def _idx(name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the IDX format of MNIST: two zero bytes, type 8, dimensions, sizes, then the bytes."""
    content = read_bytes("mnist_writers", name)
    header = bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)
    if content[: len(header)] != header or len(content) != len(header) + int(np.prod(shape)):
        raise DataError(f"{name}: must be an IDX file of bytes, shape {shape}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
