"""The noise of a sum is what its survivors added, no more and no less, and nothing wraps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.codec.codec import Codec
from fedcore.errors import CodecError
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.noise import Noise, rounded_norm, signed
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.questions import Train
from fedcore.rounds.site import Contribution, Site
from fedcore.rounds.task import Task
from fedcore.stream import derive
from secagg import RoundAbortedError
from tests.fedcore.sites import encoded
from tests.lazy import Lazy

stats: Any = Lazy("scipy.stats")

SEED = derive(bytes(32), "noise")
BOTH = (Mechanism.DISCRETE_GAUSSIAN, Mechanism.SKELLAM)
every_mechanism = pytest.mark.parametrize("mechanism", BOTH)
D = 6000


def make_noise(mechanism: Mechanism, variance: float, norm: float = 0.0, smallest: int = 1) -> Noise:
    return Noise(mechanism=mechanism, variance=variance, sensitivity=1.0, norm=norm, smallest=smallest)


class Fixed(Site):
    """A site whose vector is given."""

    def accept(self, task: Task) -> Callable[[], Contribution]:
        values = np.random.default_rng(int(self.name)).uniform(-1, 1, task.encoding.dimension)
        return lambda: Contribution(values, np.zeros(0), 1)


def make_sum(noise: Noise, clients: int, bits: int = 12) -> tuple[dict[str, Site], Task]:
    codec = Codec(clip=1.0, bits=bits, weight_cap=1, clients=clients)
    codec = replace(codec, headroom=noise.headroom(clients))
    sites: dict[str, Site] = {str(i): Fixed(str(i), None, None, None, seed=9) for i in range(clients)}  # type: ignore[arg-type]
    task = Task(question=Train(model={}), encoding=Encoding(dimension=D, codec=codec, noise=noise))
    return sites, task


@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
@every_mechanism
@pytest.mark.parametrize(
    ("variance", "absent"), [(0.3, {"4"}), (40.0, {"0", "3"}), (40.0, set()), (9e5, {"1"})]
)
def test_the_variance_of_a_sum_is_that_of_its_survivors(
    kind: type[PlainSum | SecureSum], mechanism: Mechanism, variance: float, absent: set[str]
) -> None:
    noise = make_noise(mechanism, variance, smallest=4)
    sites, task = make_sum(noise, 7)
    quiet = encoded(task, noise=None)
    gone = {task.name: frozenset(absent)}
    total = kind(sites, gone).sum(task)
    survivors = 7 - len(absent)
    assert len(total.survivors) == survivors
    rounded = sum(
        signed(
            task.encoding.codec.encode(
                sites[name].compute(quiet).coordinates,
                1,
                derive(sites[name]._randomness(task, "rounding"), "rounding", 0),
            )[:D],
            task.encoding.codec.ring_bits,
        )
        for name in total.survivors
    )
    added = signed(total.total[:D], task.encoding.codec.ring_bits) - rounded
    assert (added == np.rint(added)).all()
    statistic = float((added**2).sum()) / (survivors * variance)
    # Below a variance of 1 the discrete Gaussian has less than its parameter, by what sampling tests.
    below = 0.02 if variance < 1 else 0.0
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], D)
    spread = 1 + 0.5 / (survivors * variance)  # a Skellam's kurtosis is 1 / variance above 3
    assert low - (spread - 1 + below) * D <= statistic <= high * spread
    assert abs(float(added.mean())) < 5 * math.sqrt(survivors * variance / D)


@every_mechanism
@given(
    variance=st.floats(0.0, 1e6),
    bits=st.integers(2, 20),
    clients=st.integers(1, 6),
    extreme=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=40)
def test_nothing_wraps_compared_with_exact_integers(
    mechanism: Mechanism, variance: float, bits: int, clients: int, extreme: bool, seed: int
) -> None:
    noise = make_noise(mechanism, variance)
    codec = Codec(clip=1.0, bits=bits, weight_cap=1, clients=clients)
    codec = replace(codec, headroom=noise.headroom(clients))
    one, ring = 1 << codec.ring_bits, 2**codec.ring_bits
    values = np.ones(50) if extreme else np.random.default_rng(seed).uniform(-1, 1, 50)
    exact, total = np.zeros(50, object), np.zeros(50, object)
    for i in range(clients):
        rounding = derive(SEED, seed, i)
        encoded = noise.encode(codec, values, 1, rounding)
        assert len(encoded) == codec.length(50)
        assert int(encoded.max()) < ring
        steps = signed(codec.encode(values, 1, derive(rounding, "rounding", 0))[:50], codec.ring_bits)
        apart = (encoded[:50].astype(object) - steps.astype(np.int64).astype(object)) % one
        apart = np.array([x - one if x >= one // 2 else x for x in apart], object)
        exact += steps.astype(np.int64).astype(object) + apart
        total = (total + encoded[:50].astype(object)) % one
    back = np.array([x - one if x >= one // 2 else x for x in total], object)
    assert (back == exact).all()


@given(
    d=st.integers(1, 300),
    length=st.floats(0.0, 50.0),
    flat=st.booleans(),
    seed=st.integers(0, 2**30),
)
@settings(deadline=None, max_examples=60)
def test_the_rounded_norm_is_never_exceeded_and_always_found(
    d: int, length: float, flat: bool, seed: int
) -> None:
    codec = Codec(clip=100.0, bits=9, weight_cap=1, clients=3)
    values = np.ones(d) if flat else np.random.default_rng(seed).normal(size=d)
    values *= length / float(np.linalg.norm(values))
    bound = rounded_norm(length * codec.levels / codec.clip, d)
    noise = make_noise(Mechanism.SKELLAM, 0.0, norm=bound)
    for i in range(5):
        encoded = noise.encode(codec, values, 1, derive(SEED, seed, i))
        assert float(np.linalg.norm(signed(encoded[:d], codec.ring_bits))) <= bound


def test_a_vector_that_is_longer_than_agreed_is_refused() -> None:
    codec = Codec(clip=1.0, bits=9, weight_cap=1, clients=3)
    with pytest.raises(CodecError, match="no rounding within the norm of 10 steps"):
        make_noise(Mechanism.SKELLAM, 1.0, norm=10.0).encode(codec, np.ones(5), 1, SEED)


def test_precise_values_and_noise_are_refused() -> None:
    codec = Codec(clip=1.0, bits=9, weight_cap=1, clients=3, precise=1)
    with pytest.raises(CodecError, match="precise: noise does not hide precise values"):
        make_noise(Mechanism.SKELLAM, 1.0).encode(codec, np.ones(5), 1, SEED, np.zeros(1))


@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_fewer_survivors_than_are_needed_have_no_result(kind: type[PlainSum | SecureSum]) -> None:
    sites, task = make_sum(make_noise(Mechanism.SKELLAM, 4.0, smallest=6), 7)
    with pytest.raises(RoundAbortedError, match="5 of at least 6 whose noise is needed"):
        kind(sites, {task.name: frozenset({"0", "1"})}).sum(task)
    assert len(kind(sites, {task.name: frozenset({"0"})}).sum(task).survivors) == 6


@every_mechanism
def test_the_weights_behind_the_values_get_no_noise(mechanism: Mechanism) -> None:
    sites, task = make_sum(make_noise(mechanism, 400.0), 5)
    result = PlainSum(sites).sum(task)
    assert task.encoding.codec.decode(result.total, 5).weight == 5


def test_noise_of_another_seed_is_another_noise() -> None:
    codec = Codec(clip=1.0, bits=9, weight_cap=1, clients=3, headroom=500)
    noise = make_noise(Mechanism.SKELLAM, 100.0)
    one, two = (noise.encode(codec, np.zeros(50), 1, derive(SEED, i)) for i in range(2))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    "options", [{"variance": -1.0}, {"variance": math.inf}, {"norm": math.nan}, {"sensitivity": -1.0}]
)
def test_noise_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    values = {"variance": 1.0, "sensitivity": 1.0, "norm": 1.0} | options
    with pytest.raises(CodecError, match=f"noise.{next(iter(options))}: must be finite"):
        Noise(mechanism=Mechanism.SKELLAM, **values)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="the continuous Gaussian is for comparison"):
        Noise(mechanism=Mechanism.GAUSSIAN, variance=1.0, sensitivity=1.0)
