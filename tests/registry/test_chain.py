from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.registry import (
    DocumentError,
    DocumentSignatureError,
    ForkError,
    GapError,
    IdentityChangedError,
    OtherFederationError,
    PartyHistoryError,
    RegistryDocument,
    RevokedReturnedError,
    RollbackError,
    State,
    WrongOperatorError,
    changes,
    check_chain,
    check_first,
    check_successor,
    enrol,
    hand_over,
    replace_identity,
    revoke,
    rotation,
    set_roles,
)
from secagg.registry.chain import lacking
from secagg.registry.document import Former, Role
from secagg.service import RegistryError
from tests.registry.federation import (
    OPERATOR,
    PARTICIPANT,
    SECOND_OPERATOR,
    forged,
    full,
    key,
    party,
    with_parties,
)

CHAIN = with_parties("hospital-1", "hospital-2", "hospital-3")
KNOWN = CHAIN[-1]  # version 4


def refused(
    kind: type[DocumentError], message: str, new: RegistryDocument, known: RegistryDocument = KNOWN
) -> None:
    with pytest.raises(kind, match=message) as caught:
        check_successor(known, new)
    assert type(caught.value) is kind
    assert caught.value.exit_status == 1


def short(number: int) -> str:
    return key(number).identity.hex()[:12]


def changed(known: RegistryDocument, name: str, **fields: Any) -> tuple[Any, ...]:
    return tuple(replace(one, **fields) if one.name == name else one for one in known.parties)


def test_the_next_version_and_the_same_one_follow() -> None:
    for known, new in pairwise(CHAIN):
        check_successor(known, new)
        check_successor(known, known)


def test_versions_do_not_go_back() -> None:
    refused(RollbackError, r"version 3: version 4 is known here, and versions do not go back", CHAIN[2])
    with pytest.raises(RollbackError):
        check_chain(KNOWN, CHAIN[:2])


def test_two_documents_of_one_version_are_a_fork() -> None:
    other = revoke(CHAIN[2], OPERATOR, 9_000, name="hospital-1")
    refused(ForkError, "version 4: there are two of it, both signed by the operator", other)


def test_a_version_after_another_past_is_a_fork() -> None:
    other = revoke(CHAIN[2], OPERATOR, 9_000, name="hospital-1")
    after = revoke(other, OPERATOR, 9_000, name="hospital-2")
    refused(ForkError, "version 5: follows another version 4 than the one known here", after)


def test_missing_versions_are_named() -> None:
    refused(GapError, "version 4: version 1 is known here, and versions 2 to 3 are missing", KNOWN, CHAIN[0])


def test_a_chain_is_taken_in_any_order_with_what_is_known() -> None:
    assert check_chain(CHAIN[0], [CHAIN[3], CHAIN[1], CHAIN[2], CHAIN[0]]) == KNOWN
    assert check_chain(CHAIN[2], CHAIN) == KNOWN
    assert check_chain(KNOWN, []) == KNOWN
    with pytest.raises(GapError, match="versions 3 to 3 are missing"):
        check_chain(CHAIN[0], [CHAIN[3], CHAIN[1]])


def test_another_federation_is_refused() -> None:
    refused(
        OtherFederationError,
        "registry lab, version 5: is of another federation than icu",
        forged(KNOWN, federation="lab"),
    )


def test_somebody_else_s_signature_is_refused() -> None:
    refused(WrongOperatorError, "version 5: is signed by .* do not use it", forged(KNOWN, key(1)))
    refused(WrongOperatorError, "version 4: is signed by", forged(CHAIN[2], key(1), time_ms=1))


def test_a_changed_document_is_refused() -> None:
    new = revoke(KNOWN, OPERATOR, 9_000, name="hospital-1")
    refused(DocumentSignatureError, "version 5: the operator's signature is not", replace(new, time_ms=9_001))


def test_time_does_not_go_back() -> None:
    refused(
        PartyHistoryError,
        "version 5: was made before version 4: set the operator's clock",
        forged(KNOWN, time_ms=1),
    )
    assert revoke(KNOWN, OPERATOR, 1, name="hospital-1").time_ms == KNOWN.time_ms


def test_no_party_vanishes() -> None:
    refused(
        PartyHistoryError,
        "party hospital-3: is not in version 5 any more",
        forged(KNOWN, parties=KNOWN.parties[:2]),
    )


def test_a_new_party_has_no_past() -> None:
    for fields in ({"since": 4}, {"since": 5, "state": State.REVOKED}):
        new = forged(KNOWN, parties=(*KNOWN.parties, party("z", 50, **fields)))
        refused(PartyHistoryError, "party z: is new in version 5, and tells of a past", new)


def test_an_identity_does_not_change_without_its_proof() -> None:
    new = forged(KNOWN, parties=changed(KNOWN, "hospital-2", identity=key(66).identity))
    refused(IdentityChangedError, "hospital-2: its identity was .* without the former key's signature", new)


def test_an_identity_that_was_proved_by_another_key_is_refused() -> None:
    wish = rotation("icu", "hospital-2", key(77), key(66))
    former = Former(until=5, identity=key(2).identity, proof=wish.proof, possession=wish.possession)
    parties = changed(KNOWN, "hospital-2", identity=key(66).identity, former=(former,))
    refused(IdentityChangedError, "party hospital-2: .* is not proved", forged(KNOWN, parties=parties))


def test_a_rotation_belongs_to_its_version() -> None:
    wish = rotation("icu", "hospital-2", key(2), key(66))
    former = Former(until=4, identity=key(2).identity, proof=wish.proof, possession=wish.possession)
    parties = changed(KNOWN, "hospital-2", identity=key(66).identity, former=(former,))
    refused(PartyHistoryError, "hospital-2: version 5 tells otherwise when", forged(KNOWN, parties=parties))


def test_who_was_revoked_does_not_come_back() -> None:
    gone = revoke(KNOWN, OPERATOR, 9_000, name="hospital-2")
    back = forged(gone, parties=changed(gone, "hospital-2", state=State.ACTIVE, since=6))
    refused(
        RevokedReturnedError,
        "hospital-2: was revoked in version 5, and is active in",
        back,
        gone,
    )
    with pytest.raises(RevokedReturnedError, match="enrol it under another name"):
        revoke(gone, OPERATOR, 9_000, name="hospital-2")
    with pytest.raises(RegistryError, match="party hospital-2: is, or was, in the registry already"):
        enrol(gone, OPERATOR, 9_000, name="hospital-2", identity=key(60).identity, roles=PARTICIPANT)
    with pytest.raises(
        RegistryError, match="party h: its identity is, or was, that of hospital-2; an identity is given once"
    ):
        enrol(gone, OPERATOR, 9_000, name="h", identity=key(2).identity, roles=PARTICIPANT)


def test_who_was_revoked_stays_as_it_was() -> None:
    gone = revoke(KNOWN, OPERATOR, 9_000, name="hospital-2")
    for fields in ({"roles": frozenset({Role.AUDITOR})}, {"since": 4}):
        new = forged(gone, parties=changed(gone, "hospital-2", **fields))
        refused(PartyHistoryError, "party hospital-2: ", new, gone)


def test_a_state_tells_since_when() -> None:
    new = forged(KNOWN, parties=changed(KNOWN, "hospital-2", state=State.REVOKED))
    refused(PartyHistoryError, "hospital-2: is revoked since version 3 by version 5, which should say 5", new)


def test_the_operator_hands_over() -> None:
    named = hand_over(KNOWN, OPERATOR, 9_000, to=SECOND_OPERATOR.identity)
    with pytest.raises(WrongOperatorError, match="version 6: must be signed by .* take the operator's key"):
        revoke(named, OPERATOR, 9_000, name="hospital-1")
    refused(WrongOperatorError, "version 6: is signed by", forged(named, OPERATOR), named)
    after = revoke(named, SECOND_OPERATOR, 9_000, name="hospital-1")
    assert check_chain(KNOWN, [named, after]) == after
    refused(WrongOperatorError, "version 5: is signed by", forged(KNOWN, SECOND_OPERATOR))
    with pytest.raises(RegistryError, match="next operator: identity: must be 32 bytes"):
        hand_over(KNOWN, OPERATOR, 9_000, to=b"x")


def test_a_rotation_loses_nobody() -> None:
    wish = rotation("icu", "hospital-2", key(2), key(66))
    new = replace_identity(KNOWN, OPERATOR, 9_000, wish)
    assert new.registry().names == {
        key(1).identity: "hospital-1",
        key(66).identity: "hospital-2",
        key(3).identity: "hospital-3",
    }
    again = replace_identity(new, OPERATOR, 9_000, rotation("icu", "hospital-2", key(66), key(67)))
    assert check_chain(KNOWN, [again, new]) == again
    with pytest.raises(RegistryError, match="its identity is .* make the request with the present key"):
        replace_identity(new, OPERATOR, 9_000, wish)
    with pytest.raises(IdentityChangedError):
        replace_identity(KNOWN, OPERATOR, 9_000, replace(wish, proof=bytes(64)))
    with pytest.raises(RegistryError, match="party nobody: is not in the registry of icu"):
        replace_identity(KNOWN, OPERATOR, 9_000, replace(wish, name="nobody"))


def test_the_first_document_is_believed_by_its_operator() -> None:
    check_first(KNOWN, federation="icu", operator=OPERATOR.identity)
    with pytest.raises(OtherFederationError):
        check_first(KNOWN, federation="lab", operator=OPERATOR.identity)
    with pytest.raises(WrongOperatorError, match="ask the operator by another way"):
        check_first(KNOWN, federation="icu", operator=SECOND_OPERATOR.identity)
    with pytest.raises(DocumentSignatureError):
        check_first(replace(KNOWN, time_ms=5), federation="icu", operator=OPERATOR.identity)


def test_who_lacks_versions_gets_those() -> None:
    assert lacking(CHAIN, 2) == tuple(CHAIN[2:])
    assert lacking(CHAIN, 4) == ()
    assert lacking(CHAIN, 0) == tuple(CHAIN)
    with pytest.raises(RegistryError, match="version 2 is not here, the first after it is 3"):
        lacking(CHAIN[2:], 1)


def test_changes_are_told_in_sentences() -> None:
    start = with_parties("hospital-1", "hospital-2")[-1]
    assert list(map(str, changes(start, full()))) == [
        f"from version 8 on the operator is {SECOND_OPERATOR.identity.hex()[:12]}",
        f"board was enrolled as decryptor, auditor ({short(9)})",
        f"hospital-1 has a new identity, {short(11)} instead of {short(1)}",
        "hospital-2 was revoked",
    ]
    after = set_roles(full(), SECOND_OPERATOR, 0, name="board", roles=[Role.AUDITOR])
    assert list(map(str, changes(full(), after))) == [
        f"the operator is {SECOND_OPERATOR.identity.hex()[:12]} now, was {OPERATOR.identity.hex()[:12]}",
        "board is auditor now, was decryptor, auditor",
    ]
    assert changes(after, after) == ()
    assert [one.party for one in changes(None, KNOWN)] == ["hospital-1", "hospital-2", "hospital-3"]


@given(st.lists(st.integers(0, 4), max_size=8), st.data())
def test_what_an_operator_makes_follows_and_what_was_settled_stays(
    steps: list[int], data: st.DataObject
) -> None:
    """Whatever is done, in any order: each version follows, and who knows an early one is led to the last."""
    chain, operator, number = [CHAIN[1]], OPERATOR, 100
    for step in steps:
        document, number = chain[-1], number + 1
        active = [one for one in document.parties if one.active]
        one = data.draw(st.sampled_from(active)) if active else None
        if step == 0 or one is None:
            made = enrol(
                document, operator, 0, name=f"n{number}", identity=key(number).identity, roles=PARTICIPANT
            )
        elif step == 1:
            made = revoke(document, operator, 0, name=one.name)
        elif step == 2:
            made = set_roles(document, operator, 0, name=one.name, roles=[Role.AUDITOR])
        elif step == 3:
            old = next(k for k in map(key, range(256)) if k.identity == one.identity)
            made = replace_identity(document, operator, 0, rotation("icu", one.name, old, key(number)))
        else:
            made = hand_over(document, operator, 0, to=key(number).identity)
        if made.next_operator is not None:
            operator = key(number)
        chain.append(made)
    assert check_chain(chain[0], chain[::-1]) == chain[-1]
    for party_then in chain[0].parties:
        now = chain[-1].party(party_then.name)
        assert now is not None
        assert now.identities[: len(party_then.identities)] == party_then.identities
