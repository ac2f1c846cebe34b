from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.registry import (
    DocumentSignatureError,
    Former,
    IdentityChangedError,
    Party,
    RegistryDocument,
    Role,
    State,
    countersign,
    found,
    parse_roles,
)
from secagg.service import RegistryError
from tests.registry.federation import OPERATOR, forged, full, key, party, with_parties


def test_the_digest_is_that_of_the_canonical_encoding() -> None:
    """By hand: fields in their order, each behind its tag and length, what is zero or empty left out."""
    document = found(OPERATOR, "icu", 1_000)
    body = b"\x0a\x03icu" + b"\x10\x01" + b"\x1a\x20" + bytes(32) + b"\x20\xe8\x07"
    body += b"\x2a\x20" + OPERATOR.identity
    text = b"secagg/v1/registry\0" + len(body).to_bytes(4, "big") + body
    assert document.digest == hashlib.sha256(text).digest()
    assert document.digest.hex().startswith("d15efb38c46dd599")


def test_a_document_survives_its_bytes() -> None:
    document = countersign(full(), key(9))
    read = RegistryDocument.decoded(document.encoded())
    assert read == document
    assert read.digest == document.digest
    read.check()


@given(st.data())
def test_any_changed_byte_of_an_encoded_document_is_refused(data: st.DataObject) -> None:
    encoded = bytearray(countersign(full(), key(9)).encoded())
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RegistryError):
        RegistryDocument.decoded(bytes(encoded)).check()


def test_the_digest_does_not_depend_on_signatures_and_signatures_depend_on_it() -> None:
    document = full()
    assert countersign(document, key(9)).digest == document.digest
    other = replace(document, time_ms=document.time_ms + 1)
    assert other.digest != document.digest
    with pytest.raises(DocumentSignatureError, match=r"registry icu, version 7: the operator's signature is"):
        other.check()


def test_an_unsigned_document_is_none() -> None:
    with pytest.raises(DocumentSignatureError, match="never signed"):
        replace(full(), signature=b"").check()


def test_a_countersignature_of_another_text_is_refused() -> None:
    signed = countersign(with_parties("a")[0], key(9)).countersignatures
    with pytest.raises(DocumentSignatureError, match="countersignature of"):
        replace(full(), countersignatures=signed).check()


def test_only_the_operator_signs() -> None:
    with pytest.raises(RegistryError, match="operator: the key is"):
        full().sign(key(1))


def test_a_registry_holds_the_active_parties_of_a_role() -> None:
    document = full()
    assert document.registry().names == {key(11).identity: "hospital-1"}
    assert document.registry(role="auditor").names == {key(9).identity: "board"}
    assert document.registry(Role.DECRYPTOR).names == {key(9).identity: "board"}
    assert not document.registry(Role.OPERATOR).names
    with pytest.raises(RegistryError, match="the roles are operator, participant, decryptor, auditor"):
        document.registry("boss")


def test_parties_are_found_by_name_and_by_every_identity_they_had() -> None:
    document = full()
    assert document.party("hospital-2") == party("hospital-2", 2, state=State.REVOKED, since=5)
    assert document.party("hospital-9") is None
    for identity in (key(1).identity, key(11).identity):
        found_party = document.party_of(identity)
        assert found_party is not None
        assert found_party.name == "hospital-1"
    assert document.party_of(key(77).identity) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"federation": "i c u"}, "federation: letters"),
        ({"version": 0}, "version: must be"),
        ({"version": 2**32}, "version: must be"),
        ({"before": bytes(31)}, "before: must be 32 bytes"),
        ({"before": bytes(32)}, "before: must be 32 bytes, zeros for version 1 and for no other"),
        ({"version": 1}, "before: must be 32 bytes"),
        ({"time_ms": -1}, "time: must be"),
        ({"time_ms": 253_402_300_800_000}, "time: must be"),
        ({"operator": bytes(32)}, "operator: identity: .* small order"),
        ({"next_operator": b"x"}, "next_operator: identity: must be 32 bytes"),
        ({"next_operator": OPERATOR.identity}, "next_operator: is the operator already"),
        ({"signature": b"x"}, "signature: must have 64 bytes, has 1"),
        ({"parties": (party("b", 1), party("a", 2))}, "party: not ascending by name"),
        ({"parties": (party("a", 1), party("a", 2))}, "party a: the name is in the registry twice"),
        (
            {"parties": (party("a", 1), party("b", 1))},
            "party b: the identity .* that of a; an identity is",
        ),
        ({"parties": (party("a", 1, since=8),)}, "party a: tells of a version after 7"),
    ],
)
def test_what_no_document_can_say_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        replace(full(), **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "a b"}, "party.name: letters"),
        ({"identity": bytes(31)}, "party a: identity: must be 32 bytes"),
        ({"roles": frozenset()}, "party a: has no role"),
        ({"since": 0}, "party a: a version must be"),
    ],
)
def test_what_no_party_can_be_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        replace(party("a", 1), **changed)


def _with(former: Former, name: str) -> Former:
    """A proof that is none."""
    changed: dict[str, Any] = {name: bytes(64)}
    return replace(former, **changed)


def test_former_identities_are_checked() -> None:
    one = full().party("hospital-1")
    assert one is not None
    (former,) = one.former
    with pytest.raises(RegistryError, match="hospital-1: its former identities are not in their order"):
        replace(one, former=(former, former))
    with pytest.raises(RegistryError, match="hospital-1: a signature must have 64 bytes"):
        replace(one, former=(replace(former, proof=b"x"),))
    for name in ("proof", "possession"):
        bad = replace(one, former=(_with(former, name),))
        with pytest.raises(IdentityChangedError, match=r"the identity .* of version 6 is not proved"):
            bad.check_rotations("icu")
        document = full()
        parties = tuple(bad if other.name == one.name else other for other in document.parties)
        with pytest.raises(IdentityChangedError):
            forged(document, parties=parties).check()
    with pytest.raises(IdentityChangedError):
        one.check_rotations("another")


def test_an_identity_that_was_replaced_is_nobody_else_s() -> None:
    document = full()
    again = Party(name="z", identity=key(1).identity, roles=frozenset({Role.AUDITOR}), since=8)
    with pytest.raises(RegistryError, match="party z: .* is, or was, that of hospital-1"):
        forged(document, parties=(*document.parties, again))


def test_roles_have_names() -> None:
    assert parse_roles(["auditor", "operator"]) == {Role.AUDITOR, Role.OPERATOR}
    with pytest.raises(RegistryError, match="'boss' is not a valid Role; the roles are"):
        parse_roles(["boss"])
    with pytest.raises(RegistryError, match="a party needs one of"):
        parse_roles([])


@given(st.binary(max_size=400))
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    try:
        document = RegistryDocument.decoded(data)
    except RegistryError:
        return
    assert document.encoded() == data
