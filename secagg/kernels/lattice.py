"""Lattice masks: the client's path from values to one packed upload, and the server's way back.

Ring LWE over Z_q[X] / (X^2048 + 1), q = 2^50 - 2^14 + 1 (PROTOCOL.md, part 2, section 4). By blocks of 2048
entries, so that a vector source streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg.kernels._library import NULL, lib, read, vector, write
from secagg.kernels._parallel import check_threads, in_threads, ranges
from secagg.kernels.field import LATTICE_FIELD
from secagg.kernels.mask import SEED_BYTES, mask_apply
from secagg.kernels.ring import UIntArray, lane_dtype, pack, packed_bytes, ring_mask
from secagg.kernels.upload import VectorSource, check_entries

RING = 2048  # coefficients of a polynomial
CHECKS = 16  # zeros behind every vector
MAXIMUM_RING_BITS, MAXIMUM_UPLOAD_BITS = 40, 44
_CHUNK = 16 * RING  # entries at a time: 256 KiB
_PLUS = np.ones(1, np.int8)

Words = NDArray[np.uint64]


class LatticeSecret:
    """The secret s of an upload, or the sum of some, as the kernel multiplies by it. Wipe it after use.

    values  (2048,), words below q in the value domain
    raises  ValueError
    """

    __slots__ = ("_prepared",)

    def __init__(self, values: Words) -> None:
        if LATTICE_FIELD.matrix("values", values, 1).size != RING:
            raise ValueError(f"values: must be {RING} words, are {values.size}")
        self._prepared = np.empty(RING, np.uint64)
        lib.sa_lattice_secret(write(self._prepared, "uint64_t[]"), read(values, "uint64_t[]"))

    @property
    def prepared(self) -> Words:
        """The cells for the kernel variant in use when it was made."""
        return self._prepared

    def wipe(self) -> None:
        """Overwrite it."""
        self._prepared[:] = 0

    def __repr__(self) -> str:
        return "LatticeSecret()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a LatticeSecret is not pickled")


def modq_words(seed: bytes, count: int) -> Words:
    """Successive words of PRG(seed), cut to 50 bits, those not below q skipped; (count,)."""
    drawn = count
    while True:
        words = np.zeros(drawn, np.uint64)
        mask_apply(words, seed, _PLUS)
        words &= np.uint64(ring_mask(50))
        if (words < LATTICE_FIELD.modulus).all():  # but for one word in 2^36
            return words[:count]
        kept = words[words < LATTICE_FIELD.modulus]
        words[:] = 0  # these may be secret
        if kept.size >= count:
            return kept[:count]
        drawn += count - kept.size
        kept[:] = 0


def check_bits(ring_bits: int, upload_bits: int) -> None:
    """Raise ValueError unless 1 <= ring_bits <= 40 and ring_bits < upload_bits <= 44."""
    if not 1 <= ring_bits <= MAXIMUM_RING_BITS:
        raise ValueError(f"ring_bits: must be in 1..{MAXIMUM_RING_BITS}, is {ring_bits}")
    if not ring_bits < upload_bits <= MAXIMUM_UPLOAD_BITS:
        raise ValueError(f"upload_bits: must be in {ring_bits + 1}..{MAXIMUM_UPLOAD_BITS}, is {upload_bits}")


def lattice_mask(
    out: Words,
    values: UIntArray | None,
    secret: LatticeSecret,
    *,
    public_seed: bytes,
    noise_seed: bytes | None,
    ring_bits: int,
    upload_bits: int,
    first: int = 0,
) -> None:
    """Fill `out` with entries of upload_bits: values scaled to Z_q, masked, and their upper bits.

    out          (blocks * 2048,), uint64
    values       entries below 2^ring_bits, at most out.size; zeros behind; None: all zeros
    secret       that is multiplied by, the same for all blocks
    public_seed  of the polynomials a; noise_seed: of the errors, None: without
    first        block of the vector at which `out` begins
    raises       TypeError, ValueError
    """
    check_bits(ring_bits, upload_bits)
    lanes = np.empty(0, lane_dtype(ring_bits)) if values is None else values
    blocks, rest = divmod(vector("out", out, (np.uint64,)).size, RING)
    if rest or lanes.size > out.size:
        raise ValueError(f"out: must be whole blocks of {RING}, for {lanes.size} values; has {out.size}")
    if len(public_seed) != SEED_BYTES or (noise_seed is not None and len(noise_seed) != SEED_BYTES):
        raise ValueError(f"seeds: must have {SEED_BYTES} bytes")
    cells = read(secret.prepared, "uint64_t[]")
    if lib.sa_has_mask():
        lib.sa_lattice_mask(
            write(out, "uint64_t[]"),
            blocks,
            first,
            read(public_seed, "uint8_t[]"),
            NULL if noise_seed is None else read(noise_seed, "uint8_t[]"),
            cells,
            read(lanes, "char[]"),
            lanes.size,
            lanes.itemsize,
            ring_bits,
            upload_bits,
        )
        return
    noise = np.zeros(out.size, np.uint64)
    out[:] = 0
    mask_apply(out, public_seed, _PLUS, first=first * RING, threads=1)
    if noise_seed is not None:
        mask_apply(noise, noise_seed, _PLUS, first=first * RING, threads=1)
    for at in range(0, out.size, RING):
        part = lanes[at : at + RING]
        lib.sa_lattice_block(
            write(out[at : at + RING], "uint64_t[]"),
            cells,
            read(noise[at : at + RING], "uint64_t[]"),
            read(part, "char[]"),
            part.size,
            lanes.itemsize,
            ring_bits,
            upload_bits,
        )
    noise[:] = 0


def lattice_chunks(
    source: VectorSource,
    secret: LatticeSecret,
    *,
    public_seed: bytes,
    noise_seed: bytes,
    ring_bits: int,
    upload_bits: int,
    first: int = 0,
    end: int | None = None,
) -> Iterator[bytearray]:
    """Yield the packed entries first .. end - 1 of `source` and the CHECKS zeros behind it.

    first    a multiple of 2048
    yields   at most 32 768 entries at a time, n of them in ceil(n * upload_bits / 8) bytes
    raises   ParameterError for an entry not below 2^ring_bits; what the source raises; ValueError
    """
    check_bits(ring_bits, upload_bits)
    end = source.length + CHECKS if end is None else end
    if first % RING or not 0 <= first <= end <= source.length + CHECKS:
        raise ValueError(f"first, end: {first}, {end} are no blocks of {source.length} + {CHECKS} entries")
    out = np.empty(_CHUNK, np.uint64)
    scratch = np.empty(_CHUNK, lane_dtype(ring_bits))
    try:
        for at in range(first, end, _CHUNK):
            wanted = min(_CHUNK, end - at)
            values = scratch[: max(min(wanted, source.length - at), 0)]
            if values.size:
                source.read(at, values)
                check_entries(values, ring_bits, at)
            whole = out[: -(-wanted // RING) * RING]
            lattice_mask(
                whole,
                values,
                secret,
                public_seed=public_seed,
                noise_seed=noise_seed,
                ring_bits=ring_bits,
                upload_bits=upload_bits,
                first=at // RING,
            )
            yield pack(whole[:wanted], upload_bits)
    finally:
        scratch[:] = 0


def pack_lattice(
    source: VectorSource,
    secret: LatticeSecret,
    *,
    public_seed: bytes,
    noise_seed: bytes,
    ring_bits: int,
    upload_bits: int,
    threads: int = 1,
) -> bytearray:
    """Return `source` and CHECKS zeros, masked and packed; every thread takes a range of its own.

    returns  ceil((d + CHECKS) * upload_bits / 8) bytes
    raises   as lattice_chunks
    """
    check_threads(threads)
    length = source.length + CHECKS
    packed = bytearray(packed_bytes(length, upload_bits))
    whole = memoryview(packed)

    def part(where: tuple[int, int]) -> None:
        at = packed_bytes(where[0], upload_bits)
        for chunk in lattice_chunks(
            source,
            secret,
            public_seed=public_seed,
            noise_seed=noise_seed,
            ring_bits=ring_bits,
            upload_bits=upload_bits,
            first=where[0],
            end=where[1],
        ):
            whole[at : at + len(chunk)] = chunk
            at += len(chunk)

    in_threads(part, ranges(length, threads, _CHUNK))
    whole.release()
    return packed


def lattice_values(
    total: Words,
    secret: LatticeSecret,
    *,
    public_seed: bytes,
    ring_bits: int,
    upload_bits: int,
    uploads: int,
    threads: int = 1,
) -> UIntArray:
    """Take the mask off a sum of uploads.

    total    (d + CHECKS,), uint64: the sum of the entries, modulo 2^upload_bits or more
    secret   of the sum of the secrets
    uploads  in the sum
    returns  (d + CHECKS,) in the lane of ring_bits, below 2^ring_bits; the last CHECKS are 0 in a right sum
    raises   TypeError, ValueError
    """
    check_bits(ring_bits, upload_bits)
    check_threads(threads)
    noise_bits = upload_bits - ring_bits
    values = np.empty(vector("total", total, (np.uint64,)).size, lane_dtype(ring_bits))
    rounding = np.uint64(uploads // 2 + (1 << noise_bits - 1))

    def part(where: tuple[int, int]) -> None:
        mask = np.empty(_CHUNK, np.uint64)
        for at in range(where[0], where[1], _CHUNK):
            size = min(_CHUNK, where[1] - at)
            whole = mask[: -(-size // RING) * RING]
            lattice_mask(
                whole,
                None,
                secret,
                public_seed=public_seed,
                noise_seed=None,
                ring_bits=ring_bits,
                upload_bits=upload_bits,
                first=at // RING,
            )
            entries = whole[:size]
            np.subtract(total[at : at + size], entries, out=entries)
            entries += rounding
            entries &= np.uint64(ring_mask(upload_bits))
            entries >>= np.uint64(noise_bits)
            values[at : at + size] = entries

    in_threads(part, ranges(total.size, threads, _CHUNK))
    return values
