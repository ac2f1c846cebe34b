"""Recorded rounds with one corrupted field each, and what the receiver says to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from secagg.messages import (
    Advertisement,
    MaskedInput,
    RevealedShare,
    RosterAnnouncement,
    RosterEntry,
    RoundParametersMessage,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    decode_frame,
    encode_frame,
)
from secagg.params import Adversary
from tests.protocol.network import flipped, opened
from tests.vectors.rounds import Json, recorded

M = TypeVar("M")


class Bad:
    """Bad cases over one recorded round."""

    def __init__(self, adversary: Adversary) -> None:
        self.adversary = adversary
        self.round = recorded(adversary)
        self.round_id = bytes.fromhex(self.round["parameters"]["round_id"])
        self.identities = [bytes.fromhex(client["identity"]) for client in self.round["clients"]]
        self.cases: list[Json] = []

    def place(self, op: str, kind: type, client: int) -> tuple[int, bytes]:
        """The operation in which a client receives, or the server accepts, this kind of message."""
        for at, operation in enumerate(self.round["operations"]):
            if operation["op"] == op and operation["client"] == client:
                frame = bytes.fromhex(self.round["frames"][operation["in"]])
                if isinstance(decode_frame(frame)[1], kind):
                    return at, frame
        raise LookupError(f"client {client} has no {kind.__name__}")

    def add(
        self,
        op: str,
        kind: type[M],
        field: str,
        change: Callable[[M], Any],
        error: str,
        *,
        client: int = 2,
        plays_on: bool = False,
    ) -> None:
        """One field of one message corrupted. plays_on: the rest of the round follows, and ends so."""
        at, frame = self.place(op, kind, client)
        body: Any = change(opened(kind, frame))
        self._add(op, f"{kind.__name__}.{field}", at, bytes(encode_frame(self.round_id, body)), error)
        self.cases[-1] |= {"client": client} | ({"plays_on": True} if plays_on else {})

    def raw(self, op: str, kind: type, field: str, change: Callable[[bytes], bytes], error: str) -> None:
        """A corrupted frame."""
        at, frame = self.place(op, kind, 2)
        self._add(op, field, at, change(frame), error)
        self.cases[-1]["client"] = 2

    def _add(self, op: str, field: str, at: int, frame: bytes, error: str) -> None:
        self.cases.append(
            {
                "round": self.adversary,
                "after": at,
                "op": op,
                "corrupted": field,
                "frame": frame.hex(),
                "error": error,
            }
        )


def _first(items: Sequence[Any], **fields: object) -> tuple[Any, ...]:
    return (replace(items[0], **fields), *items[1:])


def _entry(message: RosterAnnouncement, place: int, **fields: bytes) -> RosterAnnouncement:
    entries: list[RosterEntry] = list(message.roster.entries)
    entries[place] = replace(entries[place], **fields)
    return replace(message, roster=replace(message.roster, entries=tuple(entries)))


def _late(bad: Bad) -> RosterEntry:
    """The client that never advertised, with a digest that it does not have."""
    return RosterEntry(max(bad.identities), bytes(32))


def _with_entries(change: Callable[[Any], Any], message: RosterAnnouncement) -> RosterAnnouncement:
    return replace(message, roster=replace(message.roster, entries=change(tuple(message.roster.entries))))


def _with_neighbors(change: Callable[[Any], Any], message: RosterAnnouncement) -> RosterAnnouncement:
    return replace(message, neighbors=change(tuple(message.neighbors)))


def _dealer(share: RevealedShare) -> bytes:
    return share.dealer


def _length_bomb(frame: bytes) -> bytes:
    return frame[:23] + b"\xff" * 8 + b"\x7f" + frame[25:]


def _model(message: RoundParametersMessage, **fields: int) -> RoundParametersMessage:
    return replace(message, threat_model=replace(message.threat_model, **fields))


def bad_vectors() -> Json:
    """Messages with one corrupted field, and why each is refused or ends the round."""
    a, p = Bad("active"), Bad("passive")
    refusal, abort = "RefusalReason.", "AbortReason."

    def parameters(field: str, change: Callable[[RoundParametersMessage], Any], error: str) -> None:
        a.add("receive", RoundParametersMessage, field, change, refusal + error)

    parameters("version", lambda m: replace(m, version=2), "UNSUPPORTED_VERSION")
    parameters("round_id", lambda m: replace(m, round_id=flipped(m.round_id, 0)), "WRONG_ROUND")
    parameters("vector_length", lambda m: replace(m, vector_length=11), "POLICY")
    parameters("ring_bits", lambda m: replace(m, ring_bits=65), "MALFORMED")
    parameters("minimum_cohort", lambda m: replace(m, minimum_cohort=9), "POLICY")
    parameters("minimum_survivors", lambda m: replace(m, minimum_survivors=2), "POLICY")
    parameters("context", lambda m: replace(m, context=flipped(m.context, 0)), "CONTEXT_MISMATCH")
    parameters("threat_model.corrupt_ppm", lambda m: _model(m, corrupt_ppm=99_999), "POLICY")
    parameters("threat_model.adversary", lambda m: _model(m, adversary=1), "POLICY")
    parameters("threat_model.adversary", lambda m: _model(m, adversary=3), "MALFORMED")
    parameters("threat_model.security_bits", lambda m: _model(m, security_bits=39), "POLICY")
    parameters("threat_model.grinding_bits", lambda m: _model(m, grinding_bits=39), "POLICY")

    parameters("minimum_cohort", lambda m: replace(m, minimum_cohort=2), "POLICY")
    parameters("minimum_cohort", lambda m: replace(m, minimum_cohort=0), "MALFORMED")
    parameters("minimum_survivors", lambda m: replace(m, minimum_survivors=0), "MALFORMED")
    parameters("ring_bits", lambda m: replace(m, ring_bits=0), "MALFORMED")
    parameters("vector_length", lambda m: replace(m, vector_length=2**36), "MALFORMED")
    parameters("threat_model.corrupt_ppm", lambda m: _model(m, corrupt_ppm=1_000_000), "MALFORMED")
    parameters("threat_model.security_bits", lambda m: _model(m, security_bits=257), "MALFORMED")

    def advertisement(field: str, value: Callable[[Advertisement], bytes], error: str) -> None:
        a.add("accept", Advertisement, field, lambda m: replace(m, **{field: value(m)}), refusal + error)

    advertisement("identity", lambda _: a.identities[4], "SENDER_MISMATCH")
    advertisement("agreement_key", lambda _: bytes(32), "BAD_KEY")
    advertisement("mask_key", lambda _: (2**255 - 10).to_bytes(32, "little"), "BAD_KEY")
    advertisement("mask_key", lambda m: flipped(m.mask_key, 8), "BAD_SIGNATURE")
    advertisement("signature", lambda m: flipped(m.signature, 8), "BAD_SIGNATURE")

    def announcement(field: str, change: Callable[[RosterAnnouncement], Any], error: str) -> None:
        a.add("receive", RosterAnnouncement, field, change, refusal + error)

    announcement("roster.degree", lambda m: replace(m, roster=replace(m.roster, degree=8)), "WEAK_PARAMETERS")
    announcement(
        "roster.threshold", lambda m: replace(m, roster=replace(m.roster, threshold=1)), "WEAK_PARAMETERS"
    )
    announcement(
        "roster.entries[9].identity",
        lambda m: _entry(m, 9, identity=b"\xff" * 32),
        "UNKNOWN_IDENTITY",
    )
    announcement(
        "roster.entries[2].advertisement_digest",
        lambda m: _entry(m, 2, advertisement_digest=bytes(32)),
        "NOT_INCLUDED",
    )
    announcement(
        "roster.entries[4].advertisement_digest",
        lambda m: _entry(m, 4, advertisement_digest=bytes(32)),
        "WRONG_NEIGHBORS",
    )
    announcement(
        "neighbors[0].mask_key",
        lambda m: replace(m, neighbors=_first(m.neighbors, mask_key=bytes([9]) + bytes(31))),
        "WRONG_NEIGHBORS",
    )
    announcement(
        "neighbors[0].signature",
        lambda m: replace(m, neighbors=_first(m.neighbors, signature=bytes(64))),
        "BAD_SIGNATURE",
    )

    for field, entries, error in (
        ("roster.entries[4] left out", lambda e: (*e[:4], *e[5:]), "POLICY"),
        ("roster.entries[4] twice", lambda e: (*e[:5], *e[4:]), "MALFORMED"),
        ("roster.entries reordered", lambda e: (e[1], e[0], *e[2:]), "MALFORMED"),
        ("roster.entries with one more", lambda e: (*e, _late(a)), "WEAK_PARAMETERS"),
    ):
        announcement(field, partial(_with_entries, entries), error)
    for field, neighbors, error in (
        ("neighbors[3] left out", lambda n: (*n[:3], *n[4:]), "WRONG_NEIGHBORS"),
        ("neighbors[3] twice", lambda n: (*n[:4], *n[3:]), "MALFORMED"),
        ("neighbors[0].agreement_key", lambda n: _first(n, agreement_key=bytes(32)), "WRONG_NEIGHBORS"),
        (
            "neighbors[0].signature of the next",
            lambda n: _first(n, signature=n[1].signature),
            "BAD_SIGNATURE",
        ),
    ):
        announcement(field, partial(_with_neighbors, neighbors), error)

    def shared(field: str, change: Callable[[SharedKeys], Any], error: str) -> None:
        a.add("accept", SharedKeys, field, change, refusal + error)

    shared("shares[0].peer", lambda m: replace(m, shares=_first(m.shares, peer=bytes(32))), "WRONG_NEIGHBORS")
    shared(
        "shares[0].acceptance",
        lambda m: replace(m, shares=_first(m.shares, acceptance=m.acceptance)),
        "MALFORMED",
    )
    shared(
        "shares[0].ciphertext",
        lambda m: replace(m, shares=_first(m.shares, ciphertext=bytes(95))),
        "MALFORMED",
    )
    shared("shares[0] left out", lambda m: replace(m, shares=tuple(m.shares)[1:]), "WRONG_NEIGHBORS")
    shared("shares[0] twice", lambda m: replace(m, shares=(m.shares[0], *m.shares)), "MALFORMED")
    shared("acceptance", lambda m: replace(m, acceptance=flipped(m.acceptance, 8)), "BAD_SIGNATURE")
    a.add(
        "accept",
        SharedKeys,
        "seed_commitment",
        lambda m: replace(m, seed_commitment=bytes(32)),
        abort + "UNRECOVERABLE_SECRET",
        plays_on=True,
    )

    def delivery(field: str, change: Callable[[ShareDelivery], Any], error: str) -> None:
        a.add("receive", ShareDelivery, field, change, error)

    delivery("finished", lambda m: replace(m, finished=b"\xf9\x03"), abort + "NOT_FINISHED")
    delivery("finished", lambda m: replace(m, finished=b"\xff\x03"), abort + "WRONG_SHARES")
    delivery("finished", lambda m: replace(m, finished=b"\x05\x01"), abort + "TOO_FEW_NEIGHBORS")
    delivery("finished", lambda m: replace(m, finished=b"\xfd\x83"), refusal + "MALFORMED")
    delivery("finished", lambda m: replace(m, finished=b"\xfd"), refusal + "MALFORMED")
    delivery(
        "shares[0].acceptance",
        lambda m: replace(m, shares=_first(m.shares, acceptance=bytes(64))),
        abort + "WRONG_SHARES",
    )
    delivery(
        "shares[0].peer",
        lambda m: replace(m, shares=_first(m.shares, peer=bytes(32))),
        abort + "WRONG_SHARES",
    )

    delivery("shares[0] left out", lambda m: replace(m, shares=tuple(m.shares)[1:]), abort + "WRONG_SHARES")
    delivery(
        "shares[0].acceptance of the next",
        lambda m: replace(m, shares=_first(m.shares, acceptance=m.shares[1].acceptance)),
        abort + "WRONG_SHARES",
    )

    def masked(field: str, change: Callable[[MaskedInput], Any], error: str) -> None:
        a.add("accept", MaskedInput, field, change, refusal + error)

    masked("packed", lambda m: replace(m, packed=flipped(bytes(m.packed), 0)), "BAD_SIGNATURE")
    masked("packed", lambda m: replace(m, packed=bytes(m.packed)[:-1]), "WRONG_LENGTH")
    masked("packed", lambda m: replace(m, packed=flipped(bytes(m.packed), 111)), "OUT_OF_RANGE")
    masked("complaints", lambda m: replace(m, complaints=(a.identities[1],)), "WRONG_NEIGHBORS")
    masked("signature", lambda m: replace(m, signature=flipped(m.signature, 8)), "BAD_SIGNATURE")

    def survivors(value: bytes, error: str) -> None:
        a.add(
            "receive",
            SurvivorSet,
            "survivors",
            lambda m: replace(m, survivors=value),
            refusal + error,
        )

    survivors(b"\xf1\x03", "NOT_INCLUDED")
    survivors(b"\xf7\x03", "NOT_INCLUDED")
    survivors(b"\x05\x00", "TOO_FEW_SURVIVORS")
    survivors(b"\xf5\x07", "MALFORMED")
    a.add(
        "accept",
        SurvivorSignature,
        "index",
        lambda m: replace(m, index=4),
        refusal + "SENDER_MISMATCH",
    )
    a.add(
        "accept",
        SurvivorSignature,
        "signature",
        lambda m: replace(m, signature=flipped(m.signature, 8)),
        refusal + "BAD_SIGNATURE",
    )

    def request(bad: Bad, field: str, change: Callable[[UnmaskingRequest], Any], error: str) -> None:
        bad.add("receive", UnmaskingRequest, field, change, refusal + error)

    request(a, "survivors", lambda m: replace(m, survivors=b"\xe5\x03"), "EQUIVOCATION")
    request(
        a,
        "signatures[0].signature",
        lambda m: replace(m, signatures=_first(m.signatures, signature=bytes(64))),
        "NO_QUORUM",
    )
    request(a, "signatures", lambda m: replace(m, signatures=m.signatures[1:]), "NO_QUORUM")
    request(
        a,
        "signatures[5].index",
        lambda m: replace(m, signatures=(*m.signatures[:-1], replace(m.signatures[-1], index=10))),
        "MALFORMED",
    )
    request(
        a,
        "uploads[0].identity",
        lambda m: replace(m, uploads=_first(m.uploads, identity=bytes(32))),
        "WRONG_NEIGHBORS",
    )
    request(
        a,
        "signatures[0] twice",
        lambda m: replace(m, signatures=(m.signatures[0], *m.signatures)),
        "MALFORMED",
    )
    request(
        a,
        "signatures[0].signature of the next",
        lambda m: replace(m, signatures=_first(m.signatures, signature=m.signatures[1].signature)),
        "NO_QUORUM",
    )
    request(a, "signatures left out", lambda m: replace(m, signatures=()), "NO_QUORUM")
    request(a, "uploads[0] twice", lambda m: replace(m, uploads=(m.uploads[0], *m.uploads)), "MALFORMED")
    request(p, "survivors", lambda m: replace(m, survivors=b"\xe5\x03"), "WRONG_NEIGHBORS")
    request(p, "survivors", lambda m: replace(m, survivors=b"\xf1\x03"), "NOT_INCLUDED")
    request(
        p,
        "signatures",
        lambda m: replace(m, signatures=(SurvivorSignature(0, bytes(64)),)),
        "MALFORMED",
    )

    def response(
        field: str, change: Callable[[UnmaskingResponse], Any], error: str, *, plays_on: bool = False
    ) -> None:
        a.add("accept", UnmaskingResponse, field, change, error, plays_on=plays_on)

    response(
        "self_seed_shares[0].dealer",
        lambda m: replace(m, self_seed_shares=_first(m.self_seed_shares, dealer=bytes(32))),
        refusal + "WRONG_NEIGHBORS",
    )
    response(
        "self_seed_shares[0] in mask_key_shares, too",
        lambda m: replace(
            m, mask_key_shares=tuple(sorted((*m.mask_key_shares, m.self_seed_shares[0]), key=_dealer))
        ),
        refusal + "WRONG_NEIGHBORS",
    )
    response(
        "self_seed_shares[0] in mask_key_shares instead",
        lambda m: replace(
            m,
            self_seed_shares=tuple(m.self_seed_shares)[1:],
            mask_key_shares=tuple(sorted((*m.mask_key_shares, m.self_seed_shares[0]), key=_dealer)),
        ),
        refusal + "WRONG_NEIGHBORS",
    )
    response("mask_key_shares", lambda m: replace(m, mask_key_shares=()), refusal + "WRONG_NEIGHBORS")
    response(
        "mask_key_shares[0].share",
        lambda m: replace(m, mask_key_shares=_first(m.mask_key_shares, share=bytes(39))),
        refusal + "MALFORMED",
    )
    response(
        "self_seed_shares[0].share",
        lambda m: replace(m, self_seed_shares=_first(m.self_seed_shares, share=b"\xff" * 40)),
        abort + "UNRECOVERABLE_SECRET",
        plays_on=True,
    )

    a.raw(
        "accept",
        Advertisement,
        "Frame.version",
        lambda f: b"\x08\x02" + f[2:],
        refusal + "UNSUPPORTED_VERSION",
    )
    a.raw("accept", Advertisement, "Frame.round_id", lambda f: flipped(f, 8 * 4), refusal + "WRONG_ROUND")
    a.raw("accept", Advertisement, "Frame.kind", lambda f: f[:21] + b"\x0b" + f[22:], refusal + "MALFORMED")
    a.raw("accept", SharedKeys, "Frame.kind", lambda f: f[:21] + b"\x02" + f[22:], refusal + "MALFORMED")
    a.raw("accept", Advertisement, "Frame.kind", lambda f: f[:21] + b"\0" + f[22:], refusal + "MALFORMED")
    a.raw(
        "accept", Advertisement, "Frame with a fifth field", lambda f: f + b"\x28\x01", refusal + "MALFORMED"
    )
    a.raw(
        "accept",
        Advertisement,
        "Frame.version, not minimal",
        lambda f: b"\x08\x81\0" + f[2:],
        refusal + "MALFORMED",
    )
    a.raw("accept", Advertisement, "Frame.body of 2^63 bytes", _length_bomb, refusal + "MALFORMED")
    a.raw("accept", MaskedInput, "Frame.body", lambda f: f[:-1], refusal + "MALFORMED")
    a.raw("receive", SurvivorSet, "Frame.body", lambda f: f + b"\0", refusal + "MALFORMED")
    return {
        "_comment": [
            "Each case: play the first `after` operations of the round's vectors, then hand `frame`,",
            "in which one field is corrupted, to the server as the client's (accept) or to the client",
            "(receive). `error` is the reason of the refusal or of the end. After a refusal the right",
            "frame is still taken; with `plays_on` the corrupted frame is taken in its place, the rest",
            "of the round follows, and ends so.",
        ],
        "cases": a.cases + p.cases,
    }
