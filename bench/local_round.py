"""A whole round in one process: seconds per phase and side, and where the time goes."""

from __future__ import annotations

import cProfile
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from secagg import ClientSession, Phase, ServerSession, ThreatModel, aggregate

# Where a function of the profile belongs; the first match counts.
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Ed25519 verification", ("verify",)),
    ("Ed25519 signatures", ("sign",)),
    ("X25519 agreements", ("agree",)),
    ("X25519 public keys", ("public_key",)),
    ("HKDF", ("hkdf",)),
    ("sealing and opening", ("seal", "unseal")),
    ("mask expansion and addition", ("mask_apply",)),
    ("packing and unpacking", ("pack", "unpack_add")),
    ("Shamir: sharing", ("share_pairs",)),
    ("Shamir: rebuilding", ("recover_secrets",)),
    ("circle and graph", ("build", "neighbors")),
    ("codec", ("decode_frame", "encode_frame")),
)


def run(*, clients: int, length: int, dropout: float, adversary: str, repeats: int) -> dict[str, Any]:
    """Measure `aggregate()`; a share of the clients vanishes before it uploads."""
    rng = np.random.default_rng(1)
    vectors = list(rng.integers(0, 2**18, (clients, length), dtype=np.uint32))
    drop = dict.fromkeys(range(int(clients * dropout)), Phase.MASKED_INPUT_COLLECTION)
    model = ThreatModel(adversary=adversary)  # type: ignore[arg-type]

    def once() -> None:
        result = aggregate(vectors, ring_bits=18, drop=drop, threat_model=model)
        total = np.sum([vectors[i] for i in result.clients], axis=0, dtype=np.uint64) % 2**18
        if not np.array_equal(result.total, total):
            raise SystemExit("the sum is wrong")

    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    return {
        "clients": clients,
        "vector_length": length,
        "ring_bits": 18,
        "dropouts": len(drop),
        "adversary": adversary,
        "repeats": repeats,
        "seconds_median": round(statistics.median(seconds), 3),
        "seconds_min": round(min(seconds), 3),
        "seconds_max": round(max(seconds), 3),
        "sides": _by_side(once),
        "profile": _by_group(once),
    }


def _by_side(once: Callable[[], None]) -> dict[str, float]:
    """Seconds in the sessions of all clients and of the server, one run."""
    spent: dict[str, float] = defaultdict(float)
    with (
        _timed(ClientSession, ("receive", "submit"), "clients", spent),
        _timed(ServerSession, ("start", "receive", "close_phase"), "server", spent),
    ):
        once()
    return {side: round(seconds, 3) for side, seconds in spent.items()}


class _timed:  # noqa: N801 - reads as a function
    """Add the time spent in some methods of a class to an account."""

    def __init__(self, kind: type, names: tuple[str, ...], account: str, spent: dict[str, float]) -> None:
        self._kind, self._account, self._spent = kind, account, spent
        self._originals = {name: getattr(kind, name) for name in names}

    def __enter__(self) -> None:
        for name, original in self._originals.items():
            setattr(self._kind, name, self._wrap(original))

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object) -> Any:  # noqa: ANN401 - the method's own
            began = time.perf_counter()
            try:
                return original(*arguments)
            finally:
                self._spent[self._account] += time.perf_counter() - began

        return timed

    def __exit__(self, *_exception: object) -> None:
        for name, original in self._originals.items():
            setattr(self._kind, name, original)


def _by_group(once: Callable[[], None]) -> dict[str, float]:
    """Share of the time in each group of functions, from a profile (which itself slows Python code)."""
    profile = cProfile.Profile()
    profile.runcall(once)
    stats = pstats.Stats(profile)
    total = stats.total_tt  # type: ignore[attr-defined]
    shares: dict[str, float] = {}
    for group, names in _GROUPS:
        cumulative = sum(
            entry[3]
            for (path, _line, name), entry in stats.stats.items()  # type: ignore[attr-defined]
            if name in names and "secagg" in path
        )
        shares[group] = round(cumulative / total, 3)
    shares["everything else"] = round(1 - sum(shares.values()), 3)
    return shares
