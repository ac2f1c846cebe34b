"""What a site that joined gives to a server that drives its client as it likes."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.errors import TaskError
from fedcore.rounds.agreement import Run
from fedcore.rounds.consent import Consent
from fedcore.rounds.model import Model, pack_model
from fedcore.rounds.task import Task
from fedcore.service import join as joining
from fedcore.service.join import JoinOptions, join
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import Scaffold
from secagg import IdentityKey
from secagg.service import RoundOutcome, StreamError
from secagg.store import LedgerError, MemoryStore, ParticipationLedger
from tests.attacks.training.test_consent import MEMBERS, first_of, named, parameters_of, run_of, tasks_of
from tests.fedcore.service.test_training import LEARNER
from tests.fedcore.sites import asked, make_sites
from tests.service.cohort import PINNED

Act = Callable[["Driven", Callable[..., Any]], Awaitable[RoundOutcome]]


class Driven:
    """Stands in for the client: `act` is what the server makes of it."""

    act: Act
    settings: dict[str, Any]

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    async def take_part(self, compute: Callable[..., Any]) -> RoundOutcome:
        return await type(self).act(self, compute)


def final(parameters: dict[str, Any] | None = None) -> bytes:
    return pack_model(Model(LEARNER.initial() if parameters is None else parameters, Standardizer.none()))


def over(payload: bytes | None = None) -> RoundOutcome:
    return RoundOutcome(
        completed=False, finished=True, payload=final() if payload is None else payload, reason=""
    )


def drive(monkeypatch: pytest.MonkeyPatch, run: Run, act: Act, reveal: Path | None = None) -> list[str]:
    """Join a run whose server acts so. Returns what the site says."""
    said: list[str] = []
    monkeypatch.setattr(joining, "AggregationClient", type("Client", (Driven,), {"act": act}))
    options = JoinOptions(
        address="127.0.0.1:1",
        credentials=PINNED,
        signer=IdentityKey.from_seed(bytes([1]) * 32),
        site=make_sites(6)["site-0"],
        run=run,
        reveal=reveal,
    )
    options.site.learner = LEARNER
    asyncio.run(join(options, said.append))
    return said


def test_a_joined_site_signs_no_second_set_about_its_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of()
    task = first_of(run)

    async def act(client: Driven, _compute: Any) -> RoundOutcome:
        sign = client.settings["before_sign"]
        sign(parameters_of(task), task.encode(), frozenset(MEMBERS), frozenset(MEMBERS))
        with pytest.raises(LedgerError, match="differs from the sum"):
            sign(parameters_of(task), task.encode(), frozenset(MEMBERS), frozenset(MEMBERS[:-1]))
        return over()

    drive(monkeypatch, run, act)


def test_a_joined_site_computes_nothing_that_was_not_agreed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of()
    task = first_of(run)

    async def act(_client: Driven, compute: Any) -> RoundOutcome:
        with pytest.raises(TaskError, match="is not step"):
            compute(asked(task, number=9).encode(), parameters_of(task))
        assert compute(task.encode(), parameters_of(task)).length == task.encoding.length
        with pytest.raises(TaskError, match="does not follow"):
            compute(task.encode(), parameters_of(task))
        return over()

    drive(monkeypatch, run, act)


def test_a_joined_site_takes_part_by_the_policy_the_subjects_and_the_digest_of_its_agreement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of(regroup=True)
    task: Task = named(run, first_of(run))
    store = MemoryStore()
    wanted = Consent(run, make_sites(6)["site-0"], store, ParticipationLedger(store)).question_of(
        task.encode(), parameters_of(task)
    )

    async def act(client: Driven, _compute: Any) -> RoundOutcome:
        settings = client.settings
        assert settings["policy"] == run.policy()
        assert settings["agreement"] == run.digest
        assert settings["question_of"](task.encode(), parameters_of(task)) == wanted
        return over()

    drive(monkeypatch, run, act)
    assert wanted.cohort == frozenset(MEMBERS)
    assert wanted.floor == run.cell


def test_a_joined_site_reads_no_more_than_its_run_can_need(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(strategy=Scaffold(sites=6, control_scale=0.5))
    assert max(len(task.encode()) for task in tasks_of(run)) < run.most_bytes < 2**21

    async def act(client: Driven, _compute: Any) -> RoundOutcome:
        assert client.settings["most_bytes"] == run.most_bytes
        return over()

    drive(monkeypatch, run, act)


def test_a_model_of_other_shapes_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([final({"other": np.zeros(3)}), final()])

    async def act(_client: Driven, _compute: Any) -> RoundOutcome:
        return over(next(ends))

    said = drive(monkeypatch, run_of(), act)
    assert [line for line in said if not line.startswith(("WARNING", "agreed"))] == [
        "sits this round out: the final model: not the shapes of this site's learner"
    ]
    assert not list(ends)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            Model({"coefficients": np.full(3, np.nan), "intercept": np.zeros(1)}, Standardizer.none()),
            "its para",
        ),
        (
            Model(LEARNER.initial(), Standardizer(np.zeros(2), np.ones(2))),
            "mean, deviation: must have one value per",
        ),
        (
            Model(LEARNER.initial(), Standardizer(np.full(3, np.nan), np.ones(3))),
            "mean: must be within bounds",
        ),
    ],
)
def test_what_is_no_model_does_not_end_a_run(
    monkeypatch: pytest.MonkeyPatch, model: Model, said: str
) -> None:
    ends = iter([pack_model(model), final()])

    async def act(_client: Driven, _compute: Any) -> RoundOutcome:
        return over(next(ends))

    (line,) = (one for one in drive(monkeypatch, run_of(), act) if one.startswith("sits"))
    assert line.startswith(f"sits this round out: the final model: {said}")
    assert not list(ends)


def test_a_server_that_never_has_a_model_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[RoundOutcome] = []

    async def act(_client: Driven, _compute: Any) -> RoundOutcome:
        ends.append(over(final({"other": np.zeros(3)})))
        return ends[-1]

    monkeypatch.setattr(joining, "_REST_S", 0.0)
    with pytest.raises(StreamError, match="ended the run 10 times without its model: the final"):
        drive(monkeypatch, run_of(), act)
    assert len(ends) == 10


@contextmanager
def no_mask() -> Iterator[None]:
    """Files are made with the mode that was asked for."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def test_plain_updates_are_read_by_their_owner_alone_whatever_the_mask(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, folder = run_of(), tmp_path / "plain"
    task = first_of(run)

    async def act(_client: Driven, compute: Any) -> RoundOutcome:
        compute(task.encode(), parameters_of(task))
        return over()

    with no_mask():
        said = drive(monkeypatch, run, act, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]
    assert f"WARNING: this site writes its plain updates to {folder}" in said


def test_a_site_is_told_what_it_forgets_and_what_remains_without_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def act(_client: Driven, _compute: Any) -> RoundOutcome:
        return over()

    said = drive(monkeypatch, run_of(), act)
    assert "WARNING: without --store, what this site signed is forgotten when it ends" in said
    assert any("no [privacy]: who is in a sum: a liar's gain" in line for line in said)
