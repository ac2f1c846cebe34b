"""Any torch module as a learner: state dict in, local training, state dict out. Extra: secagg[torch]."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from fedcore.errors import SettingError, TaskError, needs

try:
    import torch
except ImportError as error:
    raise ImportError(needs("TorchLearner", "torch", error)) from error
from numpy.typing import NDArray

from fedcore.evaluation.metrics import classification_metrics, regression_metrics
from fedcore.learner import LocalFit, Metrics, Parameters, Steering
from fedcore.learners.models import Examples
from fedcore.learners.steering import batches, check_steering, reach, without_single
from fedcore.learners.torch.state import Buffers, Module, Tensor, carried, read, running, trainable, write
from fedcore.learners.torch.steps import OPTIMIZERS, Optimizer, Pull, named_optimizer, seeded
from fedcore.settings import at_least, positive, require, settle


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over all that has a class, of rows or of places in their sequences."""
    if outputs.ndim > 2 and outputs.shape[:-1] == targets.shape:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return torch.nn.functional.cross_entropy(outputs, targets)


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "mse": torch.nn.functional.mse_loss,
}

_BatchNorm = torch.nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the base of all that need two rows
_NO_CLASS = -100  # torch's word for it
_CHUNK = 1024  # rows that are evaluated together


@dataclass(frozen=True, slots=True)
class TorchLearner:
    """A steerable learner over a module, with class probabilities if it has classes.

    module        makes the module, always of the same names and shapes
    classes       outputs are their logits, (rows, classes), or (rows, length, classes) of sequences, where
                  a target of -100 is of no class and counts nowhere; None: a regression, whose outputs
                  (rows,) or (rows, 1) are the guesses
    loss          mean loss of outputs and targets, "cross_entropy" or "mse"; default: by `classes`
    optimizer     "sgd", "adam", "adamw", or a function of the parameters that returns one; `rate`,
                  `momentum` and `weight_decay` are for those with a name. It starts anew in every round
    rate          learning rate; momentum: heavy ball, of sgd only; weight_decay: L2, of everything
    epochs        passes over the rows in a round; batch_size: rows of a step, None: all of them
    buffers       of floating point, such as BatchNorm's running statistics: "shared" travel with the
                  parameters; "local" stay in this object between rounds, so that every site needs one
                  of its own (FedBN, Li et al., ICLR 2021, keeps them local); "refuse" modules with any.
                  Integer ones never travel and begin anew in every round
    device        "cpu", "cuda" or "cuda:N"
    seed          of the initial weights: every site must use the same
    input         turns rows into (inputs, targets), tensors on the CPU; inputs may be a tuple of
                  arguments. Default: features as float32, labels as int64 (regression: float32)
    raises        SettingError

    Training is repeatable: random numbers of torch follow the seed of the round, and torch's own state
    is left as it was. Proximal term and correction need "sgd": Adam would rescale them.
    """

    module: Callable[[], Module]
    _: KW_ONLY
    classes: int | None = None
    loss: str | Callable[[Tensor, Tensor], Tensor] | None = None
    optimizer: str | Callable[[list[Tensor]], Optimizer] = "sgd"
    rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 1
    batch_size: int | None = 32
    buffers: Buffers = "shared"
    device: str = "cpu"
    seed: int = 0
    input: Callable[[Any], tuple[Any, Tensor]] | None = None
    _kept: Parameters = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "rate")
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        at_least(self, 0, "weight_decay")
        at_least(self, 1, "epochs", "batch_size")
        at_least(self, 2, "classes")
        for name, choices in (("optimizer", OPTIMIZERS), ("loss", tuple(_LOSSES))):
            chosen = getattr(self, name)
            require(not isinstance(chosen, str) or chosen in choices, name, f"one of {choices}", chosen)
        require(not self.momentum or self.optimizer == "sgd", "momentum", "0 but for sgd", self.momentum)
        buffers = ("shared", "local", "refuse")
        require(self.buffers in buffers, "buffers", f"one of {buffers}", self.buffers)
        if isinstance(self.module, torch.nn.Module):
            raise SettingError("module: must be a function that makes the module, is a module")
        known = re.fullmatch(r"cpu|cuda(:[0-9]+)?", self.device)
        require(known is not None, "device", "cpu, cuda or cuda:N", self.device)
        if self.device != "cpu" and not torch.cuda.is_available():
            raise SettingError(f"device: torch finds no CUDA here, is {self.device!r}")

    def initial(self) -> Parameters:
        """Return what the module's constructor makes under the seed."""
        return read(carried(self._made(), self.buffers))

    def fit(self, parameters: Parameters, rows: Examples, seed: int) -> Parameters:
        """Train without steering."""
        return self.fit_steered(parameters, rows, seed, Steering()).parameters

    def fit_steered(self, parameters: Parameters, rows: Examples, seed: int, steering: Steering) -> LocalFit:
        """Take the steps. The reach of another optimizer than sgd is their number.

        Raises TaskError: no rows, names or shapes that are not the module's, a loss or parameters that
        are not finite, a proximal term or a correction with another optimizer than sgd, a batch that the
        module or the loss cannot take.
        """
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        if self.optimizer != "sgd" and (steering.proximal or steering.correction):
            raise TaskError(
                "steering: a proximal term or a correction needs the optimizer sgd, for an adaptive one "
                "rescales what is added to a gradient"
            )
        module = self._loaded(parameters)
        check_steering(parameters, steering)
        plan = batches(len(rows), self.batch_size, seed, epochs=self.epochs)
        if any(isinstance(part, _BatchNorm) for part in module.modules()):
            plan = without_single(plan)
        rate = self.rate * steering.rate
        with seeded(self.device, seed), torch.enable_grad():
            self._train(module.train(), (rows.take(batch) for batch in plan), parameters, steering)
        after = read(carried(module, self.buffers))
        if bad := [name for name, array in after.items() if not np.isfinite(array).all()]:
            if bad[0] in running(module):
                raise TaskError(f'{bad[0]}: is not finite: it is a buffer, say buffers="local"')
            raise TaskError(f"rate: {bad[0]} is not finite after {len(plan)} steps of {rate}")
        if self.buffers == "local":
            self._kept.update(read(running(module)))
        if self.optimizer != "sgd":
            return LocalFit(after, float(len(plan)), rate)
        decay = rate * steering.proximal
        return LocalFit(after, reach(len(plan), momentum=self.momentum, decay=decay), rate)

    def _train(
        self, module: Module, parts: Iterable[Examples], start: Parameters, steering: Steering
    ) -> None:
        """Take one step per part."""
        everything = trainable(module)
        for name in steering.frozen & everything.keys():
            everything[name].requires_grad_(False)
        moving = {name: tensor for name, tensor in everything.items() if tensor.requires_grad}
        if not moving:
            raise TaskError("steering.frozen: nothing is left to train")
        still = {name: buffer for name, buffer in running(module).items() if name in steering.frozen}
        optimizer, pull = self._fresh_optimizer(list(moving.values())), Pull(moving, start, steering)
        fixed = {name: start[name] for name in still}
        for group in optimizer.param_groups:
            group["lr"] *= steering.rate
        for step, part in enumerate(parts):
            optimizer.zero_grad()
            loss = self._loss(module, part)
            if not math.isfinite(loss.item()):
                raise TaskError(f"training: the loss is not finite after step {step}")
            loss.backward()
            for tensor in moving.values():  # of nn.Embedding(sparse=True)
                if tensor.grad is not None and tensor.grad.is_sparse:
                    tensor.grad = tensor.grad.to_dense()
            pull.add()
            optimizer.step()
            write(still, fixed)  # the forward pass has moved them

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradient of the mean loss, with weight decay unless decoupled; of buffers: zeros.

        In training mode and in batches of equal size in the order of the rows, as steps see them.
        """
        module = self._loaded(parameters)
        with seeded(self.device, self.seed), torch.enable_grad():
            for part in self._parts(rows):
                (self._loss(module.train(), part) * (len(part) / len(rows))).backward()
        out = {name: np.zeros_like(array) for name, array in parameters.items()}
        for name, tensor in trainable(module).items():
            if tensor.requires_grad:
                slope = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.to_dense()
                out[name] = read({name: slope})[name] + self._penalty * parameters[name]
        return out

    def mean_loss(self, parameters: Parameters, rows: Examples) -> float:
        """Return what `gradient` is the gradient of."""
        module = self._loaded(parameters)
        moving = (name for name, tensor in trainable(module).items() if tensor.requires_grad)
        squares = sum(float((parameters[name] ** 2).sum()) for name in moving)
        with seeded(self.device, self.seed), torch.no_grad():
            parts = self._parts(rows)
            losses = [len(part) * float(self._loss(module.train(), part)) for part in parts]
        return sum(losses) / len(rows) + self._penalty * squares / 2

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Return accuracy, AUC, log loss and macro F1, or mse and R squared of a regression."""
        outputs, targets = self._outputs(parameters, rows)
        if self.classes is None:
            return regression_metrics(targets, outputs)
        return classification_metrics(targets, outputs)

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities, (rows, classes); of sequences: of all places with a class, in order.

        Raises TaskError for a regression.
        """
        if self.classes is None:
            raise TaskError("scores: a regression has none")
        return self._outputs(parameters, rows)[0]

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return predicted numbers, (rows,). Raises TaskError for a classifier."""
        if self.classes is not None:
            raise TaskError("predict: a classifier gives no numbers, it has scores")
        return self._outputs(parameters, rows)[0]

    def _outputs(self, parameters: Parameters, rows: Examples) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return class probabilities, or guesses of a regression, and the targets."""
        shape: tuple[int, ...] = (len(rows),) if self.classes is None else (len(rows), self.classes)
        if not len(rows):
            return np.zeros(shape), np.zeros(0, np.int64)
        module, outputs, targets = self._loaded(parameters).eval(), [], []
        with seeded(self.device, self.seed), torch.no_grad():
            for at in range(0, len(rows), _CHUNK):
                part = rows.take(np.arange(at, min(at + _CHUNK, len(rows))))
                result, target = self._forward(module, part)
                result = result.double()
                if self.classes is not None and result.shape[:-1] == target.shape:
                    known = target != _NO_CLASS
                    result, target = result[known], target[known]
                outputs.append((result if self.classes is None else result.softmax(-1)).cpu().numpy())
                targets.append(target.cpu().numpy())
        found, labels = np.concatenate(outputs), np.concatenate(targets)
        if found.shape not in {shape, (len(labels), *shape[1:])}:
            raise TaskError(f"module: outputs must be of shape {shape}, are {found.shape}")
        return found, labels

    def _forward(self, module: Module, rows: Examples) -> tuple[Tensor, Tensor]:
        """Return outputs and targets, on the device."""
        inputs, targets = self.input(rows) if self.input else self._tensors(rows)
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        outputs = module(*(one.to(self.device) for one in inputs))
        if self.classes is None and outputs.ndim == 2 and outputs.shape[1] == 1:
            outputs = outputs[:, 0]
        return outputs, targets.to(self.device)

    def _tensors(self, rows: Examples) -> tuple[Tensor, Tensor]:
        kind = torch.float32 if self.classes is None else torch.int64
        dense = getattr(rows.features, "toarray", lambda: rows.features)()  # of scipy's sparse matrices
        return torch.tensor(dense, dtype=torch.float32), torch.tensor(rows.labels, dtype=kind)

    def _loss(self, module: Module, rows: Examples) -> Tensor:
        default = "mse" if self.classes is None else "cross_entropy"
        chosen = self.loss or default
        function = _LOSSES[chosen] if isinstance(chosen, str) else chosen
        try:
            return function(*self._forward(module, rows))
        except (RuntimeError, ValueError, IndexError) as error:
            raise TaskError(f"module: {type(error).__name__} on a batch of {len(rows)} rows") from error

    def _parts(self, rows: Examples) -> list[Examples]:
        """Return the rows in order, in parts as equal as they can be, none above the batch size."""
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        count = -(-len(rows) // (self.batch_size or len(rows)))
        return [rows.take(part) for part in np.array_split(np.arange(len(rows)), count)]

    @property
    def _penalty(self) -> float:
        return self.weight_decay if self.optimizer in ("sgd", "adam") else 0.0

    def _fresh_optimizer(self, tensors: list[Tensor]) -> Optimizer:
        if not isinstance(self.optimizer, str):
            return self.optimizer(tensors)
        return named_optimizer(self.optimizer, tensors, self.rate, self.momentum, self.weight_decay)

    def _made(self) -> Module:
        """Return the module as its constructor makes it, the same every time."""
        with seeded(self.device, self.seed):
            return self.module().to(self.device)

    def _loaded(self, parameters: Parameters) -> Module:
        """Return the module with these parameters, and the local buffers of the round before."""
        module = self._made()
        write(carried(module, self.buffers), parameters)
        if self._kept:
            write(running(module), self._kept)
        return module
