"""The rows of an experiment: every set and partition, and folders of files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.data import breast_cancer, write_table
from fedcore.errors import DataError, SettingError
from fedcore.experiments.data import load_data
from fedcore.experiments.tables import DataTable
from fedcore.settings import read

needs_data = pytest.mark.skipif("SECAGG_DATA" not in os.environ, reason="SECAGG_DATA is not set")


def table(**values: Any) -> DataTable:
    return read(DataTable, values, "data")


@pytest.mark.parametrize(
    "values",
    [
        {"partition": "iid"},
        {"partition": "dirichlet", "alpha": 0.3},
        {"partition": "uneven"},
        {"partition": "shards", "shards_per_client": 2},
        {"partition": "quantity", "concentration": 0.5},
        {"partition": "feature", "overlap": 0.1},
    ],
    ids=lambda values: str(values["partition"]),
)
def test_every_row_is_dealt_or_held_out_once_and_by_the_seed(values: dict[str, Any]) -> None:
    whole = breast_cancer().table
    wanted = table(name="breast_cancer", clients=7, held_out=0.25, minimum_rows=5, **values)
    data, again, other = (load_data(wanted, seed) for seed in (3, 3, 4))
    (held_out,) = data.held_out
    parts = [*data.sites.values(), held_out]
    assert len(data.sites) == 7
    assert min(map(len, data.sites.values())) >= 5
    assert len(held_out) == pytest.approx(len(whole) / 4, abs=2)
    rows = np.concatenate([part.features for part in parts])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole.features.tolist()))
    for name, part in data.sites.items():
        assert part.features.tolist() == again.sites[name].features.tolist()
    assert any(part.features.tolist() != other.sites[n].features.tolist() for n, part in data.sites.items())


@needs_data
@pytest.mark.parametrize(
    ("values", "sites", "held_out"),
    [
        ({"name": "heart_disease"}, 4, 254),
        ({"name": "heart_disease", "partition": "iid", "clients": 6}, 6, 254),
        ({"name": "mnist_writers", "clients": 5}, 5, 1878),
        ({"name": "flamby_heart"}, 4, 254),
        ({"name": "breast_homo"}, 2, 114),
        ({"name": "breast_departments"}, 4, 114),
    ],
)
def test_real_sets_come_with_their_sites_and_test_rows(
    values: dict[str, Any], sites: int, held_out: int
) -> None:
    data = load_data(table(**values), 0)
    assert (len(data.sites), sum(map(len, data.held_out))) == (sites, held_out)
    parts = load_data(table(**values, evaluate="parts"), 0).held_out
    assert (len(data.held_out), sum(map(len, parts))) == (1, held_out)


def test_more_natural_sites_than_there_are_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.clients: must be at most 3, is 4"):
        load_data(files(clients=4), 0, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sites in a folder, each file of another kind, with the schema between them."""
    made = breast_cancer()
    (tmp_path / "rows").mkdir()
    for i, suffix in enumerate(("csv", "parquet", "npz")):
        part = made.table.take(np.arange(100 * i, 100 * (i + 1)))
        write_table(part, tmp_path / "rows" / f"site-{i}.{suffix}", made.schema, "diagnosis")
    made.schema.dump(tmp_path / "rows" / "schema.csv")
    return tmp_path


def files(**values: Any) -> DataTable:
    usual = {
        "name": "files",
        "path": "rows",
        "schema": "rows/schema.csv",
        "label": "diagnosis",
        "classes": ["malignant", "benign"],
    }
    return table(**(usual | values))


def test_every_file_of_a_folder_is_a_site_and_holds_out_its_share(folder: Path) -> None:
    data = load_data(files(held_out=0.1), 0, folder)
    assert list(data.sites) == ["site-0", "site-1", "site-2"]
    for i, part in enumerate(data.sites.values()):
        held = 100 - len(part)
        assert held == pytest.approx(10, abs=1)
        rows = breast_cancer().table.features[100 * i : 100 * (i + 1)].tolist()
        assert all(row in rows for row in part.features.tolist())


def test_one_file_is_dealt_and_has_no_natural_sites(folder: Path) -> None:
    data = load_data(files(path="rows/site-0.csv", partition="iid", clients=4), 0, folder)
    assert [len(part) for part in data.sites.values()] == [20, 20, 20, 20]
    with pytest.raises(DataError, match="has no natural sites, files need one for each"):
        load_data(files(path="rows/site-0.csv"), 0, folder)


def test_a_folder_without_tables_or_with_two_of_one_name_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"data\.path: .*empty: has no file that ends in \.csv"):
        load_data(files(path="empty"), 0, folder)
    (folder / "rows" / "site-0.npz").write_bytes((folder / "rows" / "site-2.npz").read_bytes())
    with pytest.raises(DataError, match="has two files for one site"):
        load_data(files(), 0, folder)


def test_files_may_have_rows_of_their_own_to_evaluate_on(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    for i in range(3):
        (tmp_path / "sites" / f"site-{i}.csv").write_text(f"a,y\n{i},0\n{i},1\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("a,y\n7,1\n8,0\n9,1\n", encoding="utf-8")
    (tmp_path / "schema.csv").write_text("column,low,high\na,0,9\n", encoding="utf-8")
    files: dict[str, Any] = {"name": "files", "path": "sites", "schema": "schema.csv", "label": "y"}
    table = DataTable(**files, classes=("0", "1"), test="test.csv")
    data = load_data(table, 0, tmp_path)
    assert {name: len(rows) for name, rows in data.sites.items()} == {f"site-{i}": 2 for i in range(3)}
    assert [part.features[:, 0].tolist() for part in data.held_out] == [[7, 8, 9]]
    with pytest.raises(DataError, match=r"data\.test: must be a file or a folder, .* is not there"):
        load_data(replace(table, test="none.csv"), 0, tmp_path)
    with pytest.raises(SettingError, match="held_out: excludes test"):
        replace(table, held_out=0.2)
    with pytest.raises(SettingError, match="test: is for files, data.name is digits"):
        DataTable(name="digits", test="test.csv", clients=3)
