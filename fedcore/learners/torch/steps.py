"""Parts of a training step in torch: random state, optimizers, what steering adds. Extra: secagg[torch]."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch

from fedcore.learner import Parameters, Steering
from fedcore.learners.torch.state import Tensor

Optimizer: TypeAlias = Any  # torch.optim.Optimizer: torch's types are not checked here
OPTIMIZERS = ("sgd", "adam", "adamw")


@contextlib.contextmanager
def seeded(device: str, seed: int) -> Iterator[None]:
    """Seed torch, on the CPU and on the device, and put its random state back afterwards.

    On a GPU the convolutions of cuDNN are deterministic meanwhile; other kernels may not be.
    """
    target = torch.device(device)
    on_gpu = target.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[target] if on_gpu else []))
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            stack.enter_context(torch.cuda.device(target))
            torch.cuda.manual_seed(seed)
            cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
            stack.enter_context(cudnn)
        yield


def named_optimizer(
    name: str, tensors: list[Tensor], rate: float, momentum: float, weight_decay: float
) -> Optimizer:
    """Return a fresh one of OPTIMIZERS; momentum is that of sgd."""
    if name == "sgd":
        return torch.optim.SGD(tensors, lr=rate, momentum=momentum, weight_decay=weight_decay)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(tensors, lr=rate, weight_decay=weight_decay)


class Pull:
    """The term that steering adds to a gradient: correction + proximal * (w - w at the start)."""

    def __init__(self, moving: dict[str, Tensor], start: Parameters, steering: Steering) -> None:
        correction = steering.correction or {}
        self.proximal, self.terms = steering.proximal, []
        for name, tensor in moving.items():
            shift = torch.as_tensor(correction[name]).to(tensor) if name in correction else None
            begin = torch.tensor(start[name]).to(tensor) if steering.proximal else None
            if not (shift is None and begin is None):
                self.terms.append((tensor, shift, begin))

    def add(self) -> None:
        """Change the gradients in place; a parameter that the loss does not reach has one of zeros."""
        for tensor, shift, begin in self.terms:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            if shift is not None:
                tensor.grad.add_(shift)
            if begin is not None:
                tensor.grad.add_(tensor.detach() - begin, alpha=self.proximal)
