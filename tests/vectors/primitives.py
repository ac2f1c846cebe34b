"""Vectors of what the messages are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secagg.kernels import lane_dtype, mask_apply, pack, ring_mask
from secagg.messages import (
    Roster,
    RosterEntry,
    SealedShare,
    encode,
    parameters_to_wire,
)
from secagg.params import Phase, ThreatModel
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
from secagg.primitives.masks import pairwise_seed, sealing_keys, seed_commitment, share_label
from secagg.primitives.sealing import seal
from secagg.primitives.shamir import share_pairs
from secagg.protocol.round import RoundView, parameters_digest
from tests.protocol.network import CounterEntropy
from tests.vectors.rounds import LOST, Json, cohort


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
    key = sealing_keys(dealer_secret, public_key(holder_secret), digest, dealer, holder)[0]
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
