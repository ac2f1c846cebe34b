"""Write the known-answer vectors: `python -m tests.vectors.make`.

Everything follows from fixed seeds; a run changes no byte unless the protocol changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from secagg.effects import Aggregate, InputWanted, Send
from secagg.kernels import lane_dtype, mask_apply, pack, ring_mask
from secagg.messages import (
    Advertisement,
    MaskedInput,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    RoundParametersMessage,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    decode_frame,
    encode,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Adversary, Phase, ThreatModel
from secagg.primitives import labels
from secagg.primitives.agreement import public_key
from secagg.primitives.bounds import (
    check_parameters,
    choose_for,
    effective_minimum,
    neighbor_collusion,
    quorum,
    window_collusion,
)
from secagg.primitives.masks import pairwise_seed, sealing_key, seed_commitment, share_label
from secagg.primitives.sealing import seal
from secagg.primitives.shamir import share_pairs
from secagg.protocol.round import RoundView, parameters_digest
from tests.protocol.network import Cohort, CounterEntropy, flipped, opened

M = TypeVar("M")
FOLDER = Path(__file__).parent
Json: TypeAlias = dict[str, Any]
LOST = {
    10: Phase.ADVERTISE_KEYS,
    1: Phase.SHARE_KEYS,
    3: Phase.MASKED_INPUT_COLLECTION,
    5: Phase.CONSISTENCY_CHECK,
    7: Phase.UNMASKING,
}


def cohort(adversary: Adversary) -> Cohort:
    """Eleven admitted; the last never advertises."""
    return Cohort(
        11,
        adversary=adversary,
        corrupt=0.1,
        dropout=0.4,
        ring_bits=11,
        vector_length=10,
        minimum_cohort=10,
        seed=f"vectors/{adversary}",
    )


# --- whole rounds


def round_vectors(adversary: Adversary) -> Json:
    """Every frame of a round, and what each party made of it."""
    c = cohort(adversary)
    frames: list[str] = []
    operations: list[Json] = []

    def numbered(frame: bytes) -> int:
        if frame.hex() not in frames:
            frames.append(frame.hex())
        return frames.index(frame.hex())

    def downward(effects: list[Any]) -> list[Json]:
        return [
            {"client": c.index[effect.to], "frame": numbered(bytes(effect.frame))}
            for effect in effects
            if isinstance(effect, Send) and effect.to is not None
        ]

    operations.append({"op": "start", "out": downward(c.take_server(c.server.start()))})
    vectors = {i: vector(c, i) for i in range(11)}
    while (phase := c.server.phase) is not None:
        for i in c.waiting():
            if LOST.get(i, len(Phase)) <= phase:
                continue
            request = numbered(c.request(i))
            effects = c.clients[i].receive(c.request(i))
            sends = [bytes(effect.frame) for effect in effects if isinstance(effect, Send)]
            operation = {"op": "receive", "client": i, "in": request}
            operations.append(operation | {"out": [numbered(frame) for frame in sends]})
            if any(isinstance(effect, InputWanted) for effect in effects):
                (sent,) = c.clients[i].submit(np.array(vectors[i], lane_dtype(11)))
                assert isinstance(sent, Send)
                sends = [bytes(sent.frame)]
                operations.append({"op": "submit", "client": i, "out": [numbered(sends[0])]})
            (answer,) = sends
            assert c.tell(i, answer) == []
            operations.append({"op": "accept", "client": i, "in": numbered(answer)})
        operations.append({"op": "close", "phase": phase.name, "out": downward(c.close())})
    assert isinstance(c.outcome, Aggregate)
    model = c.parameters.threat_model
    return {
        "_comment": [
            f"A whole round, {adversary}: ten in the roster, an eleventh that never advertises,",
            "one lost in each later phase. `entropy` is what a client draws: agreement key, mask key,",
            "self-mask seed, share seed. Operations in order; `in` and `out` are places in `frames`,",
            "each the hex of a Frame. start, close: the server sends; receive, submit: a client takes",
            "a frame or its vector and sends; accept: the server takes a frame of a client.",
            "Clients are numbered by ascending identity.",
        ],
        "parameters": {
            "round_id": c.parameters.round_id.hex(),
            "vector_length": c.parameters.vector_length,
            "ring_bits": c.parameters.ring_bits,
            "context": c.parameters.context.hex(),
            "corrupt": model.corrupt,
            "dropout": model.dropout,
            "adversary": model.adversary,
            "security_bits": model.security_bits,
            "correctness_bits": model.correctness_bits,
            "grinding_bits": model.grinding_bits,
            "minimum_cohort": c.parameters.minimum_cohort,
            "minimum_survivors": c.parameters.minimum_survivors,
        },
        "policy": {
            "minimum_cohort": 10,
            "minimum_survivors": 3,
            "minimum_corrupt": 0.1,
            "minimum_security_bits": 40,
            "minimum_grinding_bits": 40,
            "maximum_vector_length": 10,
            "adversary": adversary,
        },
        "clients": [
            {
                "identity_seed": c.signers[i].seed.hex(),
                "identity": c.identities[i].hex(),
                "entropy": CounterEntropy(f"{c.seed}/{i}")(128).hex(),
                "vector": vectors[i],
            }
            for i in range(11)
        ],
        "operations": operations,
        "frames": frames,
        "survivors": [c.index[identity] for identity in c.outcome.survivors],
        "sum": [int(value) for value in c.outcome.total],
    }


def vector(c: Cohort, i: int) -> list[int]:
    """Pseudorandom elements of the ring."""
    draw = CounterEntropy(f"{c.seed}/vector/{i}")
    mask = ring_mask(c.parameters.ring_bits)
    return [int.from_bytes(draw(8), "little") & mask for _ in range(c.parameters.vector_length)]


@cache
def recorded(adversary: Adversary) -> Json:
    return round_vectors(adversary)


# --- one corrupted field each


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


def _first(items: tuple[Any, ...], **fields: object) -> tuple[Any, ...]:
    return (replace(items[0], **fields), *items[1:])


def _entry(message: RosterAnnouncement, place: int, **fields: bytes) -> RosterAnnouncement:
    entries: list[RosterEntry] = list(message.roster.entries)
    entries[place] = replace(entries[place], **fields)
    return replace(message, roster=replace(message.roster, entries=tuple(entries)))


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


# --- primitives


def primitive_vectors() -> Json:
    """What the messages are made of."""
    draw = CounterEntropy("vectors/primitives")
    mask_secret, self_seed, share_seed, digest = draw(32), draw(32), draw(32), draw(32)
    other_secret = draw(32)
    one, other = sorted((draw(32), draw(32)))
    plaintext = draw(80)
    c = cohort("active")
    c.advance(Phase.SHARE_KEYS, LOST)
    view = c.view()
    return {
        "_comment": "Labels, PRG, packing, shares, masks, roster and graph. Byte strings in hex.",
        "labels": [
            {
                "purpose": purpose,
                "parts": [part.hex() for part in parts],
                "encoded": labels.encode(purpose, *parts).hex(),
                "sha256": labels.digest(purpose, *parts).hex(),
            }
            for purpose, parts in (
                ("context", []),
                ("context", [b""]),
                ("context", [b"model", b"configuration"]),
                ("accept", [digest]),
                ("place", [digest, one]),
            )
        ],
        "prg": [
            {"seed": seed.hex(), "ring_bits": bits, "first": first, "elements": _masks(seed, bits, first)}
            for seed in (self_seed, bytes(32))
            for bits in (1, 11, 16, 20, 32, 33, 64)
            for first in (0, 5)
        ],
        "packing": [_packing(bits) for bits in (1, 2, 3, 7, 8, 11, 15, 16, 17, 20, 31, 32, 33, 63, 64)],
        "shamir": {
            "mask_secret": mask_secret.hex(),
            "self_seed": self_seed.hex(),
            "share_seed": share_seed.hex(),
            "roster_digest": digest.hex(),
            "threshold": 3,
            "shares": [
                share.hex()
                for share in share_pairs(
                    mask_secret,
                    self_seed,
                    share_seed=share_seed,
                    roster_digest=digest,
                    threshold=3,
                    holders=5,
                )
            ],
        },
        "pairwise_mask": {
            "mask_secrets": [mask_secret.hex(), other_secret.hex()],
            "mask_keys": [public_key(mask_secret).hex(), public_key(other_secret).hex()],
            "roster_digest": digest.hex(),
            "identities": [one.hex(), other.hex()],
            "seed": pairwise_seed(mask_secret, public_key(other_secret), digest, one, other).hex(),
        },
        "self_mask": {
            "roster_digest": digest.hex(),
            "identity": one.hex(),
            "seed": self_seed.hex(),
            "commitment": seed_commitment(digest, one, self_seed).hex(),
        },
        "sealed_share": _sealed(mask_secret, other_secret, digest, one, other, plaintext),
        "roster": {
            "parameters": encode(parameters_to_wire(c.parameters)).hex(),
            "parameters_digest": parameters_digest(c.parameters).hex(),
            "roster": encode(view.roster).hex(),
            "roster_digest": view.roster_digest.hex(),
            "circle": list(view.graph.circle),
        },
        "circle": _circle(digest),
        "graph_parameters": _table(),
    }


def _masks(seed: bytes, bits: int, first: int) -> list[int]:
    out = np.zeros(6, lane_dtype(bits))
    mask_apply(out, seed, np.ones(1, np.int8), first=first)
    return [int(value) & ring_mask(bits) for value in out]


def _packing(bits: int) -> Json:
    draw = CounterEntropy(f"vectors/packing/{bits}")
    values = [int.from_bytes(draw(8), "little") & ring_mask(bits) for _ in range(5)] + [ring_mask(bits)]
    packed = pack(np.array(values, lane_dtype(bits)), bits)
    return {"ring_bits": bits, "elements": values, "packed": bytes(packed).hex()}


def _sealed(
    dealer_secret: bytes, holder_secret: bytes, digest: bytes, dealer: bytes, holder: bytes, plaintext: bytes
) -> Json:
    key = sealing_key(dealer_secret, public_key(holder_secret), digest, dealer, holder)
    associated = share_label(digest, dealer, holder)
    message = SealedShare(holder, seal(key, plaintext, associated), b"")
    return {
        "agreement_secrets": [dealer_secret.hex(), holder_secret.hex()],
        "dealer": dealer.hex(),
        "holder": holder.hex(),
        "roster_digest": digest.hex(),
        "key": key.hex(),
        "associated_data": associated.hex(),
        "plaintext": plaintext.hex(),
        "ciphertext": message.ciphertext.hex(),
        "encoded": encode(message).hex(),
    }


def _circle(digest: bytes) -> Json:
    """A sparse graph of 70 made-up identities."""
    draw = CounterEntropy("vectors/circle")
    c = cohort("active")
    model = ThreatModel(corrupt=0.03, security_bits=1, correctness_bits=1, grinding_bits=0)
    parameters = replace(c.parameters, threat_model=model, context=digest)
    identities = sorted(draw(32) for _ in range(70))
    entries = tuple(RosterEntry(identity, draw(32)) for identity in identities)
    graph = choose_for(70, model)
    roster = Roster(graph.degree, graph.threshold, entries)
    view = RoundView.build(parameters, roster)
    return {
        "parameters": encode(parameters_to_wire(parameters)).hex(),
        "roster": encode(roster).hex(),
        "roster_digest": view.roster_digest.hex(),
        "circle": list(view.graph.circle),
        "neighbors_of_0": list(view.graph.neighbors_of(0)),
    }


def _table() -> list[Json]:
    rows = []
    for clients in (4, 5, 6, 7, 10, 20, 64, 65, 100, 300, 1000, 10_000):
        for corrupt, dropout in ((0.1, 0.1), (0.1, 0.4), (0.05, 0.3), (0.3, 0.1)):
            for adversary in ("passive", "active"):
                model = ThreatModel(corrupt=corrupt, dropout=dropout, adversary=adversary)
                row: Json = {
                    "clients": clients,
                    "corrupt": corrupt,
                    "dropout": dropout,
                    "adversary": adversary,
                }
                try:
                    graph = choose_for(clients, model)
                except ValueError:
                    rows.append(row | {"infeasible": True})
                    continue
                check_parameters(clients, graph, model)
                k = graph.degree
                rows.append(
                    row
                    | {
                        "degree": k,
                        "threshold": graph.threshold,
                        "t1": neighbor_collusion(clients, k, model),
                        "w": window_collusion(clients, k, model) if k < clients - 1 else None,
                        "quorum": quorum(clients, k, model),
                        "effective_minimum": effective_minimum(clients, k, model, 3),
                    }
                )
    return rows


# --- files


def build() -> dict[str, Json]:
    """Contents by file name."""
    return {
        "active_round.json": recorded("active"),
        "passive_round.json": recorded("passive"),
        "bad_cases.json": bad_vectors(),
        "primitives.json": primitive_vectors(),
    }


def render(content: Mapping[str, Any]) -> bytes:
    """Bytes of a vector file: one line per item of a list, or per field."""
    lines = []
    for name, value in content.items():
        if isinstance(value, list) and name not in {"survivors", "sum"}:
            items = ",\n".join(f"  {json.dumps(item)}" for item in value)
            lines.append(f" {json.dumps(name)}: [\n{items}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def main() -> None:
    """Write all files."""
    for name, content in build().items():
        (FOLDER / name).write_bytes(render(content))


if __name__ == "__main__":
    main()
