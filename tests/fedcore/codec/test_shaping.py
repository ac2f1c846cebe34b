"""What is done to a vector before it is summed is undone on the sum; what is not sent is not forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.errors import CodecError, SettingError
from fedcore.rounds.aggregation import GroupSum, PlainSum, SecureSum
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg
from fedcore.stream import derive
from secagg import AbortReason, RoundAbortedError
from tests.fedcore.sites import model_of
from tests.fedcore.strategies.toys import Runner, make_toy_sites, make_toys, run_over, toy_plan

SEED = derive(bytes(32), "test")
LENGTHS = [*range(1, 301), 1000, 4096, 65537, 300_001]


@pytest.mark.parametrize("d", LENGTHS)
def test_a_rotation_keeps_lengths_and_is_inverted_at_every_length(d: int) -> None:
    shaping = Shaping(rotate=True, seed=SEED)
    values = np.random.default_rng(d).normal(size=d)
    shaped, within = shaping.shape(values)
    back, share = shaping.restore(shaped, d)
    length = float(np.linalg.norm(values))
    assert within
    assert math.isnan(share)
    assert shaped.shape == back.shape == (d,)
    assert float(np.linalg.norm(shaped)) == pytest.approx(length, rel=2e-6)
    assert float(np.linalg.norm(back - values)) < 2e-6 * length
    assert d < 3 or not np.allclose(np.abs(shaped), np.abs(values))


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 13, 64, 100, 200])
def test_a_rotation_is_an_orthonormal_matrix(d: int) -> None:
    shaping = Shaping(rotate=True, seed=SEED)
    matrix = np.array([shaping.shape(row)[0] for row in np.eye(d)])
    assert matrix @ matrix.T == pytest.approx(np.eye(d), abs=2e-6)


@pytest.mark.parametrize("d", [50, 256, 257, 1000, 5000])
def test_rotated_vectors_are_flat(d: int) -> None:
    """Also the worst ones, with all their length in one place: no entry above 4.5 sqrt(2 / d)."""
    for seed in range(40):
        shaping = Shaping(norm=1.0, rotate=True, seed=derive(SEED, seed))
        peak = np.zeros(d)
        peak[seed * d // 40] = 1.0
        dense = np.random.default_rng(seed).normal(size=d)
        for values in (peak, dense / np.linalg.norm(dense)):
            bound = shaping.coordinate_clip(d, 20)
            assert bound is not None
            assert np.abs(shaping.shape(values)[0]).max() <= bound * (1 + 1e-6)


def test_another_seed_rotates_and_keeps_differently() -> None:
    values = np.arange(1.0, 101.0)
    for options in ({"rotate": True}, {"keep": 0.3}):
        one, two = (Shaping(seed=derive(SEED, i), **options).shape(values)[0] for i in range(2))
        assert not np.allclose(one, two)


@given(
    d=st.integers(1, 200),
    sites=st.integers(1, 6),
    rotate=st.booleans(),
    keep=st.sampled_from([1.0, 0.5, 0.01]),
    norm=st.sampled_from([None, 1e-3, 2.0, 1e6]),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=100)
def test_a_mean_of_shaped_vectors_restores_to_the_mean_of_the_clipped_ones(
    d: int, sites: int, rotate: bool, keep: float, norm: float | None, seed: int
) -> None:
    shaping = Shaping(norm=norm, rotate=rotate, keep=keep, seed=derive(SEED, seed))
    vectors = np.random.default_rng(seed).normal(size=(sites, d))
    shaped = [shaping.shape(vector) for vector in vectors]
    assert {len(one) for one, _ in shaped} == {shaping.length(d)}
    restored, _ = shaping.restore(np.mean([one for one, _ in shaped], axis=0), d)
    sent = vectors - np.array([shaping.left(vector) for vector in vectors]) if keep < 1 else vectors
    lengths = np.linalg.norm(sent, axis=1)
    factors = np.ones(sites) if norm is None else np.minimum(1.0, norm / lengths)
    wanted = (sent * factors[:, None]).mean(axis=0)
    assert restored == pytest.approx(wanted, abs=5e-6 * float((lengths * factors).max()))
    assert [within for _, within in shaped] == (factors >= 1.0).tolist()
    assert np.count_nonzero(wanted) <= shaping.length(d)


@given(d=st.integers(1, 500), keep=st.floats(0.001, 1.0))
def test_keeping_leaves_the_other_coordinates_exactly(d: int, keep: float) -> None:
    shaping = Shaping(keep=keep, seed=SEED)
    values = np.random.default_rng(d).normal(size=d)
    sent, _ = shaping.restore(shaping.shape(values)[0], d)
    assert np.count_nonzero(sent) == shaping.length(d) == max(1, math.ceil(keep * d)) or keep == 1
    assert (sent + (shaping.left(values) if keep < 1 else 0)).tolist() == values.tolist()


@pytest.mark.parametrize("rotate", [False, True])
@given(share=st.floats(0.01, 1.0), inside=st.integers(0, 5))
@settings(deadline=None)
def test_the_hidden_bits_give_the_share_within_the_norm(rotate: bool, share: float, inside: int) -> None:
    shaping = Shaping(norm=0.5, rotate=rotate, seed=SEED)
    vectors = [np.full(9, 0.01 if i < inside else 10.0) for i in range(5)]
    shaped = [shaping.shape(vector, share)[0] for vector in vectors]
    mean, within = shaping.restore(np.mean(shaped, axis=0), 9, share)
    assert within == pytest.approx(inside / 5, abs=1e-5 / share)
    assert len(mean) == 9
    assert max(float(np.linalg.norm(one)) for one in shaped) <= 0.5 * math.sqrt(1 + share**2) * (1 + 1e-6)


@pytest.mark.parametrize(
    "bad", [{"norm": 0.0}, {"norm": math.nan}, {"keep": 0.0}, {"keep": 1.1}, {"seed": b""}]
)
def test_what_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(bad))}: must be"):
        Shaping(**bad)


UNIFORM = Asks(weighting=Weighting.UNIFORM)
DROPS = {"train 2": frozenset({"s01"}), "train 4": frozenset({"s01", "s03"})}


@pytest.mark.parametrize("cohort", [None, 4])
@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_what_was_sent_and_what_is_left_add_up_to_all_updates(keep: float, cohort: int | None) -> None:
    """Error feedback: per site, sum of sent + residual = sum of updates of the rounds that it was in."""
    toys = make_toys(6)
    sent = dict.fromkeys(toys, np.zeros(4))
    updates = dict.fromkeys(toys, np.zeros(4))
    plan = toy_plan(rounds=7, keep=keep, cohort=cohort)
    ran = Runner(toys, DROPS).run("float", FedAvg(ask=UNIFORM), plan)
    for record in ran.records:
        model = np.concatenate(
            [model_of(record.task)[name].ravel() for name in ("coefficients", "intercept")]
        )
        assert record.result is not None
        total = np.zeros(4)
        for name in record.result.survivors:
            update = toys[name].train(model) - model
            whole = update + updates[name] - sent[name]
            part = whole - record.task.encoding.shaping.left(whole)
            updates[name] = updates[name] + update
            sent[name] = sent[name] + part
            total += part / len(record.result.survivors)
        restored, _ = record.task.encoding.shaping.restore(record.result.mean.mean, 4)
        assert restored == pytest.approx(total, abs=1e-12)
    assert len({record.task.encoding.shaping.seed for record in ran.records}) == 7
    last = {name: r.task.name for r in ran.records for name in r.result.survivors if r.result}  # type: ignore[union-attr]
    for name, site in ran.sites.items():
        if name not in last:
            continue
        pending = site.state.pending
        counted = pending is not None and pending[0] == last[name]
        residual = pending[1]["residual"] if counted and pending else site.state.residual
        assert residual is not None
        assert sent[name] + residual == pytest.approx(updates[name], abs=1e-12)
        assert np.abs(residual).max() > 0


def test_a_round_that_had_no_result_changes_no_residual() -> None:
    toys = make_toys(5)

    class Flaky(PlainSum):
        lost = 0

        def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
            result = PlainSum.sum(self, task, among)
            if task.name == "train 3" and self.lost < 2:
                self.lost += 1
                raise RoundAbortedError(AbortReason.TOO_FEW_SURVIVORS, "on purpose")
            return result

    def final(aggregator: type[PlainSum]) -> list[float]:
        sites = make_toy_sites(toys)
        ran = run_over(aggregator(sites), sites, FedAvg(), toy_plan(rounds=6, keep=0.5))
        return list(map(float, ran.flat))

    assert final(Flaky) == final(PlainSum)


def test_parts_of_weights_are_refused() -> None:
    strategy = FedAvg(ask=Asks(update=UpdateKind.WEIGHTS))
    with pytest.raises(SettingError, match="keep: weights that are not sent would be taken for zeros"):
        Runner(make_toys(5)).run("plain", strategy, toy_plan(keep=0.5))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", range(1, 25))
def test_every_width_sums_exactly_in_the_ring(bits: int, rotate: bool) -> None:
    toys = make_toys(5)
    plan = toy_plan(rounds=2, clients=5, bits=bits, rotate=rotate, clip=0.3)
    runs = []
    for kind in (PlainSum, SecureSum):
        sites = make_toy_sites(toys)
        runs.append(run_over(kind(sites), sites, FedAvg(), plan))
    plain, secure = runs
    assert plain.flat.tobytes() == secure.flat.tobytes()
    for record in secure.records:
        task, sites = record.task, make_toy_sites(toys)
        columns = [sites[name].contribute(task).tolist() for name in sites]
        assert record.result is not None
        exact = [sum(column) % 2**task.encoding.codec.ring_bits for column in zip(*columns, strict=True)]
        assert record.result.total.tolist() == exact
        assert record.weight == sum(toy.rows for toy in toys.values())


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_the_mean_of_many_sums_is_unbiased(bits: int) -> None:
    codec = Codec(clip=1.0, bits=bits, weight_cap=7, clients=3)
    values, weights = np.random.default_rng(1).uniform(-1, 1, (3, 5)), (1, 4, 7)
    wanted = np.average(values, axis=0, weights=weights)
    means = []
    for i in range(4000):
        total = sum(
            codec.encode(vector, weight, derive(SEED, i, j)).astype(np.uint64)
            for j, (vector, weight) in enumerate(zip(values, weights, strict=True))
        )
        means.append(codec.decode(np.asarray(total) & np.uint64(2**codec.ring_bits - 1), 3).mean)
    deviation = np.std(means, axis=0) / math.sqrt(4000)
    assert np.abs(np.mean(means, axis=0) - wanted).max() <= 5 * deviation.max()


@pytest.mark.parametrize("bits", [1, 2, 20, 40])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_are_refused_at_every_width(bits: int, bad: float) -> None:
    codec = Codec(clip=1.0, bits=bits, weight_cap=1, clients=3)
    with pytest.raises(CodecError, match=r"update\[1\]: must be finite"):
        codec.encode(np.array([0.5, bad]), 1, SEED)


def test_retries_ask_the_same_task() -> None:
    sites = make_toy_sites(make_toys(4))
    ran = run_over(PlainSum(sites), sites, FedAvg(), toy_plan(rounds=1))
    again = PlainSum(make_toy_sites(make_toys(4))).sum(ran.records[0].task)
    assert ran.records[0].result is not None
    assert again.total.tolist() == ran.records[0].result.total.tolist()
    assert ran.records[0].task.kind is TaskKind.TRAIN
