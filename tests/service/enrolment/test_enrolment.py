"""An operator, a party and those who would like to be one: every way in, and every refusal."""

from __future__ import annotations

import base64
import logging
import pickle
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import IdentityKey, SecAggError
from secagg.registry import (
    IdentityChangedError,
    RegistryDocument,
    Role,
    WrongOperatorError,
    enrol,
    found,
    hand_over,
    revoke,
)
from secagg.service import RegistryError
from secagg.service.authority import (
    Authority,
    CertificateError,
    CertifiedParty,
    check_issued,
    make_request,
    make_tls_key,
    party_of,
)
from secagg.service.enrolment import (
    Admission,
    ArmorError,
    EnrolmentError,
    EnrolmentRequest,
    ExpiredError,
    Invitation,
    InvitationLedger,
    NotAdmittedError,
    Offer,
    ProofError,
    RenewalRequest,
    UnknownInvitationError,
    UsedInvitationError,
    accept,
    accept_again,
    admit,
    admit_again,
    enroll,
    invite,
    kind_of,
    renew,
)
from secagg.service.enrolment.armor import armored, unarmored
from secagg.store import MemoryStore
from tests.registry.federation import OPERATOR, SECOND_OPERATOR, forged, key

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
AUTHORITY = Authority.make(NOW_MS / 1000)
TLS_KEY, OTHER_TLS_KEY = make_tls_key(), make_tls_key()
PARTY, NEXT, THIEF = key(1), key(2), key(3)
SECRET = bytes(range(32))


@dataclass
class Desk:
    """An operator at work: its registry, its ledger, its authority."""

    chain: list[RegistryDocument] = field(default_factory=lambda: [found(OPERATOR, "icu", NOW_MS)])
    ledger: InvitationLedger = field(default_factory=lambda: InvitationLedger(MemoryStore()))
    signer: IdentityKey = OPERATOR

    def invite(self, name: str = "hospital-1", secret: bytes = SECRET, **changed: Any) -> Invitation:
        usual: dict[str, Any] = {
            "federation": "icu",
            "name": name,
            "roles": frozenset({Role.PARTICIPANT, Role.AUDITOR}),
            "expires_ms": NOW_MS + 7 * DAY_MS,
            "authority": AUTHORITY.fingerprint,
            "servers": ("sum.example.org:7000", "[::1]:7001"),
            "entropy": lambda size: secret[:size],
        }
        made = invite(self.signer, **usual | changed)
        self.ledger.add(made.offer)
        return made

    def admit(
        self, request: EnrolmentRequest, now_ms: int = NOW_MS, authority: Authority = AUTHORITY
    ) -> Admission:
        record = self.ledger.record(request.invitation)
        made = admit(request, record, self.chain, authority=authority, signer=self.signer, now_ms=now_ms)
        self.ledger.spend(request.invitation, request.digest, made.certificate)
        if made.document.version > self.chain[-1].version:
            self.chain.append(made.document)
        return made

    def renew(self, request: RenewalRequest, now_ms: int = NOW_MS) -> Admission:
        made = admit_again(request, self.chain, authority=AUTHORITY, signer=self.signer, now_ms=now_ms)
        if made.document.version > self.chain[-1].version:
            self.chain.append(made.document)
        return made

    def refuses(self, kind: type[SecAggError], message: str, request: EnrolmentRequest, **at: Any) -> None:
        before, versions = self.ledger.records(), list(self.chain)
        with pytest.raises(kind, match=message) as caught:
            self.admit(request, **at)
        assert type(caught.value) is kind
        assert (self.ledger.records(), self.chain) == (before, versions)


def asked(invitation: Invitation, signer: IdentityKey = PARTY, tls_key: bytes = TLS_KEY) -> EnrolmentRequest:
    return enroll(invitation, signer, tls_key, NOW_MS)


def member() -> tuple[Desk, Invitation, Admission]:
    desk = Desk()
    invitation = desk.invite()
    return desk, invitation, desk.admit(asked(invitation))


def test_an_invited_party_is_admitted() -> None:
    desk, invitation, admission = member()
    document = accept(admission, invitation, PARTY.identity, TLS_KEY, NOW_MS)
    assert document == desk.chain[-1]
    party = document.party("hospital-1")
    assert party is not None
    assert (party.identity, party.since) == (PARTY.identity, 2)
    assert party.roles == {Role.PARTICIPANT, Role.AUDITOR}
    assert party_of(admission.certificate) == CertifiedParty("hospital-1", PARTY.identity)
    check_issued(admission.certificate, AUTHORITY.certificate, NOW_MS / 1000)


def test_the_invitation_s_key_is_known_by_its_secret() -> None:
    """A known answer: two programs make the same of a secret."""
    made = Desk().invite()
    assert made.offer.invitation.hex() == "04973b84aad6cd6d4780b6eb58155a54ca5b59d2c609f6567ea2051a8a938f01"
    assert made.key.identity == made.offer.invitation


def test_everything_survives_its_text() -> None:
    desk, invitation, admission = member()
    request = asked(invitation)
    assert Invitation.parse(invitation.armored()) == invitation
    assert EnrolmentRequest.parse(f"Dear operator,\r\n\r\n{request.armored()}\r\nyours") == request
    assert Admission.parse(admission.armored()) == admission
    for new in (None, NEXT):
        renewal = renew(desk.chain[-1], "hospital-1", PARTY, TLS_KEY, NOW_MS, new=new)
        assert RenewalRequest.parse(renewal.armored()) == renewal
    assert kind_of(invitation.armored()) == "INVITATION"
    assert kind_of("nothing") == ""
    record = desk.ledger.record(invitation.offer.invitation)
    assert Offer.decoded(record.offer.encoded()) == invitation.offer
    assert max(map(len, invitation.armored().splitlines())) <= 64


# --- refused by the operator


def test_an_invitation_expires() -> None:
    desk = Desk()
    invitation = desk.invite(expires_ms=1_767_323_040_000)
    with pytest.raises(
        ExpiredError, match="invitation of hospital-1: held until 2026-01-02 03:04 UTC, and by"
    ):
        enroll(invitation, PARTY, TLS_KEY, 1_767_323_040_000)
    request = enroll(invitation, PARTY, TLS_KEY, 1_767_323_039_999)
    desk.refuses(ExpiredError, "set the clock, or ask for another", request, now_ms=1_767_323_040_000)


def test_an_invitation_holds_once() -> None:
    desk, invitation, _ = member()
    for request in (asked(invitation, THIEF), asked(invitation, PARTY, OTHER_TLS_KEY)):
        desk.refuses(
            UsedInvitationError, "hospital-1: was used already, and holds once. If hospital-1", request
        )


def test_a_replayed_request_gets_what_it_got_and_nothing_new() -> None:
    desk, invitation, first = member()
    request = EnrolmentRequest.parse(asked(invitation).armored())
    if request.digest != desk.ledger.record(request.invitation).spent_by:  # ECDSA requests differ
        desk.refuses(UsedInvitationError, "used already", request)
    desk = Desk()
    request = asked(desk.invite())
    first = desk.admit(request)
    again = desk.admit(request, now_ms=NOW_MS + 300 * DAY_MS)
    assert (again.certificate, again.document) == (first.certificate, first.document)
    assert len(desk.chain) == 2
    desk.chain.append(revoke(desk.chain[-1], OPERATOR, NOW_MS, name="hospital-1"))
    desk.refuses(NotAdmittedError, "request of hospital-1: was revoked in version 3", request)


def test_an_answer_that_was_noted_and_not_given_is_given_on_the_registry_of_today() -> None:
    desk = Desk()
    request = asked(desk.invite())
    desk.admit(request)
    lost = desk.chain.pop()  # the machine failed after the ledger
    other = enrol(
        desk.chain[-1], OPERATOR, NOW_MS, name="z", identity=key(9).identity, roles=[Role.PARTICIPANT]
    )
    desk.chain.append(other)
    again = desk.admit(request)
    assert again.document.version == lost.version + 1
    assert sorted(again.document.registry().names.values()) == ["hospital-1", "z"]


def test_an_invitation_that_was_taken_back_or_never_made_is_refused() -> None:
    desk = Desk()
    invitation = desk.invite()
    desk.ledger.withdraw(invitation.offer.invitation)
    assert not desk.ledger.record(invitation.offer.invitation).open
    desk.refuses(UsedInvitationError, "hospital-1: was taken back", asked(invitation))
    with pytest.raises(UsedInvitationError, match="was taken back"):
        desk.ledger.withdraw(invitation.offer.invitation)
    with pytest.raises(UnknownInvitationError, match="is not one of those made here"):
        Desk().admit(asked(invitation))
    used, spent, _ = member()
    with pytest.raises(UsedInvitationError, match="was used already"):
        used.ledger.withdraw(spent.offer.invitation)


def test_who_has_not_the_secret_is_refused() -> None:
    desk = Desk()
    invitation = desk.invite()
    guessed = Invitation(invitation.offer, bytes(32))
    desk.refuses(ProofError, "request of hospital-1: does not prove the invitation's secret", asked(guessed))


@pytest.mark.parametrize("name", ["identity", "certificate", "proof", "signature"])
def test_no_part_of_a_request_can_be_put_into_another(name: str) -> None:
    """Somebody who reads a request on its way takes it apart: none of it is of use."""
    desk = Desk()
    invitation = desk.invite()
    mine = asked(invitation)
    theirs = asked(Desk().invite(secret=bytes(32)), THIEF, OTHER_TLS_KEY)
    changed: dict[str, Any] = {name: getattr(theirs, name)}
    with pytest.raises(ProofError):
        desk.admit(replace(mine, **changed))
    assert desk.ledger.record(invitation.offer.invitation).open


def test_an_identity_needs_its_key() -> None:
    """The secret alone does not let somebody enrol another's identity."""

    @dataclass
    class Pretender:
        identity: Any = PARTY.identity

        def sign(self, text: bytes) -> bytes:
            return THIEF.sign(text)

    desk = Desk()
    pretended: Any = Pretender()
    request = enroll(desk.invite(), pretended, TLS_KEY, NOW_MS)
    desk.refuses(ProofError, "request of hospital-1: is not signed by the identity in it", request)


def test_a_request_for_somebody_else_s_certificate_is_refused() -> None:
    desk = Desk()
    invitation = desk.invite()
    honest = asked(invitation)
    for name in ("hospital-2", "hospital-1"):
        who = CertifiedParty(name, THIEF.identity)
        request = with_certificate(invitation, honest, make_request(TLS_KEY, who))
        desk.refuses(CertificateError, f"request of hospital-1: is for {name}", request)


def with_certificate(
    invitation: Invitation, request: EnrolmentRequest, certificate: bytes
) -> EnrolmentRequest:
    """The request with another wish for a certificate, and all its proofs."""
    from secagg.service.enrolment import request as module

    proof = invitation.key.sign(module._proof_text(invitation.offer, request.identity, certificate))
    text = module._enrolment_text(invitation.offer, request.identity, certificate, proof)
    return replace(request, certificate=certificate, proof=proof, signature=PARTY.sign(text))


def test_what_was_given_meanwhile_is_not_given_again() -> None:
    desk = Desk()
    first, second = desk.invite(), desk.invite(secret=bytes(32))
    desk.admit(asked(first))
    desk.refuses(RegistryError, "party hospital-1: is, or was, in the registry already", asked(second, NEXT))
    third = desk.invite("hospital-3", secret=b"3" * 32)
    desk.refuses(RegistryError, "party hospital-3: its identity is, or was, that of hospital-1", asked(third))


def test_another_registry_or_authority_is_refused() -> None:
    desk = Desk()
    request = asked(desk.invite())
    other = Authority.make(NOW_MS / 1000)
    desk.refuses(EnrolmentError, "names another authority than the one given", request, authority=other)
    desk.chain = [found(OPERATOR, "lab", NOW_MS)]
    desk.refuses(EnrolmentError, "is for icu, and this is the registry of lab", request)
    desk.chain = [found(SECOND_OPERATOR, "icu", NOW_MS)]
    desk.refuses(WrongOperatorError, "take the operator's key", request)


# --- refused by the party


def test_an_invitation_that_was_changed_is_refused() -> None:
    invitation = Desk().invite()
    changed = replace(invitation.offer, servers=("evil.example.org:7000",))
    with pytest.raises(ProofError, match="invitation of hospital-1: is not signed by the operator it names"):
        asked(replace(invitation, offer=changed))
    with pytest.raises(ProofError, match="its secret is of another one"):
        Invitation.parse(replace(invitation, secret=bytes(32)).armored())


@given(st.data())
def test_any_changed_byte_of_a_text_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    kind, text, whole = data.draw(st.sampled_from(TEXTS))
    changed = bytearray(text, "ascii")
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] = data.draw(st.integers(0, 127))
    try:
        read = kind.parse(changed.decode("ascii"))
    except (EnrolmentError, RegistryError):
        return
    if read == whole:
        return
    with pytest.raises(SecAggError):
        if isinstance(read, Invitation):
            read.offer.check(NOW_MS)
        elif isinstance(read, EnrolmentRequest):
            desk = Desk()
            desk.invite()
            desk.admit(read)
        else:
            accept(read, MEMBER[1], PARTY.identity, TLS_KEY, NOW_MS)


MEMBER = member()
REQUEST = asked(MEMBER[1])
TEXTS: list[tuple[Any, str, Any]] = [
    (Invitation, MEMBER[1].armored(), MEMBER[1]),
    (EnrolmentRequest, REQUEST.armored(), REQUEST),
    (Admission, MEMBER[2].armored(), MEMBER[2]),
]


def test_an_admission_of_somebody_else_is_refused() -> None:
    desk, invitation, admission = member()
    mine = accept(admission, invitation, PARTY.identity, TLS_KEY, NOW_MS)
    assert mine == desk.chain[-1]
    with pytest.raises(CertificateError, match="is of another key for TLS"):
        accept(admission, invitation, PARTY.identity, OTHER_TLS_KEY, NOW_MS)
    with pytest.raises(NotAdmittedError, match="its certificate is of somebody else"):
        accept(admission, invitation, THIEF.identity, TLS_KEY, NOW_MS)
    with pytest.raises(CertificateError, match="the certificate of hospital-1 holds from"):
        accept(admission, invitation, PARTY.identity, TLS_KEY, NOW_MS + 400 * DAY_MS)


def test_an_admission_by_another_authority_or_operator_is_refused() -> None:
    desk, invitation, admission = member()
    other = Authority.make(NOW_MS / 1000)
    party = CertifiedParty("hospital-1", PARTY.identity)
    theirs = other.issue_party(make_request(TLS_KEY, party), party, NOW_MS / 1000)
    for changed, kind, message in (
        (replace(admission, authority=other.certificate), NotAdmittedError, "its authority is not the one"),
        (replace(admission, certificate=theirs), CertificateError, "was issued by another authority"),
        (replace(admission, documents=(desk.chain[0],)), NotAdmittedError, "version 1, has nobody active"),
        (
            replace(admission, documents=(forged(desk.chain[0], THIEF),)),
            WrongOperatorError,
            "ask the operator by another way",
        ),
    ):
        with pytest.raises(kind, match=message):
            accept(changed, invitation, PARTY.identity, TLS_KEY, NOW_MS)
    party_there = desk.chain[-1].parties[0]
    fewer = forged(desk.chain[0], parties=(replace(party_there, roles=frozenset({Role.OPERATOR})),))
    with pytest.raises(NotAdmittedError, match="gives it other roles than offered"):
        accept(replace(admission, documents=(fewer,)), invitation, PARTY.identity, TLS_KEY, NOW_MS)


def test_an_operator_s_new_key_is_followed_from_the_invitation_on() -> None:
    desk = Desk()
    invitation = desk.invite()
    desk.chain.append(hand_over(desk.chain[-1], OPERATOR, NOW_MS, to=SECOND_OPERATOR.identity))
    desk.signer = SECOND_OPERATOR
    admission = desk.admit(asked(invitation))
    assert [one.version for one in admission.documents] == [2, 3]
    assert accept(admission, invitation, PARTY.identity, TLS_KEY, NOW_MS).version == 3
    with pytest.raises(WrongOperatorError):
        accept(
            replace(admission, documents=admission.documents[1:]),
            invitation,
            PARTY.identity,
            TLS_KEY,
            NOW_MS,
        )


# --- renewal


def test_a_certificate_is_renewed_without_a_new_version() -> None:
    desk, _, _ = member()
    known = desk.chain[-1]
    admission = desk.renew(renew(known, "hospital-1", PARTY, OTHER_TLS_KEY, NOW_MS))
    assert admission.documents == (known,)
    party = CertifiedParty("hospital-1", PARTY.identity)
    assert accept_again(admission, known, party, OTHER_TLS_KEY, AUTHORITY.certificate, NOW_MS) == known
    other = Authority.make(NOW_MS / 1000)
    with pytest.raises(NotAdmittedError, match="its authority is not the one known here"):
        accept_again(admission, known, party, OTHER_TLS_KEY, other.certificate, NOW_MS)


def test_an_identity_is_replaced_and_nobody_is_lost() -> None:
    desk, _, _ = member()
    known = desk.chain[-1]
    other = enrol(known, OPERATOR, NOW_MS, name="z", identity=key(9).identity, roles=[Role.PARTICIPANT])
    desk.chain.append(other)
    request = renew(known, "hospital-1", PARTY, OTHER_TLS_KEY, NOW_MS, new=NEXT)
    admission = desk.renew(request)
    party = CertifiedParty("hospital-1", NEXT.identity)
    document = accept_again(admission, known, party, OTHER_TLS_KEY, AUTHORITY.certificate, NOW_MS)
    assert document.registry().names == {NEXT.identity: "hospital-1", key(9).identity: "z"}
    again = desk.renew(request)  # the answer was lost
    assert again.document == document
    with pytest.raises(NotAdmittedError, match="hospital-1: nobody active is called so with the identity"):
        desk.renew(renew(known, "hospital-1", PARTY, OTHER_TLS_KEY, NOW_MS, new=THIEF))


def test_a_renewal_is_by_the_party_itself_and_of_these_days() -> None:
    desk, _, _ = member()
    known = desk.chain[-1]
    mine = renew(known, "hospital-1", PARTY, TLS_KEY, NOW_MS, new=NEXT)
    theirs = renew(known, "hospital-1", THIEF, OTHER_TLS_KEY, NOW_MS, new=NEXT)
    with pytest.raises(NotAdmittedError, match="nobody active is called so"):
        desk.renew(renew(known, "hospital-1", THIEF, TLS_KEY, NOW_MS))
    with pytest.raises(ProofError, match="request of hospital-1: is not signed by the identity in it"):
        desk.renew(replace(theirs, identity=PARTY.identity))
    for name in ("certificate", "made_ms", "rotation"):
        changed: dict[str, Any] = {"certificate": theirs.certificate, "made_ms": 1, "rotation": None}
        with pytest.raises(ProofError):
            desk.renew(replace(mine, **{name: changed[name]}))
    assert mine.rotation is not None
    forged_wish = replace(mine, rotation=replace(mine.rotation, possession=bytes(64)), signature=b"")
    with pytest.raises(IdentityChangedError):
        desk.renew(replace(forged_wish, signature=PARTY.sign(forged_wish.text())))
    for days in (31, -2):
        with pytest.raises(ExpiredError, match="must be of the last 30 days"):
            desk.renew(mine, now_ms=NOW_MS + days * DAY_MS)
    desk.chain.append(revoke(known, OPERATOR, NOW_MS, name="hospital-1"))
    with pytest.raises(NotAdmittedError):
        desk.renew(mine)
    desk.chain = [found(OPERATOR, "lab", NOW_MS)]
    with pytest.raises(EnrolmentError, match="request of hospital-1: is for icu"):
        desk.renew(mine)


# --- texts and secrets


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "a b"}, "invitation: party.name: letters"),
        ({"federation": ""}, "invitation: party.name: letters"),
        ({"roles": frozenset()}, "invitation: needs a role"),
        ({"expires_ms": 0}, "invitation: no time of expiry"),
        ({"authority": b"x"}, "no authority"),
        ({"servers": ("nowhere",)}, "invitation: server: must be host:port"),
    ],
)
def test_an_invitation_that_nobody_could_use_is_not_made(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(EnrolmentError, match=message):
        Desk().invite(**changed)


@pytest.mark.parametrize("kind", [Invitation, EnrolmentRequest, RenewalRequest, Admission])
def test_garbage_is_refused(kind: Any) -> None:
    words = {
        Invitation: "INVITATION",
        EnrolmentRequest: "ENROLMENT REQUEST",
        RenewalRequest: "RENEWAL REQUEST",
        Admission: "ADMISSION",
    }[kind]
    for text in ("", "garbage", armored(words, b""), armored(words, b"garbage"), armored("OTHER", b"")):
        with pytest.raises(ArmorError) as caught:
            kind.parse(text)
        assert caught.value.exit_status == 2
    with pytest.raises(ArmorError, match="is damaged; have it sent again"):
        kind.parse(f"-----BEGIN SECAGG {words}-----\nA\n-----END SECAGG {words}-----")


@given(st.binary(max_size=300))
def test_armor_keeps_bytes(data: bytes) -> None:
    text = armored("ANY THING", data)
    assert unarmored("ANY THING", f"> before\n{text}after") == data
    assert unarmored("ANY THING", text.replace("\n", "\r\n")) == data


def test_nothing_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    desk, invitation, admission = member()
    shown = [repr(one) for one in (invitation, admission, asked(invitation), desk, AUTHORITY, invitation.key)]
    for attempt in (
        lambda: asked(replace(invitation, offer=replace(invitation.offer, servers=()))),
        lambda: enroll(invitation, PARTY, b"deadbeef", NOW_MS),
        lambda: Invitation.parse(replace(invitation, secret=bytes(reversed(SECRET))).armored()),
        lambda: Invitation.parse(invitation.armored().replace("ION-----\n", "ION-----\n!", 1)),
        lambda: desk.admit(asked(invitation, THIEF)),
    ):
        with pytest.raises(SecAggError) as caught:
            attempt()
        shown += (str(caught.value), repr(caught.value), repr(pickle.loads(pickle.dumps(caught.value))))
    text = "\n".join((*shown, caplog.text))
    for secret in (SECRET, invitation.key.seed, PARTY.seed, bytes(reversed(SECRET))):
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text
        assert base64.b64encode(secret).decode()[:-2] not in text
    assert "PRIVATE KEY" not in text
    assert "deadbeef" not in text


def test_the_ledger_holds_no_secret() -> None:
    store = MemoryStore()
    desk = Desk(ledger=InvitationLedger(store))
    invitation = desk.invite()
    desk.admit(asked(invitation))
    for name in store.names(""):
        value = store.get(name) or b""
        assert SECRET not in value
        assert invitation.key.seed not in value
