"""A committee's certificate and a round's parameters, as any party reads them that did not make them."""

from __future__ import annotations

from secagg.effects import RefusalReason
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    CommitteeCertificate,
    OneShotParametersMessage,
    committee_from_wire,
    decode_oneshot,
    oneshot_from_wire,
)
from secagg.params import Buffer
from secagg.params_oneshot import OneShotParameters, OneShotPolicy
from secagg.protocol.oneshot.policy import check_committee_policy
from secagg.protocol.oneshot.view import CommitteeView
from secagg.protocol.round import refuse


def read_certificate(frame: Buffer, policy: OneShotPolicy) -> CommitteeView:
    """Check a certificate against a policy; return its committee. Raises RemoteProtocolError."""
    envelope = ONESHOT_FRAMES.open(frame)
    message = decode_oneshot(envelope)
    if not isinstance(message, CommitteeCertificate):
        raise refuse(
            RefusalReason.WRONG_PHASE, f"{type(message).__name__} in place of a CommitteeCertificate"
        )
    parameters = committee_from_wire(message.parameters)
    if parameters.epoch_id != envelope.round_id:
        raise refuse(RefusalReason.WRONG_ROUND, "CommitteeParameters.epoch_id is not the frame's")
    check_committee_policy(parameters, policy)
    view = CommitteeView.check(parameters, message.committee, message.keys, policy)
    view.check_certificate(message.acceptances)
    return view


def read_parameters(frame: Buffer) -> OneShotParameters:
    """Read the parameters of a round, as an edge gets them. Raises RemoteProtocolError."""
    envelope = ONESHOT_FRAMES.open(frame)
    message = decode_oneshot(envelope)
    if not isinstance(message, OneShotParametersMessage):
        raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in place of OneShotParameters")
    parameters = oneshot_from_wire(message)
    if parameters.round_id != envelope.round_id:
        raise refuse(RefusalReason.WRONG_ROUND, "OneShotParameters.round_id is not the frame's")
    return parameters
