"""What a party asks its operator for: to be taken in, or to go on with another key.

A request proves that its party has what it speaks of (the invitation's secret, its identity's key, its key
for TLS), each by a signature over all the others: no part can be put into another request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from secagg.errors import ParameterError, RegistryError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import UINT64_LIMIT, large_octets, octets, uint
from secagg.params import IDENTITY_BYTES, Buffer, Identity, Signer
from secagg.primitives.labels import digest
from secagg.primitives.labels import encode as label
from secagg.primitives.signatures import SIGNATURE_BYTES, check_identity, verify
from secagg.registry.document import VERSION_LIMIT, RegistryDocument
from secagg.registry.editing import Rotation, rotation
from secagg.registry.names import check_name
from secagg.service.authority import CertifiedParty, make_request
from secagg.service.enrolment.armor import armored, unarmored
from secagg.service.enrolment.errors import ArmorError, ProofError
from secagg.service.enrolment.invitation import Invitation, Offer

ENROLMENT, RENEWAL = "ENROLMENT REQUEST", "RENEWAL REQUEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """An invited party's request.

    invitation   its id, 32 bytes
    identity     the party's new identity
    certificate  request for a certificate (DER), signed with the party's key for TLS
    proof        signature of the invitation's key over the three, 64 bytes: the party has the secret
    signature    of the identity over everything, 64 bytes: the party has that key, too
    """

    invitation: Identity
    identity: Identity
    certificate: bytes
    proof: bytes
    signature: bytes

    def check(self, offer: Offer) -> None:
        """Check both signatures against what was offered. Raises ProofError."""
        if not verify(offer.invitation, _proof_text(offer, self.identity, self.certificate), self.proof):
            raise ProofError(f"request of {offer.name}: does not prove the invitation's secret")
        text = _enrolment_text(offer, self.identity, self.certificate, self.proof)
        if not verify(self.identity, text, self.signature):
            raise ProofError(f"request of {offer.name}: is not signed by the identity in it")

    @property
    def digest(self) -> bytes:
        """Digest of the request, 32 bytes."""
        return digest("enrolment-request", self._encoded())

    def _encoded(self) -> bytes:
        wire = EnrolmentMessage(self.invitation, self.identity, self.certificate, self.proof, self.signature)
        return encode(wire)

    def armored(self) -> str:
        """Return it as text; nothing in it is secret."""
        return armored(ENROLMENT, self._encoded())

    @classmethod
    def parse(cls, text: str) -> EnrolmentRequest:
        """Read a text; nothing of it is proved yet. Raises ArmorError."""
        try:
            wire = decode(EnrolmentMessage, unarmored(ENROLMENT, text))
            invitation, identity = check_identity(wire.invitation), check_identity(wire.identity)
        except (RemoteProtocolError, ParameterError) as error:
            raise ArmorError("request: is damaged; have it sent again") from error
        return cls(
            invitation=invitation,
            identity=identity,
            certificate=bytes(wire.certificate),
            proof=wire.proof,
            signature=wire.signature,
        )


def enroll(invitation: Invitation, signer: Signer, tls_key: bytes, now_ms: int) -> EnrolmentRequest:
    """Make the request of an invited party.

    signer   its new identity
    tls_key  its key for TLS (PEM), of which the request holds only the public half

    raises   ProofError: the invitation is not signed by its operator; ExpiredError; KeyFileError
    """
    offer = invitation.offer
    offer.check(now_ms)
    certificate = make_request(tls_key, CertifiedParty(offer.name, signer.identity))
    proof = invitation.key.sign(_proof_text(offer, signer.identity, certificate))
    return EnrolmentRequest(
        invitation=offer.invitation,
        identity=signer.identity,
        certificate=certificate,
        proof=proof,
        signature=signer.sign(_enrolment_text(offer, signer.identity, certificate, proof)),
    )


def _proof_text(offer: Offer, identity: bytes, certificate: bytes) -> bytes:
    return label("enrolment-proof", digest("offer", offer.encoded()), identity, certificate)


def _enrolment_text(offer: Offer, identity: bytes, certificate: bytes, proof: bytes) -> bytes:
    return label("enrolment", digest("offer", offer.encoded()), identity, certificate, proof)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """An enrolled party's request for another certificate and, if it wants one, another identity.

    federation   name; name: of the party
    version      of the registry that the party knows: it is given those after it
    made_ms      when it was made, milliseconds since 1970
    identity     the party's present identity
    rotation     the wish for a new one, signed by both; None: the identity stays
    certificate  request for a certificate (DER) for the identity it will have
    signature    of the present identity over everything, 64 bytes
    """

    federation: str
    name: str
    version: int
    made_ms: int
    identity: Identity
    rotation: Rotation | None
    certificate: bytes
    signature: bytes = b""

    def text(self) -> bytes:
        """Text of the signature."""
        return label("renewal", encode(_renewal_to_wire(replace(self, signature=b""))))

    def check(self) -> None:
        """Check the signature; those of a rotation are checked where it is made. Raises ProofError."""
        if not verify(self.identity, self.text(), self.signature):
            raise ProofError(f"request of {self.name}: is not signed by the identity in it")

    @property
    def party(self) -> CertifiedParty:
        """What the certificate will say."""
        return CertifiedParty(self.name, self.rotation.new if self.rotation else self.identity)

    def armored(self) -> str:
        """Return it as text; nothing in it is secret."""
        return armored(RENEWAL, encode(_renewal_to_wire(self)))

    @classmethod
    def parse(cls, text: str) -> RenewalRequest:
        """Read a text; nothing of it is proved yet. Raises ArmorError."""
        try:
            wire = decode(RenewalMessage, unarmored(RENEWAL, text))
            federation, name = wire.federation.decode("ascii"), wire.name.decode("ascii")
            identity = check_identity(wire.identity)
            new = check_identity(wire.new) if wire.new else None
            for one in (federation, name):
                check_name(one)
        except (RemoteProtocolError, ParameterError, RegistryError, UnicodeDecodeError) as error:
            raise ArmorError("request: is damaged; have it sent again") from error
        return cls(
            federation=federation,
            name=name,
            version=wire.version,
            made_ms=wire.made_ms,
            identity=identity,
            rotation=None if new is None else Rotation(name, identity, new, wire.proof, wire.possession),
            certificate=bytes(wire.certificate),
            signature=wire.signature,
        )


def renew(
    known: RegistryDocument,
    name: str,
    signer: Signer,
    tls_key: bytes,
    now_ms: int,
    *,
    new: Signer | None = None,
) -> RenewalRequest:
    """Make an enrolled party's request: for another certificate, with another identity where `new` is given.

    known    the registry's newest version that it has accepted
    signer   its present identity
    tls_key  its key for TLS (PEM), the one it has or another

    raises   KeyFileError
    """
    wish = None if new is None else rotation(known.federation, name, signer, new)
    party = CertifiedParty(name, signer.identity if new is None else new.identity)
    unsigned = RenewalRequest(
        federation=known.federation,
        name=name,
        version=known.version,
        made_ms=now_ms,
        identity=signer.identity,
        rotation=wish,
        certificate=make_request(tls_key, party),
    )
    return replace(unsigned, signature=signer.sign(unsigned.text()))


def _renewal_to_wire(request: RenewalRequest) -> RenewalMessage:
    wish = request.rotation
    return RenewalMessage(
        request.federation.encode(),
        request.name.encode(),
        request.version,
        request.made_ms,
        request.identity,
        b"" if wish is None else wish.new,
        b"" if wish is None else wish.proof,
        b"" if wish is None else wish.possession,
        request.certificate,
        request.signature,
    )


@dataclass(frozen=True, slots=True)
class EnrolmentMessage:
    """An `EnrolmentRequest` on the wire."""

    invitation: bytes = octets(1, IDENTITY_BYTES)
    identity: bytes = octets(2, IDENTITY_BYTES)
    certificate: Buffer = large_octets(3)
    proof: bytes = octets(4, SIGNATURE_BYTES)
    signature: bytes = octets(5, SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class RenewalMessage:
    """A `RenewalRequest` on the wire."""

    federation: bytes = octets(1, *range(1, 65))
    name: bytes = octets(2, *range(1, 65))
    version: int = uint(3, VERSION_LIMIT)
    made_ms: int = uint(4, UINT64_LIMIT)
    identity: bytes = octets(5, IDENTITY_BYTES)
    new: bytes = octets(6, 0, IDENTITY_BYTES)
    proof: bytes = octets(7, 0, SIGNATURE_BYTES)
    possession: bytes = octets(8, 0, SIGNATURE_BYTES)
    certificate: Buffer = large_octets(9)
    signature: bytes = octets(10, 0, SIGNATURE_BYTES)
