"""The rows of an experiment: who has which, and which are held out for everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedcore.data import dirichlet, feature, files, iid, partition, quantity, shards
from fedcore.data.schema import Schema
from fedcore.data.sets import real as shared
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError
from fedcore.experiments.tables import DataTable

HELD_OUT = 0.2  # where the file does not say


@dataclass(frozen=True, slots=True, eq=False)
class FederatedData:
    """Training rows by site, the common held-out rows, and the schema of both."""

    sites: dict[str, Table]
    held_out: Table
    schema: Schema


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A set before it is dealt: by site, or whole under the name ""; test rows where it has its own."""

    tables: dict[str, Table]
    schema: Schema
    test: Table | None = None


def load_data(table: DataTable, seed: int, folder: Path = Path()) -> FederatedData:
    """Load, hold out and deal, all by the seed.

    folder  that relative paths start from
    raises  DataError
    """
    from fedcore.data.sets.tables import hold_out

    source = _LOADERS[table.name](table, folder)
    parts = source.tables
    if source.test is not None:
        test = source.test
    else:
        share = HELD_OUT if table.held_out is None else table.held_out
        split = {name: hold_out(part, share, seed) for name, part in parts.items()}
        parts = {name: training for name, (training, _) in split.items()}
        test = join_tables([held for _, held in split.values()])
    if not len(test):
        raise DataError(f"data.held_out: leaves no rows to evaluate on, is {table.held_out}")
    if table.partition == "natural":
        sites = _first(parts, table.clients)
    else:
        whole = join_tables(list(parts.values()))
        sites = _deal(whole, table, seed).tables(whole)
    if empty := [name for name, part in sites.items() if not len(part)]:
        raise DataError(f"data: {empty[0]} has no training rows")
    return FederatedData(sites, test, source.schema)


def _first(parts: dict[str, Table], clients: int | None) -> dict[str, Table]:
    if "" in parts:
        raise DataError("data.partition: natural needs a folder with a file for each site")
    names = sorted(parts)
    if clients is not None and clients > len(names):
        raise DataError(f"data.clients: must be at most {len(names)}, is {clients}")
    return {name: parts[name] for name in names[:clients]}


def _deal(whole: Table, table: DataTable, seed: int) -> partition.Partition:
    clients, least = table.clients or 0, table.minimum_rows
    match table.partition:
        case "iid":
            return iid(len(whole), clients, seed, minimum_rows=least)
        case "dirichlet":
            return dirichlet(whole.labels, clients, table.alpha or 0.0, seed, minimum_rows=least)
        case "shards":
            per_client = table.shards_per_client or 0
            return shards(whole.labels, clients, per_client, seed, minimum_rows=least)
        case "quantity":
            return quantity(len(whole), clients, table.concentration or 0.0, seed, minimum_rows=least)
        case _:
            overlap = table.overlap or 0.0
            return feature(whole.features, clients, table.column, seed, overlap=overlap, minimum_rows=least)


def _sklearn(table: DataTable, _folder: Path) -> _Source:
    from fedcore.data.sets.tables import DATASETS

    made = DATASETS[table.name]()
    return _Source({"": made.table}, made.schema)


def _heart(_table: DataTable, _folder: Path) -> _Source:
    made = shared.heart_disease()
    return _Source(made.train, made.schema, join_tables(list(made.test.values())))


def _mnist(_table: DataTable, _folder: Path) -> _Source:
    made = shared.mnist_writers()
    return _Source(made.train_by_writer.tables(made.train), made.schema, made.test)


def _breast(_table: DataTable, _folder: Path) -> _Source:
    made = shared.breast_homo()
    return _Source({"guest": made.guest, "host": made.host}, made.schema, made.test)


def _files(table: DataTable, folder: Path) -> _Source:
    """Read one file, or every table of a folder: a site is called as its file."""
    schema = Schema.load(folder / str(table.schema), table.classes or ())
    path = folder / str(table.path)
    if not path.exists():
        raise DataError(f"data.path: must be a file or a folder, {path} is not there")
    if not path.is_dir():
        return _Source({"": files.read_table(path, schema, str(table.label))}, schema)
    given = folder / str(table.schema)
    found = [one for one in sorted(path.iterdir()) if one.suffix.lower() in files.SUFFIXES]
    found = [one for one in found if one.resolve() != given.resolve()]
    if not found:
        raise DataError(f"data.path: {path} has no file that ends in {', '.join(files.SUFFIXES)}")
    if len({one.stem for one in found}) != len(found):
        raise DataError(f"data.path: {path} has two files for one site")
    return _Source({one.stem: files.read_table(one, schema, str(table.label)) for one in found}, schema)


_LOADERS: dict[str, Callable[[DataTable, Path], _Source]] = {
    "breast_cancer": _sklearn,
    "digits": _sklearn,
    "heart_disease": _heart,
    "mnist_writers": _mnist,
    "breast_homo": _breast,
    "files": _files,
}
