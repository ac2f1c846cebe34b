"""Torch modules as learners: exact states, repeatable training, steering, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedcore import learners
from fedcore.errors import SettingError, TaskError
from fedcore.learner import Parameters, ScoringLearner, SteerableLearner, Steering
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.learners.low_rank import LowRank
from tests.fedcore.learners.numerics import assert_close, clouds, distance, jitter, line, sparse
from tests.lazy import Lazy

if TYPE_CHECKING:
    from fedcore.learners import TorchLearner

torch: Any = Lazy("torch")
nn: Any = Lazy("torch.nn")


@pytest.fixture(scope="module", autouse=True)
def needs_torch() -> None:
    pytest.importorskip("torch")


def linear() -> Any:
    return nn.Linear(4, 3)


def deep() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def normed() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def double() -> Any:
    return nn.Linear(4, 3).double()


def learner(module: Any = deep, **changes: Any) -> TorchLearner:
    return learners.TorchLearner(module, **({"classes": 3, "batch_size": 16} | changes))


def rounded(parameters: Parameters) -> Parameters:
    """The nearest values that float32 has."""
    return {name: array.astype(np.float32).astype(float) for name, array in parameters.items()}


def transposed(parameters: Parameters) -> Parameters:
    return {"weight": parameters["coefficients"].T.copy(), "bias": parameters["intercepts"]}


def same(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("module", [linear, deep, normed])
def test_it_learns_in_a_few_rounds_and_leaves_what_it_is_given(module: Any) -> None:
    one = learner(module, epochs=15)
    start = one.initial()
    kept = {name: array.copy() for name, array in start.items()}
    after = one.fit(start, clouds(rows=300), 0)
    found = one.evaluate(after, clouds(rows=300, seed=1))
    assert found["accuracy"] > 0.8
    assert found.keys() == {"accuracy", "auc", "log_loss", "macro_f1"}
    assert same(start, kept)
    assert {name: a.shape for name, a in after.items()} == {name: a.shape for name, a in start.items()}
    assert all(array.dtype == np.float64 for array in after.values())


def test_a_regression_learns_the_line() -> None:
    one = learners.TorchLearner(lambda: nn.Linear(4, 1), rate=0.05, epochs=20)
    after = one.fit(one.initial(), line(), 0)
    np.testing.assert_allclose(after["weight"], [[1, 2, 3, 4]], atol=0.1)
    assert one.evaluate(after, line(seed=1))["r2"] > 0.99
    with pytest.raises(TaskError, match="scores: a regression has none"):
        one.scores(after, line())


@pytest.mark.parametrize("module", [deep, normed, double])
def test_values_survive_the_way_in_and_out_exactly(module: Any) -> None:
    from fedcore.learners.torch.state import carried, read, write

    there = carried(module(), "shared")
    values = jitter(read(there))
    values = values if module is double else rounded(values)
    write(there, values)
    assert same(read(there), values)
    back = carried(module(), "shared")
    write(back, read(there))
    assert all(torch.equal(back[name], there[name]) for name in there)
    taken = read(there)
    write(there, {name: np.zeros_like(array) for name, array in values.items()})
    assert same(taken, values)  # a copy


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_training_is_that_of_numpy_with_the_same_batches(batch_size: int | None, momentum: float) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": batch_size, "momentum": momentum, "rate": 0.2}
    model = SoftmaxRegression(4, 3, penalty=0.0)
    ours = LocalSGD(model=model, **settings)
    start = rounded(jitter(model.initial()))
    shift = rounded(jitter({name: np.zeros_like(array) for name, array in start.items()}, 7))
    for proximal, correction, rate in ((0.0, None, 1.0), (0.5, shift, 0.5)):
        steering = Steering(proximal=proximal, correction=correction, rate=rate)
        expected = ours.fit_steered(start, clouds(), 4, steering)
        given = replace(steering, correction=transposed(correction) if correction else None)
        found = learner(linear, **settings).fit_steered(transposed(start), clouds(), 4, given)
        assert_close(found.parameters, transposed(expected.parameters), 1e-5)
        assert (found.steps, found.rate) == (expected.steps, expected.rate)


def test_the_gradient_is_that_of_numpy_whatever_the_batches() -> None:
    model = SoftmaxRegression(4, 3)
    at = rounded(jitter(model.initial()))
    for batch_size in (None, 7):
        found = learner(linear, batch_size=batch_size).gradient(transposed(at), clouds())
        assert_close(found, transposed(model.gradient(at, clouds())), 1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_gradient_is_that_of_the_mean_loss_with_weight_decay_unless_decoupled(optimizer: str) -> None:
    from tests.fedcore.learners.numerics import numerical_gradient

    def rows_as_doubles(rows: Any) -> Any:
        return torch.tensor(rows.features), torch.tensor(rows.labels)

    one = learner(double, optimizer=optimizer, weight_decay=0.3, input=rows_as_doubles)
    at = jitter(one.initial())
    assert_close(
        one.gradient(at, clouds()), numerical_gradient(lambda p: one.mean_loss(p, clouds()), at), 1e-6
    )
    plain = learner(double, input=rows_as_doubles).gradient(at, clouds())
    assert (distance(plain, one.gradient(at, clouds())) > 0) == (optimizer != "adamw")


def test_fitting_repeats_with_its_seed_and_leaves_the_state_of_torch_alone() -> None:
    one, start = learner(), learner().initial()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = one.fit(start, clouds(), 1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert same(one.fit(start, clouds(), 1), first)
    assert not same(one.fit(start, clouds(), 2), first)
    assert same(one.initial(), start)
    assert not same(learner(seed=1).initial(), start)


def test_dropout_follows_the_seed_of_the_round_and_is_off_in_evaluation() -> None:
    one, start = learner(batch_size=None), learner().initial()
    assert not same(one.fit(start, clouds(), 1), one.fit(start, clouds(), 2))
    assert np.array_equal(one.scores(start, clouds()), one.scores(start, clouds()))


def test_many_rows_are_scored_like_few() -> None:
    one, rows = learner(normed), clouds(rows=2500)
    start = one.initial()
    scores = one.scores(start, rows)
    assert scores.shape == (2500, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    last = rows.take(np.arange(2000, 2500))
    np.testing.assert_allclose(one.scores(start, last), scores[2000:], atol=1e-6)


@pytest.mark.parametrize("frozen", ["0.weight", "1.running_mean", "3.bias"])
def test_what_is_frozen_does_not_move(frozen: str) -> None:
    one = learner(normed, momentum=0.5, weight_decay=0.1)
    start = jitter(one.initial(), scale=0.1)
    start["1.running_var"] = np.abs(start["1.running_var"])
    start = rounded(start)
    steering = Steering(proximal=0.1, frozen=frozenset({frozen}))
    after = one.fit_steered(start, clouds(), 0, steering).parameters
    assert {name for name in start if np.array_equal(start[name], after[name])} == {frozen}


def test_steering_pulls_even_at_what_the_loss_does_not_reach() -> None:
    class Halves(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3), nn.Linear(2, 2)

        def forward(self, values: Any) -> Any:
            return self.used(values)

    one = learner(Halves, batch_size=None, rate=0.5)
    start = one.initial()
    assert not one.gradient(start, clouds())["idle.bias"].any()
    after = one.fit_steered(start, clouds(), 0, Steering(correction={"idle.bias": np.ones(2)})).parameters
    np.testing.assert_allclose(after["idle.bias"], start["idle.bias"] - 0.5, atol=1e-6)
    assert np.array_equal(after["idle.weight"], start["idle.weight"])


def test_tied_parameters_travel_once() -> None:
    class Tied(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
            self.two.weight = self.one.weight

        def forward(self, values: Any) -> Any:
            return self.head(self.two(torch.relu(self.one(values))))

    one = learner(Tied)
    assert one.initial().keys() == {"one.weight", "one.bias", "two.bias", "head.weight", "head.bias"}
    assert distance(one.initial(), one.fit(one.initial(), clouds(), 0)) > 0


def test_shared_buffers_travel_and_counters_do_not() -> None:
    one = learner(normed)
    start = one.initial()
    assert {"1.running_mean", "1.running_var"} < start.keys()
    assert "1.num_batches_tracked" not in start
    after = one.fit(start, clouds(), 0)
    assert not np.array_equal(after["1.running_mean"], start["1.running_mean"])
    slope = one.gradient(start, clouds())
    assert slope.keys() == start.keys()
    assert not slope["1.running_mean"].any()
    shifted = after | {"1.running_mean": after["1.running_mean"] + 3}
    assert not np.array_equal(one.scores(shifted, clouds()), one.scores(after, clouds()))


def test_local_buffers_stay_with_their_learner_between_rounds() -> None:
    here, elsewhere = learner(normed, buffers="local"), learner(normed, buffers="local")
    start = here.initial()
    assert not [name for name in start if "running" in name]
    unfitted = here.scores(start, clouds())
    after = here.fit(start, clouds(), 0)
    assert not np.array_equal(here.scores(start, clouds()), unfitted)
    assert np.array_equal(elsewhere.scores(start, clouds()), unfitted)
    shared = learner(normed)
    both = shared.fit(shared.initial(), clouds(), 0)
    assert all(np.array_equal(after[name], both[name]) for name in after)
    np.testing.assert_array_equal(here.scores(after, clouds()), shared.scores(both, clouds()))


def test_buffers_can_be_refused() -> None:
    with pytest.raises(TaskError, match=r"buffers: 1\.num_batches_tracked is one"):
        learner(normed, buffers="refuse").initial()
    assert len(learner(deep, buffers="refuse").initial()) == 4


@pytest.mark.parametrize("steering", [Steering(proximal=0.1), Steering(correction={"bias": np.ones(3)})])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", lambda tensors: torch.optim.Adagrad(tensors, lr=0.1)])
def test_only_sgd_takes_a_proximal_term_or_a_correction(optimizer: Any, steering: Steering) -> None:
    one = learner(linear, optimizer=optimizer)
    with pytest.raises(TaskError, match="steering: .* needs the optimizer sgd, for an adaptive one rescales"):
        one.fit_steered(one.initial(), clouds(), 0, steering)
    fit = one.fit_steered(one.initial(), clouds(), 0, Steering(frozen=frozenset({"bias"}), rate=0.1))
    assert (fit.steps, fit.rate) == (4, 0.1 * one.rate)
    full = one.fit_steered(one.initial(), clouds(), 0, Steering(frozen=frozenset({"bias"})))
    assert distance(one.initial(), full.parameters) > 3 * distance(one.initial(), fit.parameters)
    assert np.array_equal(fit.parameters["bias"], one.initial()["bias"])
    assert not np.array_equal(fit.parameters["weight"], one.initial()["weight"])


def test_a_batch_may_be_made_by_the_caller_with_several_inputs_and_a_loss_of_its_own() -> None:
    class Pair(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, left: Any, right: Any) -> Any:
            return self.left(left) + self.right(right)

    def halves(rows: Any) -> Any:
        values = torch.tensor(rows.features, dtype=torch.float32)
        return (values[:, :2], values[:, 2:]), torch.tensor(rows.labels)

    def smoothed(outputs: Any, targets: Any) -> Any:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)

    one = learner(Pair, input=halves, loss=smoothed, epochs=10)
    after = one.fit(one.initial(), clouds(rows=300), 0)
    assert one.evaluate(after, clouds(rows=300, seed=1))["accuracy"] > 0.8


def test_sparse_rows_train_like_dense_ones() -> None:
    one = learner()
    assert same(one.fit(one.initial(), sparse(clouds()), 0), one.fit(one.initial(), clouds(), 0))


def test_low_rank_factors_of_a_module_are_trained_by_local_sgd() -> None:
    from fedcore.learners.torch.model import TorchModel

    inner = TorchModel(learner(deep, buffers="refuse"))
    model = LowRank(model=inner, base=inner.initial(), rank=2, alpha=4.0, names=("*.weight",))
    one = LocalSGD(model=model, epochs=15)
    start = one.initial()
    assert all("lora" in name for name in start)
    assert np.array_equal(model.scores(start, clouds()), inner.scores(inner.initial(), clouds()))
    after = one.fit(start, clouds(rows=200), 0)
    assert model.loss(after, clouds(rows=200)) < 0.8 * model.loss(start, clouds(rows=200))
    assert one.evaluate(after, clouds(rows=200, seed=1))["accuracy"] > 0.7


def test_it_is_what_strategies_and_evaluation_ask_for() -> None:
    assert isinstance(learner(), SteerableLearner)
    assert isinstance(learner(), ScoringLearner)


def without_bias(start: Parameters) -> Parameters:
    return {"weight": start["weight"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_bias, "parameters: bias is missing"),
        (lambda start: start | {"more": np.zeros(1)}, "parameters: the module has no more"),
        (
            lambda start: start | {"weight": start["weight"].T},
            r"parameters: weight must be of shape \(3, 4\), is \(4, 3\)",
        ),
        (lambda start: start | {"bias": np.full(3, np.nan)}, "the loss is not finite after step 0"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    one = learner(linear)
    with pytest.raises(TaskError, match=message):
        one.fit(change(one.initial()), clouds(), 0)


def test_training_that_diverges_says_after_which_step() -> None:
    one = learners.TorchLearner(lambda: nn.Linear(4, 1), rate=1e6, epochs=50, batch_size=None)
    with pytest.raises(TaskError, match=r"the loss is not finite after step [1-9]"):
        one.fit(one.initial(), line(), 0)
    huge = learners.TorchLearner(lambda: nn.Linear(4, 1), rate=1e38, epochs=1, batch_size=None)
    with pytest.raises(TaskError, match="rate: weight is not finite after 1 steps"):
        huge.fit(huge.initial(), line(), 0)


def test_a_model_that_diverged_is_measured_as_nan() -> None:
    one = learner(linear)
    found = one.evaluate(one.initial() | {"bias": np.full(3, np.nan)}, clouds())
    assert all(np.isnan(value) for value in found.values())


def test_what_cannot_be_trained_is_refused() -> None:
    one, nothing = learner(linear), clouds().take(np.arange(0))
    start = one.initial()
    for attempt in (one.gradient, one.mean_loss, lambda start, rows: one.fit(start, rows, 0)):
        with pytest.raises(TaskError, match="rows: there are none"):
            attempt(start, nothing)
    assert np.isnan(one.evaluate(start, nothing)["accuracy"])
    with pytest.raises(TaskError, match="steering.frozen: nothing is left"):
        one.fit_steered(start, clouds(), 0, Steering(frozen=frozenset(start)))
    with pytest.raises(TaskError, match="steering.frozen: no is no parameter"):
        one.fit_steered(start, clouds(), 0, Steering(frozen=frozenset({"no"})))
    with pytest.raises(TaskError, match="module: has no parameters"):
        learner(nn.ReLU).initial()
    with pytest.raises(TaskError, match=r"module: weight must be of real floating point, is torch.complex64"):
        learner(lambda: nn.Linear(4, 3, dtype=torch.complex64)).initial()


def test_a_batch_that_the_module_cannot_take_is_refused() -> None:
    one = learner(normed)
    with pytest.raises(TaskError, match="module: ValueError on a batch of 1 rows"):
        one.fit(one.initial(), clouds(rows=3).take(np.arange(1)), 0)
    few = learner(lambda: nn.Linear(4, 2))
    with pytest.raises(TaskError, match="module: IndexError on a batch of 16 rows"):
        few.fit(few.initial(), clouds(), 0)
    with pytest.raises(TaskError, match=r"outputs must be of shape \(60, 3\), are \(60, 2\)"):
        few.scores(few.initial(), clouds())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": -1.0}, "rate: must be positive and finite, is -1.0"),
        ({"momentum": 1.0}, r"momentum: must be in \[0, 1\), is 1.0"),
        ({"momentum": 0.5, "optimizer": "adam"}, "momentum: must be 0 but for sgd"),
        ({"weight_decay": -1.0}, "weight_decay: must be finite and at least 0, is -1.0"),
        ({"epochs": 0}, "epochs: must be at least 1, is 0"),
        ({"batch_size": 0}, "batch_size: must be at least 1, is 0"),
        ({"classes": 1}, "classes: must be at least 2, is 1"),
        ({"optimizer": "lbfgs"}, "optimizer: must be one of .*, is 'lbfgs'"),
        ({"loss": "hinge"}, "loss: must be one of .*, is 'hinge'"),
        ({"buffers": "some"}, "buffers: must be one of .*, is 'some'"),
        ({"device": "meta"}, "device: must be cpu, cuda or cuda:N, is 'meta'"),
        ({"device": "tpu"}, "device: must be cpu, cuda or cuda:N, is 'tpu'"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        learner(**change)


def test_a_module_in_the_place_of_its_maker_is_refused() -> None:
    with pytest.raises(SettingError, match="module: must be a function that makes the module"):
        learner(module=nn.Linear(2, 2))


def test_batch_statistics_never_come_from_a_single_row() -> None:
    one = learner(normed, batch_size=16, epochs=2)  # 49 rows: three batches and a single row
    after = one.fit(one.initial(), clouds(rows=49), 0)
    assert one.evaluate(after, clouds(rows=49))["accuracy"] > 0.3
    from fedcore.learners.steering import batches, without_single

    plan = without_single(batches(49, 16, 0, epochs=2))
    assert [len(batch) for batch in plan] == [16, 16, 17, 16, 16, 17]
    assert sorted(np.concatenate(plan[:3]).tolist()) == list(range(49))
    for alone in (batches(1, 16, 0, epochs=3), batches(10, 1, 0, epochs=3)):
        assert [one.tolist() for one in without_single(alone)] == [one.tolist() for one in alone]


def test_sparse_gradients_of_an_embedding_train_like_dense_ones() -> None:
    def module(sparse: bool) -> Any:
        return nn.Sequential(nn.Embedding(4, 6, sparse=sparse), nn.Flatten(), nn.Linear(24, 3))

    def words(rows: Any) -> Any:
        ids = torch.tensor(np.argsort(rows.features, axis=1))
        return ids, torch.tensor(rows.labels)

    steering = Steering(proximal=0.1)
    found = [
        learner(lambda s=s: module(s), input=words).fit_steered(
            learner(lambda s=s: module(s), input=words).initial(), clouds(), 0, steering
        )
        for s in (False, True)
    ]
    assert_close(found[0].parameters, found[1].parameters, 1e-6)
    slopes = [
        learner(lambda s=s: module(s), input=words).gradient(
            learner(lambda s=s: module(s), input=words).initial(), clouds()
        )
        for s in (False, True)
    ]
    assert_close(slopes[0], slopes[1], 1e-6)


def test_a_buffer_that_is_not_finite_says_what_helps() -> None:
    def masked() -> Any:
        module = nn.Linear(4, 3)
        module.register_buffer("mask", torch.full((3,), -np.inf))
        return module

    with pytest.raises(TaskError, match='mask: is not finite: it is a buffer, say buffers="local"'):
        learner(masked).fit(learner(masked).initial(), clouds(), 0)
    local = learner(masked, buffers="local")
    assert "mask" not in local.fit(local.initial(), clouds(), 0)


def _sequences(rows: Any) -> Any:
    """Three places a row: the row's class, the next one, and none."""
    labels = torch.tensor(rows.labels)
    targets = torch.stack([labels, (labels + 1) % 3, torch.full_like(labels, -100)], dim=1)
    return torch.tensor(rows.features, dtype=torch.float32), targets


def test_sequences_are_trained_and_evaluated_at_the_places_that_have_a_class() -> None:
    def module() -> Any:
        return nn.Sequential(nn.Linear(4, 9), nn.Unflatten(1, (3, 3)))

    one = learner(module, input=_sequences, epochs=20)
    rows = clouds(rows=1100)  # more than one chunk
    after = one.fit(one.initial(), rows, 0)
    found, scores = one.evaluate(after, rows), one.scores(after, rows)
    assert scores.shape == (2 * len(rows), 3)
    wanted = np.stack([rows.labels, (rows.labels + 1) % 3], axis=1).ravel()
    assert found["accuracy"] == pytest.approx(float((scores.argmax(axis=1) == wanted).mean()))
    assert found["accuracy"] > 0.8
    with torch.no_grad():  # the loss is that of the places, one by one
        logits, targets = torch.randn(5, 3, 3), _sequences(clouds(rows=5))[1]
        loss: Any = learners.torch.learner._cross_entropy
        places = torch.nn.functional.cross_entropy(logits[:, :2].reshape(-1, 3), targets[:, :2].reshape(-1))
        assert float(loss(logits, targets)) == pytest.approx(float(places))
