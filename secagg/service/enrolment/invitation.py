"""Invitations: an operator's word that whoever has a secret may take a name and roles, once, until a time.

The secret is 32 random bytes in the invitation only. From it comes an Ed25519 key, whose public half is the
invitation's id: the operator keeps that, and can check who has the secret without being able to pretend it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from secagg.errors import ParameterError, RegistryError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import UINT64_LIMIT, large_octets, octets, uint
from secagg.params import DIGEST_BYTES, IDENTITY_BYTES, Buffer, Entropy, Identity, Signer
from secagg.primitives.labels import digest
from secagg.primitives.labels import encode as label
from secagg.primitives.signatures import SIGNATURE_BYTES, IdentityKey, check_identity, verify
from secagg.registry.document import TIME_LIMIT_MS, Role, roles_from_bits, roles_to_bits
from secagg.registry.names import check_name
from secagg.service.enrolment.armor import armored, unarmored
from secagg.service.enrolment.errors import ArmorError, EnrolmentError, ExpiredError, ProofError
from secagg.service.reach import host_and_port

KIND = "INVITATION"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an invitation offers, without its secret: what the operator keeps.

    invitation  its id, 32 bytes: the public half of the key that the secret stands for
    federation  name; name, roles: of the party in it
    expires_ms  until when it may be used, milliseconds since 1970
    operator    identity that signed it, and whose registry is to be believed
    authority   SHA-256 of the certificate (DER) by which servers are known, 32 bytes
    servers     their addresses, host:port
    signature   the operator's, 64 bytes

    raises      EnrolmentError, which names the field
    """

    invitation: Identity
    federation: str
    name: str
    roles: frozenset[Role]
    expires_ms: int
    operator: Identity
    authority: bytes
    servers: tuple[str, ...]
    signature: bytes = b""

    def __post_init__(self) -> None:
        try:
            for name in (self.federation, self.name):
                check_name(name)
            for identity in (self.invitation, self.operator):
                check_identity(identity)
            for address in self.servers:
                host_and_port(address, "server")
        except (RegistryError, ParameterError) as error:
            raise EnrolmentError(f"invitation: {error}") from error
        if not self.roles:
            raise EnrolmentError(f"invitation: needs a role of {', '.join(Role)}")
        if not 0 < self.expires_ms < TIME_LIMIT_MS or len(self.authority) != DIGEST_BYTES:
            raise EnrolmentError("invitation: no time of expiry, or no authority")

    def text(self) -> bytes:
        """Text of the operator's signature."""
        return label("invitation", self.encoded(signature=b""))

    def check(self, now_ms: int) -> None:
        """Check the operator's signature and the time. Raises ProofError, ExpiredError."""
        if not verify(self.operator, self.text(), self.signature):
            raise ProofError(
                f"invitation of {self.name}: is not signed by the operator it names: ask for another"
            )
        if now_ms >= self.expires_ms:
            raise ExpiredError(
                f"invitation of {self.name}: held until {_minute(self.expires_ms)} UTC, and by this "
                f"machine's clock it is {_minute(now_ms)}: set the clock, or ask for another"
            )

    def encoded(self, *, signature: bytes | None = None) -> bytes:
        """Return the offer as bytes."""
        return encode(
            OfferMessage(
                self.invitation,
                self.federation.encode(),
                self.name.encode(),
                roles_to_bits(self.roles),
                self.expires_ms,
                self.operator,
                self.authority,
                "\n".join(self.servers).encode(),
                self.signature if signature is None else signature,
            )
        )

    @classmethod
    def decoded(cls, data: Buffer) -> Offer:
        """Read what `encoded` returned; nothing of it is proved yet. Raises ArmorError, EnrolmentError."""
        try:
            wire = decode(OfferMessage, data)
            servers = bytes(wire.servers).decode("ascii")
            federation, name = wire.federation.decode("ascii"), wire.name.decode("ascii")
        except (RemoteProtocolError, UnicodeDecodeError) as error:
            raise ArmorError("invitation: is damaged; have it sent again") from error
        return cls(
            invitation=Identity(wire.invitation),
            federation=federation,
            name=name,
            roles=roles_from_bits(wire.roles),
            expires_ms=wire.expires_ms,
            operator=Identity(wire.operator),
            authority=wire.authority,
            servers=tuple(servers.split("\n")) if servers else (),
            signature=wire.signature,
        )


@dataclass(frozen=True, slots=True)
class Invitation:
    """An offer with its secret: for the party alone, by a way that nobody else reads."""

    offer: Offer
    secret: bytes = field(repr=False)

    @property
    def key(self) -> IdentityKey:
        """The key that proves the secret."""
        return _key_of(self.secret)

    def armored(self) -> str:
        """Return it as text."""
        return armored(KIND, encode(InvitationMessage(self.offer.encoded(), self.secret)))

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Read a text. Raises ArmorError, ProofError: secret and offer do not belong together."""
        try:
            wire = decode(InvitationMessage, unarmored(KIND, text))
        except RemoteProtocolError:  # its text could quote the secret
            raise ArmorError("invitation: is damaged; have it sent again") from None
        offer = Offer.decoded(wire.offer)
        if _key_of(wire.secret).identity != offer.invitation:
            raise ProofError(f"invitation of {offer.name}: its secret is of another one: ask for another")
        return cls(offer, wire.secret)


def invite(
    signer: Signer,
    *,
    federation: str,
    name: str,
    roles: frozenset[Role],
    expires_ms: int,
    authority: bytes,
    servers: tuple[str, ...],
    entropy: Entropy,
) -> Invitation:
    """Make an invitation; arguments as in `Offer`. entropy: source of 32 secret bytes.

    raises  EnrolmentError
    """
    secret = entropy(SECRET_BYTES)
    unsigned: dict[str, object] = {
        "invitation": _key_of(secret).identity,
        "federation": federation,
        "name": name,
        "roles": roles,
        "expires_ms": expires_ms,
        "operator": signer.identity,
        "authority": authority,
        "servers": servers,
    }
    text = Offer(**unsigned).text()  # type: ignore[arg-type]
    return Invitation(Offer(**unsigned, signature=signer.sign(text)), secret)  # type: ignore[arg-type]


def _key_of(secret: bytes) -> IdentityKey:
    return IdentityKey.from_seed(digest("invitation-secret", secret))


def _minute(time_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC):%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class OfferMessage:
    """An `Offer` on the wire."""

    invitation: bytes = octets(1, IDENTITY_BYTES)
    federation: bytes = octets(2, *range(1, 65))
    name: bytes = octets(3, *range(1, 65))
    roles: int = uint(4, 1 << len(Role))
    expires_ms: int = uint(5, UINT64_LIMIT)
    operator: bytes = octets(6, IDENTITY_BYTES)
    authority: bytes = octets(7, DIGEST_BYTES)
    servers: Buffer = large_octets(8)  # one a line
    signature: bytes = octets(9, 0, SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True, repr=False)
class InvitationMessage:
    """An `Invitation` on the wire."""

    offer: Buffer = large_octets(1)
    secret: bytes = octets(2, SECRET_BYTES)
