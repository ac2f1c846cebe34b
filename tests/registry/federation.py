"""A small federation with fixed keys, and documents of it that nobody should believe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from secagg import IdentityKey
from secagg.registry import (
    Party,
    RegistryDocument,
    Role,
    enrol,
    found,
    hand_over,
    replace_identity,
    revoke,
    rotation,
)


def key(number: int) -> IdentityKey:
    return IdentityKey.from_seed(bytes([number]) * 32)


OPERATOR, SECOND_OPERATOR = key(200), key(201)
PARTICIPANT = frozenset({Role.PARTICIPANT})


def party(name: str, number: int, **others: Any) -> Party:
    usual: dict[str, Any] = {"name": name, "identity": key(number).identity, "since": 1}
    return Party(**{"roles": PARTICIPANT} | usual | others)


def with_parties(*names: str) -> list[RegistryDocument]:
    """The versions of a registry into which these come one after the other, with keys 1, 2, ..."""
    chain = [found(OPERATOR, "icu", 1_000)]
    for i, name in enumerate(names, 1):
        made = enrol(chain[-1], OPERATOR, 1_000 + i, name=name, identity=key(i).identity, roles=PARTICIPANT)
        chain.append(made)
    return chain


def forged(known: RegistryDocument, signer: IdentityKey = OPERATOR, **changed: Any) -> RegistryDocument:
    """The version after `known`, signed, whatever it says."""
    usual: dict[str, Any] = {
        "version": known.version + 1,
        "before": known.digest,
        "operator": signer.identity,
        "signature": b"",
        "countersignatures": (),
        "next_operator": None,
    }
    return replace(known, **{**usual, **changed}).sign(signer)


def full() -> RegistryDocument:
    """A document with everything in it: roles, a revoked party, a replaced identity, a next operator."""
    document = with_parties("hospital-1", "hospital-2")[-1]
    document = enrol(
        document,
        OPERATOR,
        5_000,
        name="board",
        identity=key(9).identity,
        roles=[Role.AUDITOR, Role.DECRYPTOR],
    )
    document = revoke(document, OPERATOR, 6_000, name="hospital-2")
    wish = rotation("icu", "hospital-1", key(1), key(11))
    document = replace_identity(document, OPERATOR, 1_767_323_045_678, wish)
    return hand_over(document, OPERATOR, 1_767_323_045_679, to=SECOND_OPERATOR.identity)
