"""The kept inputs, one file per target, an input per line: `python -m tests.fuzz.corpus` writes them anew.

Everything follows from fixed seeds. Of the inputs that come to the same end the shortest is kept, the
shortest ends first, up to a size per target.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).parent / "corpus"
_TRIED = 20_000
_KEPT_BYTES = 22_000  # per target


def inputs(target: Target) -> list[bytes]:
    """Recorded inputs and those of the corpus."""
    return [*target.seeds(), *kept(target)]


def kept(target: Target) -> list[bytes]:
    """Read the corpus of a target."""
    return [bytes.fromhex(line) for line in _file(target).read_text(encoding="ascii").splitlines()]


def _file(target: Target) -> Path:
    return FOLDER / f"{target.name}.hex"


def build(target: Target, tried: int = _TRIED) -> list[bytes]:
    """Change recorded inputs, and those that came to an end of their own, over and over."""
    random, shortest = Random(target.name), dict[str, bytes]()
    pool = target.seeds()
    for data in pool:
        _keep(target, data, shortest)
    for _ in range(tried):
        data = mutated(target, random.choice(pool), random, pool)
        if _keep(target, data, shortest):
            pool.append(data)
    out, size = [], 0
    for data in sorted(shortest.values(), key=lambda data: (len(data), data)):
        size += len(data)
        if size > _KEPT_BYTES:
            break
        out.append(data)
    return out


def _keep(target: Target, data: bytes, shortest: dict[str, bytes]) -> bool:
    """Return whether nothing came to this end before."""
    end = target.run(data)
    new = end not in shortest
    if new or len(data) < len(shortest[end]):
        shortest[end] = data
    return new


def main() -> None:
    for target in TARGETS:
        found = build(target)
        _file(target).write_text("".join(f"{data.hex()}\n" for data in found), encoding="ascii")
        sys.stdout.write(f"{target.name}: {len(found)} inputs, {sum(map(len, found))} bytes\n")


if __name__ == "__main__":
    main()
