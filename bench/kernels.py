"""Suite "kernels": the C kernels beside the limits of the machine and the obvious alternatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.harness import Effort, measure
from bench.limits import aes_issue_seconds_per_byte, memory
from secagg import kernels
from secagg.kernels import UIntArray, hadamard, mask_apply, pack, quantize, unpack_add

SEEDS = 64
PLUS = np.ones(1, np.int8)


def run(effort: Effort) -> dict[str, Any]:
    """Return rows of nanoseconds for one 32-bit entry (and mask), and the ratios that the issue names."""
    length = max(int(4_000_000 * effort.scale), 4096)
    before = kernels.variant()
    rows: list[dict[str, Any]] = []

    def add(group: str, name: str, threads: int, figure: Any, units: float = 1) -> float:  # noqa: ANN401
        rows.append({"group": group, "name": name, "threads": threads, **figure.per(units)})
        return float(rows[-1]["median_ns"])

    masks: dict[str, float] = {}
    limits: dict[str, float] = {}
    try:
        for name in kernels.runnable():
            kernels.select(name)
            if name != "portable":
                for threads in sorted({1, kernels.usable_cpus()}):
                    figure = measure(_masking(length, threads), effort, calls=length * SEEDS)
                    masks[f"{name} x{threads}"] = add("mask_apply, ns per entry and mask", name, threads, figure)
            if (limit := aes_issue_seconds_per_byte(name, effort)) is not None:
                limits[name] = add("AES-128 from registers alone", f"limit of {name}", 1, limit, 0.25)
        kernels.select("portable")
        figure = measure(_masking(length // 16, 1), effort, calls=length // 16 * SEEDS)
        add("mask_apply, ns per entry and mask", "portable (cryptography)", 1, figure)
    finally:
        kernels.select(before)
    for name, call in _streams(length).items():
        masks[name] = add("other generators, ns per entry and mask", name, 1, measure(call, effort, calls=length))
    for name, figure in memory(length, effort).items():
        add("memory, ns per entry", name, 1, figure)
    for name in kernels.runnable():
        kernels.select(name)
        try:
            for what, call in _vector_kernels(length // 4, portable=name == "portable").items():
                add(f"{what}, ns per entry", name, 1, measure(call, effort, calls=length // 4))
        finally:
            kernels.select(before)
    widest = kernels.runnable()[0]
    ratios = {}
    if widest in limits:
        ratios["AES issue limit / mask_apply"] = limits[widest] / masks[f"{widest} x1"]
        ratios["AES-CTR + numpy / mask_apply"] = masks["AES-128-CTR + numpy add"] / masks[f"{widest} x1"]
        if (many := f"{widest} x{kernels.usable_cpus()}") in masks:
            ratios[f"1 thread / {kernels.usable_cpus()} threads"] = masks[f"{widest} x1"] / masks[many]
    return {"entries": length, "seeds": SEEDS, "rows": rows, "ratios": ratios}


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


def _vector_kernels(length: int, *, portable: bool) -> dict[str, Any]:
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
        real = rng.standard_normal(length).astype(dtype)
        options: dict[str, Any] = {"clip": 2.0, "scale": 30_000.0, "limit": 60_000, "ring_bits": 18}
        source = kernels.QuantizedVector(real, seed=bytes(32), **options)
        lanes = np.empty(length, np.uint32)
        calls[f"quantize {real.dtype.name} with its random bits"] = lambda s=source, o=lanes: s.read(0, o)
    calls["dequantize"] = lambda v=quantize(
        rng.standard_normal(length), seed=bytes(32), clip=2.0, scale=1e4, limit=60_000, ring_bits=18
    ): kernels.dequantize(v, step=0.1, ring_bits=18)
    power = np.zeros(1 << max(length.bit_length() - 1, 0), np.float32)
    if not portable:
        calls["hadamard with its signs"] = lambda v=power: hadamard(v, seed=bytes(32))
    return calls
