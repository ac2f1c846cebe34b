"""Suite "peers": the same round by other libraries, through their own code, in the same run."""

from __future__ import annotations

import os
import statistics
from importlib import import_module
from typing import Any, cast

import numpy as np

from bench.harness import TINY, Effort, measure
from bench.peers import Peer, Workload
from bench.suites.cohort import RING_BITS, Cohort
from bench.suites.cohort import Workload as OurWorkload
from bench.suites.oneshot import Round as OneShotRound
from bench.suites.oneshot import Work as OneShotWork
from secagg import Phase
from secagg.kernels import field_evaluate, field_lagrange, field_weighted_sums
from secagg.params import Adversary
from secagg.primitives.shamir import LIMBS, share_pairs

ADAPTERS = ("flower", "declearn_masking", "tenseal_ckks", "paillier")
# Bonawitz's protocol in C++ by Google, from its own sources on a machine of this class; not run here.
GOOGLE_SHAMIR_SECONDS = {"share": 0.0009, "rebuild": 0.00003}


def run(effort: Effort) -> dict[str, Any]:
    """Return one row per library: CPU seconds by stage, upload bytes, how often our total fits in."""
    tiny = effort == TINY
    work = Workload(clients=10 if tiny else 100, length=100 if tiny else 100_000, dropouts=1 if tiny else 10)
    ours = [
        _ours(work, complete=True, adversary="passive"),
        _ours(work, complete=True, adversary="active"),
        _ours(work, complete=False, adversary="active"),
        *(_one_upload(work, members) for members in ((8,) if tiny else (16, 64))),
    ]
    reference = ours[0]["stages"]["total"]
    rows, skipped = [], {}
    for name in ADAPTERS:
        peer = cast("Peer", import_module(f"bench.peers.{name}"))
        if (lacking := peer.available()) is not None:
            skipped[name] = lacking
            continue
        stages = peer.measure(work, sample=1 if tiny else 3)
        rows.append(
            {
                "name": peer.NAME,
                "stages": stages,
                "settings": peer.settings(work),
                "ratio": stages["total"] / reference,
            }
        )
    return {
        "clients": work.clients,
        "length": work.length,
        "dropouts": work.dropouts,
        "ours": ours,
        "peers": rows,
        "skipped": skipped,
        "shamir": _shamir(effort, flower="flower" not in skipped),
    }


def _ours(work: Workload, *, complete: bool, adversary: Adversary) -> dict[str, Any]:
    """The whole cohort: a client's seconds times the clients, and the server; one thread, codec included."""
    cohort = Cohort(
        OurWorkload(
            clients=work.clients,
            length=work.length,
            dropout=work.dropouts / work.clients,
            adversary=adversary,
            complete=complete or work.clients <= 64,
        )
    )
    cohort.run()
    account = cohort.account
    client = {phase: statistics.median(seconds.values()) for phase, seconds in account.client.items()}
    server = sum(account.server.values())
    early = client[Phase.ADVERTISE_KEYS] + client[Phase.SHARE_KEYS]
    late = sum(client.values()) - early
    survivors = work.clients - work.dropouts
    graph = "complete graph" if complete else "chosen degree"
    return {
        "name": f"secagg, {adversary}, {graph}",
        "degree": cohort.view.roster.degree,
        "threshold": cohort.view.roster.threshold,
        "stages": {
            "client_share_keys": client[Phase.SHARE_KEYS],
            "client_vector": client[Phase.MASKED_INPUT_COLLECTION],
            "server": server,
            "total": work.clients * early + survivors * late + server,
            "upload_bytes": sum(account.up.values()),
        },
    }


def _one_upload(work: Workload, members: int) -> dict[str, Any]:
    """The one-upload protocol against an active server, everybody's seconds; no ML-KEM, as in the others."""
    one = OneShotRound(
        OneShotWork(
            clients=work.clients,
            length=work.length,
            members=members,
            dropout=work.dropouts / work.clients,
            ring_bits=RING_BITS,
        )
    )
    one.run()
    decryptors = sum(one.member.values())
    return {
        "name": f"secagg, active, one upload, {members} decryptors",
        "stages": {
            "client_vector": statistics.median(one.client),
            "server": one.server,
            "decryptors": decryptors,
            "total": sum(one.client) + decryptors + one.server,
            "upload_bytes": one.upload_bytes,
        },
    }


def _shamir(effort: Effort, *, flower: bool) -> dict[str, Any]:
    """One 32-byte secret, t = 67 of 100: seconds of ours, Flower's, and Google's published sources."""
    threshold, holders = 67, 100
    seed = os.urandom(32)
    polynomials = np.random.default_rng(1).integers(0, 2**52, (threshold, LIMBS), np.uint64)
    points = np.arange(1, holders + 1, dtype=np.uint64)
    values, chosen = field_evaluate(polynomials, points)[-threshold:], points[-threshold:]

    def share() -> None:  # two secrets at once
        share_pairs(seed, seed, share_seed=seed, roster_digest=seed, threshold=threshold, holders=holders)

    def rebuild() -> None:
        field_weighted_sums(field_lagrange(chosen, np.zeros(1, np.uint64)), values)

    out: dict[str, Any] = {
        "ours": {
            "share": measure(share, effort).median / 2,
            "rebuild": measure(rebuild, effort).median,
        },
        "google_cpp": GOOGLE_SHAMIR_SECONDS,
    }
    if flower:
        from bench.peers.flower import shamir_rebuild_seconds, shamir_share_seconds

        repeats = 1 if effort == TINY else 5
        out["flower"] = {
            "share": shamir_share_seconds(32, threshold, holders, repeats),
            "rebuild": shamir_rebuild_seconds(32, threshold, holders, repeats),
        }
    return out
