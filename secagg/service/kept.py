"""What the store keeps of a round beside its messages: how it is to be run, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np

from secagg.effects import AbortReason, Aggregate, Blame, BlameReason, OneShotAggregate, Traffic
from secagg.errors import ParameterError, RemoteProtocolError, RoundAbortedError
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages import RoundParametersMessage, decode, encode, parameters_from_wire, parameters_to_wire
from secagg.params import Buffer, Identity, Phase, RoundParameters, require
from secagg.params_oneshot import OneShotParameters, OneShotPhase
from secagg.store import ConcernKind, StoreDamagedError

_T = TypeVar("_T", bound=msgspec.Struct)
_Phase = TypeVar("_Phase", Phase, OneShotPhase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time a phase waits for those who have not answered, in seconds of the service's clock.

    advertise_s  for AdvertiseKeys: clients may still be starting; phase_s: for the other phases
    grace_s      once enough have answered for the round to go on, at most so long for the rest
    advertise_grace_s  the same for AdvertiseKeys

    A round that goes on after its server was started again gets the time of its phase anew.
    """

    advertise_s: float = 60.0
    phase_s: float = 30.0
    grace_s: float | None = None
    advertise_grace_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("advertise_s", "phase_s", "grace_s", "advertise_grace_s"):
            seconds = getattr(self, name)
            if seconds is not None:
                require(math.isfinite(seconds) and seconds > 0, name, "positive and finite", seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """A round as its caller wants it.

    admitted  who may take part
    subject   what the ledger is to know the round by
    cohort    among whom the subject is summed, in whole cells; None: not in cells
    floor     fewest members that sums may tell apart; 0: `floor_for` the cohort or roster
    goal      uploads that are enough; 0: everybody is waited for
    """

    parameters: RoundParameters
    admitted: frozenset[Identity]
    deadlines: Deadlines
    subject: bytes
    cohort: frozenset[Identity] | None = None
    floor: int = 0
    goal: int = 0

    @property
    def round_id(self) -> bytes:
        """Of the round."""
        return self.parameters.round_id

    def dump(self) -> bytes:
        """Return it as bytes."""
        return msgspec.msgpack.encode(
            _Plan(
                encode(parameters_to_wire(self.parameters)),
                sorted(self.admitted),
                self.deadlines,
                self.subject,
                None if self.cohort is None else sorted(self.cohort),
                self.floor,
                self.goal,
            )
        )

    @classmethod
    def load(cls, data: bytes) -> RoundPlan:
        """Read it. Raises StoreDamagedError."""
        kept = decoded(data, _Plan)
        cohort = kept.cohort
        with undamaged("plan"):
            return cls(
                parameters=parameters_from_wire(decode(RoundParametersMessage, kept.parameters)),
                admitted=frozenset(map(Identity, kept.admitted)),
                deadlines=kept.deadlines,
                subject=kept.subject,
                cohort=None if cohort is None else frozenset(map(Identity, cohort)),
                floor=kept.floor,
                goal=kept.goal,
            )


class _Plan(msgspec.Struct, array_like=True):
    parameters: bytes
    admitted: list[bytes]
    deadlines: Deadlines
    subject: bytes
    cohort: list[bytes] | None
    floor: int
    goal: int


class _Outcome(msgspec.Struct, array_like=True):
    """Of a round without a result, `reason` says why; the sum itself is spooled."""

    reason: str
    detail: str
    survivors: list[bytes]
    blamed: list[tuple[bytes, bool, str]]
    guilty: list[bytes]
    likely: list[bytes]
    up: dict[int, int]
    down: dict[int, int]
    unprotected: bool = False
    left_out: list[bytes] = []


def dump_result(result: Aggregate) -> tuple[bytes, Buffer]:
    """Return how a round ended, and its sum: lanes, little-endian."""
    blamed = [(bytes(one.client), one.guilty, str(one.reason)) for one in result.blamed]
    up, down = ({int(phase): count for phase, count in one.items()} for one in _both(result.traffic))
    outcome = _Outcome("", "", list(result.survivors), blamed, [], [], up, down)
    if isinstance(result, OneShotAggregate):
        outcome.unprotected, outcome.left_out = result.unprotected, list(result.left_out)
    total = result.total.astype(result.total.dtype.newbyteorder("<"), copy=False)
    return msgspec.msgpack.encode(outcome), total.data.cast("B")


def load_result(data: bytes, total: Buffer, parameters: RoundParameters) -> Aggregate:
    """Read both. Raises StoreDamagedError."""
    kept = decoded(data, _Outcome)
    with undamaged("outcome"):
        return Aggregate(
            _summed(total, parameters.vector_length, parameters.ring_bits),
            tuple(map(Identity, kept.survivors)),
            _blamed(kept),
            Traffic.of(_by_phase(kept.up, Phase), _by_phase(kept.down, Phase)),
        )


def summed_in(data: bytes) -> frozenset[Identity]:
    """Return whose uploads are in the sum of a round that is over. Raises StoreDamagedError."""
    return frozenset(map(Identity, decoded(data, _Outcome).survivors))


def load_oneshot(data: bytes, total: Buffer, parameters: OneShotParameters) -> OneShotAggregate:
    """Read both, of a round of the one-upload protocol. Raises StoreDamagedError."""
    kept = decoded(data, _Outcome)
    with undamaged("outcome"):
        return OneShotAggregate(
            _summed(total, parameters.vector_length, parameters.ring_bits),
            tuple(map(Identity, kept.survivors)),
            _blamed(kept),
            Traffic.of(_by_phase(kept.up, OneShotPhase), _by_phase(kept.down, OneShotPhase)),
            kept.unprotected,
            tuple(map(Identity, kept.left_out)),
        )


def _summed(total: Buffer, length: int, ring_bits: int) -> UIntArray:
    lane = lane_dtype(ring_bits)
    summed: UIntArray = np.frombuffer(total, lane.newbyteorder("<")).astype(lane)
    if summed.size != length:
        raise ValueError(f"the sum must have {length} entries, has {summed.size}")
    return summed


def _blamed(kept: _Outcome) -> tuple[Blame, ...]:
    return tuple(Blame(Identity(who), guilty, BlameReason(why)) for who, guilty, why in kept.blamed)


def dump_failure(error: RoundAbortedError, handed_on: Collection[Identity] = ()) -> bytes:
    """Return how a round ended that has no result here. handed_on: whose uploads are in one elsewhere."""
    lists: Any = (sorted(error.blamed), sorted(error.guilty), sorted(error.likely))
    blamed, guilty, likely = lists
    return msgspec.msgpack.encode(
        _Outcome(
            str(error.reason),
            error.detail,
            sorted(handed_on),
            [(who, False, "") for who in blamed],
            guilty,
            likely,
            {},
            {},
        )
    )


def load_failure(data: bytes) -> RoundAbortedError:
    """Read it. Raises StoreDamagedError."""
    kept = decoded(data, _Outcome)

    def named(clients: Collection[bytes]) -> tuple[Identity, ...]:
        return tuple(map(Identity, clients))

    blamed = named([who for who, _, _ in kept.blamed])
    return RoundAbortedError(
        _reason(kept.reason), kept.detail, blamed, named(kept.guilty), named(kept.likely)
    )


def _reason(text: str) -> AbortReason | ConcernKind | str:
    for kind in (AbortReason, ConcernKind):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _both(traffic: Traffic) -> tuple[Any, Any]:
    return traffic.up, traffic.down


def _by_phase(counts: dict[int, int], kind: type[_Phase]) -> dict[_Phase, int]:
    return {kind(phase): count for phase, count in counts.items()}


def decoded(data: bytes, kind: type[_T]) -> _T:
    """Read what the store kept. Raises StoreDamagedError."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(kind.__name__.strip("_").lower()) from error


@contextmanager
def undamaged(what: str) -> Iterator[None]:
    """Turn what is wrong with kept values into StoreDamagedError."""
    try:
        yield
    except (ValueError, ParameterError, RemoteProtocolError) as error:
        raise _damaged(what) from error


def _damaged(what: str) -> StoreDamagedError:
    return StoreDamagedError(f"store: a round's {what} is damaged")
