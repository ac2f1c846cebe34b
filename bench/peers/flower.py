"""Flower's SecAgg+: a round of its own server workflow and client mod, dropouts recovered.

Run, not modelled: `SecAggPlusWorkflow` on the server and `secaggplus_mod` in every client, joined in one
process by `flower_cohort.py`. All clients run every stage and all surviving vectors are uploaded; the
average that the workflow arrives at must lie within one quantization step of the true one.

- `client_advertise_keys`, `client_share_keys`, `client_vector`, `client_unmask`: the mod's stages setup,
  share keys, collect masked vectors (quantize, agree, mask, encode the arrays) and unmask; the median over
  `sample` clients.
- `server`: the workflow, less the clients: key and share forwarding, sum, Shamir, unmasking,
  dequantization. Not in it: sending the model, and the strategy's averaging of an average.
- `total`: extrapolated from the medians, see the package. Clients that are not timed split their secrets at
  threshold 2, which the server cannot tell apart; for the timed ones the threshold is the workload's.

Settings: modulus 2^32 (Flower's default), quantization range 2^value_bits, clipping at 1, weight 1, one
array of float32. Flower draws each mask from numpy's RandomState, seeded with the 32-byte secret folded to
32 bits: fast, but not a cryptographic generator.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from importlib.metadata import version

import numpy as np

from bench.peers import Settings, Workload, check, cpu_seconds, missing
from bench.peers.flower_cohort import CLIPPING_RANGE, Cohort

NAME = "Flower SecAgg+"
_STAGES = {
    "setup": "client_advertise_keys",
    "share_keys": "client_share_keys",
    "collect_masked_vectors": "client_vector",
    "unmask": "client_unmask",
}


def available() -> str | None:
    return missing("flwr.server.workflow", "flwr.client.mod")


def settings(workload: Workload) -> Settings:
    return {
        "library": f"flwr {version('flwr')}",
        "shamir": f"pycryptodome {version('pycryptodome')}",
        "num_shares": workload.shares,
        "reconstruction_threshold": workload.shares_needed,
        "clipping_range": CLIPPING_RANGE,
        "quantization_range": 2**workload.value_bits,
        "modulus_range": 2**32,
        "dropouts": workload.dropouts,
        "extrapolated": "total: median client times clients",
    }


def measure(workload: Workload, *, sample: int) -> dict[str, float]:
    """Run one round; the stages of the module's docstring, CPU seconds.

    raises  ValueError when the sum does not fit Flower's modulus, or Flower refuses the threshold
    """
    if workload.clients << workload.value_bits >= 2**32:
        raise ValueError(
            f"{workload.clients} clients of {workload.value_bits} bits overflow Flower's modulus"
        )
    cohort = Cohort(workload, min(sample, workload.survivors))
    server = cohort.run()
    vectors = (workload.vector(client).astype(np.float64) for client in range(workload.survivors))
    average = sum(vectors, np.zeros(workload.length)) / workload.survivors
    step = 2 * CLIPPING_RANGE / 2**workload.value_bits
    check(cohort.average, average, tolerance=step, peer=NAME)
    client = {name: statistics.median(cohort.seconds[stage]) for stage, name in _STAGES.items()}
    before = client["client_advertise_keys"] + client["client_share_keys"]
    after = client["client_vector"] + client["client_unmask"]
    return {
        **client,
        "server": server,
        "total": workload.clients * before + workload.survivors * after + server,
        "upload_bytes": statistics.median(cohort.upload_bytes),
    }


def shamir_share_seconds(secret_bytes: int, threshold: int, shares: int, repeats: int) -> float:
    """Return the CPU seconds, median, in which Flower splits one secret of so many bytes."""
    from flwr.common.secure_aggregation.crypto.shamir import create_shares

    secret = os.urandom(secret_bytes)
    return _median(lambda: create_shares(secret, threshold, shares), repeats)


def shamir_rebuild_seconds(secret_bytes: int, threshold: int, shares: int, repeats: int) -> float:
    """Return the CPU seconds, median, in which Flower rebuilds one secret from `threshold` of its shares.

    Its server hands over all shares it has received, not `threshold` of them, and pays for each.
    """
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares

    secret = os.urandom(secret_bytes)
    enough = create_shares(secret, threshold, shares)[:threshold]
    if combine_shares(enough) != secret:
        raise RuntimeError(f"{NAME}: Shamir did not return the secret")
    return _median(lambda: combine_shares(enough), repeats)


def _median(call: Callable[[], object], repeats: int) -> float:
    return statistics.median(cpu_seconds(call)[0] for _ in range(repeats))
