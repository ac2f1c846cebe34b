"""A contribution is made once and read as it is uploaded: its memory, its type, its bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.suites.contribution import FORMS, TYPES, Form, peak, waiting_session
from fedcore.codec.codec import EncodedVector
from fedcore.learner import Metrics, Parameters, Rows, flatten
from fedcore.rounds.instructions import Asks, UpdateKind
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Train
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from secagg.effects import Send
from tests.fedcore.sites import asked, model_of
from tests.protocol.network import CounterEntropy

MOST = 14  # bytes per value
TIGHT = {"float32": 9.0}  # where the learner has it, but for noise
NOISY = "Skellam noise, 16 bits"
form_of = {form.name: form for form in FORMS}


@pytest.mark.parametrize(("own", "given_"), TYPES)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_contribution_needs_a_few_bytes_per_value(form: Form, own: str, given_: str) -> None:
    length = 4_000_000 if form.name == NOISY else 1_000_000  # the tables of the noise are large, too
    most = MOST if form.name == NOISY else TIGHT.get(own, MOST)
    assert peak(length, form, own, given_) < most


# --- streamed and whole ---


class Steps:
    """A learner that adds a fixed vector to its parameters, in its own type."""

    def __init__(self, length: int, own: str, scale: float = 1.0) -> None:
        rng = np.random.default_rng(length)
        self.start = {"b": np.zeros((length - length // 3,), own), "a": np.zeros((length // 3, 1), own)}
        self.step = {name: scale * rng.normal(size=array.shape) for name, array in self.start.items()}

    def initial(self) -> Parameters:
        return self.start

    def fit(self, parameters: Parameters, rows: Rows, seed: int) -> Parameters:
        own = self.start["a"].dtype
        return {name: (array + self.step[name]).astype(own) for name, array in parameters.items()}

    def evaluate(self, parameters: Parameters, rows: Rows) -> Metrics:
        return {}


def site_of(learner: Steps) -> Site:
    return Site("site", range(7), None, learner, seed=3)


def task_of(learner: Steps, form: Form, number: int = 1) -> Task:
    size = flatten(learner.start).size
    terms = Terms(
        plan=TrainingPlan(clients=100, rounds=3, **form.plan),
        asks=form.asks,
        passes=0,
        schema=None,
        classes=(),
        size=size,
    )
    rng = np.random.default_rng(5)
    model = {name: rng.normal(size=array.shape) for name, array in learner.start.items()}
    return terms.task(Train(model=model, number=number))


@given(
    form=st.sampled_from([form for form in FORMS if form.name != NOISY]),
    own=st.sampled_from(["float32", "float64"]),
    length=st.integers(1, 400),
    chunk=st.integers(1, 97),
)
@settings(deadline=None, max_examples=80)
def test_an_answer_read_in_chunks_of_any_size_is_the_contribution(
    form: Form, own: str, length: int, chunk: int
) -> None:
    learner = Steps(length, own)
    task = task_of(learner, form)
    whole, source = site_of(learner).contribute(task), site_of(learner).answer(task)
    assert isinstance(source, EncodedVector)
    assert source.length == whole.size == task.encoding.length
    pieces = np.empty_like(whole)
    for first in reversed(range(0, whole.size, chunk)):  # in any order
        source.read(first, pieces[first : first + chunk])
    assert np.array_equal(pieces, whole)


@pytest.mark.parametrize("own", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("length", [1001, 150_003])  # of several tiles and chunks
def test_the_upload_of_a_source_is_that_of_the_whole_vector(form: Form, own: str, length: int) -> None:
    learner = Steps(length, own)
    task = task_of(learner, form)
    streamed, whole = (
        [bytes(effect.frame) for effect in session.submit(vector) if isinstance(effect, Send)]
        for session, vector in (
            (waiting_session(task, CounterEntropy("same")), site_of(learner).answer(task)),
            (waiting_session(task, CounterEntropy("same")), site_of(learner).contribute(task)),
        )
    )
    assert streamed == whole
    assert len(streamed) == 1


# --- what is computed ---


@pytest.mark.parametrize("own", ["float32", "float64"])
def test_the_bits_are_those_of_the_plain_formulas(own: str) -> None:
    length = 70_001
    learner = Steps(length, own)
    task = task_of(learner, form_of["delta, 20 bits"])
    model = model_of(task)
    after = learner.fit(model, range(7), 0)
    delta = (flatten(after) - flatten(model)).astype(own)
    clipped = delta * (1.0 / float(np.linalg.norm(delta.astype(np.float64))))
    site = site_of(learner)
    found = site.compute(task)
    assert found.coordinates.dtype == clipped.dtype == own
    if own == "float64":
        assert np.array_equal(found.coordinates, clipped)
    else:
        assert found.coordinates == pytest.approx(clipped, rel=1e-6)
    seed = site._randomness(task, "rounding")
    wanted = task.encoding.codec.encode(found.coordinates, 7, seed, found.precise)
    assert np.array_equal(site.contribute(task), wanted)


@pytest.mark.parametrize("own", ["float32", "float64"])
def test_what_is_not_sent_is_kept_in_the_learners_type_and_sent_later(own: str) -> None:
    learner = Steps(300, own)
    site, form = site_of(learner), Form(name="half", plan={"keep": 0.5, "clip": 50.0})
    sent: NDArray[np.float64] = np.zeros(300)
    for number in (1, 2, 3):
        task = task_of(learner, form, number)
        sent += task.encoding.shaping.restore(site.compute(task).coordinates, 300)[0]
        site.state.count(task.name, ["site"])
    assert site.state.pending is not None
    residual = site.state.pending[1]["residual"]
    assert residual.dtype == own
    assert sent + residual == pytest.approx(3 * flatten(learner.step), rel=1e-4, abs=1e-4)


def test_a_vector_that_later_passes_sum_again_is_left_alone() -> None:
    learner = Steps(50, "float32", scale=10.0)
    task = task_of(learner, Form(name="median", plan={"norm": 0.1}, asks=Asks(smoothing=0.1)))
    site = site_of(learner)
    first = site.contribute(task)
    assert site.state.update is not None
    assert site.state.update[1] is not None
    assert float(np.linalg.norm(site.state.update[1].values)) > 1
    assert site.contribute(asked(task, again=1, center=np.zeros(50))).size == first.size


@pytest.mark.parametrize("update", [UpdateKind.DELTA, UpdateKind.WEIGHTS])
def test_what_float32_cannot_hold_says_nothing(update: UpdateKind) -> None:
    learner = Steps(20, "float32")
    task = task_of(learner, Form(name="far", asks=Asks(update=update)))
    site = site_of(learner)
    site.compute(
        asked(task, model={name: np.full(array.shape, 1e39) for name, array in learner.start.items()})
    )
    assert site.trouble == "update[0]: must be finite"
