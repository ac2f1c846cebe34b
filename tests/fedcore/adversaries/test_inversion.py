"""What an update tells of the rows behind it: alone, under a mask, and in a sum.

Summing hides one example among many of its class. It hides little among few: where a class occurs once in
the whole sum, and another not at all, its example can be read off, and a server that chooses the model can
force that. What bounds a sum is differential privacy.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.data import digits
from fedcore.data.table import Table
from fedcore.learner import Parameters, flatten, unflatten
from fedcore.learners import LocalSGD, Perceptron, SoftmaxRegression
from fedcore.privacy.noise import signed
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Train
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from secagg import Phase, SecAggError
from secagg.kernels import UIntArray, unpack_add
from secagg.messages import MaskedInput
from tests.fedcore.adversaries.inversion import correlations, differences, matched, quotients
from tests.fedcore.sites import model_of
from tests.protocol.network import Cohort, opened

EXACT = 0.99  # correlation of 64 pixels beyond which two images are the same
CLIENTS = 12
SOFTMAX = LocalSGD(model=SoftmaxRegression(64, 10), epochs=20, rate=0.3)
Array = NDArray[np.float64]


@cache
def images() -> tuple[Table, Table]:
    """Digits of clients, and others that everybody knows; pixels in [0, 1]."""
    whole = digits().table
    order = np.random.default_rng(1).permutation(len(whole))
    scaled = Table(whole.features / 16, whole.labels)
    return scaled.take(order[:800]), scaled.take(order[800:])


@cache
def trained() -> dict[str, Array]:
    return SOFTMAX.fit(SOFTMAX.initial(), images()[1], 1)


def make_sites(rows: NDArray[np.int64], each: int, learner: LocalSGD = SOFTMAX) -> dict[str, Site]:
    """Sites of so many of these rows."""
    parts = [images()[0].take(rows[at : at + each]) for at in range(0, len(rows), each)]
    return {f"site-{i:02}": Site(f"site-{i:02}", part, None, learner, 5) for i, part in enumerate(parts)}


GRADIENT = Asks(update=UpdateKind.GRADIENT)


def make_task(model: Parameters, asks: Asks = GRADIENT, **plan: Any) -> Task:
    """Ask for the gradient of the mean loss, 20 bits a value."""
    values: dict[str, Any] = {"rounds": 1, "clients": CLIENTS, "weight_cap": 8, "clip": 2.0}
    whole = TrainingPlan(**(values | plan))
    size, classes = flatten(model).size, tuple("0123456789")
    terms = Terms(plan=whole, asks=asks, passes=0, schema=None, classes=classes, size=size)
    return terms.task(Train(model=model))


def gradient_of(sums: PlainSum | SecureSum, task: Task) -> Parameters:
    """What the server knows after the sum."""
    result = sums.sum(task)
    assert result.survivors == tuple(sums.names)
    return unflatten(task.encoding.codec.decode(result.total, len(result.survivors)).mean, model_of(task))


def best(found: Array, inputs: Array) -> Array:
    """For every input the correlation of the reconstruction that is nearest, (inputs,)."""
    return np.asarray(correlations(found, inputs).max(axis=0))


def analytic(gradient: Parameters) -> Array:
    weights, biases = gradient["coefficients"], gradient["intercepts"]
    return np.concatenate([quotients(weights, biases), differences(weights, biases)])


def rows_with(labels: list[int]) -> NDArray[np.int64]:
    """Numbers of different rows with these labels."""
    places = {label: iter(np.flatnonzero(images()[0].labels == label)) for label in set(labels)}
    return np.array([next(places[label]) for label in labels])


# --- alone, in the clear


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("model", ["initial", "trained"])
def test_a_plain_gradient_of_one_example_is_the_example(row: int, model: str) -> None:
    task = make_task(SOFTMAX.initial() if model == "initial" else trained())
    upload = make_sites(np.array([row]), 1)["site-00"].contribute(task)
    seen = unflatten(task.encoding.codec.decode(upload, 1).mean, model_of(task))
    inputs = images()[0].features[[row]]
    assert best(quotients(seen["coefficients"], seen["intercepts"]), inputs)[0] > EXACT
    assert best(matched(seen, model_of(task), images()[0].labels[[row]], 2, 0), inputs)[0] > EXACT


def test_the_change_after_one_local_step_is_as_good_as_the_gradient() -> None:
    task = make_task(SOFTMAX.initial(), asks=Asks())
    site = make_sites(np.array([3]), 1, replace(SOFTMAX, epochs=1))["site-00"]
    seen = unflatten(task.encoding.codec.decode(site.contribute(task), 1).mean, model_of(task))
    found = quotients(seen["coefficients"], seen["intercepts"])
    assert best(found, images()[0].features[[3]])[0] > EXACT


def test_a_first_dense_layer_with_biases_gives_the_example_away_too() -> None:
    learner = LocalSGD(model=Perceptron(64, 10, hidden=(16,)))
    gradient = learner.gradient(learner.initial(), images()[0].take(np.array([7])))
    found = quotients(gradient["layer0.weights"], gradient["layer0.biases"])
    assert best(found, images()[0].features[[7]])[0] > 0.999999


# --- alone, under a mask


class Uploads(Cohort):
    """Clients that submit given vectors."""

    def __init__(self, vectors: list[UIntArray], ring_bits: int) -> None:
        super().__init__(len(vectors), vector_length=len(vectors[0]), ring_bits=ring_bits)
        self.vectors = vectors

    def vector(self, i: int) -> UIntArray:
        return self.vectors[i]

    def upload(self, i: int) -> UIntArray:
        """What the server receives of client i."""
        out = np.zeros_like(self.vectors[i])
        unpack_add(out, opened(MaskedInput, self.answer(i)).packed, ring_bits=self.parameters.ring_bits)
        return out


def chi_square(values: UIntArray, ring_bits: int) -> float:
    """Of the counts in 16 bins of equal width, 15 degrees of freedom: mean 15, deviation 5.5."""
    counts = np.bincount(
        (values.astype(np.uint64) >> np.uint64(ring_bits - 4)).astype(np.int64), minlength=16
    )
    expected = len(values) / 16
    return float(((counts - expected) ** 2 / expected).sum())


def test_a_masked_upload_is_uniform_and_the_attack_on_it_gives_noise() -> None:
    task = make_task(SOFTMAX.initial())
    sites = make_sites(np.arange(CLIENTS), 1)
    vectors = [site.contribute(task) for site in sites.values()]
    bits, size = task.encoding.codec.ring_bits, task.encoding.dimension
    cohort = Uploads(vectors, bits)
    cohort.advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    uploads = [cohort.upload(i) for i in range(CLIENTS)]
    for i, (upload, vector) in enumerate(zip(uploads, vectors, strict=True)):
        inputs = images()[0].features[[i]]
        plain, masked = (
            unflatten(signed(one[:size], bits), model_of(task)) for one in (vector.astype(np.uint64), upload)
        )
        assert best(analytic(plain), inputs)[0] > EXACT
        assert best(analytic(masked), inputs)[0] < 0.5  # 55 guesses of noise, deviation 1/8 each
        assert chi_square(vector, bits) > 500
        assert chi_square(upload, bits) < 45  # chance 1e-4 for one that is uniform
    assert 10 < np.mean([chi_square(upload, bits) for upload in uploads]) < 20
    cohort.tell_all().close()
    total = sum(vector.astype(np.uint64) for vector in vectors) & np.uint64(2**bits - 1)
    assert cohort.total() == total.tolist()


# --- in a sum


@pytest.mark.parametrize("model", ["initial", "trained"])
def test_attacks_on_a_sum_over_many_examples_of_each_class_are_no_better_than_guessing(model: str) -> None:
    """12 clients of 8 digits each, and an attacker who is even told all labels."""
    task = make_task(SOFTMAX.initial() if model == "initial" else trained())
    rows = np.arange(CLIENTS * 8)
    mine, known = images()[0].take(rows), images()[1]
    assert np.bincount(mine.labels).min() >= 5
    seen = gradient_of(SecureSum(make_sites(rows, 8)), task)
    by_quotients, by_matching = analytic(seen), matched(seen, model_of(task), mine.labels, 2, 0)
    class_means = np.stack([known.features[known.labels == label].mean(axis=0) for label in range(10)])
    guesses = best(known.features[: len(rows)], mine.features)  # as many digits of other people
    for found in (by_quotients, by_matching):
        reached = best(found, mine.features)
        assert reached.max() < guesses.max() + 0.005
        assert reached.max() < EXACT - 0.02
        assert reached.mean() < guesses.mean() - 0.02
        assert reached.mean() < best(class_means, mine.features).mean() - 0.02


def test_rounds_of_two_are_refused_because_the_sum_gives_both_away() -> None:
    """A negative result: of two examples of different classes, each is reconstructed from the sum."""
    task, rows = make_task(SOFTMAX.initial()), rows_with([3, 8])
    with pytest.raises(SecAggError):
        SecureSum(make_sites(rows, 1)).sum(task)
    seen = gradient_of(PlainSum(make_sites(rows, 1)), task)
    assert best(analytic(seen), images()[0].features[rows]).min() > EXACT


def test_two_examples_of_one_class_give_only_their_mixture() -> None:
    task, rows = make_task(SOFTMAX.initial()), rows_with([3, 3])
    found = analytic(gradient_of(PlainSum(make_sites(rows, 1)), task))
    inputs = images()[0].features[rows]
    assert best(found, inputs.mean(axis=0, keepdims=True))[0] > EXACT
    assert best(found, inputs).max() < EXACT


@pytest.mark.parametrize("attack", ["differences", "matching"])
def test_a_sum_over_twelve_gives_away_the_only_example_of_a_class(attack: str) -> None:
    """A negative result: the mask hides who it was, not what it was. Classes 0 and 1 occur once, 9 never."""
    task, labels = make_task(SOFTMAX.initial()), [0, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8]
    rows = rows_with(labels)
    seen = gradient_of(SecureSum(make_sites(rows, 1)), task)
    found = (
        analytic(seen) if attack == "differences" else matched(seen, model_of(task), np.array(labels), 2, 0)
    )
    reached = best(found, images()[0].features[rows])
    alone = np.array([labels.count(label) == 1 for label in labels])
    assert reached[alone].min() > EXACT
    assert reached[~alone].max() < EXACT


def test_a_server_that_chooses_the_model_reads_examples_from_a_sum_over_ninety_six() -> None:
    """A negative result (Fowl et al., ICLR 2022): units that switch on one after the other, by brightness.

    Two that follow one another differ by the examples between them: often by one.
    """
    rows = np.arange(CLIENTS * 8)
    mine, known = images()[0].take(rows), images()[1]
    units = 256
    learner = LocalSGD(model=Perceptron(64, 10, hidden=(units,)))
    trap = learner.initial()
    trap["layer0.weights"][:] = 1 / 64
    trap["layer0.biases"][:] = -np.quantile(known.features.mean(axis=1), np.linspace(0, 1, units))
    trap["layer1.weights"][:] = np.linspace(0, 0.1, 10)
    task = make_task(trap)
    seen = gradient_of(SecureSum(make_sites(rows, 8, learner)), task)
    weights, biases = seen["layer0.weights"], seen["layer0.biases"]
    found = quotients(-np.diff(weights, axis=1), -np.diff(biases))
    reached = best(found, mine.features)
    assert np.count_nonzero(reached > EXACT) > len(rows) // 3


def test_noise_bounds_what_a_sum_gives_away() -> None:
    """The only examples of their classes once more, with noise for epsilon 8, delta 1e-5."""
    asks = Asks(update=UpdateKind.GRADIENT, weighting=Weighting.UNIFORM)
    privacy = PrivacyPlan(epsilon=8.0, delta=1e-5, rounds=1, smallest=CLIENTS)
    bare, task = (
        make_task(SOFTMAX.initial(), asks, bits=14, norm=1.0, privacy=one) for one in (None, privacy)
    )
    rows = rows_with([0, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8])
    inputs = images()[0].features[rows]
    exposed, hidden = (
        best(analytic(gradient_of(SecureSum(make_sites(rows, 1)), one)), inputs) for one in (bare, task)
    )
    guesses = best(images()[1].features[:CLIENTS], inputs)
    assert np.count_nonzero(exposed > 0.95) >= 6
    assert hidden.max() < guesses.max()
    assert hidden.mean() < guesses.mean()
