"""The rows of an experiment: who has which, and which are held out for everybody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fedcore.data import (
    Dataset,
    Partition,
    dirichlet,
    feature,
    iid,
    load_set,
    quantity,
    read_folder,
    read_table,
    shards,
    uneven,
)
from fedcore.data.dataset import WHOLE
from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError
from fedcore.experiments.tables import DataTable

HELD_OUT = 0.2  # where the file does not say


@dataclass(frozen=True, slots=True, eq=False)
class FederatedData:
    """Training rows by site, the common held-out rows, and the schema of both.

    held_out  all of them, or the parts whose metrics are averaged
    """

    sites: dict[str, Table]
    held_out: tuple[Table, ...]
    schema: Schema


def load_data(table: DataTable, seed: int, folder: Path = Path()) -> FederatedData:
    """Load, hold out and deal, all by the seed.

    folder  that relative paths start from
    raises  DataError
    """
    dataset = _dataset(table, folder)
    training, test = dataset.split(HELD_OUT if table.held_out is None else table.held_out, seed)
    held_out = tuple(test.values())
    if not all(map(len, held_out)):
        raise DataError(f"data.held_out: leaves no rows to evaluate on, is {table.held_out}")
    if table.evaluate == "rows":
        held_out = (join_tables(list(held_out)),)
    if table.partition == "natural":
        sites = dataset.first(training, table.clients)
    else:
        whole = join_tables(list(training.values()))
        sites = _deal(whole, table, seed).tables(whole)
    if empty := [name for name, part in sites.items() if not len(part)]:
        raise DataError(f"data: {empty[0]} has no training rows")
    return FederatedData(sites, held_out, dataset.schema)


def _deal(whole: Table, table: DataTable, seed: int) -> Partition:
    clients, least = table.clients or 0, table.minimum_rows
    match table.partition:
        case "iid":
            return iid(len(whole), clients, seed, minimum_rows=least)
        case "dirichlet":
            return dirichlet(whole.labels, clients, table.alpha or 0.0, seed, minimum_rows=least)
        case "uneven":
            return uneven(whole.labels, clients, seed, minimum_rows=least)
        case "shards":
            per_client = table.shards_per_client or 0
            return shards(whole.labels, clients, per_client, seed, minimum_rows=least)
        case "quantity":
            return quantity(len(whole), clients, table.concentration or 0.0, seed, minimum_rows=least)
        case _:
            overlap = table.overlap or 0.0
            return feature(whole.features, clients, table.column, seed, overlap=overlap, minimum_rows=least)


def _dataset(table: DataTable, folder: Path) -> Dataset:
    """Load a named set, one file, or a folder with a file for each site."""
    if table.name != "files":
        return load_set(table.name)
    described = folder / str(table.schema)
    schema = Schema.load(described, table.classes)
    label = schema.label_column(table.label)
    whole = _of_files(folder / str(table.path), "data.path", schema, label, described)
    if table.test is None:
        return whole
    test = _of_files(folder / table.test, "data.test", schema, label, described)
    return replace(whole, test=test.parts)


def _of_files(path: Path, key: str, schema: Schema, label: str, described: Path) -> Dataset:
    if not path.exists():
        raise DataError(f"{key}: must be a file or a folder, {path} is not there")
    if path.is_dir():
        try:
            return read_folder(path, schema, label, without=described)
        except DataError as error:
            raise DataError(f"{key}: {error}") from error
    return Dataset(path.stem, {WHOLE: read_table(path, schema, label)}, schema, label)
