"""What a round is about, as bytes: the payload whose digest is the round's context.

4 bytes length of the header (big-endian), the header as JSON, then the arrays it names, float64
little-endian, one after the other. A client recomputes the digest; nothing in it can be exchanged.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.errors import TaskError
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.noise import Noise
from fedcore.rounds.instructions import Asks

_VERSION = 4
_FIELDS = {
    *("version", "kind", "number", "dimension", "codec", "columns", "classes", "arrays"),
    *("asks", "shaping", "noise", "passes"),
}


class TaskKind(StrEnum):
    """What the sites compute."""

    MEAN = "mean"  # of the columns, in units of their bounds
    DEVIATION = "deviation"  # mean squared deviation, likewise
    CUMULATIVE = "cumulative"  # share of rows at or below given edges, by column
    COVARIANCE = "covariance"  # mean products of deviations, upper triangle, in units of the bounds
    COUNT = "count"  # share of rows with given values in given columns
    TRAIN = "train"  # what local training gives, as the strategy asks
    EVALUATE = "evaluate"  # confusion matrix, log loss and binned scores of held-out rows
    SITES = "sites"  # in which bin a site's own accuracy lies


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One secure sum.

    name        how the round is called in the history, such as "train 3"
    dimension   values per site, before shaping and without what follows them
    columns     (name, low, high) of the features: a site refuses others than its own
    arrays      "mean" from DEVIATION on, "deviation" and the parameters (as "model.<name>") in TRAIN
    asks        of a training round; shaping and noise: of its vectors
    passes      how often this round was summed before (geometric median): the update stays the same
    """

    kind: TaskKind
    number: int
    dimension: int
    codec: Codec
    columns: tuple[tuple[str, float, float], ...]
    classes: tuple[str, ...]
    arrays: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    asks: Asks = field(default_factory=Asks)
    shaping: Shaping = field(default_factory=Shaping)
    noise: Noise | None = None
    passes: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def hidden(self) -> int:
        """Values that follow the vector where noise hides them, too: the quantile's."""
        return int(bool(self.asks.quantile) and self.noise is not None)

    @property
    def precise(self) -> tuple[str, ...]:
        """Names of the precise values."""
        return ("steps",) * self.asks.normalized + ("within",) * (
            bool(self.asks.quantile) and self.noise is None
        )

    @property
    def length(self) -> int:
        """Entries of a site's encoded vector."""
        return self.codec.length(self.shaping.length(self.dimension) + self.hidden)

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
            "codec": asdict(self.codec),
            "columns": self.columns,
            "classes": self.classes,
            "asks": self.asks.encode(),
            "shaping": asdict(self.shaping) | {"seed": self.shaping.seed.hex()},
            "noise": None if self.noise is None else asdict(self.noise),
            "passes": self.passes,
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
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, AttributeError) as error:
            raise TaskError(f"task: not readable: {error}") from error


def _decode(payload: bytes) -> Task:
    size = int.from_bytes(payload[:4], "big")
    header = json.loads(payload[4 : 4 + size])
    if header["version"] != _VERSION:
        raise TaskError(f"task.version: must be {_VERSION}, is {header['version']}")
    if unknown := header.keys() - _FIELDS:
        raise TaskError(f"task: {min(unknown)!r} is not known")
    arrays: dict[str, NDArray[np.float64]] = {}
    at = 4 + size
    for name, shape in header["arrays"]:
        if name in arrays:
            raise TaskError(f"task.arrays: {name!r} is there twice")
        if not all(_whole(side) and 0 <= side <= len(payload) for side in shape):
            raise TaskError(f"task.arrays: {name!r} has the shape {shape}")
        count = math.prod(shape)
        arrays[_text(name, "arrays")] = np.frombuffer(payload, "<f8", count, at).reshape(shape).astype(float)
        at += 8 * count
    if at != len(payload):
        raise TaskError(f"task: {len(payload) - at} bytes behind the arrays")
    return Task(
        kind=TaskKind(header["kind"]),
        number=_integer(header, "number"),
        dimension=_integer(header, "dimension"),
        codec=_codec(header["codec"]),
        columns=tuple(
            (_text(name, "columns"), _real(low, "columns"), _real(high, "columns"))
            for name, low, high in header["columns"]
        ),
        classes=_texts(header["classes"], "classes"),
        arrays=arrays,
        asks=Asks.decode(header["asks"]),
        shaping=_shaping(header["shaping"]),
        noise=None if header["noise"] is None else _noise(header["noise"]),
        passes=_integer(header, "passes"),
    )


def _integer(header: dict[str, Any], name: str) -> int:
    value = header[name]
    if not _whole(value) or not 0 <= value < 2**53:
        raise TaskError(f"task.{name}: must be an integer from 0 on")
    return int(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # true would count as 1


def _real(value: object, name: str) -> float:
    if not (_whole(value) or isinstance(value, float)) or not math.isfinite(out := float(value)):  # type: ignore[arg-type]
        raise TaskError(f"task.{name}: must be finite numbers")
    return out


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TaskError(f"task.{name}: names must be strings")
    return value


def _texts(values: object, name: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TaskError(f"task.{name}: must be a list of names")
    return tuple(_text(value, name) for value in values)


def _codec(values: dict[str, Any]) -> Codec:
    for name, value in values.items():
        _real(value, f"codec.{name}")
    return Codec(**values)


def _shaping(values: dict[str, Any]) -> Shaping:
    norm = values["norm"]
    if not isinstance(values["rotate"], bool):
        raise TaskError(f"task.shaping.rotate: must be true or false, is {values['rotate']!r}")
    return Shaping(
        norm=None if norm is None else _real(norm, "shaping.norm"),
        rotate=values["rotate"],
        keep=_real(values["keep"], "shaping.keep"),
        seed=bytes.fromhex(values["seed"]),
    )


def _noise(values: dict[str, Any]) -> Noise:
    return Noise(
        mechanism=Mechanism(values["mechanism"]),
        variance=_real(values["variance"], "noise.variance"),
        sensitivity=_real(values["sensitivity"], "noise.sensitivity"),
        norm=_real(values["norm"], "noise.norm"),
        smallest=_integer(values, "smallest"),
    )
