"""The operator's record of its invitations: what was offered, and what became of it. Holds no secret."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.errors import RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import large_octets, octets
from secagg.params import DIGEST_BYTES, Buffer
from secagg.service.enrolment.errors import EnrolmentError, UnknownInvitationError, UsedInvitationError
from secagg.service.enrolment.invitation import Offer
from secagg.store.store import Store

_OFFERS, _SPENT = "invitations/offers/", "invitations/spent/"


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """An invitation, as its operator knows it.

    spent_by     digest of the request that used it, 32 bytes; empty: nobody did
    certificate  what that party was given (PEM)
    withdrawn    whether the operator took it back before
    """

    offer: Offer
    spent_by: bytes = b""
    certificate: bytes = b""
    withdrawn: bool = False

    @property
    def open(self) -> bool:
        """Whether it can still be used, in time."""
        return not self.spent_by and not self.withdrawn


@dataclass(frozen=True, slots=True)
class SpentMessage:
    """What became of an invitation; both are empty for one that was taken back."""

    request: bytes = octets(1, 0, DIGEST_BYTES)
    certificate: Buffer = large_octets(2)


class InvitationLedger:
    """Invitations in a store. What it says is as durable, and as private, as the store is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, offer: Offer) -> None:
        """Keep an invitation that was made."""
        self._store.put({_OFFERS + offer.invitation.hex(): offer.encoded()})

    def record(self, invitation: bytes) -> InvitationRecord:
        """Return what is known of an invitation. Raises UnknownInvitationError."""
        offer = self._store.get(_OFFERS + invitation.hex())
        if offer is None:
            raise UnknownInvitationError(
                f"invitation {invitation.hex()[:12]}: is not one of those made here: take the ledger that it "
                f"was made with, or make another"
            )
        spent = self._store.get(_SPENT + invitation.hex())
        if spent is None:
            return InvitationRecord(Offer.decoded(offer))
        try:
            wire = decode(SpentMessage, spent)
        except RemoteProtocolError as error:
            raise EnrolmentError(f"invitation {invitation.hex()[:12]}: the ledger is damaged") from error
        return InvitationRecord(
            Offer.decoded(offer), wire.request, bytes(wire.certificate), withdrawn=not wire.request
        )

    def records(self) -> tuple[InvitationRecord, ...]:
        """Return all, by name."""
        ids = (bytes.fromhex(name.removeprefix(_OFFERS)) for name in self._store.names(_OFFERS))
        return tuple(sorted(map(self.record, ids), key=lambda one: (one.offer.name, one.offer.expires_ms)))

    def spend(self, invitation: bytes, request: bytes, certificate: bytes) -> None:
        """Note, before it is given, what somebody gets for an invitation.

        request  digest of the request, 32 bytes; certificate: PEM

        raises   UsedInvitationError, unless it is noted just so; UnknownInvitationError
        """
        with self._store.transaction():
            record = self.record(invitation)
            if (record.spent_by, record.certificate) == (request, certificate):
                return
            check_open(record)
            self._store.put({_SPENT + invitation.hex(): encode(SpentMessage(request, certificate))})

    def withdraw(self, invitation: bytes) -> None:
        """Take an invitation back. Raises UsedInvitationError; UnknownInvitationError."""
        with self._store.transaction():
            check_open(self.record(invitation))
            self._store.put({_SPENT + invitation.hex(): encode(SpentMessage(b"", b""))})


def check_open(record: InvitationRecord) -> None:
    """Raise UsedInvitationError unless nobody has used an invitation, and it was not taken back."""
    if record.withdrawn:
        raise UsedInvitationError(f"invitation of {record.offer.name}: was taken back: ask for another")
    if record.spent_by:
        raise UsedInvitationError(
            f"invitation of {record.offer.name}: was used already, and holds once. If "
            f"{record.offer.name} did not use it, somebody else read it: revoke {record.offer.name}, and "
            f"invite it under another name"
        )
