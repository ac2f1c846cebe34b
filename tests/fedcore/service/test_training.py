"""Strategies, noise and resumption through the real service: it trains what sums in the clear train."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcore.errors import SettingError
from fedcore.history import read_history
from fedcore.learner import flatten
from fedcore.learners import LocalSGD, LogisticRegression
from fedcore.privacy.accounting import BudgetExceededError
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import GroupSum, PlainSum
from fedcore.rounds.agreement import Security
from fedcore.rounds.federation import Federation
from fedcore.rounds.model import Model, load_model
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.service.join import join
from fedcore.service.recorder import Recorder
from fedcore.service.serve import serve
from fedcore.strategies import FedMedian, Scaffold, Strategy
from secagg import SUITES, ParameterError
from secagg.primitives import kem
from secagg.store import StoreBusyError
from tests.fedcore.service.test_join import PATIENT, Run
from tests.fedcore.sites import SCHEMA, make_plan, make_table

LEARNER = LocalSGD(model=LogisticRegression(3), epochs=2, batch_size=8, rate=0.1)
PRIVACY = PrivacyPlan(epsilon=30.0, delta=1e-3, rounds=2, smallest=4)


def sites_of(count: int, privacy: PrivacyPlan | None = None) -> dict[str, Site]:
    return {
        f"site-{i}": Site(
            *(f"site-{i}", make_table(12 + 5 * i, i), SCHEMA, LEARNER, 3),
            guard=None if privacy is None else PrivacyGuard(privacy),
        )
        for i in range(count)
    }


async def train(run: Run, **changes: Any) -> RunState:
    """Serve a run to its sites; `changes` are of what is agreed, or of the server's options."""
    run.learner = LEARNER
    for name in ("learner", "plan", "strategy", "security", "rules"):
        if name in changes:
            setattr(run, name, changes.pop(name))
    path = run.folder / "history.jsonl"
    before = len(run.events("listening")) if path.exists() else 0
    options = run.serve_options(**changes)
    serving = asyncio.create_task(serve(options))
    async with asyncio.timeout(40):
        while not (path.exists() and len(run.events("listening")) > before):
            await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
        address = run.events("listening")[-1]["address"]
        joining = [
            asyncio.create_task(
                join(replace(run.join_options(name, address), reveal=None), lambda _line: None)
            )
            for name in run.sites
        ]
        model = await serving
        finals = await asyncio.gather(*joining)
    for final in finals:
        assert flatten(final.parameters).tobytes() == flatten(model.parameters).tobytes()
    return model


@pytest.mark.parametrize(
    "strategy", [Scaffold(sites=8, control_scale=0.5), FedMedian(groups=2)], ids=lambda s: type(s).__name__
)
def test_a_strategy_trains_through_the_service_what_it_trains_in_the_clear(
    tmp_path: Path, strategy: Strategy
) -> None:
    run = Run(tmp_path, sites_of(8), PATIENT)
    plan = make_plan(rounds=3, clients=8)
    served = asyncio.run(train(run, plan=plan, strategy=strategy))
    clear = Federation(PlainSum(sites_of(8)), SCHEMA, LEARNER, plan, strategy).run()
    assert flatten(served.parameters).tobytes() == flatten(clear.parameters).tobytes()
    assert np.abs(flatten(clear.parameters)).max() > 0.01


def test_a_run_that_is_resumed_ends_like_one_that_never_stopped(tmp_path: Path) -> None:
    strategy = Scaffold(sites=4, control_scale=0.5)
    sites = sites_of(4)
    asyncio.run(train(Run(tmp_path, sites, PATIENT), plan=make_plan(rounds=2, clients=4), strategy=strategy))
    plan = make_plan(rounds=5, clients=4)  # more rounds are another agreement, over the same folder
    with pytest.raises(ParameterError, match="already holds a run; --resume"):
        asyncio.run(train(Run(tmp_path, sites, PATIENT), plan=plan, strategy=strategy))
    again = Run(tmp_path, sites, PATIENT)  # sites keep their control variates themselves
    resumed = asyncio.run(train(again, plan=plan, strategy=strategy, resume=True))
    whole = Federation(PlainSum(sites_of(4)), SCHEMA, LEARNER, plan, strategy).run()
    assert flatten(resumed.parameters).tobytes() == flatten(whole.parameters).tobytes()
    names = [event["task"] for event in again.events() if event["completed"]]
    assert names == ["mean 1", "deviation 1", *(f"train {number}" for number in range(1, 6))]


def test_noise_goes_through_the_service_with_epsilon_in_the_record_and_every_sites_own_account(
    tmp_path: Path,
) -> None:
    sites = sites_of(5, PRIVACY)
    run = Run(tmp_path, sites, PATIENT)
    plan = replace(make_plan(rounds=2, clients=5), norm=1.0, privacy=PRIVACY, bits=14)
    model = asyncio.run(train(run, plan=plan))
    events = [e for e in read_history(tmp_path / "history.jsonl") if e["event"] == "round"]
    assert [event["kind"] for event in events] == ["train", "train"]
    assert 0 < events[0]["epsilon"] < events[1]["epsilon"] == model.epsilon
    assert model.epsilon is not None
    assert model.epsilon <= PRIVACY.epsilon
    for site in sites.values():
        assert site.guard is not None
        assert site.guard.accountant.rounds == 2


def test_fewer_survivors_than_the_noise_needs_are_refused_before_anybody_waits(tmp_path: Path) -> None:
    plan = replace(make_plan(rounds=1, clients=5), norm=1.0, bits=14, privacy=PRIVACY)
    few = Security(minimum_cohort=3)
    with pytest.raises(
        SettingError, match=r"security\.minimum_cohort: must be at least privacy\.smallest, 4, is 3"
    ):
        Run(tmp_path, sites_of(5), PATIENT, plan=plan, security=few).serve_options()
    agreed = Run(tmp_path, sites_of(5), PATIENT, plan=plan).serve_options()
    assert agreed.parameters(vector_length=1, ring_bits=1, context=bytes(32)).minimum_survivors == 4


def test_a_run_that_passes_its_budget_ends_with_the_last_model_at_every_party(tmp_path: Path) -> None:
    generous = replace(PRIVACY, epsilon=1e4)  # sites count with the fewest survivors
    run = Run(tmp_path, sites_of(5, generous), PATIENT)
    plan = replace(make_plan(rounds=9, clients=5), norm=1.0, privacy=PRIVACY, bits=14)
    run.learner, run.plan = LEARNER, plan
    options = run.serve_options()

    async def go() -> list[Model]:
        serving = asyncio.create_task(serve(options))
        async with asyncio.timeout(40):
            while not ((tmp_path / "history.jsonl").exists() and run.events("listening")):
                await asyncio.sleep(0.01)
            address = run.events("listening")[0]["address"]
            joining = [
                join(replace(run.join_options(name, address), reveal=None), print) for name in run.sites
            ]
            finals = await asyncio.gather(*joining)
            with pytest.raises(BudgetExceededError, match="epsilon: is"):
                await serving
        return list(finals)

    finals = asyncio.run(go())
    done = [event["number"] for event in run.events("round") if event["completed"]]
    assert 1 <= len(done) < 9
    (finished,) = run.events("finished")
    assert finished["rounds"] == done[-1]
    assert "would be" in finished["reason"]
    last = load_model(tmp_path / "models" / f"{done[-1]:03d}.safetensors").parameters
    assert [flatten(final.parameters).tobytes() for final in finals] == [flatten(last).tobytes()] * 5


def test_a_cohort_larger_than_the_registry_is_refused_before_anybody_waits(tmp_path: Path) -> None:
    run = Run(tmp_path, sites_of(5), PATIENT, security=Security(minimum_cohort=6))
    with pytest.raises(ParameterError, match="minimum_cohort: must be at most the 5 enrolled, is 6"):
        run.serve_options()


def test_a_server_that_never_listened_leaves_no_run_behind(tmp_path: Path) -> None:
    run = Run(tmp_path, sites_of(4), PATIENT)
    for _ in range(2):
        with pytest.raises(ParameterError, match="address: cannot listen on '192.0.2.1:1'"):
            asyncio.run(serve(run.serve_options(address="192.0.2.1:1")))


def test_an_attempt_that_the_server_was_killed_in_is_spent_when_its_run_is_gone_on_with() -> None:
    plan = replace(make_plan(rounds=2, clients=5), norm=1.0, privacy=PRIVACY, bits=14)
    kept: list[RunState] = []

    class Killed(PlainSum):
        def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
            if task.number == 2:
                raise KeyboardInterrupt
            return PlainSum.sum(self, task, among)

    whole = Federation(PlainSum(sites_of(5)), SCHEMA, LEARNER, plan, on_checkpoint=lambda _: None).run()
    with pytest.raises(KeyboardInterrupt):
        Federation(Killed(sites_of(5)), SCHEMA, LEARNER, plan, on_checkpoint=kept.append).run()
    last = kept[-1]
    assert last.number == 1
    assert last.accountant is not None
    assert last.accountant["rounds"] == 2
    assert whole.epsilon is not None
    with pytest.raises(BudgetExceededError):  # two rounds were planned, and two attempts are spent
        Federation(PlainSum(sites_of(5)), SCHEMA, LEARNER, plan).run(last)


def test_two_servers_do_not_go_on_with_one_folder(tmp_path: Path) -> None:
    run = Run(tmp_path, sites_of(4), PATIENT)
    options = run.serve_options()
    first = Recorder(options.out, options.run)
    for resume in (False, True):
        with pytest.raises(StoreBusyError, match="is in use, by another process"):
            Recorder(options.out, options.run, resume=resume)
    first.write("listening")
    first.close()
    with pytest.raises(ParameterError, match="already holds a run; --resume goes on with it"):
        Recorder(options.out, options.run)
    Recorder(options.out, options.run, resume=True).close()


@pytest.mark.skipif(not kem.AVAILABLE, reason="needs ML-KEM of cryptography >= 48")
def test_a_run_in_the_hybrid_suite_gives_the_same_model(tmp_path: Path) -> None:
    models = []
    for suite in SUITES:
        folder = tmp_path / suite
        folder.mkdir()
        run = Run(folder, sites_of(4), PATIENT, security=Security(minimum_cohort=4, suite=suite))
        models.append(flatten(asyncio.run(train(run)).parameters))
    assert models[0].tobytes() == models[1].tobytes()
