"""Phase 0, server: collect advertisements; degree and threshold follow from how many came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.errors import InfeasibleParameters
from secagg.messages import (
    KINDS,
    Advertisement,
    Roster,
    RosterEntry,
    decode,
    encode_frame,
    open_frame,
    parameters_to_wire,
)
from secagg.params import Buffer, Identity, Phase, RoundParameters
from secagg.primitives.bounds import choose_for
from secagg.primitives.signatures import verify
from secagg.protocol.round import (
    RoundEnded,
    RoundView,
    advertisement_digest,
    advertisement_text,
    parameters_digest,
    refuse,
    unusable_key,
)
from secagg.protocol.server.phase import HYBRID_SMALL_BYTES, SMALL_BYTES
from secagg.protocol.server.share_keys import ShareKeys


def check_signature(parameters: RoundParameters, message: Advertisement) -> None:
    """Raise RemoteProtocolError unless the identity that an advertisement names signed it, for this round."""
    text = advertisement_text(parameters_digest(parameters), message)
    if not verify(Identity(message.identity), text, message.signature):
        raise refuse(RefusalReason.BAD_SIGNATURE, "Advertisement.signature")


def parameters_frame(parameters: RoundParameters) -> Frame:
    """Return the first frame of a round, the same for every client."""
    return encode_frame(parameters.round_id, parameters_to_wire(parameters))


def sender_of(parameters: RoundParameters, frame: Buffer) -> Identity:
    """Return who signed the first frame of a client: what a server needs to know that no host tells it.

    raises  RemoteProtocolError: the frame is no advertisement for this round, or too long for one; nobody
            signed it
    """
    envelope = open_frame(frame)
    if (round_id := envelope.round_id) != parameters.round_id:
        raise refuse(RefusalReason.WRONG_ROUND, f"Frame.round_id: {round_id.hex()} is not this round")
    largest = AdvertiseKeys(parameters, frozenset()).largest
    if KINDS[envelope.kind] is not Advertisement or memoryview(envelope.body).nbytes > largest:
        raise refuse(RefusalReason.WRONG_PHASE, "must be an Advertisement, and no longer than one")
    message = decode(Advertisement, envelope.body)
    check_signature(parameters, message)
    return Identity(message.identity)


@dataclass(slots=True)
class AdvertiseKeys:
    """Collects advertisements of the admitted; leads to ShareKeys."""

    phase: ClassVar = Phase.ADVERTISE_KEYS
    wants: ClassVar[type] = Advertisement
    parameters: RoundParameters
    admitted: frozenset[Identity]
    inbox: dict[Identity, Advertisement] = field(default_factory=dict)

    @property
    def largest(self) -> int:
        return HYBRID_SMALL_BYTES if self.parameters.hybrid else SMALL_BYTES

    @property
    def asked(self) -> frozenset[Identity]:
        return self.admitted

    @property
    def answered(self) -> frozenset[Identity]:
        return frozenset(self.inbox)

    @property
    def needed(self) -> int:
        return self.parameters.minimum_cohort

    @property
    def ready(self) -> bool:
        """Enough have come, and there are parameters for so many."""
        if len(self.inbox) < self.needed:
            return False
        try:
            choose_for(len(self.inbox), self.parameters.threat_model)
        except InfeasibleParameters:
            return False
        return True

    def request(self, client: Identity) -> Frame:
        return parameters_frame(self.parameters)

    def accept(self, sender: Identity, message: Advertisement) -> None:
        if message.identity != sender:
            raise refuse(RefusalReason.SENDER_MISMATCH, "Advertisement.identity: not the sender's")
        if (bad := unusable_key(self.parameters, message)) is not None:
            raise refuse(RefusalReason.BAD_KEY, f"Advertisement.{bad[0]}: {bad[1]}")
        check_signature(self.parameters, message)
        self.inbox[sender] = message

    def close(self) -> ShareKeys:
        n, lowest = len(self.inbox), self.parameters.minimum_cohort
        if n < lowest:
            raise RoundEnded(
                AbortReason.COHORT_TOO_SMALL, f"minimum_cohort: {lowest} are needed, {n} advertised keys"
            )
        try:
            graph = choose_for(n, self.parameters.threat_model)
        except InfeasibleParameters as error:
            raise RoundEnded(AbortReason.INFEASIBLE_PARAMETERS, str(error)) from error
        entries = tuple(
            RosterEntry(identity, advertisement_digest(self.inbox[identity]))
            for identity in sorted(self.inbox)
        )
        view = RoundView.build(self.parameters, Roster(graph.degree, graph.threshold, entries))
        return ShareKeys(view, tuple(self.inbox[identity] for identity in view.identities))
