"""Tables as files: CSV, Parquet and NumPy archives, told apart by suffix, with the same rules for all."""

from __future__ import annotations

import codecs
import csv
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.dataset import Dataset
from fedcore.data.layout import Category, Cells, Layout, Notation, Number
from fedcore.data.reading import Fault, Raw, Reader, Reading
from fedcore.data.schema import Schema
from fedcore.data.table import Table
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


def inspect(path: Path, schema: Schema, label: str = "label", *, answers: bool = True) -> Reading:
    """Read a table and say all that is wrong with it; columns are taken by name, others are left alone.

    .csv      text, with a header, in the notation of the layout
    .parquet  numbers, texts, days; nulls and NaN are missing. Needs secagg[parquet]
    .npz      arrays (rows,) named as the columns and the label; or the arrays `features` (rows, features),
              in the schema's order, and `labels` (rows,), of class names or of integers, which are then
              positions in the schema's classes
    label     where the schema has no layout; answers: whether the label is read
    raises    DataError: no rows can be read from the file
    """
    layout = schema.layout_with(label)
    wanted = [column.name for column in layout.columns] + ([layout.label.name] if answers else [])
    wanted += [layout.id] if layout.id is not None and answers else []
    match _suffix(path):
        case ".csv":
            raw = _read_csv(path, wanted, layout.notation)
        case ".parquet":
            raw = _read_parquet(path, wanted)
        case _:
            raw = _read_npz(path, wanted, schema, layout)
    return Reader(raw, layout, answers=answers).read()


def inspect_records(records: Sequence[Mapping[str, Any]], schema: Schema, source: str = "rows") -> Reading:
    """Read rows of values by column, such as JSON objects, without their label, as `inspect` reads files.

    Values are numbers or texts, in the notation of the layout; None, or no value, is missing. A column that
    no row has is missing everywhere. Raises DataError: there are no rows, or one is no table.
    """
    layout = schema.layout_with("label")
    for i, one in enumerate(records, 1):
        if not isinstance(one, Mapping):
            raise DataError(f"{source}, row {i}: must be values by column")
        for name, value in one.items():
            if not isinstance(value, str | bool | int | float | None):
                raise DataError(f"{source}, row {i}, column {name}: must be a number or a text")
    if not records:
        raise DataError(f"{source}: has no rows")
    given = {one.name: [record.get(one.name) for record in records] for one in layout.columns}
    there = dict.fromkeys(str(name) for record in records for name in record)
    others: dict[str, Cells] = {name: () for name in there if name not in given}
    columns = {name: _of_json(values) for name, values in given.items()} | others
    return Reader(Raw(source=source, columns=columns, rows=len(records)), layout, answers=False).read()


def _finite(value: float) -> float:
    """Return a float; of an integer that is none, infinity, which no bounds hold."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _of_json(values: list[Any]) -> Cells:
    """Return numbers as numbers, where all are; the rest as texts."""
    if all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in values):
        return np.array([np.nan if one is None else _finite(one) for one in values])
    return [None if one is None else str(one) for one in values]


def read_table(path: Path, schema: Schema, label: str = "label") -> Table:
    """Read a table as `inspect`. Raises DataError, OutOfBoundsError: its first fault, without a value."""
    return inspect(path, schema, label).complete()


def read_folder(folder: Path, schema: Schema, label: str = "label", without: Path | None = None) -> Dataset:
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
    parts = {one.stem: read_table(one, schema, label) for one in found}
    return Dataset(folder.name, parts, schema, label if schema.layout is None else schema.label_column())


# --- CSV


def _read_csv(path: Path, wanted: list[str], notation: Notation) -> Raw:
    text = _text(path, notation)
    rows = _Records(path, text, notation)
    header = next(rows, [])
    if header and header[0].startswith("sep="):  # how Excel is told the delimiter
        rows.width = 0
        header = next(rows, [])
    header = [name.strip() for name in header]
    _check_header(header, wanted, path, notation)
    records, lines, faults = [], [], []
    for record in rows:
        if len(record) == len(header):
            records.append(record)
            lines.append(rows.line)
            continue
        what = "more" if len(record) > len(header) else "fewer"
        faults.append(
            Fault(
                source=str(path),
                lines=(rows.line,),
                problem=f"has {what} fields than the header, {len(record)} for {len(header)}",
                cure=f"a text with {notation.delimiter!r} in it needs quotes"
                if what == "more"
                else "complete the row",
            )
        )
    columns = dict(zip(header, zip(*records, strict=True), strict=True)) if records else {}
    return Raw(
        source=str(path),
        columns=columns or dict.fromkeys(header, ()),
        rows=len(records),
        lines=lines,
        faults=(*rows.faults, *_alike(faults)),
        blank=rows.blank,
        ragged=len(faults),
    )


def _alike(faults: list[Fault]) -> list[Fault]:
    """Put faults with the same words together."""
    found: dict[str, Fault] = {}
    for one in faults:
        known = found.get(one.problem)
        lines = (*known.lines, *one.lines) if known is not None else one.lines
        found[one.problem] = Fault(source=one.source, lines=lines, problem=one.problem, cure=one.cure)
    return list(found.values())


def _text(path: Path, notation: Notation) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    encoding = codecs.lookup(notation.encoding).name
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    try:
        return content.decode(encoding)
    except UnicodeError as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        cure = 'agree on encoding = "latin-1" in [file], or what it was written in, or write it as UTF-8'
        raise DataError(f"{path}, line {line}: is no {notation.encoding} text; {cure}") from None


class _Records:
    """Records of a CSV text that are not empty, and the line on which the last one began."""

    def __init__(self, path: Path, text: str, notation: Notation) -> None:
        self._path, self._delimiter = path, notation.delimiter
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=notation.delimiter, strict=True)
        self.width = 0  # fields of the first record
        self.line = 0
        self.blank = 0  # records without any text
        self.faults: list[Fault] = []

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> list[str]:
        while True:
            self.line = self._reader.line_num + 1
            try:
                record = next(self._reader)
            except csv.Error as error:
                cure = "a quote within a quoted text is doubled, and one that opens must close"
                raise DataError(f"{self._path}, line {self.line}: {error}; {cure}") from None
            self.width = self.width or len(record)
            if self._reader.line_num > self.line and self._swallows(record):
                problem = f"a quote opens here and closes on line {self._reader.line_num}: it swallows rows"
                cure = "remove the quote, double it, or leave texts of several lines out of the file"
                self.faults.append(
                    Fault(source=str(self._path), lines=(self.line,), problem=problem, cure=cure)
                )
                continue
            if any(field.strip() for field in record):
                return record
            self.blank += len(record) > 1

    def _swallows(self, record: list[str]) -> bool:
        """Tell whether a field of several lines has one with as many delimiters as a row."""
        inner = (line for field in record for line in field.splitlines()[1:])
        return any(line.count(self._delimiter) >= max(self.width - 1, 1) for line in inner)


def _check_header(header: list[str], wanted: list[str], path: Path, notation: Notation) -> None:
    """Name what is wrong, not what is there: without a header, that would be somebody's data."""
    if not header:
        raise DataError(f"{path}: is empty, the first line must name the columns")
    if len(header) == 1 and len(wanted) > 1:
        for mark, name in ((";", "semicolons"), ("\t", "tabulators"), (",", "commas"), ("|", "bars")):
            if mark in header[0]:
                said = {",": "commas", ";": "semicolons", "\t": "tabulators"}.get(
                    notation.delimiter, notation.delimiter
                )
                cure = f"or agree on delimiter = {json.dumps(mark)} in [file] for {name}"
                raise DataError(f"{path}: columns must be separated by {said}, {cure}")
    _once(path, header, wanted)


# --- Parquet


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: {needs('Parquet', 'parquet', error)}") from None
    return pa, parquet


def _read_parquet(path: Path, wanted: list[str]) -> Raw:
    pa, parquet = _pyarrow(path)
    try:
        with (
            path.open("rb") as file,
            parquet.ParquetFile(file, page_checksum_verification=True) as content,
        ):
            there = content.schema_arrow.names
            _once(path, there, wanted)
            # Asked for x, pyarrow returns x.1, too.
            read = {name: content.read([name]).column(name) for name in wanted}
            columns = {name: _arrow_cells(column, pa) for name, column in read.items()}
    except (OSError, UnicodeDecodeError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"{path}: {error}") from error
    return _raw(path, columns, there)


def _raw(path: Path, columns: dict[str, Cells], there: list[str]) -> Raw:
    """Put columns together. Raises DataError: they are not equally long."""
    first = next(iter(columns))
    for name, cells in columns.items():
        if len(cells) != len(columns[first]):
            raise DataError(f"{path}: column {name} has {len(cells)} rows, {first} {len(columns[first])}")
    others: dict[str, Cells] = {name: () for name in there if name not in columns}
    return Raw(source=str(path), columns=columns | others, rows=len(columns[first]))


def _arrow_cells(column: Any, pa: Any) -> Cells:  # noqa: ANN401 - of pyarrow
    kind = column.type
    if (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and not column.null_count:
        return np.asarray(column.to_numpy())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return np.array(column.cast(pa.date32(), safe=False).to_pylist(), "datetime64[D]")
    values = column.to_pylist()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if pa.types.is_boolean(kind):
        return np.array(values, object if column.null_count else bool)
    return [None if value is None else str(value) for value in values]


# --- NumPy archives


def _read_npz(path: Path, wanted: list[str], schema: Schema, layout: Layout) -> Raw:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            # As a whole or by column; a column that is called "features" is a column.
            if "features" in content.files and "features" not in wanted:
                answers = layout.label.name in wanted
                _once(path, content.files, ["features", "labels"] if answers else ["features"])
                labels = content["labels"] if answers else None
                return _from_matrix(path, content["features"], labels, schema, layout)
            _once(path, content.files, wanted)
            columns = {name: content[name] for name in wanted}
            there = list(content.files)
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a NumPy archive of plain arrays") from error
    for name, values in columns.items():
        if values.ndim != 1:
            raise DataError(f"{path}, column {name}: must be (rows,), shape is {values.shape}")
    cells = {name: _array_cells(values) for name, values in columns.items()}
    return _raw(path, cells, there)


def _array_cells(values: NDArray[Any]) -> Cells:
    if values.dtype.kind in "biufM":
        return values
    return [str(value) for value in values.tolist()]


def _from_matrix(
    path: Path, features: NDArray[Any], answers: NDArray[Any] | None, schema: Schema, layout: Layout
) -> Raw:
    if features.ndim != 2 or features.dtype.kind not in "biuf":
        raise DataError(
            f"{path}, features: must be numbers of 2 dimensions, are {features.dtype} {features.shape}"
        )
    if features.shape[1] != len(schema.columns):
        raise DataError(f"{path}, features: must have {len(schema.columns)} columns, has {features.shape[1]}")
    if not all(isinstance(one, Number) for one in layout.columns) or layout.id is not None:
        raise DataError(f"{path}: a matrix has numbers alone, categories, days and ids are columns by name")
    columns = {one.name: features[:, i].astype(np.float64) for i, one in enumerate(layout.columns)}
    if answers is None:
        return Raw(source=str(path), columns=columns, rows=len(features))
    if answers.shape != features.shape[:1]:
        raise DataError(f"{path}, labels: must be ({len(features)},), shape is {answers.shape}")
    cells = _array_cells(answers)
    if answers.dtype.kind in "iu" and isinstance(layout.label, Category):
        bad = (answers < 0) | (answers >= len(schema.classes))
        if bad.any():
            row = int(np.argmax(bad)) + 1
            raise DataError(f"{path}, row {row}, column labels: must be in 0 .. {len(schema.classes) - 1}")
        cells = [schema.classes[place] for place in answers.tolist()]
    return Raw(source=str(path), columns={**columns, layout.label.name: cells}, rows=len(answers))


# --- writing


def write_table(table: Table, path: Path, schema: Schema, label: str = "label") -> None:
    """Write the features and the label of a table; with the plain layout `read_table` reads it back exactly.

    Whose row it is is not written. label: its column, where the schema has no layout.
    raises  DataError, OutOfBoundsError: a table that does not fit the schema, before anything is written
    """
    suffix = _suffix(path)
    label = label if schema.layout is None else schema.label_column()
    if not len(table):
        raise DataError(f"{path}: has no rows")
    schema.layout_with(label)  # a feature is not the label
    schema.check_table(table, str(path), label)
    names: NDArray[Any] = np.array(schema.classes)[table.labels] if schema.classes else table.labels
    arrays = {
        **{column.name: table.features[:, i] for i, column in enumerate(schema.columns)},
        label: names,
    }
    try:
        if suffix == ".csv":
            _write_csv(path, arrays)
        elif suffix == ".parquet":
            pa, parquet = _pyarrow(path)
            parquet.write_table(
                pa.table({name: pa.array(arrays[name]) for name in arrays}), path, write_page_checksum=True
            )
        else:
            _write_npz(path, arrays)
    except OSError as error:
        raise DataError(f"{path}: {error}") from error


def _write_csv(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(arrays)
        columns = ([_cell(value) for value in array.tolist()] for array in arrays.values())
        writer.writerows(zip(*columns, strict=True))


def _cell(value: float | str) -> str:
    if isinstance(value, float):
        return "" if value != value else repr(value)  # noqa: PLR0124 - NaN is missing
    return value


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write without `np.savez`, whose own arguments are names that no column could have."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            # No time of writing: equal tables make equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _suffix(path: Path) -> str:
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise DataError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    return suffix


def _once(path: Path, there: list[str], wanted: list[str]) -> None:
    """Raise DataError unless each wanted column is there once; all that are missing are named."""
    if missing := [name for name in wanted if name not in there]:
        folded = {name.casefold() for name in there}
        hint = "; the file writes it in other letters" if missing[0].casefold() in folded else ""
        others = f", likewise {', '.join(missing[1:])}" if missing[1:] else ""
        raise DataError(f"{path}: column {missing[0]} is missing{others}{hint}")
    for name in wanted:
        if there.count(name) != 1:
            raise DataError(f"{path}: column {name} is there twice")
