"""What the store keeps of a round of the one-upload protocol beside its messages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.oneshot import OneShotParametersMessage, oneshot_from_wire, oneshot_to_wire
from secagg.params import Identity, require
from secagg.params_oneshot import OneShotParameters
from secagg.protocol.oneshot import ANY_COMMITTEE, read_certificate
from secagg.protocol.oneshot.view import OneShotView, require_committee
from secagg.service.kept import decoded, undamaged
from secagg.store import StoreDamagedError


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotDeadlines:
    """The time that a round takes at most, in seconds of the service's clock.

    upload_s  for uploads, until enough are there; too few by then end the round without a result
    upload_grace_s  once as many as a sum needs have uploaded, at most so long for the rest; None: upload_s
    phase_s   for the members, a phase
    grace_s   once enough members have answered, at most so long for the rest; None: phase_s

    A round that goes on after its server was started again gets the time of its phase anew.
    """

    upload_s: float = 600.0
    upload_grace_s: float | None = None
    phase_s: float = 30.0
    grace_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("upload_s", "upload_grace_s", "phase_s", "grace_s"):
            seconds = getattr(self, name)
            if seconds is not None:
                require(math.isfinite(seconds) and seconds > 0, name, "positive and finite", seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotPlan:
    """A round as its caller wants it.

    certificate  frame of the committee that opens it
    admitted     clients that may upload
    edges        whose partial sums are taken
    goal         uploads that are enough; 0: everybody who is admitted, or as many as the noise is for
    """

    parameters: OneShotParameters
    certificate: bytes
    admitted: frozenset[Identity]
    deadlines: OneShotDeadlines
    goal: int = 0
    edges: frozenset[Identity] = frozenset()

    @property
    def round_id(self) -> bytes:
        """Of the round."""
        return self.parameters.round_id

    @property
    def enough(self) -> int:
        """Uploads that end the phase."""
        most = min(len(self.admitted), self.parameters.maximum_uploads)
        return min(max(self.goal, self.parameters.effective_minimum), most) if self.goal else most

    def dump(self) -> bytes:
        """Return it as bytes."""
        return msgspec.msgpack.encode(
            _Plan(
                encode(oneshot_to_wire(self.parameters)),
                self.certificate,
                sorted(self.admitted),
                self.deadlines,
                self.goal,
                sorted(self.edges),
            )
        )

    @classmethod
    def load(cls, data: bytes) -> OneShotPlan:
        """Read it. Raises StoreDamagedError."""
        kept = decoded(data, _Plan)
        with undamaged("plan"):
            return cls(
                parameters=oneshot_from_wire(decode(OneShotParametersMessage, kept.parameters)),
                certificate=kept.certificate,
                admitted=frozenset(map(Identity, kept.admitted)),
                deadlines=kept.deadlines,
                goal=kept.goal,
                edges=frozenset(map(Identity, kept.edges)),
            )


def view_of(plan: OneShotPlan) -> OneShotView:
    """Return what everybody computes from a round and its committee. Raises StoreDamagedError."""
    try:
        committee = read_certificate(plan.certificate, ANY_COMMITTEE)
        require_committee(plan.parameters, committee)
        return OneShotView.build(plan.parameters, committee)
    except (RemoteProtocolError, ParameterError) as error:
        raise StoreDamagedError(f"round {plan.round_id.hex()}: its committee is damaged: {error}") from error


class _Plan(msgspec.Struct, array_like=True):
    parameters: bytes
    certificate: bytes
    admitted: list[bytes]
    deadlines: OneShotDeadlines
    goal: int
    edges: list[bytes] = []
