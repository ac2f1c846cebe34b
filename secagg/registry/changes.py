"""What is different between two versions of a registry, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from secagg.registry.document import Party, RegistryDocument, in_order

_DIGITS = 12  # of an identity, enough to compare by eye


class ChangeKind(StrEnum):
    """The kind of a change."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"
    IDENTITY = "identity"
    ROLES = "roles"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. party: its name; empty where it is about the operator."""

    kind: ChangeKind
    party: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def changes(old: RegistryDocument | None, new: RegistryDocument) -> tuple[Change, ...]:
    """Return what differs, the operator first, then by name; old: None where nothing was known.

    Neither is checked, see `check_successor`; there may be versions between them.
    """
    before = {} if old is None else {party.name: party for party in old.parties}
    found = list(_of_operator(old, new))
    for party in new.parties:
        found += _of_party(before.get(party.name), party)
    return tuple(found)


def _of_operator(old: RegistryDocument | None, new: RegistryDocument) -> Iterator[Change]:
    if old is not None and old.operator != new.operator:
        words = f"the operator is {_short(new.operator)} now, was {_short(old.operator)}"
        yield Change(ChangeKind.OPERATOR, "", words)
    if new.next_operator is not None and (old is None or old.version != new.version):
        words = f"from version {new.version + 1} on the operator is {_short(new.next_operator)}"
        yield Change(ChangeKind.OPERATOR, "", words)


def _of_party(old: Party | None, new: Party) -> Iterator[Change]:
    roles = ", ".join(in_order(new.roles))
    if old is None:
        words = f"{new.name} was enrolled as {roles} ({_short(new.identity)})"
        yield Change(ChangeKind.ENROLLED, new.name, words)
    else:
        if old.identity != new.identity:
            words = f"{new.name} has a new identity, {_short(new.identity)} instead of {_short(old.identity)}"
            yield Change(ChangeKind.IDENTITY, new.name, words)
        if old.roles != new.roles:
            words = f"{new.name} is {roles} now, was {', '.join(in_order(old.roles))}"
            yield Change(ChangeKind.ROLES, new.name, words)
    if not new.active and (old is None or old.active):
        yield Change(ChangeKind.REVOKED, new.name, f"{new.name} was revoked")


def _short(identity: bytes) -> str:
    return identity.hex()[:_DIGITS]
