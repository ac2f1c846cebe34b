"""Secure aggregation: many parties learn the sum of their vectors, and nobody learns a single one.

![The five phases of a round](round.svg)

`aggregate` runs a round in one process; `ClientSession` and `ServerSession` are its two sides, which turn
bytes into effects; `plan` and `explain` say beforehand what a round needs and what it tells whom. Around it:
`secagg.service` (gRPC over TLS), `secagg.store` (bytes at rest), `secagg.transcript` (records that anybody
can verify), `secagg.kernels` (the C core).
"""

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    Blame,
    BlameReason,
    Breach,
    Completed,
    Dropped,
    DropReason,
    Effect,
    Frame,
    InputWanted,
    PhaseClosed,
    Progress,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
    Traffic,
)
from secagg.errors import (
    ConsentError,
    InfeasibleParameters,
    LocalProtocolError,
    ParameterError,
    RemoteProtocolError,
    RoundAbortedError,
    SecAggError,
    StaleSnapshotError,
)
from secagg.explanation import Statement, explain
from secagg.local import LocalAggregate, aggregate
from secagg.params import (
    Adversary,
    Buffer,
    Entropy,
    GraphParameters,
    Identity,
    Phase,
    Policy,
    RoundParameters,
    Signer,
    ThreatModel,
)
from secagg.planning import Plan, Risk, plan
from secagg.primitives.bounds import check_parameters, choose_parameters, harary_parameters
from secagg.primitives.labels import context_digest
from secagg.primitives.signatures import IdentityKey, check_identity
from secagg.protocol import ClientSession, ServerSession

__all__ = [
    "AbortReason",
    "Aborted",
    "Adversary",
    "Aggregate",
    "Blame",
    "BlameReason",
    "Breach",
    "Buffer",
    "ClientSession",
    "Completed",
    "ConsentError",
    "DropReason",
    "Dropped",
    "Effect",
    "Entropy",
    "Frame",
    "GraphParameters",
    "Identity",
    "IdentityKey",
    "InfeasibleParameters",
    "InputWanted",
    "LocalAggregate",
    "LocalProtocolError",
    "ParameterError",
    "Phase",
    "PhaseClosed",
    "Plan",
    "Policy",
    "Progress",
    "RefusalReason",
    "Refused",
    "RemoteProtocolError",
    "Risk",
    "RosterAccepted",
    "RoundAbortedError",
    "RoundParameters",
    "SecAggError",
    "Send",
    "ServerSession",
    "SignWanted",
    "Signer",
    "StaleSnapshotError",
    "Statement",
    "ThreatModel",
    "Traffic",
    "aggregate",
    "check_identity",
    "check_parameters",
    "choose_parameters",
    "context_digest",
    "explain",
    "harary_parameters",
    "plan",
]
