"""A site's rows may change between two sums: the next one uses them, with the same site and store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.cli import service
from fedcore.data.files import write_table
from fedcore.data.watch import Watched
from fedcore.errors import OutOfBoundsError
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.federation import Federation
from fedcore.service.join import join
from fedcore.service.serve import serve
from tests.fedcore.rows import table_of
from tests.fedcore.service.test_join import PATIENT, Run
from tests.fedcore.sites import LEARNER, SCHEMA, make_sites, make_table


def test_new_rows_are_in_the_next_sum_and_in_no_earlier_one(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(4), PATIENT)
    news, first = make_table(40, 99), next(iter(run.sites))
    asked: list[str] = []

    def renew() -> Any:
        asked.append("once")
        return (
            news if len(asked) == 3 else None
        )  # ahead of "train 2": "deviation 1" is about what "mean 1" was

    async def go() -> Any:
        serving = asyncio.create_task(serve(run.serve_options()))
        async with asyncio.timeout(40):
            while not ((tmp_path / "history.jsonl").exists() and run.events("listening")):
                await asyncio.sleep(0.01)
            address = run.events("listening")[0]["address"]
            options = {name: run.join_options(name, address, reveal=None) for name in run.sites}
            options[first] = replace(options[first], renew=renew)
            await asyncio.gather(*(join(one, lambda _line: None) for one in options.values()))
            return await serving

    served = asyncio.run(go())
    assert len(asked) == 3
    sites = make_sites(4)

    class Renewed(PlainSum):
        def sum(self, task: Any, among: Any = None) -> Any:
            if task.name == "train 2":
                sites[first].renew(news)
            return PlainSum.sum(self, task, among)

    clear = Federation(Renewed(sites), SCHEMA, LEARNER, run.agreed.plan).run()
    for name, array in clear.parameters.items():
        np.testing.assert_array_equal(array, served.parameters[name])


def test_rows_that_cannot_be_used_leave_those_before(tmp_path: Path) -> None:
    path, said = tmp_path / "rows.csv", list[str]()
    write_table(make_table(7, 1), path, SCHEMA, "label")
    watched = Watched(path, SCHEMA, "label")
    found = service._renewed(watched, said.append)
    assert found is not None
    assert len(found) == 7
    assert service._renewed(watched, said.append) is None
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    assert service._renewed(watched, said.append) is None
    assert said[0].endswith("rows.csv has changed: 7 rows from here on")
    assert "has changed and cannot be used, the rows before stay: " in said[1]
    assert len(said) == 2


def test_new_rows_are_checked_as_the_first_ones_were() -> None:
    site = make_sites(4)["site-0"]
    rows = table_of(site)
    beyond = replace(rows, features=rows.features + 1e6)
    with pytest.raises(OutOfBoundsError):
        site.renew(beyond)
    assert site.table is rows
