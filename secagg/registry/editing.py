"""What an operator does to a registry: every function returns the next version, signed.

Each is checked as others will check it before it is returned: nothing leaves that they would refuse.
Times are milliseconds since 1970; a clock that was set back does not take the registry along.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from secagg.errors import ParameterError, RegistryError
from secagg.params import Identity, Signer
from secagg.primitives.signatures import check_identity
from secagg.registry.chain import check_successor
from secagg.registry.document import (
    NO_DOCUMENT,
    Former,
    Party,
    RegistryDocument,
    Role,
    State,
    rotation_text,
)
from secagg.registry.errors import RevokedReturnedError, WrongOperatorError
from secagg.registry.names import Registry


@dataclass(frozen=True, slots=True)
class Rotation:
    """A party's wish to go on with another identity, signed by both keys.

    proof       the old key's signature under `rotation_text`, 64 bytes; possession: the new key's
    """

    name: str
    old: Identity
    new: Identity
    proof: bytes
    possession: bytes


def rotation(federation: str, name: str, old: Signer, new: Signer) -> Rotation:
    """Make what a party gives its operator to have its identity replaced."""
    text = rotation_text(federation, name, old.identity, new.identity)
    return Rotation(name, old.identity, new.identity, old.sign(text), new.sign(text))


def found(
    signer: Signer, federation: str, time_ms: int, *, plain: Registry | None = None
) -> RegistryDocument:
    """Make version 1. plain: parties of a registry without signatures, who become participants.

    raises  RegistryError
    """
    parties = () if plain is None else plain.names.items()
    return RegistryDocument(
        federation=federation,
        version=1,
        before=NO_DOCUMENT,
        time_ms=time_ms,
        operator=signer.identity,
        parties=tuple(
            Party(name=name, identity=identity, roles=frozenset({Role.PARTICIPANT}), since=1)
            for identity, name in sorted(parties, key=lambda item: item[1])
        ),
    ).sign(signer)


def enrol(
    document: RegistryDocument,
    signer: Signer,
    time_ms: int,
    *,
    name: str,
    identity: bytes,
    roles: Iterable[Role],
) -> RegistryDocument:
    """Add a party. Raises RegistryError: its name or its identity was given before, or is none."""
    if document.party(name) is not None:
        raise RegistryError(f"party {name}: is, or was, in the registry already: take another name")
    if (owner := document.party_of(identity)) is not None:
        raise RegistryError(
            f"party {name}: its identity is, or was, that of {owner.name}; an identity is given once: make "
            f"another"
        )
    party = Party(name=name, identity=Identity(identity), roles=frozenset(roles), since=document.version + 1)
    return _next(document, signer, time_ms, (*document.parties, party))


def revoke(document: RegistryDocument, signer: Signer, time_ms: int, *, name: str) -> RegistryDocument:
    """Revoke a party, for ever. Raises RegistryError: nobody is called so; RevokedReturnedError: it was."""
    party = _active(document, name)
    gone = replace(party, state=State.REVOKED, since=document.version + 1)
    return _next(document, signer, time_ms, _replaced(document, gone))


def set_roles(
    document: RegistryDocument, signer: Signer, time_ms: int, *, name: str, roles: Iterable[Role]
) -> RegistryDocument:
    """Give a party other roles. Raises RegistryError."""
    changed = replace(_active(document, name), roles=frozenset(roles))
    return _next(document, signer, time_ms, _replaced(document, changed))


def replace_identity(
    document: RegistryDocument, signer: Signer, time_ms: int, wish: Rotation
) -> RegistryDocument:
    """Put a party's new identity in the place of its old one; name and roles stay.

    raises  IdentityChangedError: not signed by both keys; RegistryError
    """
    party = _active(document, wish.name)
    if party.identity != wish.old:
        raise RegistryError(
            f"party {wish.name}: its identity is {party.identity.hex()}, and the request is by "
            f"{wish.old.hex()}: make the request with the present key"
        )
    former = Former(
        until=document.version + 1, identity=wish.old, proof=wish.proof, possession=wish.possession
    )
    changed = replace(party, identity=wish.new, former=(*party.former, former))
    changed.check_rotations(document.federation)
    return _next(document, signer, time_ms, _replaced(document, changed))


def hand_over(document: RegistryDocument, signer: Signer, time_ms: int, *, to: bytes) -> RegistryDocument:
    """Name the identity that signs from the version after the next on. Raises RegistryError."""
    try:
        follower = check_identity(to)
    except ParameterError as error:
        raise RegistryError(f"next operator: {error}") from error
    return _next(document, signer, time_ms, document.parties, next_operator=follower)


def _next(
    document: RegistryDocument,
    signer: Signer,
    time_ms: int,
    parties: Iterable[Party],
    next_operator: Identity | None = None,
) -> RegistryDocument:
    document.check()
    if signer.identity != document.signer_after:
        raise WrongOperatorError(
            f"registry {document.federation}, version {document.version + 1}: must be signed by "
            f"{document.signer_after.hex()}, and the key is {signer.identity.hex()}: take the operator's key"
        )
    new = RegistryDocument(
        federation=document.federation,
        version=document.version + 1,
        before=document.digest,
        time_ms=max(time_ms, document.time_ms),
        operator=signer.identity,
        next_operator=next_operator,
        parties=tuple(sorted(parties, key=lambda party: party.name)),
    ).sign(signer)
    check_successor(document, new)
    return new


def _replaced(document: RegistryDocument, changed: Party) -> Iterable[Party]:
    return (changed if party.name == changed.name else party for party in document.parties)


def _active(document: RegistryDocument, name: str) -> Party:
    party = document.party(name)
    if party is None:
        raise RegistryError(f"party {name}: is not in the registry of {document.federation}")
    if not party.active:
        raise RevokedReturnedError(
            f"party {name}: was revoked in version {party.since}: enrol it under another name, with another "
            f"identity"
        )
    return party
