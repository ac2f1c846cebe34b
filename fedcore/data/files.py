"""Tables as files: CSV, Parquet and NumPy archives, told apart by suffix, with the same errors for all."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.dataset import Dataset
from fedcore.data.schema import Schema
from fedcore.data.table import Table, dump_table, load_table
from fedcore.errors import DataError, needs

SUFFIXES = (".csv", ".parquet", ".npz")
# What zipfile and NumPy raise on archives that are damaged, encrypted or none at all.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_table(path: Path, schema: Schema, label: str) -> Table:
    """Read a table; columns are taken by name, others are left alone.

    .csv      as `fedcore.data.table.load_table`
    .parquet  numeric columns; the label's values, as text, are class names. Needs secagg[parquet]
    .npz      arrays (rows,) named as the columns and the label, of numbers and of class names; or the arrays
              `features` (rows, columns), in the schema's order, and `labels` (rows,), of class names or
              of integers, which are then positions in the schema's classes
    raises    DataError, OutOfBoundsError; they name file, row and column, never a value
    """
    match _suffix(path):
        case ".csv":
            return load_table(path, schema, label)
        case ".parquet":
            table = _read_parquet(path, schema, label)
        case _:
            table = _read_npz(path, schema, label)
    schema.check(table.features, str(path))
    return table


def read_folder(folder: Path, schema: Schema, label: str, without: Path | None = None) -> Dataset:
    """Read every table of a folder: a part is called as its file. Raises DataError.

    without  a file of the folder that is no table, such as the schema
    """
    excluded = None if without is None else without.resolve()
    found = [one for one in sorted(folder.iterdir()) if one.suffix.lower() in SUFFIXES]
    found = [one for one in found if one.resolve() != excluded]
    if not found:
        raise DataError(f"{folder}: has no file that ends in {', '.join(SUFFIXES)}")
    if len({one.stem for one in found}) != len(found):
        raise DataError(f"{folder}: has two files for one site")
    return Dataset(folder.name, {one.stem: read_table(one, schema, label) for one in found}, schema, label)


def write_table(table: Table, path: Path, schema: Schema, label: str) -> None:
    """Write a file that `read_table` reads back exactly; the label is written as class names.

    Raises DataError, OutOfBoundsError for a table that does not fit the schema, before anything is written.
    """
    suffix = _suffix(path)
    _check(table, path, schema, label)
    names = np.array(schema.classes)[table.labels]
    arrays = {
        **{column.name: table.features[:, i] for i, column in enumerate(schema.columns)},
        label: names,
    }
    try:
        if suffix == ".csv":
            dump_table(table, path, schema, label)
        elif suffix == ".parquet":
            pa, parquet = _pyarrow(path)
            parquet.write_table(
                pa.table({name: pa.array(arrays[name]) for name in arrays}), path, write_page_checksum=True
            )
        else:
            _write_npz(path, arrays)
    except OSError as error:
        raise DataError(f"{path}: {error}") from error


def _suffix(path: Path) -> str:
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise DataError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    return suffix


def _check(table: Table, path: Path, schema: Schema, label: str) -> None:
    if table.features.shape != (len(table), len(schema.columns)) or not len(table):
        wanted = f"({len(table)} > 0, {len(schema.columns)})"
        raise DataError(f"{path}: features must be {wanted}, shape is {table.features.shape}")
    if label in [column.name for column in schema.columns]:
        raise DataError(f"{path}: column {label} is there twice")
    _class_numbers(table.labels, path, schema, label)
    schema.check(table.features, str(path))


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: {needs('Parquet', 'parquet', error)}") from None
    return pa, parquet


def _read_parquet(path: Path, schema: Schema, label: str) -> Table:
    pa, parquet = _pyarrow(path)
    try:
        with (
            path.open("rb") as file,
            parquet.ParquetFile(file, page_checksum_verification=True) as content,
        ):
            _check_names(path, content.schema_arrow.names, schema, label)
            wanted = [*(column.name for column in schema.columns), label]
            # Asked for x, pyarrow returns x.1, too.
            columns = {name: content.read([name]).column(name) for name in wanted}
            answers = columns[label].to_pylist()
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"{path}: {error}") from error
    numbers = []
    for column in schema.columns:
        values = columns[column.name]
        kind = values.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise DataError(f"{path}, row 1, column {column.name}: must be a number")
        if values.null_count:
            row = int(np.argmax(values.is_null().to_numpy())) + 1
            raise DataError(f"{path}, row {row}, column {column.name}: must be a number")
        numbers.append(values.to_numpy().astype(np.float64))
    labels = _class_names(answers, path, schema, label)
    return _table(path, numbers, labels)


def _read_npz(path: Path, schema: Schema, label: str) -> Table:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            # As a whole or by column; a column that is called "features" is a column.
            if "features" in content.files and "features" not in [column.name for column in schema.columns]:
                _once(path, content.files, ["features", "labels"])
                return _from_matrix(path, content["features"], content["labels"], schema)
            _check_names(path, content.files, schema, label)
            columns = {column.name: content[column.name] for column in schema.columns}
            answers = content[label]
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a NumPy archive of plain arrays") from error
    for name, values in columns.items():
        _numeric(path, values, 1, f"column {name}")
    if answers.ndim != 1:
        raise DataError(f"{path}, column {label}: must be (rows,), shape is {answers.shape}")
    labels = _class_names(answers.tolist(), path, schema, label)
    return _table(path, [values.astype(np.float64) for values in columns.values()], labels)


def _from_matrix(path: Path, features: NDArray[Any], answers: NDArray[Any], schema: Schema) -> Table:
    _numeric(path, features, 2, "features")
    if features.shape[1] != len(schema.columns):
        raise DataError(f"{path}, features: must have {len(schema.columns)} columns, has {features.shape[1]}")
    if answers.ndim != 1:
        raise DataError(f"{path}, labels: must be (rows,), shape is {answers.shape}")
    if answers.dtype.kind in "iu":
        labels = _class_numbers(answers, path, schema, "labels")
    else:
        labels = _class_names(answers.tolist(), path, schema, "labels")
    return _table(path, list(features.astype(np.float64).T), labels)


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write without `np.savez`, whose own arguments are names that no column could have."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            # No time of writing: equal tables make equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _check_names(path: Path, there: list[str], schema: Schema, label: str) -> None:
    _once(path, there, [*(column.name for column in schema.columns), label])


def _once(path: Path, there: list[str], wanted: list[str]) -> None:
    for name in wanted:
        if there.count(name) != 1:
            raise DataError(f"{path}: column {name} is {'there twice' if name in there else 'missing'}")
        if wanted.count(name) != 1:
            raise DataError(f"{path}: column {name} cannot be a feature and the label")


def _numeric(path: Path, values: NDArray[Any], dimensions: int, what: str) -> None:
    if values.ndim != dimensions:
        raise DataError(f"{path}, {what}: must have {dimensions} dimensions, shape is {values.shape}")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}, row 1, {what}: must be a number")


def _class_names(values: Iterable[object], path: Path, schema: Schema, label: str) -> NDArray[np.int64]:
    """Look up class names; other values are taken as Python writes them."""
    classes = {name: i for i, name in enumerate(schema.classes)}
    labels = [-1 if value is None else classes.get(str(value), -1) for value in values]
    if -1 in labels:
        row = labels.index(-1) + 1
        raise DataError(f"{path}, row {row}, column {label}: must be one of {list(schema.classes)}")
    return np.array(labels, np.int64)


def _class_numbers(values: NDArray[Any], path: Path, schema: Schema, label: str) -> NDArray[np.int64]:
    bad = (values < 0) | (values >= len(schema.classes))
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise DataError(f"{path}, row {row}, column {label}: must be in 0 .. {len(schema.classes) - 1}")
    return values.astype(np.int64)


def _table(path: Path, columns: list[NDArray[np.float64]], labels: NDArray[np.int64]) -> Table:
    if lengths := {len(column) for column in columns} - {len(labels)}:
        raise DataError(f"{path}: a column has {min(lengths)} rows, the label {len(labels)}")
    if not len(labels):
        raise DataError(f"{path}: has no rows")
    return Table(np.stack(columns, axis=1), labels)
