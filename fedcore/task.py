"""What a round is about, as bytes: the payload whose digest is the round's context.

4 bytes length of the header (big-endian), the header as JSON, then the arrays it names, float64
little-endian, one after the other. A client recomputes the digest; nothing in it can be exchanged.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.codec import Codec
from fedcore.errors import CodecError, TaskError

_VERSION = 1


class TaskKind(StrEnum):
    """What the sites compute."""

    MEAN = "mean"  # of the columns, in units of their bounds
    DEVIATION = "deviation"  # mean squared deviation, likewise
    TRAIN = "train"  # change of the parameters by local training


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One secure sum.

    name        how the round is called in the history, such as "train 3"
    dimension   values per site, without the weight
    columns     (name, low, high) of the features: a site refuses others than its own
    arrays      "mean" from DEVIATION on, "deviation" and the parameters (as "model.<name>") in TRAIN
    """

    kind: TaskKind
    number: int
    dimension: int
    codec: Codec
    columns: tuple[tuple[str, float, float], ...]
    classes: tuple[str, ...]
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def model(self) -> dict[str, NDArray[np.float64]]:
        """Return the parameters that a TRAIN round starts from."""
        prefix = "model."
        return {
            name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)
        }

    def encode(self) -> bytes:
        """Return the payload."""
        names = sorted(self.arrays)
        header: dict[str, Any] = {
            "version": _VERSION,
            "kind": str(self.kind),
            "number": self.number,
            "dimension": self.dimension,
            "codec": {
                "clip": self.codec.clip,
                "bits": self.codec.bits,
                "weight_cap": self.codec.weight_cap,
                "clients": self.codec.clients,
            },
            "columns": self.columns,
            "classes": self.classes,
            "arrays": [[name, list(self.arrays[name].shape)] for name in names],
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        body = b"".join(self.arrays[name].astype("<f8").tobytes() for name in names)
        return len(text).to_bytes(4, "big") + text + body

    @classmethod
    def decode(cls, payload: bytes) -> Task:
        """Read a payload. Raises TaskError."""
        try:
            return _decode(payload)
        except TaskError:
            raise
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, CodecError) as error:
            raise TaskError(f"task: not readable: {error}") from error


def _decode(payload: bytes) -> Task:
    size = int.from_bytes(payload[:4], "big")
    header = json.loads(payload[4 : 4 + size])
    if header["version"] != _VERSION:
        raise TaskError(f"task.version: must be {_VERSION}, is {header['version']}")
    arrays, at = {}, 4 + size
    for name, shape in header["arrays"]:
        if not all(isinstance(side, int) and 0 <= side <= len(payload) for side in shape):
            raise TaskError(f"task.arrays: {name} has the shape {shape}")
        count = math.prod(shape)
        arrays[str(name)] = np.frombuffer(payload, "<f8", count, at).reshape(shape).astype(float)
        at += 8 * count
    if at != len(payload):
        raise TaskError(f"task: {len(payload) - at} bytes behind the arrays")
    return Task(
        kind=TaskKind(header["kind"]),
        number=_integer(header, "number"),
        dimension=_integer(header, "dimension"),
        codec=Codec(**header["codec"]),
        columns=tuple((str(n), float(low), float(high)) for n, low, high in header["columns"]),
        classes=tuple(str(name) for name in header["classes"]),
        arrays=arrays,
    )


def _integer(header: dict[str, Any], name: str) -> int:
    value = header[name]
    if not isinstance(value, int) or not 0 <= value < 2**53:
        raise TaskError(f"task.{name}: must be an integer from 0 on")
    return value
