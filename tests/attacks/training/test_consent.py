"""A server that bends the run: what an honest site's consent refuses, each by the defence that is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from fedcore import arrays
from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError, TaskError
from fedcore.learner import flatten
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import GroupSum, PlainSum
from fedcore.rounds.agreement import ConsentRules, EvaluationRules, Run, Security, StatisticsRules
from fedcore.rounds.consent import Consent
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg, GeometricMedian, Scaffold, Strategy
from secagg import ConsentError, Identity, IdentityKey, RoundParameters, ThreatModel, context_digest
from secagg.store import DEALT, LedgerError, MemoryStore, ParticipationLedger, Store, cells
from tests.fedcore.service.test_training import LEARNER
from tests.fedcore.sites import SCHEMA, asked, make_plan, make_question, make_sites, model_of, train_of

MEMBERS = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(6)]
EIGHT = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(8)]
ROUND = iter(range(1, 10_000))


def run_of(
    plan: TrainingPlan | None = None,
    strategy: Strategy | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
    **rules: Any,
) -> Run:
    """A run of six; rules: of consent."""
    plan = plan or make_plan(rounds=4, clients=6)
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "learner": LEARNER,
        "strategy": strategy or FedAvg(),
        "plan": plan,
        "words": "local",
        "members": frozenset(MEMBERS),
        "consent": ConsentRules(**rules),
    }
    return Run(**(values | dict(changes)))


def tasks_of(run: Run) -> list[Task]:
    """What an honest server asks in a whole run."""
    asked: list[Task] = []

    class Noting(PlainSum):
        def sum(self, task: Task, among: object = None) -> GroupSum:
            asked.append(task)
            return PlainSum.sum(self, task, None)

    sites = {name: replace(site, learner=LEARNER) for name, site in make_sites(6).items()}
    Federation(Noting(sites), SCHEMA, LEARNER, run.plan, run.strategy, terms=run.terms).run()
    return asked


def first_of(run: Run) -> Task:
    """The first training round that an honest server asks for."""
    return next(task for task in tasks_of(run) if task.kind is TaskKind.TRAIN)


def consent_of(run: Run, store: Store | None = None) -> Consent:
    store = MemoryStore() if store is None else store
    guard = None if run.plan.privacy is None else PrivacyGuard(run.plan.privacy)
    site = replace(make_sites(6)["site-0"], learner=LEARNER, guard=guard)
    return Consent(run, site, store, ParticipationLedger(store))


def parameters_of(task: Task, **changes: Any) -> RoundParameters:
    values: dict[str, Any] = {
        "round_id": next(ROUND).to_bytes(16, "big"),
        "vector_length": task.encoding.length,
        "ring_bits": task.encoding.codec.ring_bits,
        "context": context_digest(task.encode()),
    }
    return RoundParameters(**(values | changes))


def admit(consent: Consent, task: Task) -> Task:
    return consent.admit(task.encode(), parameters_of(task))


def sign(consent: Consent, task: Task, survivors: list[Identity]) -> None:
    consent.signs(task.encode(), parameters_of(task), survivors)


@pytest.mark.parametrize(
    "strategy", [FedAvg(), Scaffold(sites=6, control_scale=0.5), GeometricMedian(smoothing=0.1)]
)
def test_an_honest_run_is_admitted_whole_in_its_order_and_once(strategy: Strategy) -> None:
    run = run_of(strategy=strategy)
    consent = consent_of(run)
    tasks = tasks_of(run)
    for task in tasks:
        assert admit(consent, task).encode() == task.encode()
    for task in tasks[:-1]:
        with pytest.raises(TaskError, match="does not follow .* which was answered"):
            admit(consent, task)


def other_header(task: Task, **changes: Any) -> bytes:
    """The payload of a task with other fields of the header, or more of them."""
    found, header = arrays.unpack(task.encode())
    return arrays.pack(found, header | changes)


@pytest.mark.parametrize("name", ["codec", "clip", "weight_cap", "asks", "shaping", "noise", "dimension"])
def test_how_vectors_are_encoded_is_no_part_of_a_task(name: str) -> None:
    run = run_of()
    task = first_of(run)
    with pytest.raises(TaskError, match=f"task: '{name}' is not known"):
        consent_of(run).admit(other_header(task, **{name: 1}), parameters_of(task))
    assert admit(consent_of(run), task).encoding == task.encoding


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (lambda task: asked(task, number=9), "is not step"),
        (lambda task: replace(task, step=task.step + 1), "is not step"),
        (lambda task: replace(task, step=0), "is not step"),
        (lambda task: replace(task, attempt=0), r"attempt: must be in 1\.\.3"),
        (lambda task: replace(task, attempt=4), r"attempt: must be in 1\.\.3"),
        (lambda task: asked(task, again=1, center=np.zeros(4)), "is not step"),
        (lambda task: asked(task, center=np.zeros(4)), "control, center"),
        (lambda task: asked(task, control=np.zeros(4)), "control, center"),
        (lambda task: asked(task, norm=1.0), "norm: does not adapt"),
        (lambda task: asked(task, model={}), "model: not the shapes"),
        (lambda task: asked(task, model=model_of(task) | {"extra": np.zeros(1)}), "model: not the shapes"),
    ],
    ids=lambda one: one.replace("\\", "") if isinstance(one, str) else "lie",
)
def test_whatever_was_agreed_on_is_not_the_server_s_to_choose(lie: Any, fault: str) -> None:
    run = run_of()
    task = first_of(run)
    with pytest.raises(TaskError, match=rf"^task.*{fault}"):
        admit(consent_of(run), lie(task))
    admit(consent_of(run), task)


@pytest.mark.parametrize("kind", [TaskKind.COUNT, TaskKind.CUMULATIVE, TaskKind.COVARIANCE, TaskKind.SITES])
def test_statistics_that_were_not_agreed_on_are_refused(kind: TaskKind) -> None:
    run = run_of()
    for step in (0, 1):
        task = replace(run.terms.task(make_question(kind)), step=step)
        with pytest.raises(TaskError, match="is not step"):
            admit(consent_of(run), task)


def test_parameters_that_do_not_fit_the_task_are_refused() -> None:
    run = run_of()
    task = tasks_of(run)[0]
    encoding = task.encoding
    for changes in ({"vector_length": encoding.length + 1}, {"ring_bits": encoding.codec.ring_bits + 1}):
        with pytest.raises(TaskError, match="vector length and ring bits"):
            consent_of(run).admit(task.encode(), parameters_of(task, **changes))


def test_every_attempt_is_answered_once_with_the_same_question_and_no_oftener_than_agreed() -> None:
    run = run_of()
    task = first_of(run)
    consent = consent_of(run)
    for attempt in range(1, run.plan.attempts + 1):
        admit(consent, replace(task, attempt=attempt))
        with pytest.raises(TaskError, match="does not follow"):
            admit(consent, replace(task, attempt=attempt))
    changed = asked(task, model={name: array + 1e-6 for name, array in model_of(task).items()})
    other = consent_of(run)
    admit(other, task)
    with pytest.raises(TaskError, match="was answered, and asks something else now"):
        admit(other, replace(changed, attempt=2))


def test_a_round_whose_server_was_killed_between_its_passes_begins_anew() -> None:
    run = run_of(strategy=GeometricMedian(smoothing=0.1, passes=2))
    first, second, third, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    consent = consent_of(run)
    admit(consent, first)
    admit(consent, second)
    with pytest.raises(TaskError, match="does not follow"):
        admit(consent, first)
    for task in (first, second, third):
        admit(consent, replace(task, attempt=2))
    with pytest.raises(TaskError, match="does not follow"):
        admit(consent, replace(second, attempt=2))


def test_what_was_answered_outlives_the_process_with_its_store() -> None:
    run, store = run_of(), MemoryStore()
    tasks = tasks_of(run)
    admit(consent_of(run, store), tasks[1])
    with pytest.raises(TaskError, match="which was answered"):
        admit(consent_of(run, store), tasks[0])


@pytest.mark.parametrize(
    ("mean", "deviation", "fault"),
    [
        ([50.0, 0.0, 0.5], [1e-9, 1.0, 0.1], "deviation: must be 0 or at least"),
        ([50.0, 0.0, 0.5], [80.0, 1.0, 0.1], "deviation: must be at most half the range"),
        ([500.0, 0.0, 0.5], [20.0, 1.0, 0.1], "mean: must be within bounds"),
        ([50.0, 0.0, 0.5], [-20.0, 1.0, 0.1], "deviation: must be 0 or at least"),
    ],
)
def test_a_standardizer_that_no_rows_can_have_is_refused(
    mean: list[float], deviation: list[float], fault: str
) -> None:
    run = run_of()
    wrong = Standardizer(np.array(mean), np.array(deviation))
    with pytest.raises(TaskError, match=fault):
        admit(consent_of(run), asked(first_of(run), standardizer=wrong))


def test_a_run_has_one_standardizer() -> None:
    run = run_of()
    first, second, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    consent = consent_of(run)
    admit(consent, first)
    scale = train_of(second).standardizer
    moved = Standardizer(scale.mean, scale.deviation * 1.01)
    with pytest.raises(TaskError, match="are others than before in this run"):
        admit(consent, asked(second, standardizer=moved))
    admit(consent, second)


def test_an_adaptive_norm_moves_no_faster_than_its_rule_can() -> None:
    plan = replace(make_plan(rounds=4, clients=6), norm=AdaptiveClip(norm=1.0, rate=0.2))
    run = run_of(plan)
    tasks = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    consent = consent_of(run)
    admit(consent, tasks[0])

    for norm in (1.2, 0.8):
        with pytest.raises(TaskError, match=r"task\.norm: must be 1 times"):
            admit(consent, asked(tasks[1], norm=norm))
    admit(consent, asked(tasks[1], norm=1.1))


# --- two sums with and without a victim


def test_no_second_sum_of_a_step_with_another_member_less_is_signed() -> None:
    run = run_of()
    task = first_of(run)
    consent = consent_of(run)
    sign(consent, task, MEMBERS)
    sign(consent, task, MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent, task, MEMBERS[:-1])


def test_nor_after_a_restart() -> None:
    run, store = run_of(), MemoryStore()
    task = tasks_of(run)[0]
    sign(consent_of(run, store), task, MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent_of(run, store), task, MEMBERS[:-1])


def test_nor_about_another_statistic_of_the_same_rows() -> None:
    run = run_of()
    mean, deviation, *_ = tasks_of(run)
    consent = consent_of(run)
    sign(consent, mean, MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent, deviation, MEMBERS[:-1])


def test_nor_with_one_number_of_the_model_changed_in_another_round() -> None:
    run = run_of()
    first, second, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    model = {name: array + 1.0 for name, array in model_of(first).items()}
    almost = {name: array.copy() for name, array in model.items()}
    almost[min(almost)].flat[0] += 1000.0
    consent = consent_of(run)
    sign(consent, first, MEMBERS)
    sign(consent, second, MEMBERS[:-1])  # training has moved the model: this much remains, see SECURITY.md
    again = consent_of(run)
    sign(again, asked(first, model=model), MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(again, asked(second, model=almost), MEMBERS[:-1])


def test_nor_by_small_steps_from_model_to_model() -> None:
    run = run_of()
    first, second, third, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]

    def moved(by: float) -> dict[str, Any]:
        return {name: np.ones_like(array) * (1 + by) for name, array in model_of(first).items()}

    consent = consent_of(run)
    sign(consent, asked(first, model=moved(0)), MEMBERS)
    sign(consent, asked(second, model=moved(0.9e-3)), MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):  # near to the second, not to the first
        sign(consent, asked(third, model=moved(1.8e-3)), MEMBERS[:-1])


def test_a_model_between_two_is_about_both() -> None:
    run = run_of()
    first, second, third, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    models = [{n: np.ones_like(a) * (1 + by) for n, a in model_of(first).items()} for by in (0, 1.9e-3, 1e-3)]
    consent = consent_of(run)
    sign(consent, asked(first, model=models[0]), MEMBERS)
    sign(consent, asked(second, model=models[1]), MEMBERS[:-1])
    for members in (MEMBERS, MEMBERS[:-1]):
        with pytest.raises(LedgerError, match="differs from the sum"):
            sign(consent, asked(third, model=models[2]), members)


def test_with_strict_cohorts_not_even_about_a_model_that_moved() -> None:
    run = run_of(strict_cohorts=True)
    first, second, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    consent = consent_of(run)
    sign(consent, first, MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent, second, MEMBERS[:-1])
    other = consent_of(run)
    sign(other, tasks_of(run)[0], MEMBERS)  # a statistic: with an update it tells rows, or at least how many
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(other, first, MEMBERS[:-1])


def test_passes_over_one_update_are_over_the_same_members() -> None:
    run = run_of(strategy=GeometricMedian(smoothing=0.1))
    first, again, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    assert again.question.passes == 1
    consent = consent_of(run)
    sign(consent, first, MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent, again, MEMBERS[:-1])
    sign(consent, again, MEMBERS)


def test_every_sum_over_the_same_updates_asks_for_one_member_more() -> None:
    run = run_of(strategy=GeometricMedian(smoothing=0.1, passes=2))
    first, again, third, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    consent = consent_of(run)
    for task in (first, again, third):
        sign(consent, task, MEMBERS)  # six members hide three sums: two honest ones, a colluder, two passes
    sign(consent, replace(first, attempt=2), MEMBERS)
    for task in (again, third):
        with pytest.raises(ConsentError, match="4 sums about the same updates .* at least 7 members, has 6"):
            sign(consent, replace(task, attempt=2), MEMBERS)


def test_what_is_carried_over_stays_among_those_that_it_comes_from() -> None:
    run = run_of(strategy=Scaffold(sites=6, control_scale=0.5))
    first, second, *_ = [task for task in tasks_of(run) if task.kind is TaskKind.TRAIN]
    consent = consent_of(run)
    consent.site.contribute(admit(consent, first))
    consent.counted(first.encode(), MEMBERS[:4])
    consent.site.contribute(admit(consent, second))
    with pytest.raises(ConsentError, match="of whom 2 are in this one, at least 3 must be"):
        sign(consent, second, [*MEMBERS[2:4], *MEMBERS[4:]])
    sign(consent, second, MEMBERS)


# --- what else a server may try


def test_rows_are_standardized_if_and_only_if_that_was_agreed() -> None:
    plain = run_of(replace(make_plan(rounds=2, clients=6), standardize=False))
    task, standardized = tasks_of(plain)[0], tasks_of(run_of())[2]
    with pytest.raises(TaskError, match=r"task\.mean: must not be there, as was agreed"):
        admit(consent_of(plain), asked(task, standardizer=train_of(standardized).standardizer))
    admit(consent_of(plain), task)
    with pytest.raises(TaskError, match=r"task\.mean: is missing, as was agreed"):
        admit(consent_of(run_of()), asked(standardized, standardizer=Standardizer.none()))


def test_a_norm_many_rounds_later_is_still_within_its_rule() -> None:
    plan = replace(make_plan(rounds=20_000, clients=6), norm=AdaptiveClip(norm=1.0, rate=0.2))
    run = run_of(plan)
    first = first_of(run_of(replace(plan, rounds=1)))
    late = run.terms.task(replace(train_of(first), number=20_000))
    admit(consent_of(run), late)


def test_another_run_about_nearly_the_same_model_is_about_the_same_subject() -> None:
    store = MemoryStore()
    first = next(task for task in tasks_of(run_of()) if task.kind is TaskKind.TRAIN)
    sign(consent_of(run_of(), store), first, MEMBERS)
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent_of(run_of(name="again"), store), first, MEMBERS[:-1])
    sign(consent_of(run_of(name="again"), store), first, MEMBERS)
    sign(consent_of(run_of(name="next year", rows="2027"), store), first, MEMBERS[:-1])


def test_a_run_that_begins_anew_needs_a_name_of_its_own() -> None:
    store, run = MemoryStore(), run_of()
    tasks = tasks_of(run)
    for task in tasks:
        admit(consent_of(run, store), task)
    with pytest.raises(TaskError, match="a run that begins anew with this store needs another --name"):
        admit(consent_of(run, store), tasks[0])
    again = run_of(name="again")
    assert again.digest != run.digest
    admit(consent_of(again, store), tasks[0])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_a_server_is_killed_its_run_goes_on_with_sites_that_remember(
    after: bool, tmp_path: Path
) -> None:
    plan = replace(make_plan(rounds=2, clients=6), evaluate_every=1)
    run = run_of(plan)

    def whole(killed_at: int | None) -> tuple[int, bytes]:
        """How many sums a run takes that is killed at one of them and gone on with, and its model."""
        made = make_sites(6)
        sites = {name: replace(site, learner=LEARNER) for name, site in made.items()}
        stores = {name: MemoryStore() for name in sites}
        agreed = {n: Consent(run, sites[n], stores[n], ParticipationLedger(stores[n])) for n in sites}
        path = tmp_path / f"{killed_at}.safetensors"
        count = 0

        class Asking(PlainSum):
            def sum(self, task: Task, among: object = None) -> GroupSum:
                nonlocal count
                count += 1
                if count == killed_at and not after:
                    raise KeyboardInterrupt
                for consent in agreed.values():
                    admit(consent, task)
                found = PlainSum.sum(self, task, None)
                if count == killed_at:
                    raise KeyboardInterrupt
                return found

        def go() -> Any:
            one = Federation(
                *(Asking(sites), SCHEMA, LEARNER, run.plan, run.strategy),
                on_checkpoint=lambda now: now.save(path),
                every_sum=True,
                terms=run.terms,
            )
            return one.run(RunState.load(path) if path.exists() else None)

        try:
            model = go()
        except KeyboardInterrupt:
            model = go()
        assert sorted(model.evaluations) == [1, 2]
        return count, flatten(model.parameters).tobytes()

    sums, model = whole(None)
    assert sums == 6  # mean, deviation, and twice training and evaluation
    for number in range(1, sums + 1):
        assert whole(number) == (sums + 1, model)


# --- under noise

PRIVATE = replace(
    make_plan(rounds=2, clients=6),
    norm=1.0,
    bits=14,
    privacy=PrivacyPlan(epsilon=30.0, delta=1e-3, rounds=2, smallest=4),
)


def test_a_round_that_may_end_with_less_noise_than_agreed_is_refused() -> None:
    run = run_of(PRIVATE)
    task = tasks_of(run)[0]
    assert task.encoding.noise is not None
    few = parameters_of(task, minimum_survivors=3)
    with pytest.raises(TaskError, match=r"parameters\.minimum_survivors: must be at least 4, whose noise"):
        consent_of(run).admit(task.encode(), few)
    consent_of(run).admit(task.encode(), parameters_of(task, minimum_survivors=4))


def test_under_noise_rows_are_standardized_by_public_bounds_alone() -> None:
    run = run_of(PRIVATE)
    task = tasks_of(run)[0]
    scale = train_of(task).standardizer
    moved = asked(task, standardizer=Standardizer(scale.mean + 0.01, scale.deviation))
    parameters = parameters_of(task, minimum_survivors=4)
    with pytest.raises(TaskError, match=r"must follow from the bounds, privacy\.statistics is false"):
        consent_of(run).admit(moved.encode(), parameters)
    consent_of(run).admit(task.encode(), parameters)


def test_under_noise_a_member_that_drops_out_is_within_the_budget() -> None:
    run = run_of(PRIVATE)
    task, consent = tasks_of(run)[0], consent_of(run)
    sign(consent, task, MEMBERS)
    sign(consent, task, MEMBERS[:-1])


def test_a_site_without_an_account_takes_no_part_in_a_run_with_a_budget() -> None:
    store, site = MemoryStore(), make_sites(6)["site-0"]
    with pytest.raises(SettingError, match=r"site\.guard: is missing"):
        Consent(run_of(PRIVATE), site, store, ParticipationLedger(store))


# --- the agreement's own words


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": replace(SCHEMA, classes=("yes", "no"))},
        {"words": "another learner"},
        {"strategy": FedAvg(server_rate=0.5)},
        {"plan": make_plan(rounds=5, clients=6)},
        {"members": frozenset(MEMBERS[:-1])},
        {"security": Security(corrupt=0.2)},
        {"security": Security(minimum_survivors=4)},
        {"consent": ConsentRules(strict_cohorts=True)},
        {"consent": ConsentRules(regroup=True)},
        {"consent": ConsentRules(near=1e-2)},
        {"consent": ConsentRules(name="again")},
        {"consent": ConsentRules(rows="2027")},
        {"statistics": StatisticsRules(count=1)},
        {"evaluation": EvaluationRules(sites=1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_runs_that_differ_in_anything_have_other_digests(changes: dict[str, Any]) -> None:
    assert replace(run_of(), **changes).digest != run_of().digest == run_of().digest


# --- sums in whole cells


def cells_of(run: Run, cohort: Sequence[bytes] = MEMBERS) -> tuple[frozenset[bytes], ...]:
    return cells(DEALT, cohort, floor=run.cell)


def named(run: Run, task: Task, cohort: Sequence[Identity] = MEMBERS) -> Task:
    return replace(task, cohort=run.cohort_bits(cohort))


def settled(run: Run, task: Task) -> Consent:
    """A site whose ledger has settled among whom a task's subject is summed, as its client does."""
    consent = consent_of(run)
    question = consent.question_of(task.encode(), parameters_of(task))
    consent.ledger.join(question.subject, cohort=question.cohort, floor=question.floor)
    return consent


def test_a_cohort_is_named_if_and_only_if_that_was_agreed() -> None:
    plain, regrouping = run_of(), run_of(regroup=True)
    task = first_of(plain)
    with pytest.raises(TaskError, match=r"task\.cohort: must not be there"):
        admit(consent_of(plain), named(plain, task))
    with pytest.raises(TaskError, match=r"task\.cohort: is missing"):
        admit(consent_of(regrouping), task)
    admit(consent_of(regrouping), named(regrouping, task))


@pytest.mark.parametrize("bits", ["ff", "3f00", "3", "xx", "3F"])
def test_a_cohort_is_a_bitmap_over_the_members(bits: str) -> None:
    run = run_of(regroup=True)
    with pytest.raises(TaskError, match=r"task\.cohort: must be a bitmap over 6 members"):
        admit(consent_of(run), replace(first_of(run), cohort=bits))


def test_a_spoiled_sum_is_dealt_into_whole_cells_and_into_nothing_else() -> None:
    run = run_of(make_plan(rounds=4, clients=8), changes={"members": frozenset(EIGHT)}, regroup=True)
    task = named(run, first_of(run), EIGHT)
    consent, (one, two) = settled(run, task), cells_of(run, EIGHT)
    sign(consent, task, EIGHT)
    for cell in (one, two):
        sign(consent, task, sorted(map(Identity, cell)))
    moved = (one | {min(two)}) - {min(one)}
    for other in (moved, one | {min(two)}, frozenset(EIGHT) - {min(one)}):
        with pytest.raises(LedgerError, match="must leave together"):
            sign(consent, task, sorted(map(Identity, other)))


def test_a_subject_has_one_cohort_for_good() -> None:
    run = run_of(regroup=True)
    task = first_of(run)
    consent = settled(run, named(run, task))
    other = consent.question_of(named(run, task, MEMBERS[:-1]).encode(), parameters_of(task))
    with pytest.raises(LedgerError, match="was settled before the first upload"):
        consent.ledger.join(other.subject, cohort=other.cohort, floor=other.floor)


def test_what_may_be_told_apart_counts_colluders_of_all_that_are_enrolled_and_passes() -> None:
    many = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(22)]
    run = run_of(make_plan(rounds=4, clients=22), changes={"members": frozenset(many)})
    assert (run_of().floor, run.colluders, run.floor) == (3, 3, 5)
    assert run_of(strategy=GeometricMedian(smoothing=0.1, passes=2)).floor == 5
    with pytest.raises(LedgerError, match="at least 5 are needed"):
        sign(consent_of(run), first_of(run), many[:4])
    sign(consent_of(run), first_of(run), many[:5])


def test_a_round_tolerates_all_colluders_however_few_are_asked() -> None:
    many = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(40)]
    run = run_of(make_plan(rounds=4, clients=40), changes={"members": frozenset(many)})
    task = first_of(run)
    for cohort, corrupt in ((30, 0.1), (6, 0.1), (10, 0.3)):
        few = parameters_of(task, minimum_cohort=cohort, threat_model=ThreatModel(corrupt=corrupt))
        with pytest.raises(TaskError, match=f"must cover 4 colluders in a round of {cohort}, covers [13]"):
            consent_of(run).admit(task.encode(), few)
    enough = parameters_of(task, minimum_cohort=30, threat_model=run.threat_model(30))
    consent_of(run).admit(task.encode(), enough)


# --- statistics and evaluations that were agreed on


def test_a_statistic_is_asked_as_often_as_agreed_and_no_larger() -> None:
    rules = StatisticsRules(count=2, cumulative=1, covariance=1, values=6)
    run = run_of(changes={"statistics": rules})
    consent = consent_of(run)
    for kind, number in (
        *((TaskKind.CUMULATIVE, 1), (TaskKind.COVARIANCE, 1)),
        *((TaskKind.COUNT, 1), (TaskKind.COUNT, 2)),
    ):
        admit(consent, run.terms.task(make_question(kind, number)))
    for kind, number in ((TaskKind.COUNT, 3), (TaskKind.CUMULATIVE, 2)):
        with pytest.raises(TaskError, match="is not step"):
            admit(consent, run.terms.task(make_question(kind, number)))
    cells_asked = make_question(TaskKind.COUNT, cells=np.zeros((7, 2)))
    with pytest.raises(TaskError, match=r"task\.cells: must be at most 6, are 7"):
        admit(consent_of(run), run.terms.task(cells_asked))
    edges = make_question(TaskKind.CUMULATIVE, edges=np.zeros((3, 3)))
    with pytest.raises(TaskError, match=r"task\.edges: must be at most 6 numbers, are 9"):
        admit(consent_of(run), run.terms.task(edges))
    far = make_question(TaskKind.COVARIANCE, mean=np.array([500.0, 0.0, 0.5]))
    with pytest.raises(TaskError, match="mean: must be within bounds"):
        admit(consent_of(run), run.terms.task(far))


def test_the_final_model_is_evaluated_as_often_as_agreed() -> None:
    run = run_of(changes={"evaluation": EvaluationRules(overall=1, sites=1)})
    last = tasks_of(run)[-1]
    about = {"model": model_of(last), "standardizer": train_of(last).standardizer}
    consent = consent_of(run)
    admit(consent, last)
    admit(consent, run.terms.task(make_question(TaskKind.EVALUATE, 5, **about)))
    admit(consent, run.terms.task(make_question(TaskKind.SITES, 5, **about)))
    with pytest.raises(TaskError, match="is not step"):
        admit(consent, run.terms.task(make_question(TaskKind.SITES, 6, **about)))
