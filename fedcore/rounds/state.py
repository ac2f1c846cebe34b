"""Everything that a training run needs to go on as if it had never stopped, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fedcore import arrays
from fedcore.errors import DataError
from fedcore.learner import Metrics, Parameters
from fedcore.rounds.model import model_arrays, model_of
from fedcore.statistics.standardizer import Standardizer

if TYPE_CHECKING:
    from fedcore.rounds.site import Site

_VERSION = 6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RunState:
    """A run after a round: its model, and everything that it needs to go on.

    number      of the last training round
    parameters  the global model; state: of the strategy
    weight      rows of the sites in the last statistics round; 0 where there was none
    norm        that updates of the next round are clipped to
    accountant  of the privacy spent; epsilon: what that is, where noise was added
    evaluations metrics by round; stopped: why training ended before its last round
    tried       (step, attempt) that was asked last: it is not asked again
    sites       what simulated sites keep, by name: control variates, residuals, personal parameters.
                Real sites keep their own.
    about       what the run stands on, as JSON values: it goes on with the same only. Empty: with any
    """

    number: int
    parameters: Parameters
    standardizer: Standardizer = field(default_factory=Standardizer.none)
    weight: int = 0
    state: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    norm: float | None = None
    accountant: dict[str, Any] | None = None
    epsilon: float | None = None
    evaluations: dict[int, Metrics] = field(default_factory=dict)
    stopped: str = ""
    tried: tuple[int, int] = (0, 0)
    sites: dict[str, dict[str, Any]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, number: int, parameters: Parameters, standardizer: Standardizer | None = None) -> Self:
        """Return the state of a model alone."""
        chosen = Standardizer.none() if standardizer is None else standardizer
        return cls(number=number, parameters=parameters, standardizer=chosen)

    def save(self, path: Path) -> None:
        """Write one file of named arrays, whole or not at all. Raises DataError."""
        named: dict[str, Any] = model_arrays(self.parameters, self.standardizer)
        named |= {f"state.{name}": array for name, array in self.state.items()}
        sites: dict[str, Any] = {}
        for name, kept in self.sites.items():
            sites[name] = _flattened(kept, named)
        header = {
            "version": _VERSION,
            "number": self.number,
            "weight": self.weight,
            "norm": self.norm,
            "tried": self.tried,
            "accountant": self.accountant,
            "epsilon": None if self.epsilon is None else str(self.epsilon),
            "stopped": self.stopped,
            "evaluations": {
                str(number): {name: str(value) for name, value in metrics.items()}  # JSON has no NaN
                for number, metrics in self.evaluations.items()
            },
            "sites": sites,
            "about": self.about,
        }
        arrays.write(path, named, header)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of `save`. Raises DataError."""
        named, header = arrays.read(path)
        try:
            if header["version"] != _VERSION:
                raise DataError(f"{path}: version must be {_VERSION}, is {header['version']}")
            return cls._read(header, named)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a checkpoint: {error}") from error

    @classmethod
    def _read(cls, header: dict[str, Any], named: dict[str, Any]) -> Self:
        parameters, standardizer = model_of(named)
        return cls(
            number=int(header["number"]),
            parameters=parameters,
            standardizer=standardizer,
            weight=int(header["weight"]),
            state={k.removeprefix("state."): v for k, v in named.items() if k.startswith("state.")},
            norm=header["norm"],
            tried=(int(header["tried"][0]), int(header["tried"][1])),
            accountant=header["accountant"],
            epsilon=None if header["epsilon"] is None else float(header["epsilon"]),
            stopped=str(header["stopped"]),
            evaluations={
                number: {name: float(value) for name, value in metrics.items()}
                for number, metrics in sorted((int(n), m) for n, m in header["evaluations"].items())
            },
            sites={name: _unflattened(kept, named) for name, kept in header["sites"].items()},
            about=dict(header["about"]),
        )


def pack_site(kept: Mapping[str, Any]) -> bytes:
    """Return what a site keeps (`SiteState.kept`) as bytes, for its own store."""
    named: dict[str, Any] = {}
    return arrays.pack(named, {"site": _flattened(dict(kept), named)})


def unpack_site(data: bytes) -> dict[str, Any]:
    """Undo `pack_site`. Raises DataError."""
    named, header = arrays.unpack(data)
    try:
        kept: dict[str, Any] = _unflattened(header["site"], named)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"not what a site keeps: {error}") from error
    return kept


def sites_kept(sites: Mapping[str, Site]) -> dict[str, dict[str, Any]]:
    """Return what simulated sites keep, for a checkpoint."""
    return {name: site.state.kept() for name, site in sites.items() if site.state.kept()}


def restore_sites(sites: Mapping[str, Site], kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Give simulated sites back what they kept."""
    for name, values in kept.items():
        sites[name].state.restore(values)


def _flattened(value: Any, named: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON and arrays
    """Move arrays of nested dicts and pairs to `named`, numbered; leave their names."""
    if isinstance(value, np.ndarray):
        name = f"site.{len(named)}"
        named[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": {key: _flattened(v, named) for key, v in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_flattened(v, named) for v in value]}
    return {"value": value}


def _unflattened(value: Any, named: dict[str, Any]) -> Any:  # noqa: ANN401
    ((kind, inner),) = value.items()
    match kind:
        case "array":
            return named[inner]
        case "dict":
            return {key: _unflattened(v, named) for key, v in inner.items()}
        case "tuple":
            return tuple(_unflattened(v, named) for v in inner)
        case _:
            return inner
