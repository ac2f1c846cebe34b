"""Norms that updates are clipped to, fixed and following a quantile of the sites' norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.strategies import FedAvg
from tests.fedcore.sites import model_of
from tests.fedcore.strategies.toys import KINDS, Runner, average, make_toys, toy_plan

UNIFORM = FedAvg(ask=Asks(weighting=Weighting.UNIFORM))
TOYS = make_toys(8)


@pytest.mark.slow
@given(
    norms=st.lists(st.floats(1e-2, 1e2), min_size=20, max_size=40, unique=True),
    quantile=st.sampled_from([0.2, 0.5, 0.8]),
    start=st.floats(1e-3, 1e3),
)
@settings(deadline=None)
def test_the_norm_converges_to_the_quantile_of_the_norms(
    norms: list[float], quantile: float, start: float
) -> None:
    clip, norm = AdaptiveClip(norm=start, quantile=quantile, rate=0.1), start
    for _ in range(900):
        norm = clip.following(norm, float(np.mean([length <= norm for length in norms])))
    low, high = (np.quantile(norms, q) for q in (max(quantile - 0.06, 0), min(quantile + 0.06, 1)))
    assert low * math.exp(-0.1) <= norm <= high * math.exp(0.1)


def test_one_step_is_that_of_the_paper() -> None:
    clip = AdaptiveClip(norm=2.0, quantile=0.5, rate=0.2)
    assert clip.following(2.0, 0.75) == pytest.approx(2.0 * math.exp(-0.2 * 0.25))
    assert clip.following(2.0, 1.7) == clip.following(2.0, 1.0)  # noise moves a share out of 0..1
    assert clip.following(2.0, -3.0) == clip.following(2.0, 0.0)
    assert toy_plan(norm=2.0).next_norm(2.0, 0.0) == 2.0  # a number stays


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_clipped_to_the_norm_and_shorter_ones_stay(kind: str) -> None:
    norm = 0.1
    ran = Runner(TOYS).run(kind, UNIFORM, toy_plan(rounds=1, norm=norm))
    changes = [toy.train(np.zeros(4)) for toy in TOYS.values()]
    lengths = [float(np.linalg.norm(change)) for change in changes]
    assert min(lengths) < norm < max(lengths)
    wanted = average([c * min(1, norm / n) for c, n in zip(changes, lengths, strict=True)], [1] * 8)
    assert ran.flat == pytest.approx(wanted, abs=1e-6)
    assert ran.records[0].norm == norm
    assert ran.records[0].within is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotate", [False, True])
def test_the_share_within_the_norm_is_summed_securely_and_precisely(kind: str, rotate: bool) -> None:
    plan = toy_plan(rounds=4, norm=AdaptiveClip(norm=0.1, rate=0.5), rotate=rotate, bits=10)
    ran = Runner(TOYS, {"train 2": frozenset({"s03"})}).run(kind, UNIFORM, plan)
    norm = 0.1
    for record in ran.records:
        assert record.norm == pytest.approx(norm, rel=1e-6)
        assert record.task.encoding.precise == ("within",)
        assert record.task.encoding.hidden == 0
        assert record.result is not None
        model = np.concatenate([model_of(record.task)[n].ravel() for n in ("coefficients", "intercept")])
        within = [np.linalg.norm(TOYS[name].train(model) - model) <= norm for name in record.result.survivors]
        assert record.within == pytest.approx(np.mean(within), abs=1e-6)
        norm *= math.exp(-0.5 * (float(np.mean(within)) - 0.5))
    assert len({record.norm for record in ran.records}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("rotate", [False, True])
def test_with_noise_the_bit_is_inside_the_noisy_vector(rotate: bool) -> None:
    privacy = PrivacyPlan(epsilon=5000.0, delta=1e-3, rounds=4, smallest=5)  # next to no noise
    clip = AdaptiveClip(norm=0.1, rate=0.5, share=1.0)
    plan = toy_plan(rounds=4, norm=clip, rotate=rotate, bits=16, privacy=privacy)
    ran = Runner(TOYS).run("plain", UNIFORM, plan)
    for record in ran.records:
        assert record.task.encoding.precise == ()
        assert record.task.encoding.hidden == 1
        assert record.task.encoding.codec.precise == 0
        assert record.norm is not None
        model = np.concatenate([model_of(record.task)[n].ravel() for n in ("coefficients", "intercept")])
        within = np.mean([np.linalg.norm(t.train(model) - model) <= record.norm for t in TOYS.values()])
        assert record.within == pytest.approx(within, abs=0.1)
        assert record.within != within


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: toy_plan(norm=0.0), "norm"),
        (lambda: toy_plan(norm=math.inf), "norm"),
        (lambda: AdaptiveClip(norm=math.nan), "norm"),
        (lambda: AdaptiveClip(norm=1.0, quantile=1.0), "quantile"),
        (lambda: AdaptiveClip(norm=1.0, share=0.0), "share"),
        (lambda: AdaptiveClip(norm=1.0, rate=0.0), "rate"),
    ],
)
def test_norms_that_cannot_be_are_refused(make: Any, field: str) -> None:
    with pytest.raises(SettingError, match=f"{field}: must be"):
        make()
