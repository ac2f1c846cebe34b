"""Runs rounds and looks for the secrets of a client in the memory of its own process; prints JSON.

The patterns that are looked for are kept masked, so that the search does not find itself.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

from secagg.params import Phase
from tests.protocol.network import Cohort

_MASK = bytes(range(256)).translate(bytes(255 - i for i in range(256)))


def masked(secret: bytes) -> bytes:
    return secret.translate(_MASK)


def found(patterns: dict[str, bytes]) -> dict[str, int]:
    """How often each pattern is in writable memory."""
    counts = dict.fromkeys(patterns, 0)
    process = Path("/proc/self")
    with (process / "maps").open() as maps, (process / "mem").open("rb", 0) as memory:
        for line in maps:
            area, permissions = line.split()[:2]
            if not permissions.startswith("rw") or "[v" in line:
                continue
            low, high = (int(part, 16) for part in area.split("-"))
            try:
                memory.seek(low)
                data = (memory.read(high - low) or b"").translate(_MASK)
            except OSError:
                continue
            for name, pattern in patterns.items():
                counts[name] += data.count(pattern)
    return counts


def patterns_of(cohort: Cohort, client: int) -> dict[str, bytes]:
    secrets = cohort.secrets(client)
    return {name: masked(bytes(getattr(secrets, name))) for name in secrets.__slots__}


def main() -> None:
    """Print what is found during a round, after the upload and after the end."""
    cohort = Cohort(10, vector_length=1000)
    cohort.advance(Phase.SHARE_KEYS)
    patterns = patterns_of(cohort, 0)
    gc.collect()
    during = found(patterns)
    cohort.finish()
    for client in cohort.clients:
        client.close()
    gc.collect()
    json.dump({"during": during, "after": found(patterns)}, sys.stdout)


if __name__ == "__main__":
    main()
