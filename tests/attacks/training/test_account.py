"""The account of a site that loses power, or is killed, while it spends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedcore.privacy.accounting import Accountant
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.task import Task
from tests.attacks.training.test_consent import PRIVATE, run_of, tasks_of


def spent(path: Path) -> int:
    return Accountant.restore(json.loads(path.read_text(encoding="utf-8"))).rounds


@pytest.fixture
def task() -> Task:
    return tasks_of(run_of(PRIVATE))[0]


def test_what_was_spent_is_on_the_disk_before_it_takes_the_place_of_the_account(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power that fails at the sync leaves the account of before; after it, that of now."""
    assert PRIVATE.privacy is not None
    path, seen = tmp_path / "account.json", list[tuple[int, int]]()
    guard = PrivacyGuard(PRIVATE.privacy, path)
    guard.demand(task)
    sync = os.fsync

    def noting(file: int) -> None:
        sync(file)
        beside = list(tmp_path.glob(".account.json.*"))
        seen.append((spent(path), spent(beside[0]) if beside else 0))

    monkeypatch.setattr(os, "fsync", noting)
    guard.demand(task)
    assert seen == [(1, 2), (2, 0)]  # the file, then the folder that it is in
    assert spent(path) == 2


def test_a_process_that_is_killed_while_it_writes_leaves_the_account_whole(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PRIVATE.privacy is not None
    path = tmp_path / "account.json"
    guard = PrivacyGuard(PRIVATE.privacy, path)
    guard.demand(task)

    def killed(file: int) -> None:
        os.ftruncate(file, 5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            guard.demand(task)
    assert spent(path) == 1
    del guard
    assert PrivacyGuard(PRIVATE.privacy, path).accountant.rounds == 1
