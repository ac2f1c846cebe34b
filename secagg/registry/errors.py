"""What can be wrong with a registry document, or with one that claims to follow another.

Every message names the party or the version, and what to do.
"""

from __future__ import annotations

from secagg.errors import RegistryError


class DocumentError(RegistryError):
    """A registry document is well formed, and not to be trusted."""

    exit_status = 1  # what was looked at is not as it should be


class DocumentSignatureError(DocumentError):
    """The operator's signature, or a witness's, is not that of the document."""


class OtherFederationError(DocumentError):
    """A document of another federation."""


class WrongOperatorError(DocumentError):
    """Signed, but by somebody who is not the operator of this version."""


class RollbackError(DocumentError):
    """A version that is older than the one known."""


class ForkError(DocumentError):
    """Two documents of one version, or one that follows another past than the one known."""


class GapError(DocumentError):
    """Versions between the one known and the new one are missing."""


class IdentityChangedError(DocumentError):
    """A party has another identity, and its former key has not signed for it."""


class RevokedReturnedError(DocumentError):
    """A party that was revoked is active again."""


class PartyHistoryError(DocumentError):
    """A party vanished, or what was settled about it earlier is told in another way."""


class CountersignatureError(DocumentError):
    """Fewer witnesses have signed a document than are demanded."""
