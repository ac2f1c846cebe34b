"""What one attacker can do to a sum, what bounds it, and what does not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore.adversaries import sites as adversaries
from fedcore.adversaries.sites import (
    Attack,
    Attacker,
    Backdoor,
    Constant,
    Gaussian,
    LabelFlip,
    OutOfRange,
    Scaling,
    SignFlip,
    corrupt,
    corrupt_some,
)
from fedcore.codec.shaping import Shaping
from fedcore.data.table import Table
from fedcore.learner import Parameters, flatten
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.noise import Noise
from fedcore.rounds.aggregation import FloatSum, PlainSum, SecureSum
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.questions import TaskKind, Train
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.strategies.robust import FedMedian
from secagg import ParameterError
from tests.fedcore import sites as honest
from tests.fedcore.adversaries.arena import (
    ATTACKS,
    BACKDOOR,
    CLASSES,
    CLIP,
    DEFENCES,
    FLIP,
    LEARNER,
    NAMES,
    NORM,
    PLAIN,
    ROWS,
    Defence,
    Outcome,
    blobs,
    make_plan,
    make_sites,
    outcome,
)
from tests.fedcore.rows import table_of
from tests.fedcore.sites import asked

SIZE = 44  # parameters
BY_NORM = DEFENCES[f"FedAvg, norm {NORM}"]
MEDIAN, TRIMMED, GEOMETRIC = (one for name, one in DEFENCES.items() if "Avg" not in name)
ROBUST = (MEDIAN, TRIMMED, GEOMETRIC)
CLEAN = 0.93  # what honest runs pass, 0.939 as measured
MARGIN = 0.02


@cache
def measured(name: str, defence: Defence) -> Outcome:
    return outcome(ATTACKS[name], defence)


def make_task(shaping: Shaping | None = None, model: Parameters | None = None, **changes: Any) -> Task:
    """The first training round over the sites of the arena; changes are of the form of the answer."""
    shaping = Shaping() if shaping is None else shaping
    asks = changes.get("asks", Asks())
    values: dict[str, Any] = {
        "dimension": SIZE,
        "codec": make_plan().round_codec(asks, shaping, SIZE)[0],
        "classes": tuple("abcd"),
        "shaping": shaping,
    }
    question = Train(model=LEARNER.initial() if model is None else model)
    return Task(question=question, encoding=Encoding(**(values | changes)))


def mean_of(sites: dict[str, Site], task: Task) -> NDArray[np.float64]:
    result = PlainSum(sites).sum(task)
    assert not result.failures
    return task.encoding.codec.decode(result.total, len(sites)).mean


def pull(attack: Attack, task: Task) -> NDArray[np.float64]:
    """How far one attacker moves the mean from where it is when the same site sends nothing."""
    return mean_of(make_sites(attack, 1), task) - mean_of(make_sites(Constant(), 1), task)


# --- damage without defence


@pytest.mark.parametrize("defence", DEFENCES.values(), ids=DEFENCES.keys())
def test_honest_runs_are_good_under_every_strategy(defence: Defence) -> None:
    honest = outcome(defence=defence)
    assert honest.accuracy > CLEAN
    assert honest.backdoor < 0.1  # what the trigger does to a model that never saw it
    assert measured("none", defence) == honest  # a site under no attack is an honest site


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("label flip, boosted 10", 0.5),
        ("sign flip 20", 0.3),
        ("sign flip 20, ignores the norm", 0.3),
        ("sign flip 20, boasts", 0.3),
        ("Gaussian, deviation 2", 0.9),
        ("out of range", 0.1),
    ],
)
def test_two_of_twenty_sites_damage_a_plain_mean(name: str, accuracy: float) -> None:
    assert measured(name, PLAIN).accuracy < accuracy


def test_a_boosted_backdoor_turns_nearly_all_rows_while_accuracy_hardly_falls() -> None:
    assert measured("backdoor, boosted 10", PLAIN).backdoor > 0.9
    assert measured("backdoor, boosted 10", PLAIN).accuracy > 0.85


@pytest.mark.parametrize(
    "name", ["sign flip 1", "honest update, boosted 10", "Gaussian, honest length", "free rider (zero)"]
)
def test_small_or_honest_directions_do_no_visible_damage(name: str) -> None:
    """A negative result: where sites are alike, these only slow down or speed up."""
    assert measured(name, PLAIN).accuracy > CLEAN


def test_a_constant_is_invisible_to_softmax() -> None:
    """A negative result: the same number added to all logits changes no probability."""
    assert measured("constant 3", PLAIN).accuracy > CLEAN


def test_label_flips_of_one_site_in_twenty_are_hardly_visible() -> None:
    """A negative result: neither the damage nor the sum tells that there is an attacker."""
    honest, flipped = mean_of(make_sites(), make_task()), mean_of(make_sites(FLIP, 1), make_task())
    spread = np.std([flatten_change(site) for site in make_sites().values()], axis=0)
    assert 0 < np.abs(flipped - honest).max() < 0.15
    assert np.linalg.norm(flipped - honest) < np.linalg.norm(spread)  # less than sites differ anyway
    assert outcome(FLIP, bad=1).accuracy > CLEAN - 0.01


def flatten_change(site: Site) -> NDArray[np.floating[Any]]:
    return site.compute(make_task()).coordinates


# --- what clipping bounds


@pytest.mark.parametrize(
    "attack",
    [SignFlip(scale=1e6), Scaling(factor=1e6), Gaussian(deviation=1e6), Constant(value=-1e9)],
    ids=lambda attack: type(attack).__name__,
)
def test_the_codec_bounds_a_site_by_its_share_of_the_weight_times_the_clip(attack: Attack) -> None:
    task = make_task()
    share, rounding = 1 / len(NAMES), 2 * task.encoding.codec.error_bound(len(NAMES), len(NAMES) * ROWS)
    moved = np.abs(pull(attack, task)).max()
    assert moved <= share * CLIP + rounding
    assert moved > share * CLIP - rounding  # and the bound is tight


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(1e-3, 1e12),
    norm=st.floats(0.01, 100),
    kind=st.sampled_from([SignFlip, Scaling, Gaussian, Constant]),
)
def test_the_norm_bounds_the_length_of_what_a_site_adds(scale: float, norm: float, kind: Any) -> None:
    option = {SignFlip: "scale", Scaling: "factor", Gaussian: "deviation", Constant: "value"}[kind]
    task = make_task(Shaping(norm=norm))
    rounding = 2 * task.encoding.codec.error_bound(len(NAMES), len(NAMES) * ROWS) * SIZE**0.5
    assert np.linalg.norm(pull(kind(**{option: scale}), task)) <= norm / len(NAMES) + rounding


def test_a_site_that_ignores_the_norm_is_bounded_by_coordinates_only() -> None:
    task = make_task(Shaping(norm=NORM))
    loud = pull(SignFlip(scale=1e6, ignores_norm=True), task)
    rounding = 2 * task.encoding.codec.error_bound(len(NAMES), len(NAMES) * ROWS)
    assert np.abs(loud).max() <= NORM / len(NAMES) + rounding
    assert np.linalg.norm(loud) > 6 * NORM / len(NAMES)  # sqrt(44) = 6.6 times what was agreed
    assert measured("sign flip 20, ignores the norm", BY_NORM).accuracy < CLEAN - 0.05


def test_a_site_that_boasts_moves_the_mean_by_its_claimed_share_unless_weights_are_uniform() -> None:
    rows, uniform = make_task(), make_task(asks=Asks(weighting=Weighting.UNIFORM))
    claimed = 100 / (100 + 19 * ROWS)
    assert np.abs(pull(Constant(value=1e9, boasts=True), rows)).max() == pytest.approx(
        claimed * CLIP, rel=0.2
    )
    assert np.abs(pull(Constant(value=1e9, boasts=True), uniform)).max() == pytest.approx(CLIP / 20, rel=0.01)


def test_ring_elements_out_of_range_pass_the_clip_and_only_the_ring_bounds_them() -> None:
    """A negative result: no proof of range is part of a round."""
    task = make_task(Shaping(norm=NORM))
    step = task.encoding.codec.clip / task.encoding.codec.levels * 100 / ROWS
    moved = np.abs(pull(OutOfRange(scale=1e3), task)).max()
    assert moved > 5 * NORM / len(NAMES)
    assert moved <= 2 * 2 ** (task.encoding.codec.ring_bits - 1) * step / len(NAMES)
    assert measured("out of range", BY_NORM).accuracy < 0.1


@pytest.mark.parametrize("name", ["label flip, boosted 10", "sign flip 20", "Gaussian, deviation 2"])
def test_a_norm_keeps_accuracy_where_sites_apply_it(name: str) -> None:
    assert measured(name, BY_NORM).accuracy > CLEAN - MARGIN


# --- what robust strategies bear


@pytest.mark.parametrize("name", [name for name in ATTACKS if "backdoor" not in name])
@pytest.mark.parametrize("defence", [MEDIAN, TRIMMED], ids=["median", "trimmed"])
def test_a_minority_of_bad_groups_costs_at_most_two_points(name: str, defence: Defence) -> None:
    honest = measured("none", defence).accuracy
    assert measured(name, defence).accuracy > honest - MARGIN


@pytest.mark.parametrize(
    "name", [n for n in ATTACKS if "boasts" not in n and n != "out of range" and "backdoor" not in n]
)
def test_the_geometric_median_keeps_accuracy_where_sites_tell_their_distance(name: str) -> None:
    assert measured(name, GEOMETRIC).accuracy > measured("none", GEOMETRIC).accuracy - MARGIN


@pytest.mark.parametrize("name", ["sign flip 20, boasts", "out of range"])
def test_the_geometric_median_falls_to_sites_that_lie_in_the_sum_itself(name: str) -> None:
    """A negative result: the weights by distance are the sites' own word."""
    assert measured(name, GEOMETRIC).accuracy < 0.1


def test_a_median_falls_when_most_groups_have_a_bad_site() -> None:
    """A negative result: eight of twenty sites are few, but they sit in more than half of the groups."""
    assert outcome(SignFlip(scale=20), MEDIAN, bad=8).accuracy < CLEAN - 0.3


@pytest.mark.parametrize("defence", [MEDIAN, TRIMMED], ids=["median", "trimmed"])
def test_a_backdoor_is_weakened_by_groups_but_survives(defence: Defence) -> None:
    """A negative result: what stays within the spread of the groups is added up round by round."""
    clean = measured("none", defence).backdoor
    assert measured("backdoor, boosted 10", defence).backdoor < 0.3
    assert measured("backdoor", defence).backdoor > 2 * clean
    assert measured("backdoor, boosted 10", defence).backdoor > 2 * clean
    assert measured("backdoor", defence).accuracy > CLEAN - MARGIN  # accuracy does not show it


# --- secure sums change nothing


@pytest.mark.parametrize("name", ATTACKS)
def test_a_secure_sum_with_an_attacker_is_the_plain_sum_with_it(name: str) -> None:
    task = make_task()
    plain = PlainSum(make_sites(ATTACKS[name], 1, sites=6)).sum(task)
    secure = SecureSum(make_sites(ATTACKS[name], 1, sites=6)).sum(task)
    assert secure.total.tolist() == plain.total.tolist()
    assert secure.survivors == plain.survivors == NAMES[:6]
    if name != "none":
        assert plain.total.tolist() != PlainSum(make_sites(sites=6)).sum(task).total.tolist()


def test_a_robust_run_under_secure_sums_ends_with_the_same_model() -> None:
    defence = Defence(FedMedian(groups=5))
    plain, secure = (
        outcome(SignFlip(scale=20), defence, aggregator=a, rounds=2) for a in (PlainSum, SecureSum)
    )
    assert secure == plain
    assert secure.accuracy > 0.9


# --- attackers as sites


def test_corrupting_some_leaves_the_others_and_the_given_sites_as_they_were() -> None:
    good = make_sites()
    labels = [table_of(site).labels.copy() for site in good.values()]
    some = corrupt_some(good, NAMES[:3], FLIP)
    assert [isinstance(site, Attacker) for site in some.values()] == [True] * 3 + [False] * 17
    assert all(some[name] is good[name] for name in NAMES[3:])
    for site, before in zip(good.values(), labels, strict=True):
        assert table_of(site).labels.tolist() == before.tolist()


@pytest.mark.parametrize("kind", [TaskKind.MEAN, TaskKind.DEVIATION])
def test_attackers_answer_honestly_in_rounds_of_statistics(kind: TaskKind) -> None:
    good = honest.make_sites()
    task = honest.make_task(kind)
    for attack in (OutOfRange(), SignFlip(boasts=True, ignores_norm=True), LabelFlip()):
        bad = corrupt_some(good, good, attack)
        assert PlainSum(bad).sum(task).total.tolist() == PlainSum(good).sum(task).total.tolist()


def test_metrics_of_an_attacker_come_from_its_honest_rows() -> None:
    site = make_sites()[NAMES[0]]
    assert corrupt(site, FLIP).held_out is site.table
    own = replace(site, held_out=blobs(8, 1))
    assert corrupt(own, FLIP).held_out is own.held_out


@pytest.mark.parametrize("attack", [Gaussian(), BACKDOOR, SignFlip()], ids=lambda one: type(one).__name__)
def test_later_passes_send_the_same_vector(attack: Attack) -> None:
    site = corrupt(Site("a", blobs(20, 1), None, LEARNER), attack)  # without a seed: fresh randomness
    task = make_task(asks=Asks(smoothing=0.1))
    first = site.compute(task).coordinates
    again = asked(task, again=1, center=np.zeros(SIZE))
    assert site.compute(again).coordinates.tolist() == first.tolist()


@pytest.mark.parametrize("attack", [Gaussian(), replace(BACKDOOR, factor=2)], ids=["gaussian", "backdoor"])
def test_a_seeded_attacker_repeats_itself(attack: Attack) -> None:
    one, two = (make_sites(attack, 1)[NAMES[0]].contribute(make_task()) for _ in range(2))
    assert one.tolist() == two.tolist()


def test_weights_are_attacked_around_the_model_of_the_round() -> None:
    model = {name: array + 2.0 for name, array in LEARNER.initial().items()}
    task = make_task(model=model, asks=Asks(update=UpdateKind.WEIGHTS))
    honest, flipped = (
        make_sites(a, 1)[NAMES[0]].compute(task).coordinates for a in (Attack(), SignFlip(scale=3))
    )
    assert flipped - flatten(model) == pytest.approx(-3 * (honest - flatten(model)))


def test_a_site_that_ignores_the_norm_sends_no_noise_and_the_right_length() -> None:
    noise = Noise(mechanism=Mechanism.SKELLAM, variance=100.0, sensitivity=1.0)
    asks, shaping = Asks(quantile=0.1, weighting=Weighting.UNIFORM), Shaping(norm=NORM)
    codec = replace(
        make_plan().round_codec(asks, shaping, SIZE)[0], bits=16, precise=0, headroom=noise.headroom(20)
    )
    task = make_task(shaping, asks=asks, noise=noise, codec=codec)
    sent = make_sites(Constant(value=0.0, ignores_norm=True), 1)[NAMES[0]].contribute(task)
    assert len(sent) == task.encoding.length
    assert not sent[:SIZE].any()
    assert np.count_nonzero(make_sites(Constant(), 1)[NAMES[0]].contribute(task)[:SIZE]) > SIZE // 2


def test_gaussian_vectors_have_the_length_of_the_honest_one_or_the_given_deviation() -> None:
    honest = np.linspace(-1, 1, 5000)
    rng = np.random.default_rng(1)
    assert np.linalg.norm(Gaussian().vector(honest, rng)) == pytest.approx(np.linalg.norm(honest))
    assert np.std(Gaussian(deviation=3.0).vector(honest, rng)) == pytest.approx(3.0, rel=0.05)


def test_label_flips_change_what_they_say_and_nothing_else() -> None:
    rows, rng = blobs(40, 1), np.random.default_rng(0)
    assert FLIP.poisoned(rows, None, rng).labels.tolist() == (CLASSES - 1 - rows.labels).tolist()
    some = LabelFlip(source=1, target=3).poisoned(rows, CLASSES, rng)
    assert np.array_equal(some.labels != rows.labels, rows.labels == 1)
    assert set(some.labels[rows.labels == 1]) == {3}
    assert some.features is rows.features


@pytest.mark.parametrize(("share", "marked"), [(0.01, 1), (0.5, 20), (1.0, 40)])
def test_a_backdoor_marks_a_share_of_the_rows(share: float, marked: int) -> None:
    rows = blobs(40, 1)
    poisoned = replace(BACKDOOR, share=share).poisoned(rows, None, np.random.default_rng(0))
    changed = (poisoned.features != rows.features).any(axis=1)
    assert np.count_nonzero(changed) == marked
    assert set(poisoned.labels[changed]) == {0}
    assert (poisoned.features[changed][:, 8:] == 4.0).all()
    assert poisoned.labels[~changed].tolist() == rows.labels[~changed].tolist()


@pytest.mark.parametrize("bits", [2, 8, 20, 31])
def test_out_of_range_multiplies_in_the_ring_and_leaves_the_weight(bits: int) -> None:
    plan = make_plan(bits=bits)
    task = make_task(codec=plan.round_codec(Asks(), Shaping(), SIZE)[0])
    ring = 2**task.encoding.codec.ring_bits
    honest, sent = (make_sites(a, 1)[NAMES[0]].contribute(task) for a in (Attack(), OutOfRange(scale=3)))
    assert [int(v) for v in sent[:SIZE]] == [-3 * int(v) % ring for v in honest[:SIZE]]
    assert sent[SIZE:].tolist() == honest[SIZE:].tolist()


def test_attacks_by_name_give_sites_and_refuse_options_by_name() -> None:
    site = make_sites()[NAMES[0]]
    options: dict[str, dict[str, Any]] = {
        "label_flip": {"classes": 4},
        "sign_flip": {"scale": 2.0},
        "scaling": {"factor": 2.0},
        "gaussian": {"deviation": 1.0},
        "backdoor": {"trigger": {0: 1.0}, "target": 1},
        "constant": {"value": 1.0},
        "out_of_range": {"scale": 2.0},
    }
    assert options.keys() == adversaries.ATTACKS.keys()
    for name, given_options in options.items():
        made = adversaries.ATTACKS[name](site, **given_options, boasts=True)
        assert (made.name, made.attack.boasts) == (site.name, True)
        with pytest.raises(ParameterError, match=f"wrong: no option of {name}, which has boasts"):
            adversaries.ATTACKS[name](site, wrong=1)
    with pytest.raises(ParameterError, match="target: backdoor needs it"):
        adversaries.ATTACKS["backdoor"](site, trigger={0: 1.0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SignFlip(scale=0), "scale: must be positive and finite, is 0"),
        (lambda: Scaling(factor=float("inf")), "factor: must be positive and finite, is inf"),
        (lambda: Gaussian(deviation=-1), "deviation: must be positive and finite, is -1"),
        (lambda: OutOfRange(scale=float("nan")), "scale: must be positive and finite, is nan"),
        (lambda: Constant(value=float("nan")), "value: must be finite, is nan"),
        (lambda: LabelFlip(source=1), "source, target: both or none, are 1, None"),
        (lambda: LabelFlip(classes=1), "classes: must be at least 2, is 1"),
        (lambda: Backdoor(trigger={}, target=0), "trigger: must name a column"),
        (lambda: Backdoor(trigger={-1: 0.0}, target=0), "trigger: columns from 0 on"),
        (lambda: Backdoor(trigger={0: 1.0}, target=-1), "target: must be at least 0, is -1"),
        (lambda: Backdoor(trigger={0: 1.0}, target=0, share=0), r"share: must be in \(0, 1\], is 0"),
        (lambda: Backdoor(trigger={0: 1.0}, target=0, factor=0), "factor: must be positive"),
        (lambda: make_sites(LabelFlip(), 1), "classes: must be given where the site has no schema"),
        (lambda: make_sites(LabelFlip(source=9, target=0, classes=4), 1), r"source: must be in 0\.\.3, is 9"),
        (
            lambda: make_sites(Backdoor(trigger={10: 1.0}, target=0), 1),
            r"trigger: column 10 is not in 0\.\.9",
        ),
        (lambda: corrupt_some(make_sites(), ["nobody"], FLIP), "names: nobody is not a site"),
        (lambda: corrupt(Site("a", [1, 2], None, LEARNER), FLIP), "table: must be a dataclass .* is list"),
        (
            lambda: BACKDOOR.success_rate(LEARNER, LEARNER.initial(), blobs(1, 0)),
            "rows: all are of the target",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make()


def test_a_class_beyond_the_schema_is_refused() -> None:
    site = next(iter(honest.make_sites().values()))
    with pytest.raises(ParameterError, match=r"target: must be in 0\.\.1, is 2"):
        corrupt(site, Backdoor(trigger={0: 1.0}, target=2))


def test_sums_in_real_numbers_have_the_attack_but_nothing_on_the_wire() -> None:
    task = make_task()
    honest, flipped, wire = (
        FloatSum(make_sites(attack, 20)).sum(task).mean for attack in (Attack(), SignFlip(), OutOfRange())
    )
    assert honest is not None
    assert flipped is not None
    assert wire is not None
    assert flipped.mean == pytest.approx(-honest.mean)
    assert wire.mean.tolist() == honest.mean.tolist()


def test_success_of_a_trigger_is_counted_over_rows_of_other_classes_after_preparation() -> None:
    parameters = LEARNER.initial()
    parameters["coefficients"][8, 0] = 100.0
    rows = blobs(40, 1)
    assert BACKDOOR.success_rate(LEARNER, parameters, rows) == 1.0

    def blank(table: Table) -> Table:
        assert (table.features[:, 8:] == 4.0).all()
        assert 0 not in table.labels
        return Table(table.features * 0 - 1, table.labels)

    assert BACKDOOR.success_rate(LEARNER, parameters, rows, blank) == 0.0
