"""Rows that change: no two sums about the same question are over other rows, whatever a server asks again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedcore.data.table import Table
from fedcore.errors import TaskError
from fedcore.rounds.agreement import Run
from fedcore.rounds.consent import Consent
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from fedcore.service.join import JoinOptions, _compute
from secagg import IdentityKey
from secagg.store import MemoryStore
from tests.attacks.training.test_consent import consent_of, parameters_of, run_of, tasks_of
from tests.fedcore.rows import table_of
from tests.fedcore.sites import asked, make_table, model_of
from tests.service.cohort import PINNED

NEWER = make_table(33, 77)


class Watching:
    """A site of a run, whose file has new rows whenever somebody looks."""

    def __init__(self, run: Run, store: MemoryStore | None = None) -> None:
        self.consent: Consent = consent_of(run, store)
        self.news: list[Table] = []
        self.options = JoinOptions(
            address="127.0.0.1:1",
            credentials=PINNED,
            signer=IdentityKey.from_seed(bytes([1]) * 32),
            site=self.consent.site,
            run=run,
            renew=lambda: self.news.pop() if self.news else None,
        )

    @property
    def rows(self) -> Table:
        return table_of(self.consent.site)

    def answer(self, task: Task) -> Any:
        return _compute(self.options, self.consent, task.encode(), parameters_of(task))


def training(run: Run) -> list[Task]:
    return [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]


def test_a_second_attempt_is_about_the_rows_of_the_first() -> None:
    run = run_of()
    site, task = Watching(run), training(run)[0]
    before = site.rows
    site.answer(task)
    site.news.append(NEWER)
    site.answer(replace(task, attempt=2))
    assert site.rows is before
    site.answer(training(run)[1])  # another model: the next question has the new rows
    assert site.rows is NEWER


def test_a_model_that_was_asked_about_is_not_asked_about_with_other_rows() -> None:
    run = run_of()
    tasks = training(run)
    site = Watching(run)
    for task in tasks[:2]:
        site.answer(task)
    site.news.append(NEWER)
    again = asked(tasks[2], model=model_of(tasks[1]))  # the server goes back
    before = site.rows
    site.answer(again)
    assert site.rows is before
    site.answer(tasks[3])
    assert site.rows is NEWER


def test_a_server_that_goes_back_behind_new_rows_hears_nothing() -> None:
    run = run_of()
    tasks = training(run)
    site = Watching(run)
    site.answer(tasks[0])
    site.news.append(NEWER)
    site.answer(tasks[1])
    assert site.rows is NEWER
    back = asked(tasks[2], model=model_of(tasks[0]))
    with pytest.raises(TaskError, match="answered with other rows, .* all parties agree on another --rows"):
        site.answer(back)


@pytest.mark.parametrize("change", ["table", "held_out"])
def test_another_run_about_rows_of_the_same_name_has_the_same_rows(change: str) -> None:
    store, first, second = MemoryStore(), run_of(), run_of(name="again")
    site = Watching(first, store)
    for task in tasks_of(first):
        site.answer(task)
    later = Watching(second, store)
    task = tasks_of(second)[0]
    if change == "table":
        later.consent.site.renew(NEWER)
    else:
        rows = later.rows
        later.consent.site.renew(rows.take(np.arange(len(rows) - 3)))
    with pytest.raises(TaskError, match="mean 1: sums about this were answered with other rows"):
        later.answer(task)
    named = Watching(run_of(name="once more", rows="2027"), store)
    named.consent.site.renew(NEWER)
    named.answer(tasks_of(named.options.run)[0])
    same = Watching(run_of(name="a third time"), store)
    same.answer(tasks_of(same.options.run)[0])


def test_under_strict_cohorts_rows_never_change() -> None:
    run = run_of(strict_cohorts=True)
    site = Watching(run)
    before = site.rows
    for task in tasks_of(run):
        site.answer(task)
        site.news.append(NEWER)
    assert site.rows is before


def test_a_computation_that_was_given_up_has_no_rows_of_the_next_one() -> None:
    run = run_of()
    task = training(run)[0]
    site = Watching(run).consent.site
    wanted = site.compute(task)
    compute = site.accept(task)  # and is given up here
    site.renew(NEWER)
    found = compute()
    assert found.weight == wanted.weight != len(NEWER)
    assert found.coordinates.tolist() == wanted.coordinates.tolist()
