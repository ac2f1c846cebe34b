"""The chain: every head is the digest of the head before and an entry, so that one signature is over all.

    head(-1) = 32 zero bytes,  head(i) = H("audit-head", head(i - 1), address(entry(i)))

The server signs head(i) with the identity that signs at i: that of the START, until a KEY entry before i
names another. A head that anybody has seen fixes everything before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from secagg.audit.entries import (
    ENTRY_BYTES,
    LOG_ID_BYTES,
    SIGNATURE_BYTES,
    TIME_LIMIT,
    Content,
    Entry,
    KeyChange,
    RegistryChange,
    Start,
    address,
    check_content,
    content_of,
    decode_entry,
    kind_of,
)
from secagg.audit.errors import MalformedError
from secagg.errors import ParameterError
from secagg.messages import encode
from secagg.messages.fields import UINT32_LIMIT, message, octets, uint
from secagg.params import DIGEST_BYTES, IDENTITY_BYTES, Identity, Signer
from secagg.primitives.labels import digest
from secagg.primitives.labels import encode as label
from secagg.primitives.signatures import verify

NO_HEAD = bytes(DIGEST_BYTES)  # before the first entry


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head of a log, signed by the server: everything up to the entry `index` is as it is."""

    log_id: bytes = octets(1, LOG_ID_BYTES)
    index: int = uint(2)
    head: bytes = octets(3, DIGEST_BYTES)
    time: int = uint(4, TIME_LIMIT)  # ms since 1970, of the entry
    signature: bytes = octets(5, SIGNATURE_BYTES)

    def signed_by(self, server: bytes) -> bool:
        """Return whether this identity signed it."""
        return verify(server, self._text("audit-signed-head"), self.signature)

    def _text(self, purpose: str) -> bytes:
        index, time = (number.to_bytes(8, "big") for number in (self.index, self.time))
        return label(purpose, self.log_id, index, self.head, time)

    @classmethod
    def sign(cls, log_id: bytes, index: int, head: bytes, time: int, signer: Signer) -> SignedHead:
        """Sign a head."""
        unsigned = cls(log_id, index, head, time, bytes(SIGNATURE_BYTES))
        return replace(unsigned, signature=signer.sign(unsigned._text("audit-signed-head")))


@dataclass(frozen=True, slots=True)
class Countersignature:
    """A witness saw a head: a server that shows others another log would need the witness to do so."""

    index: int = uint(1)
    witness: bytes = octets(2, IDENTITY_BYTES)
    signature: bytes = octets(3, SIGNATURE_BYTES)

    @classmethod
    def sign(cls, signed: SignedHead, witness: Signer) -> Countersignature:
        """Countersign a head. Who does so has checked its log, and that it continues the one seen before."""
        signature = witness.sign(signed._text("audit-countersignature"))  # noqa: SLF001 - of this module
        return cls(signed.index, witness.identity, signature)

    def over(self, signed: SignedHead) -> bool:
        """Return whether this is the witness's signature over that head."""
        text = signed._text("audit-countersignature")  # noqa: SLF001 - of this module
        if self.index != signed.index or len(self.witness) != IDENTITY_BYTES:
            return False
        return verify(self.witness, text, self.signature)


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry, and what proves that the server has put it into its log (see `check_receipt`)."""

    entry: Entry = message(1, Entry)
    previous: bytes = octets(2, DIGEST_BYTES)  # the head before
    signed: SignedHead = message(3, SignedHead)


def next_head(previous: bytes, entry: bytes) -> bytes:
    """Head of an encoded entry, 32 bytes."""
    return digest("audit-head", previous, address(entry))


@dataclass(frozen=True, slots=True)
class Chain:
    """A log up to an entry: what one needs to check, or to write, the next. `Chain()` is before the first.

    signer      the identity that signs `head`
    signers     all that signed so far and the one that signs what follows, in that order
    registries  newest version, by federation
    """

    index: int = -1
    head: bytes = NO_HEAD
    time: int = 0
    log_id: bytes = b""
    signer: Identity | None = None
    signers: tuple[Identity, ...] = ()
    registries: Mapping[bytes, int] = field(default_factory=dict)

    def follow(self, data: bytes) -> Step:
        """Take the next entry, encoded. Whatever the bytes are, nothing is raised: see `Step.wrong`."""
        after = replace(
            self,
            index=self.index + 1,
            head=next_head(self.head, data),
            signer=self.signers[-1] if self.signers else None,
        )
        try:
            entry = decode_entry(data)
        except MalformedError as error:
            return Step(after, None, None, (str(error),))
        wrong = []
        if entry.index != after.index:
            wrong.append(f"Entry.index: must be {after.index}, is {entry.index}")
        if entry.time < self.time:
            wrong.append(f"Entry.time: must be at least that before, {self.time}, is {entry.time}")
        after = replace(after, time=max(entry.time, self.time))
        try:
            content = content_of(entry)
        except MalformedError as error:
            return Step(after, entry, None, (*wrong, str(error)))
        after, problem = self._apply(content, after)
        return Step(after, entry, content, (*wrong, problem) if problem else tuple(wrong))

    def _apply(self, content: Content, after: Chain) -> tuple[Chain, str | None]:
        """Return what an entry changes of the chain, and what is wrong with it at this place."""
        if (after.index == 0) != isinstance(content, Start):
            return after, "a log begins with its start, and nowhere else"
        match content:
            case Start(log_id=log_id, server=server):
                first = Identity(server)
                return replace(after, log_id=log_id, signer=first, signers=(first,)), None
            case KeyChange(server=server):
                if not self._accepts(content):
                    return after, "KeyChange: the old or the new identity did not sign it"
                return replace(after, signers=(*after.signers, Identity(server))), None
            case RegistryChange(federation=federation, version=version):
                before = self.registries.get(federation, -1)
                if version <= before:
                    return after, f"RegistryChange.version: must be above {before}, is {version}"
                return replace(after, registries={**self.registries, federation: version}), None
            case _:
                return after, None

    def _accepts(self, content: KeyChange) -> bool:
        if not self.signers or content.server in self.signers:
            return False
        return verify(self.signers[-1], self._handover(content.server), content.handover) and verify(
            content.server, self._acceptance(self.signers[-1]), content.acceptance
        )

    def _handover(self, server: bytes) -> bytes:
        return label("audit-handover", self.log_id, self.head, server)

    def _acceptance(self, old: bytes) -> bytes:
        return label("audit-acceptance", self.log_id, self.head, old)

    def hand_over(self, old: Signer, new: Signer) -> KeyChange:
        """Return the entry, for this place only, from which on `new` signs. Raises ParameterError."""
        if new.identity in self.signers:
            raise ParameterError(f"signer: {new.identity.hex()} signed this log before; take a new identity")
        handover = old.sign(self._handover(new.identity))
        return KeyChange(new.identity, handover, new.sign(self._acceptance(old.identity)))

    def extend(self, content: Content, time: int, signer: Signer) -> tuple[Chain, Receipt]:
        """Append an entry: returns the chain with it, and its receipt.

        time    ms since 1970; a clock that went back stands still here
        signer  the server's identity
        raises  ParameterError: the content may not be in a log, or not here; another identity signs it
        """
        check_content(content)
        moment = max(time, self.time)
        if not moment < TIME_LIMIT:
            raise ParameterError(f"time: must be below {TIME_LIMIT} ms since 1970, is {time}")
        if self.index + 1 >= UINT32_LIMIT:
            raise ParameterError(f"log: has {UINT32_LIMIT} entries, its most; begin another")
        entry = Entry(self.index + 1, moment, kind_of(content), encode(content))
        data = encode(entry)
        if len(data) > ENTRY_BYTES:
            raise ParameterError(f"entry: must have up to {ENTRY_BYTES} bytes, has {len(data)}")
        step = self.follow(data)
        if step.wrong:
            raise ParameterError(step.wrong[0])
        after = step.chain
        if signer.identity != after.signer:
            due = "nobody" if after.signer is None else after.signer.hex()
            raise ParameterError(f"signer: must be {due}, who signs this log, is {signer.identity.hex()}")
        signed = SignedHead.sign(after.log_id, after.index, after.head, moment, signer)
        return after, Receipt(entry, self.head, signed)


@dataclass(frozen=True, slots=True)
class Step:
    """The chain after an entry, the entry as far as it can be read, and what is wrong with it."""

    chain: Chain
    entry: Entry | None
    content: Content | None
    wrong: tuple[str, ...]
