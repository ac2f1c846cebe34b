"""Admission: what an operator answers a request with, and what a party checks before it believes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secagg.errors import RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import large_octets, messages, uint
from secagg.params import Buffer, Identity, Signer
from secagg.registry.chain import check_chain, check_first
from secagg.registry.document import VERSION_LIMIT, Party, RegistryDocument
from secagg.registry.editing import enrol, replace_identity
from secagg.service.authority import (
    PARTY_DAYS,
    Authority,
    CertifiedParty,
    check_issued,
    check_key,
    fingerprint,
    party_of,
)
from secagg.service.enrolment.armor import armored, unarmored
from secagg.service.enrolment.errors import (
    ArmorError,
    EnrolmentError,
    ExpiredError,
    NotAdmittedError,
)
from secagg.service.enrolment.invitation import Invitation
from secagg.service.enrolment.ledger import InvitationRecord, check_open
from secagg.service.enrolment.request import EnrolmentRequest, RenewalRequest

KIND = "ADMISSION"
_DAY_MS = 86_400_000
RENEWAL_DAYS = 30  # a request is believed so long: time for a mail, and not for an old copy to be of use


@dataclass(frozen=True, slots=True)
class Admission:
    """What a party is given; nothing in it is secret.

    documents    registry versions, ascending, the newest last: from one that is signed by the operator who
                 invited the party on, so that it can follow where the operator's key was replaced since
    certificate  the party's (PEM), and
    authority    that of the authority that issued it and by which servers are known (PEM)
    """

    documents: tuple[RegistryDocument, ...]
    certificate: bytes
    authority: bytes

    @property
    def document(self) -> RegistryDocument:
        """The newest version of the registry."""
        return self.documents[-1]

    def armored(self) -> str:
        """Return it as text."""
        versions = tuple(VersionMessage(one.version, one.encoded()) for one in self.documents)
        return armored(KIND, encode(AdmissionMessage(versions, self.certificate, self.authority)))

    @classmethod
    def parse(cls, text: str) -> Admission:
        """Read a text; nothing of it is proved yet. Raises ArmorError, RegistryError."""
        try:
            wire = decode(AdmissionMessage, unarmored(KIND, text))
        except RemoteProtocolError as error:
            raise ArmorError("admission: is damaged; have it sent again") from error
        if not wire.documents:
            raise ArmorError("admission: holds no registry")
        documents = tuple(RegistryDocument.decoded(one.document) for one in wire.documents)
        return cls(documents, bytes(wire.certificate), bytes(wire.authority))


# --- the operator's side


def admit(
    request: EnrolmentRequest,
    record: InvitationRecord,
    chain: Sequence[RegistryDocument],
    *,
    authority: Authority,
    signer: Signer,
    now_ms: int,
    days: int = PARTY_DAYS,
) -> Admission:
    """Take an invited party in. The caller notes it (`InvitationLedger.spend`) before anybody is told.

    record  what the ledger knows of the request's invitation
    chain   the registry's versions, ascending; of those before the newest as many as are here
    signer  the operator
    days    how long the party's certificate holds

    The very request that used an invitation is answered again, with the same certificate: an answer that
    was lost, or an operator's machine that failed in the middle, keeps nobody out. All others are refused.

    raises  UsedInvitationError, ExpiredError, ProofError, CertificateError; RegistryError: the name or the
            identity was given to somebody meanwhile
    """
    offer, document = record.offer, chain[-1]
    _check_place(offer.federation, document, f"invitation of {offer.name}")
    request.check(offer)
    answered = record.spent_by == request.digest
    if not answered:
        check_open(record)
        offer.check(now_ms)
    if fingerprint(authority.certificate) != offer.authority:
        raise EnrolmentError(
            f"invitation of {offer.name}: names another authority than the one given: take that one, or "
            f"invite {offer.name} again"
        )
    there = document.party(offer.name)
    if answered and there is not None and not there.active:
        raise NotAdmittedError(f"request of {offer.name}: was revoked in version {there.since}")
    if not (answered and there is not None and there.identity == request.identity):
        document = enrol(
            document, signer, now_ms, name=offer.name, identity=request.identity, roles=offer.roles
        )
    party = CertifiedParty(offer.name, request.identity)
    certificate = record.certificate or authority.issue_party(
        request.certificate, party, now_ms / 1000, days=days
    )
    whole = _followed(chain, document)
    believed = [i for i, one in enumerate(whole) if one.operator == offer.operator]
    return Admission(whole[max(believed, default=-1) :], certificate, authority.certificate)


def admit_again(
    request: RenewalRequest,
    chain: Sequence[RegistryDocument],
    *,
    authority: Authority,
    signer: Signer,
    now_ms: int,
    days: int = PARTY_DAYS,
) -> Admission:
    """Give an enrolled party another certificate and, if it wants one, put its new identity in place.

    Arguments as for `admit`. A request that was carried out is answered again.

    raises  ProofError, ExpiredError, CertificateError; NotAdmittedError: nobody active is called so, or it
            has another identity; RegistryError
    """
    document = chain[-1]
    _check_place(request.federation, document, f"request of {request.name}")
    request.check()
    if not -_DAY_MS <= now_ms - request.made_ms < RENEWAL_DAYS * _DAY_MS:
        raise ExpiredError(
            f"request of {request.name}: must be of the last {RENEWAL_DAYS} days by this machine's clock: "
            f"set the clock, or have it made again"
        )
    party, wanted = document.party(request.name), {request.identity, request.party.identity}
    if party is None or not party.active or party.identity not in wanted:
        raise NotAdmittedError(
            f"request of {request.name}: nobody active is called so with the identity "
            f"{request.identity.hex()}: see `secagg registry show`"
        )
    if request.rotation is not None and party.identity == request.identity:
        document = replace_identity(document, signer, now_ms, request.rotation)
    certificate = authority.issue_party(request.certificate, request.party, now_ms / 1000, days=days)
    lacked = tuple(one for one in _followed(chain, document) if one.version >= request.version)
    return Admission(lacked or (document,), certificate, authority.certificate)


def _check_place(federation: str, document: RegistryDocument, what: str) -> None:
    document.check()
    if document.federation != federation:
        raise EnrolmentError(
            f"{what}: is for {federation}, and this is the registry of {document.federation}"
        )


def _followed(chain: Sequence[RegistryDocument], newest: RegistryDocument) -> tuple[RegistryDocument, ...]:
    return (*(one for one in chain if one.version < newest.version), newest)


# --- the party's side


def accept(
    admission: Admission, invitation: Invitation, identity: Identity, tls_key: bytes, now_ms: int
) -> RegistryDocument:
    """Check what an invited party was given, against its invitation and its keys; return the registry.

    tls_key  the key for TLS (PEM) of the request

    raises   NotAdmittedError, CertificateError, DocumentError
    """
    offer = invitation.offer
    if fingerprint(admission.authority) != offer.authority:
        raise NotAdmittedError(
            f"admission of {offer.name}: its authority is not the one of the invitation: ask the operator"
        )
    check_first(admission.documents[0], federation=offer.federation, operator=offer.operator)
    document = check_chain(admission.documents[0], admission.documents)
    there = _check_party(document, admission, CertifiedParty(offer.name, identity), tls_key, now_ms)
    if there.roles != offer.roles:
        raise NotAdmittedError(f"admission of {offer.name}: the registry gives it other roles than offered")
    return document


def accept_again(
    admission: Admission,
    known: RegistryDocument,
    party: CertifiedParty,
    tls_key: bytes,
    authority: bytes,
    now_ms: int,
) -> RegistryDocument:
    """Check what an enrolled party was given for its renewal; return the registry.

    known      the newest version that the party has accepted; authority: its authority's certificate (PEM)
    party      its name, and the identity that it asked for

    raises     NotAdmittedError, CertificateError, DocumentError
    """
    if fingerprint(admission.authority) != fingerprint(authority):
        raise NotAdmittedError(
            f"admission of {party.name}: its authority is not the one known here: ask the operator"
        )
    document = check_chain(known, admission.documents)
    _check_party(document, admission, party, tls_key, now_ms)
    return document


def _check_party(
    document: RegistryDocument, admission: Admission, party: CertifiedParty, tls_key: bytes, now_ms: int
) -> Party:
    whose = f"the certificate of {party.name}"
    check_issued(admission.certificate, admission.authority, now_ms / 1000, whose)
    check_key(admission.certificate, tls_key)
    if party_of(admission.certificate) != party:
        raise NotAdmittedError(f"admission of {party.name}: its certificate is of somebody else")
    there = document.party(party.name)
    if there is None or not there.active or there.identity != party.identity:
        raise NotAdmittedError(
            f"admission of {party.name}: the registry, version {document.version}, has nobody active of this "
            f"name and identity: ask the operator"
        )
    return there


@dataclass(frozen=True, slots=True)
class VersionMessage:
    """A registry document behind its version."""

    version: int = uint(1, VERSION_LIMIT)
    document: Buffer = large_octets(2)


@dataclass(frozen=True, slots=True)
class AdmissionMessage:
    """An `Admission` on the wire."""

    documents: tuple[VersionMessage, ...] = messages(1, VersionMessage)  # type: ignore[assignment]
    certificate: Buffer = large_octets(2)
    authority: Buffer = large_octets(3)
