"""Over the real service: a sum that somebody spoils is dealt into groups, and the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.codec.codec import EncodedVector
from fedcore.errors import TaskError
from fedcore.history import read_history
from fedcore.learner import flatten
from fedcore.rounds.aggregation import PlainSum, SpoiledSumError
from fedcore.rounds.agreement import ConsentRules, Security
from fedcore.rounds.federation import Federation
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site, whole
from fedcore.rounds.task import Task
from secagg.kernels import UIntArray
from secagg.service import Deadlines
from tests.fedcore.service.test_join import PATIENT, Run
from tests.fedcore.service.test_training import LEARNER, sites_of, train
from tests.fedcore.sites import SCHEMA, make_plan

REGROUP = ConsentRules(regroup=True)


class Spoiling(Site):
    """Sends a weight that no site has, in training rounds."""

    def answer(self, task: Task) -> UIntArray | EncodedVector:
        vector = whole(Site.answer(self, task), task).copy()
        if task.kind is TaskKind.TRAIN:
            vector[task.encoding.sent :] = task.encoding.codec.levels
        return vector


def spoiled_sites(count: int, liar: str) -> dict[str, Site]:
    sites = sites_of(count)
    one = sites[liar]
    return sites | {liar: Spoiling(one.name, one.table, one.schema, one.learner, one.seed)}


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return [e for e in read_history(folder / "history.jsonl") if e["event"] == "round"]


def members(event: dict[str, Any]) -> Sequence[str]:
    return tuple(event["survivors"])


def test_one_liar_costs_its_group_and_ends_nothing(tmp_path: Path) -> None:
    sites = spoiled_sites(12, "site-5")
    run = Run(tmp_path, sites, PATIENT, rules=REGROUP, security=Security())
    plan = replace(make_plan(rounds=2, clients=12), attempts=4, smallest_group=4)
    model = asyncio.run(train(run, plan=plan))
    assert model.number == 2
    assert 0 < np.abs(flatten(model.parameters)).max() < 10
    done = [event for event in rounds_of(tmp_path) if event["completed"] and event["kind"] == "train"]
    assert [event["number"] for event in done] == [1, 2]
    for event in done:
        assert "site-5" not in members(event)
        assert len(members(event)) == 6  # all but its cell
    failed = [event["reason"] for event in rounds_of(tmp_path) if not event["completed"]]
    assert len(failed) >= 2 * 2  # of each round everybody, and the group of the liar
    assert all("weight" in reason for reason in failed)


def test_without_regrouping_a_sum_that_stays_spoiled_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, spoiled_sites(8, "site-5"), PATIENT)
    with pytest.raises(SpoiledSumError):
        asyncio.run(train(run, plan=replace(make_plan(rounds=2, clients=8), attempts=2)))


def test_who_is_gone_after_keys_were_shared_takes_its_cell_along_and_comes_back(tmp_path: Path) -> None:
    class Silent(Site):
        """Does not upload in the first training round."""

        def answer(self, task: Task) -> UIntArray | EncodedVector:
            if task.name == "train 1":
                raise TaskError("sleeps")
            return Site.answer(self, task)

    sites = sites_of(9)
    one = sites["site-2"]
    sites["site-2"] = Silent(one.name, one.table, one.schema, one.learner, one.seed)
    patience = Deadlines(advertise_s=10, phase_s=10, grace_s=0.6, advertise_grace_s=0.6)
    run = Run(tmp_path, sites, patience, rules=REGROUP)
    plan = replace(make_plan(rounds=2, clients=9), attempts=4)
    asyncio.run(train(run, plan=plan))
    done = {event["task"]: members(event) for event in rounds_of(tmp_path) if event["completed"]}
    assert len(done["train 1"]) in {4, 5}  # of two cells
    assert "site-2" not in done["train 1"]
    assert len(done["train 2"]) == 9


def test_an_honest_run_in_cells_is_that_without(tmp_path: Path) -> None:
    run = Run(tmp_path, sites_of(6), PATIENT, rules=REGROUP)
    plan = make_plan(rounds=2, clients=6)
    served = asyncio.run(train(run, plan=plan))
    clear = Federation(PlainSum(sites_of(6)), SCHEMA, LEARNER, plan).run()
    assert flatten(served.parameters).tobytes() == flatten(clear.parameters).tobytes()
