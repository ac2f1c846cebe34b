"""Vectors for the runner in C (csrc/tests/run_vectors.c): what `reference` and `cryptography` say.

    python -m tests.kernels.c_vectors FILE

Nothing here calls our C code, so a machine that cannot run Python checks against the same oracle.
"""

import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import PRIME, lane_bytes, reference
from tests.kernels.helpers import LANES, aes_masks, butterflies, period_251

# Around the blocks of the field: 64 powers, 32 products, five columns, four points.
EVALUATIONS = [(t, 3, 5) for t in (0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129)]
EVALUATIONS += [(66, m, k) for m, k in ((0, 2), (1, 1), (4, 2), (5, 3), (6, 4), (10, 6), (11, 7), (2, 40))]
SUMS = [(2, t, 3) for t in (0, 1, 2, 31, 32, 33, 63, 64, 65, 100)]
SUMS += [(3, 40, m) for m in (0, 1, 4, 5, 6, 9, 10, 11)]
SEEDS = np.random.default_rng(251).bytes(32 * 5)


@dataclass(frozen=True, slots=True)
class Record:
    """One call of a kernel; the last blob is the expected result."""

    op: str
    name: str
    ints: Sequence[int]
    reals: Sequence[float]
    blobs: Sequence[bytes]

    def encode(self) -> bytes:
        head = struct.pack("<16s48s", self.op.encode(), self.name.encode())
        counts = struct.pack("<3I", len(self.ints), len(self.reals), len(self.blobs))
        numbers = struct.pack(f"<{len(self.ints)}Q{len(self.reals)}d", *self.ints, *self.reals)
        return head + counts + numbers + b"".join(struct.pack("<Q", len(b)) + b for b in self.blobs)


def lanes(values: Sequence[int] | NDArray[Any], lane: int) -> bytes:
    return np.array(values, f"<u{lane}").tobytes()


def words(values: Sequence[int] | NDArray[Any]) -> bytes:
    return np.array(values, "<u8").tobytes()


def flat(rows: list[list[int]]) -> list[int]:
    return [value for row in rows for value in row]


def elements(rng: np.random.Generator, count: int, p: int = PRIME) -> list[int]:
    """Random elements of a field, with some at its edges."""
    drawn = rng.integers(0, p, count, np.uint64).tolist()
    return [(0, 1, p - 1, p // 2 + 1)[i % 7] if i % 7 < 4 else value for i, value in enumerate(drawn)]


def masks(_: np.random.Generator) -> Iterator[Record]:
    group, tile = 512, 65536
    sizes = [0, 1, 15, 16, 17, 127, 128, 129, group - 1, group, group + 1, 1000]
    calls = [(length, first, 2) for length in sizes for first in (0, 1, 7, 33, 63, 64, 2**31 - 5)]
    calls += [(tile // 8 + step, first, 3) for step in (-1, 0, 1) for first in (0, 3)]
    calls += [(100, 2**33 - 100, 1), (70, 0, 0), (70, 9, 5)]
    for lane in LANES:
        for length, first, count in calls:
            acc = period_251(length, lane)
            total, signs = acc.copy(), [1, -1, 1, 1, -1][:count]
            for j, sign in enumerate(signs):
                mask = aes_masks(SEEDS[32 * j : 32 * j + 32], first, length, lane)
                total += mask if sign > 0 else -mask
            blobs = acc.tobytes(), SEEDS[: 32 * count], np.array(signs, np.int8).tobytes(), total.tobytes()
            yield Record("mask_add", f"{length} of {lane} from {first}", (lane, first), (), blobs)


def rings(rng: np.random.Generator) -> Iterator[Record]:
    for bits in range(1, 65):
        for length in (0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 131):
            values = [word >> (64 - bits) for word in rng.integers(0, 2**64, length, np.uint64).tolist()]
            packed = reference.pack(values, bits)
            for lane in (lane for lane in LANES if 8 * lane >= bits):
                name = f"{length} of {bits} bits in {lane}"
                dirty = [value | 2 ** (8 * lane) - 2**bits for value in values]  # above the ring: ignored
                yield Record("pack", name, (lane, bits), (), (lanes(dirty, lane), packed))
                start = period_251(length, lane).tolist()
                total = [(a + b) % 2 ** (8 * lane) for a, b in zip(start, values, strict=True)]
                blobs = lanes(start, lane), packed, lanes(total, lane)
                yield Record("unpack_add", name, (lane, bits), (), blobs)


def quantizations(rng: np.random.Generator) -> Iterator[Record]:
    for bits in (2, 8, 15, 16, 17, 31, 32, 33, 53, 64):
        lane, limit = lane_bytes(bits), 2 ** min(bits - 1, 52) - 1
        reals = clip, scale, _ = 2.5, limit / 2.25, float(limit)
        for length, size in product((0, 1, 3, 255, 256, 257, 600), (4, 8)):
            values = rng.normal(0, 2, length).astype(f"<f{size}")
            values[::5], values[1::7], values[2::11] = 0.0, 3e38, -1e-40
            dice = rng.integers(0, 2**32, length, np.uint32)
            dice[::3] = 0
            out = reference.quantize(
                values.tolist(), dice.tolist(), clip=clip, scale=scale, limit=limit, ring_bits=bits
            )
            name, random = f"{length} of f{size} to {bits} bits", lanes(dice, 4)
            blobs = values.tobytes(), random, lanes(out, lane)
            yield Record("quantize", name, (lane, bits, size, length), reals, blobs)
            if length > 250:
                values[250] = np.nan
                blobs = values.tobytes(), random, b""  # what was written is nobody's
                yield Record("quantize", f"{name}, NaN", (lane, bits, size, 250), reals, blobs)


def dequantizations(rng: np.random.Generator) -> Iterator[Record]:
    for bits in range(1, 65):
        for lane in (lane for lane in LANES if 8 * lane >= bits):
            residues = [*rng.integers(0, 2 ** (8 * lane), 70, f"u{lane}").tolist(), 2 ** (bits - 1), 0]
            back = np.array(reference.dequantize(residues, step=0.3, ring_bits=bits), "<f8")
            blobs = lanes(residues, lane), back.tobytes()
            yield Record("dequantize", f"{bits} bits in {lane}", (lane, bits), (0.3,), blobs)


def transforms(rng: np.random.Generator) -> Iterator[Record]:
    for n in (2**k for k in range(13)):
        values = rng.normal(0, 1, n).astype("<f4")
        flips = rng.integers(0, 256, -(-n // 8), np.uint8)
        signs = 1 - 2 * np.unpackbits(flips, bitorder="little")[:n].astype(np.float32)
        factor = float(np.float32(1 / np.sqrt(n)))
        out = butterflies(values * signs) * np.float32(factor)
        yield Record("hadamard", f"{n}", (), (factor,), (values.tobytes(), flips.tobytes(), out.tobytes()))


def fields(rng: np.random.Generator, p: int = PRIME, prefix: str = "") -> Iterator[Record]:
    for t, m, k in EVALUATIONS:
        coefficients = [elements(rng, m, p) for _ in range(t)]
        points = [p - 1, *range(k - 1)]
        out = [reference.evaluate([row[c] for row in coefficients], x, p) for x in points for c in range(m)]
        blobs = words(flat(coefficients)), words(points), words(out)
        yield Record(prefix + "evaluate", f"{t} x {m} at {k}", (t, m), (), blobs)
        weights = [reference.lagrange(points, at, p) for at in (0, 1, p - 1, 77)]
        blobs = words(points), words([0, 1, p - 1, 77]), words(flat(weights))
        yield Record(prefix + "lagrange", f"{k} points", (), (), blobs)
    for q, t, m in SUMS:
        for name in ("random", "largest"):
            left, right = [elements(rng, t, p) for _ in range(q)], [elements(rng, m, p) for _ in range(t)]
            if name == "largest":
                left, right = [[p - 1] * t] * q, [[p - 1] * m] * t
            out = [sum(row[j] * right[j][c] for j in range(t)) % p for row in left for c in range(m)]
            blobs = words(flat(left)), words(flat(right)), words(out)
            yield Record(prefix + "weighted_sums", f"{q} x {t} x {m}, {name}", (q, t, m), (), blobs)


def decodings(rng: np.random.Generator, p: int = PRIME, prefix: str = "") -> Iterator[Record]:
    for t, m in [(1, 1), (1, 4), (3, 3), (4, 9), (5, 20), (10, 40)]:
        polynomial, points = elements(rng, t, p), list(range(1, m + 1))
        for wrong in sorted({0, 1, (m - t) // 2, (m - t) // 2 + 1, m} & set(range(m + 1))):
            values = [reference.evaluate(polynomial, x, p) for x in points]
            for place in rng.permutation(m)[:wrong].tolist():
                values[place] = (values[place] + int(rng.integers(1, p))) % p
            found = reference.decode(points, values, t, p)
            off, expected = m + 1, b""
            if found is not None:
                off = sum(reference.evaluate(found, x, p) != y for x, y in zip(points, values, strict=True))
                expected = words(found + [0] * (t - len(found)))
            blobs = words(points), words(values), expected
            yield Record(prefix + "decode", f"{wrong} of {m} wrong, t = {t}", (t, off), (), blobs)


def lattice_field(rng: np.random.Generator) -> Iterator[Record]:
    yield from fields(rng, reference.Q, "q ")
    yield from decodings(rng, reference.Q, "q ")


def lattices(rng: np.random.Generator) -> Iterator[Record]:
    ring = reference.RING
    public, noise = rng.bytes(32), rng.bytes(32)
    for bits, upload_bits, length in ((1, 3, 5), (16, 24, ring), (18, 26, 3000), (33, 44, 2049), (40, 44, 0)):
        lane = lane_bytes(bits)
        values = rng.integers(0, 2**bits, length, np.uint64).tolist()
        values[:1] = [2**bits - 1] * min(length, 1)
        secret = elements(rng, ring, reference.Q)
        blocks = max(-(-length // ring), 1)
        padded = values + [0] * (blocks * ring - length)
        entries = reference.lattice_mask(
            padded, secret, public, noise, ring_bits=bits, upload_bits=upload_bits
        )
        name = f"{length} of {bits} to {upload_bits} bits"
        blobs = public, noise, words(secret), lanes(values, lane), words(entries)
        yield Record("lattice_mask", name, (lane, bits, upload_bits, 0), (), blobs)
        if blocks > 1:
            last = lanes(values[ring:], lane), words(entries[ring:])
            yield Record(
                "lattice_mask", f"{name}, last", (lane, bits, upload_bits, 1), (), (*blobs[:3], *last)
            )
        drawn = (words(reference.prg(seed, 0, ring, 64)) for seed in (public, noise))
        blobs = next(drawn), words(secret), next(drawn), lanes(values[:ring], lane), words(entries[:ring])
        yield Record("lattice", name, (lane, bits, upload_bits), (), blobs)


def records() -> Iterator[Record]:
    sources = masks, rings, quantizations, dequantizations, transforms, fields, decodings
    for source in (*sources, lattice_field, lattices):
        yield from source(np.random.default_rng(251))


def write(path: Path) -> None:
    path.write_bytes(b"".join(record.encode() for record in records()))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
