"""The registry as a signed document: who is, and who was, enrolled with which roles.

Frozen values, their canonical encoding (PROTOCOL.md, 4.3), their digest and what is signed. Documents of a
federation form a chain by their digests; whether one follows another is `secagg.registry.chain`,
their form as text is `secagg.registry.file`. No clock and no file here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from secagg.errors import ParameterError, RegistryError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import UINT64_LIMIT, large_octets, messages, octets, uint
from secagg.params import DIGEST_BYTES, IDENTITY_BYTES, Buffer, Identity, Signer
from secagg.primitives.labels import digest
from secagg.primitives.labels import encode as label
from secagg.primitives.signatures import SIGNATURE_BYTES, check_identity, verify
from secagg.registry.errors import DocumentSignatureError, IdentityChangedError
from secagg.registry.names import Registry, check_name

NO_DOCUMENT = bytes(DIGEST_BYTES)  # before the first
VERSION_LIMIT = 2**32
TIME_LIMIT_MS = 253_402_300_800_000  # the year 10000: the end of what a date can be written as
_NAME_SIZES = range(1, 65)


class Role(StrEnum):
    """What a party may do in its federation."""

    OPERATOR = "operator"  # runs servers; that it signs documents is told by the document, not by this role
    PARTICIPANT = "participant"  # takes part in rounds
    DECRYPTOR = "decryptor"  # helps to open sums
    AUDITOR = "auditor"  # reads transcripts


_ROLE_BITS = {role: 1 << place for place, role in enumerate(Role)}
_ALL_BITS = sum(_ROLE_BITS.values())


class State(StrEnum):
    """Whether a party takes part."""

    ACTIVE = "active"
    REVOKED = "revoked"


_STATE_NUMBERS = {State.ACTIVE: 1, State.REVOKED: 2}


def parse_roles(words: Iterable[str]) -> frozenset[Role]:
    """Return roles by their names. Raises RegistryError: none, or not a role."""
    try:
        roles = frozenset(Role(word) for word in words)
    except ValueError as error:
        raise RegistryError(f"role: {error}; the roles are {', '.join(Role)}") from error
    if not roles:
        raise RegistryError(f"role: a party needs one of {', '.join(Role)}")
    return roles


def in_order(roles: Iterable[Role]) -> list[str]:
    """Return the names of roles, in the order of `Role`."""
    given = set(roles)
    return [str(role) for role in Role if role in given]


# --- values


def rotation_text(federation: str, name: str, old: bytes, new: bytes) -> bytes:
    """Text that both keys of a party sign when the new one takes the place of the old one."""
    return label("identity-rotation", federation.encode(), name.encode(), old, new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """An identity that a party had, and the proof that the next one took its place by the party's will.

    until       version of the document from which on the next one holds
    proof       signature of this identity under `rotation_text`, 64 bytes
    possession  signature of the next identity under the same text, 64 bytes
    """

    until: int
    identity: Identity
    proof: bytes
    possession: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A party, for as long as the federation lives: names and identities are given once.

    since   version of the document from which on the party is in its state
    former  its earlier identities, in their order

    raises  RegistryError, which names the party
    """

    name: str
    identity: Identity
    roles: frozenset[Role]
    since: int
    state: State = State.ACTIVE
    former: tuple[Former, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        for identity in self.identities:
            try:
                check_identity(identity)
            except ParameterError as error:
                raise RegistryError(f"party {self.name}: {error}") from error
        if not self.roles:
            raise RegistryError(f"party {self.name}: has no role, needs one of {', '.join(Role)}")
        changed = [one.until for one in self.former]
        if changed != sorted(set(changed)):
            raise RegistryError(f"party {self.name}: its former identities are not in their order")
        if not all(0 < version < VERSION_LIMIT for version in (self.since, *changed)):
            raise RegistryError(f"party {self.name}: a version must be in 1..{VERSION_LIMIT - 1}")
        if any(len(part) != SIGNATURE_BYTES for one in self.former for part in (one.proof, one.possession)):
            raise RegistryError(f"party {self.name}: a signature must have {SIGNATURE_BYTES} bytes")

    @property
    def active(self) -> bool:
        """Whether it takes part."""
        return self.state is State.ACTIVE

    @property
    def identities(self) -> tuple[Identity, ...]:
        """All it ever had, the present one last."""
        return (*(one.identity for one in self.former), self.identity)

    def check_rotations(self, federation: str) -> None:
        """Raise IdentityChangedError unless every change of identity was signed by both keys."""
        for one, new in zip(self.former, self.identities[1:], strict=True):
            text = rotation_text(federation, self.name, one.identity, new)
            if not (verify(one.identity, text, one.proof) and verify(new, text, one.possession)):
                raise IdentityChangedError(
                    f"party {self.name}: the identity {new.hex()} of version {one.until} is not proved by "
                    f"its former key: revoke the party, and enrol it under another name"
                )


@dataclass(frozen=True, slots=True)
class Countersignature:
    """A witness's signature over a document's digest, 64 bytes."""

    identity: Identity
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryDocument:
    """One version of a federation's registry.

    federation     its name
    version        1, 2, 3, ...
    before         digest of the version before, 32 bytes; `NO_DOCUMENT` for the first
    time_ms        when it was made, milliseconds since 1970, by the operator's clock
    operator       identity that signs this version
    next_operator  identity that signs those after it; None: the same
    parties        everybody who ever was enrolled, ascending by name
    signature      the operator's, 64 bytes; empty: not signed yet
    countersignatures  of witnesses, ascending by identity; not part of the digest
    digest         of everything but the signatures, 32 bytes

    raises         RegistryError, which names the field or the party. Whether signatures hold is `check`
    """

    federation: str
    version: int
    before: bytes
    time_ms: int
    operator: Identity
    next_operator: Identity | None = None
    parties: tuple[Party, ...]
    signature: bytes = b""
    countersignatures: tuple[Countersignature, ...] = ()
    digest: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check_head(self)
        _check_parties(self)
        if len(self.signature) not in {0, SIGNATURE_BYTES}:
            raise RegistryError(f"signature: must have {SIGNATURE_BYTES} bytes, has {len(self.signature)}")
        witnesses = [one.identity for one in self.countersignatures]
        if witnesses != sorted(set(witnesses)) or any(
            (len(one.identity), len(one.signature)) != (IDENTITY_BYTES, SIGNATURE_BYTES)
            for one in self.countersignatures
        ):
            raise RegistryError("countersignature: not ascending by identity, or of a wrong length")
        object.__setattr__(self, "digest", digest("registry", encode(_to_wire(self))))

    # --- who is in it

    def party(self, name: str) -> Party | None:
        """Return a party by its name, active or not."""
        return next((party for party in self.parties if party.name == name), None)

    def party_of(self, identity: bytes) -> Party | None:
        """Return whom an identity belongs to, or belonged to."""
        return next((party for party in self.parties if identity in party.identities), None)

    def registry(self, role: str = Role.PARTICIPANT) -> Registry:
        """Return the active parties that have a role. Raises RegistryError: there is no such role."""
        (wanted,) = parse_roles([role])
        return Registry(
            {party.identity: party.name for party in self.parties if party.active and wanted in party.roles}
        )

    @property
    def signer_after(self) -> Identity:
        """Identity that signs the next version."""
        return self.next_operator or self.operator

    # --- signatures

    def sign(self, signer: Signer) -> RegistryDocument:
        """Return it with the operator's signature. Raises RegistryError: another identity's key."""
        if signer.identity != self.operator:
            raise RegistryError(f"operator: the key is {signer.identity.hex()}, not {self.operator.hex()}")
        return replace(self, signature=signer.sign(signed_text(self.digest)))

    def check(self) -> None:
        """Check what a document proves by itself: its signatures and its parties' changes of identity.

        raises  DocumentSignatureError, IdentityChangedError
        """
        called = f"registry {self.federation}, version {self.version}"
        if not verify(self.operator, signed_text(self.digest), self.signature):
            raise DocumentSignatureError(
                f"{called}: the operator's signature is not that of this text: it was changed, or never "
                f"signed; get the file from the operator again"
            )
        for one in self.countersignatures:
            if not verify(one.identity, countersigned_text(self.digest), one.signature):
                raise DocumentSignatureError(
                    f"{called}: the countersignature of {one.identity.hex()} is not that of this text: "
                    f"take it out, or have it made again"
                )
        for party in self.parties:
            party.check_rotations(self.federation)

    # --- bytes

    def encoded(self) -> bytes:
        """Return the document with its signatures, for a store or a peer. It must be signed."""
        witnesses = tuple(
            CountersignatureMessage(one.identity, one.signature) for one in self.countersignatures
        )
        return encode(SignedDocumentMessage(encode(_to_wire(self)), self.signature, witnesses))

    @classmethod
    def decoded(cls, data: Buffer) -> RegistryDocument:
        """Read what `encoded` returned; nothing of it is proved yet. Raises RegistryError."""
        try:
            signed = decode(SignedDocumentMessage, data)
            return _from_wire(decode(DocumentMessage, signed.body), signed)
        except (RemoteProtocolError, UnicodeDecodeError) as error:
            raise RegistryError(f"registry: not a document: {error}") from error


def signed_text(document_digest: bytes) -> bytes:
    """Text of the operator's signature."""
    return label("registry-signature", document_digest)


def countersigned_text(document_digest: bytes) -> bytes:
    """Text of a witness's signature: another one, so that neither stands for the other."""
    return label("registry-countersignature", document_digest)


def _check_head(document: RegistryDocument) -> None:
    try:
        check_name(document.federation)
    except RegistryError as error:
        raise RegistryError(f"federation: {str(error).removeprefix('party.name: ')}") from error
    if not 0 < document.version < VERSION_LIMIT:
        raise RegistryError(f"version: must be in 1..{VERSION_LIMIT - 1}, is {document.version}")
    if len(document.before) != DIGEST_BYTES or (document.before == NO_DOCUMENT) != (document.version == 1):
        raise RegistryError("before: must be 32 bytes, zeros for version 1 and for no other")
    if not 0 <= document.time_ms < TIME_LIMIT_MS:
        raise RegistryError(f"time: must be in 0..{TIME_LIMIT_MS - 1} ms since 1970, is {document.time_ms}")
    for name, identity in (("operator", document.operator), ("next_operator", document.next_operator)):
        try:
            check_identity(document.operator if identity is None else identity)
        except ParameterError as error:
            raise RegistryError(f"{name}: {error}") from error
    if document.next_operator == document.operator:
        raise RegistryError("next_operator: is the operator already: leave it out")


def _check_parties(document: RegistryDocument) -> None:
    names = [party.name for party in document.parties]
    if names != sorted(names):
        raise RegistryError("party: not ascending by name")
    seen: dict[bytes | str, str] = {}
    for party in document.parties:
        if party.name in seen:
            raise RegistryError(f"party {party.name}: the name is in the registry twice")
        seen[party.name] = party.name
        for identity in party.identities:
            if identity in seen:
                raise RegistryError(
                    f"party {party.name}: the identity {identity.hex()} is, or was, that of "
                    f"{seen[identity]}; an identity is given once: make another"
                )
            seen[identity] = party.name
        if max(party.since, *(one.until for one in party.former), 1) > document.version:
            raise RegistryError(f"party {party.name}: tells of a version after {document.version}")


# --- the canonical encoding


@dataclass(frozen=True, slots=True)
class FormerMessage:
    """A `Former` on the wire."""

    until: int = uint(1, VERSION_LIMIT)
    identity: bytes = octets(2, IDENTITY_BYTES)
    proof: bytes = octets(3, SIGNATURE_BYTES)
    possession: bytes = octets(4, SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class PartyMessage:
    """A `Party` on the wire. roles: the sum of 1 operator, 2 participant, 4 decryptor, 8 auditor."""

    name: bytes = octets(1, *_NAME_SIZES)
    identity: bytes = octets(2, IDENTITY_BYTES)
    roles: int = uint(3, _ALL_BITS + 1)
    state: int = uint(4, len(State) + 1)
    since: int = uint(5, VERSION_LIMIT)
    former: tuple[FormerMessage, ...] = messages(6, FormerMessage)  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class DocumentMessage:
    """What a digest is of."""

    federation: bytes = octets(1, *_NAME_SIZES)
    version: int = uint(2, VERSION_LIMIT)
    before: bytes = octets(3, DIGEST_BYTES)
    time_ms: int = uint(4, UINT64_LIMIT)
    operator: bytes = octets(5, IDENTITY_BYTES)
    next_operator: bytes = octets(6, 0, IDENTITY_BYTES)
    parties: tuple[PartyMessage, ...] = messages(7, PartyMessage)  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class CountersignatureMessage:
    """A `Countersignature` on the wire."""

    identity: bytes = octets(1, IDENTITY_BYTES)
    signature: bytes = octets(2, SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class SignedDocumentMessage:
    """A document with its signatures: the body is kept as it was signed."""

    body: Buffer = large_octets(1)
    signature: bytes = octets(2, SIGNATURE_BYTES)
    countersignatures: tuple[CountersignatureMessage, ...] = messages(3, CountersignatureMessage)  # type: ignore[assignment]


def _to_wire(document: RegistryDocument) -> DocumentMessage:
    return DocumentMessage(
        document.federation.encode(),
        document.version,
        document.before,
        document.time_ms,
        document.operator,
        document.next_operator or b"",
        tuple(_parties_to_wire(document.parties)),
    )


def _parties_to_wire(parties: Iterable[Party]) -> Iterator[PartyMessage]:
    for party in parties:
        former = tuple(
            FormerMessage(one.until, one.identity, one.proof, one.possession) for one in party.former
        )
        roles = roles_to_bits(party.roles)
        yield PartyMessage(
            party.name.encode(), party.identity, roles, _STATE_NUMBERS[party.state], party.since, former
        )


def roles_to_bits(roles: Iterable[Role]) -> int:
    """Return roles as one number, for the wire."""
    return sum(_ROLE_BITS[role] for role in roles)


def roles_from_bits(bits: int) -> frozenset[Role]:
    """Return the roles that a number stands for."""
    return frozenset(role for role, bit in _ROLE_BITS.items() if bits & bit)


def _from_wire(body: DocumentMessage, signed: SignedDocumentMessage) -> RegistryDocument:
    states = {number: state for state, number in _STATE_NUMBERS.items()}
    if any(party.state not in states for party in body.parties):
        raise RegistryError("registry: a party without a state")
    return RegistryDocument(
        federation=body.federation.decode("ascii"),
        version=body.version,
        before=body.before,
        time_ms=body.time_ms,
        operator=Identity(body.operator),
        next_operator=Identity(body.next_operator) if body.next_operator else None,
        parties=tuple(
            Party(
                name=party.name.decode("ascii"),
                identity=Identity(party.identity),
                roles=roles_from_bits(party.roles),
                since=party.since,
                state=states[party.state],
                former=tuple(
                    Former(
                        until=one.until,
                        identity=Identity(one.identity),
                        proof=one.proof,
                        possession=one.possession,
                    )
                    for one in party.former
                ),
            )
            for party in body.parties
        ),
        signature=signed.signature,
        countersignatures=tuple(
            Countersignature(Identity(one.identity), one.signature) for one in signed.countersignatures
        ),
    )
