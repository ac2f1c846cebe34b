"""Build and call bench/suites/limits.c: the AES issue limit and the memory bandwidth of this machine."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bench.harness import Effort, Figure, measure
from bench.machine import ROOT

BLOCK_BYTES = {"vaes512": 64, "vaes256": 32, "avx2": 16, "aesni": 16}  # of a register, by variant


@cache
def _library() -> ctypes.CDLL:
    source, built = Path(__file__).with_name("limits.c"), ROOT / "build" / "bench_limits.so"
    built.parent.mkdir(exist_ok=True)
    flags = ("-std=gnu11", "-O3", "-shared", "-fPIC")
    native = ("-march=native",)  # the copy and the addition may use all that the machine has
    subprocess.run(["cc", *flags, *native, "-o", str(built), str(source)], check=True)
    return ctypes.CDLL(str(built))


def aes_issue(variant: str, effort: Effort) -> tuple[Callable[[], object], int] | None:
    """AES-128 from registers alone, and the bytes that one call makes; None where there is no such loop."""
    if variant not in BLOCK_BYTES:
        return None
    name = "issue_aesni" if BLOCK_BYTES[variant] == 16 else f"issue_{variant}"
    run = getattr(_library(), name)
    run.argtypes, run.restype = [ctypes.c_size_t], ctypes.c_uint64
    groups = max(int(400_000 * effort.scale), 10)
    return lambda: run(groups), groups * 8 * BLOCK_BYTES[variant]


def memory(length: int, effort: Effort) -> dict[str, Figure]:
    """Seconds for one 32-bit entry: memcpy, and acc += values."""
    library = _library()
    to, source = (ctypes.create_string_buffer(4 * length) for _ in range(2))
    ctypes.memset(source, 1, 4 * length)
    pointers = ctypes.cast(to, ctypes.c_void_p), ctypes.cast(source, ctypes.c_void_p)
    library.copy.argtypes = library.add32.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return {
        "memcpy": measure(lambda: library.copy(*pointers, 4 * length), effort, calls=length),
        "add": measure(lambda: library.add32(*pointers, length), effort, calls=length),
    }
