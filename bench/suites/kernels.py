"""Suite "kernels": the C kernels beside the limits of the machine and the obvious alternatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from bench.harness import Effort, Figure, alternate, measure
from bench.suites.limits import aes_issue, memory
from secagg import kernels
from secagg.kernels import UIntArray, hadamard, mask_apply, pack, unpack_add

SEEDS = 64
PLUS = np.ones(1, np.int8)


class _Rows:
    """The table as it grows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, group: str, name: str, threads: int, figure: Figure) -> float:
        self.rows.append({"group": group, "name": name, "threads": threads, **figure.nanoseconds()})
        return float(self.rows[-1]["median_ns"])


def run(effort: Effort) -> dict[str, Any]:
    """Return rows of nanoseconds for one 32-bit entry (and mask), and the ratios that matter."""
    length = max(int(4_000_000 * effort.scale), 4096)
    before, rows = kernels.variant(), _Rows()
    try:
        ratios = _masks(rows, length, effort)
        for name, figure in memory(length, effort).items():
            rows.add("memory, ns per entry", name, 1, figure)
        for name in kernels.runnable():
            kernels.select(name)
            for what, call in _vector_kernels(length // 4).items():
                rows.add(f"{what}, ns per entry", name, 1, measure(call, effort, calls=length // 4))
    finally:
        kernels.select(before)
    return {"entries": length, "seeds": SEEDS, "rows": rows.rows, "ratios": ratios}


def _masks(rows: _Rows, length: int, effort: Effort) -> dict[str, float]:
    """Every variant beside its own limit and other generators; ratios of the widest one."""
    group, many, widest = "mask_apply, ns per entry and mask", kernels.usable_cpus(), kernels.runnable()[0]
    ours: dict[tuple[str, int], float] = {}
    limits: dict[str, float] = {}
    for name in kernels.runnable():
        kernels.select(name)
        if name == "portable":
            figure = measure(_masking(length // 16, 1), effort, calls=length // 16 * SEEDS)
            rows.add(group, "portable (AES of cryptography)", 1, figure)
            continue
        counts, limit = sorted({1, many}), aes_issue(name, effort)
        calls = [(_masking(length, threads), float(length * SEEDS)) for threads in counts]
        if limit is not None:
            calls.append((limit[0], limit[1] / 4))  # for an entry of four bytes
        figures = alternate(calls, effort)
        for threads, figure in zip(counts, figures, strict=False):
            ours[name, threads] = rows.add(group, name, threads, figure)
        if limit is not None:
            limits[name] = rows.add("AES-128 from registers alone", f"limit of {name}", 1, figures[-1])
    others = {
        name: rows.add(
            "other generators, ns per entry and mask", name, 1, measure(call, effort, calls=length)
        )
        for name, call in _streams(length).items()
    }
    if widest not in limits:
        return {}
    return {
        "AES issue limit / mask_apply": limits[widest] / ours[widest, 1],
        "AES-CTR + numpy / mask_apply": others["AES-128-CTR + numpy add"] / ours[widest, 1],
        f"1 thread / {many} threads": ours[widest, 1] / ours[widest, many],
    }


def _masking(length: int, threads: int) -> Any:  # noqa: ANN401 - a call without arguments
    acc = np.zeros(length, np.uint32)
    seeds = np.random.default_rng(1).bytes(32 * SEEDS)
    signs = np.where(np.arange(SEEDS) % 2 == 0, 1, -1).astype(np.int8)
    return lambda: mask_apply(acc, seeds, signs, threads=threads)


def _streams(length: int) -> dict[str, Any]:
    """One mask each: expand, then add with numpy."""
    acc = np.zeros(length, np.uint32)
    zeros, stream = bytes(4 * length), bytearray(4 * length + 63)

    def cipher(algorithm: Any, mode: Any) -> Any:  # noqa: ANN401
        def call() -> None:
            Cipher(algorithm, mode).encryptor().update_into(zeros, stream)
            np.add(acc, np.frombuffer(stream, np.uint32, length), out=acc)

        return call

    def pcg() -> None:
        np.add(acc, np.random.default_rng(1).integers(0, 2**32, length, np.uint32), out=acc)

    key, nonce = bytes(16), bytes(16)
    return {
        "AES-128-CTR + numpy add": cipher(algorithms.AES128(key), modes.CTR(nonce)),
        "AES-256-CTR + numpy add": cipher(algorithms.AES256(key * 2), modes.CTR(nonce)),
        "ChaCha20 + numpy add": cipher(algorithms.ChaCha20(key * 2, nonce), None),
        "numpy PCG64 + add (no cipher)": pcg,
    }


def _vector_kernels(length: int) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    calls: dict[str, Any] = {}
    for bits, lane in ((12, np.uint16), (18, np.uint32), (25, np.uint32), (32, np.uint32), (40, np.uint64)):
        values: UIntArray = rng.integers(0, 2**bits, length, np.uint64).astype(lane)
        packed = pack(values, bits)
        out = memoryview(bytearray(len(packed)))
        acc = np.zeros(length, lane)
        calls[f"pack {bits} bits"] = lambda v=values, b=bits, o=out: pack(v, b, o)
        calls[f"unpack_add {bits} bits"] = lambda a=acc, p=packed, b=bits: unpack_add(a, p, b)
    for dtype in (np.float32, np.float64):
        real: NDArray[Any] = rng.standard_normal(length).astype(dtype)
        options: dict[str, Any] = {"clip": 2.0, "scale": 30_000.0, "limit": 60_000, "ring_bits": 18}
        source = kernels.QuantizedVector(real, seed=bytes(32), **options)
        lanes = np.empty(length, np.uint32)
        calls[f"quantize {real.dtype.name} with its random bits"] = lambda s=source, o=lanes: s.read(0, o)
    ring = rng.integers(0, 2**18, length, np.uint64).astype(np.uint32)
    calls["dequantize"] = lambda: kernels.dequantize(ring, step=0.1, ring_bits=18)
    power = np.zeros(1 << (length.bit_length() - 1), np.float32)
    calls[f"hadamard of {power.size} with its signs"] = lambda: hadamard(power, seed=bytes(32))
    return calls
