"""Why somebody is not taken into a federation. No message quotes a secret."""

from __future__ import annotations

from secagg.service.errors import ServiceError


class EnrolmentError(ServiceError):
    """An invitation, a request or an admission is refused, or is none."""

    exit_status = 1  # what was looked at is not as it should be


class ArmorError(EnrolmentError):
    """A text that holds nothing of the kind that is wanted."""

    exit_status = 2


class UnknownInvitationError(EnrolmentError):
    """No invitation of this operator."""


class ExpiredError(EnrolmentError):
    """An invitation, or a request, whose time is over."""


class UsedInvitationError(EnrolmentError):
    """An invitation that somebody has used, or that its operator took back."""


class ProofError(EnrolmentError):
    """A signature that is wrong: of an operator, of an invitation's secret, or of a party's key."""


class NotAdmittedError(EnrolmentError):
    """An admission that does not admit this party, or into another federation."""
