"""Enrolment: an operator invites, a party asks, the operator admits, the party checks what it was given.

Everything works on texts, by mail as well as by a server; the operator's keys are needed for `admit` only.
"""

from secagg.service.enrolment.admission import Admission, accept, accept_again, admit, admit_again
from secagg.service.enrolment.armor import kind_of
from secagg.service.enrolment.errors import (
    ArmorError,
    EnrolmentError,
    ExpiredError,
    NotAdmittedError,
    ProofError,
    UnknownInvitationError,
    UsedInvitationError,
)
from secagg.service.enrolment.invitation import Invitation, Offer, invite
from secagg.service.enrolment.ledger import InvitationLedger, InvitationRecord
from secagg.service.enrolment.request import (
    ENROLMENT,
    RENEWAL,
    EnrolmentRequest,
    RenewalRequest,
    enroll,
    renew,
)

__all__ = [
    "ENROLMENT",
    "RENEWAL",
    "Admission",
    "ArmorError",
    "EnrolmentError",
    "EnrolmentRequest",
    "ExpiredError",
    "Invitation",
    "InvitationLedger",
    "InvitationRecord",
    "NotAdmittedError",
    "Offer",
    "ProofError",
    "RenewalRequest",
    "UnknownInvitationError",
    "UsedInvitationError",
    "accept",
    "accept_again",
    "admit",
    "admit_again",
    "enroll",
    "invite",
    "kind_of",
    "renew",
]
