"""The state of a torch module between rounds: parameters and buffers by name, as float64 arrays.

Float32 values survive the way to float64 and back exactly. Extra: secagg[torch].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import Parameters

Buffers: TypeAlias = Literal["shared", "local", "refuse"]
Module: TypeAlias = Any  # torch.nn.Module and torch.Tensor: torch's types are not checked here
Tensor: TypeAlias = Any


def trainable(module: Module) -> dict[str, Tensor]:
    """Return the parameters by name, tied ones under their first name only."""
    return dict(module.named_parameters())


def running(module: Module) -> dict[str, Tensor]:
    """Return the buffers of floating point that a state dict has, such as BatchNorm's running statistics.

    Those of integers (BatchNorm's num_batches_tracked) are not among them: an average of counts would be
    none. They stay as the module's constructor made them at the start of every round.
    """
    kept = module.state_dict(keep_vars=True)
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name in kept and buffer.dtype.is_floating_point
    }


def carried(module: Module, buffers: Buffers) -> dict[str, Tensor]:
    """Return the tensors that travel, by name. Raises TaskError for what cannot."""
    out = trainable(module)
    if not out:
        raise TaskError("module: has no parameters")
    for name, tensor in out.items():
        if not tensor.dtype.is_floating_point:
            raise TaskError(f"module: {name} must be of real floating point, is {tensor.dtype}")
    if buffers == "refuse" and (names := sorted(name for name, _ in module.named_buffers())):
        raise TaskError(f"buffers: {names[0]} is one, and this learner refuses them")
    return out | running(module) if buffers == "shared" else out


def read(tensors: Mapping[str, Tensor]) -> Parameters:
    """Return copies as float64 arrays."""
    return {
        name: np.array(tensor.detach().to("cpu", torch.float64).numpy()) for name, tensor in tensors.items()
    }


def write(tensors: Mapping[str, Tensor], parameters: Mapping[str, NDArray[np.float64]]) -> None:
    """Set the tensors in place. Raises TaskError when names or shapes differ, before any is set."""
    if missing := sorted(tensors.keys() - parameters.keys()):
        raise TaskError(f"parameters: {missing[0]} is missing")
    if unknown := sorted(parameters.keys() - tensors.keys()):
        raise TaskError(f"parameters: the module has no {unknown[0]}")
    for name, tensor in tensors.items():
        if parameters[name].shape != tuple(tensor.shape):
            raise TaskError(
                f"parameters: {name} must be of shape {tuple(tensor.shape)}, is {parameters[name].shape}"
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.tensor(parameters[name]))
