"""The compiled module, loaded once, and how arrays become pointers. Nothing else imports it."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

try:
    from secagg.kernels import _native
except ImportError as error:  # a checkout shadows the installed package
    raise ImportError(
        "secagg's C extension is not built for this checkout; run `make` or `pip install -e .` here"
    ) from error

CData: TypeAlias = Any  # a C pointer

lib = _native.lib
NULL = _native.ffi.NULL


def _variants() -> dict[str, int]:
    found: dict[str, int] = {}
    needs = _native.ffi.new("uint32_t *")
    while (name := lib.sa_variant_at(len(found), needs)) != _native.ffi.NULL:
        found[_native.ffi.string(name).decode("ascii")] = needs[0]
    return found


# The variants of this build, widest first, with the CPU features each needs: what SECAGG_KERNEL may say.
VARIANTS: dict[str, int] = _variants()


def runnable() -> tuple[str, ...]:
    """Names of the variants that this machine can run, widest first."""
    have = lib.sa_cpu_features()
    return tuple(name for name, needs in VARIANTS.items() if needs & have == needs)


def select(name: str | None) -> None:
    """Use the variant `name`, or the widest one of this CPU (None). ImportError when it cannot run."""
    if name is not None and name not in VARIANTS:
        raise ImportError(f"SECAGG_KERNEL is {name!r}; this build has {', '.join(VARIANTS)}")
    if name is not None and name not in runnable():
        raise ImportError(f"SECAGG_KERNEL is {name!r}, which this CPU cannot run")
    lib.sa_select(0xFFFFFFFF if name is None else VARIANTS[name])


def variant() -> str:
    """Name of the kernel variant in use."""
    return _native.ffi.string(lib.sa_variant()).decode("ascii")


def read(array: NDArray[Any] | bytes | bytearray | memoryview, ctype: str) -> CData:
    """Pointer to the memory of a contiguous buffer, for reading."""
    return _native.ffi.from_buffer(ctype, array)


def write(array: NDArray[Any] | bytearray | memoryview, ctype: str) -> CData:
    """Pointer to the memory of a contiguous buffer, for writing."""
    return _native.ffi.from_buffer(ctype, array, require_writable=True)


def check_apart(name: str, buffer: memoryview, array: NDArray[Any]) -> None:
    """Raise ValueError when a buffer overlaps the array that a kernel changes."""
    if not buffer.readonly and buffer.nbytes:  # what is read-only here may still overlap, but by no accident
        other = np.frombuffer(buffer.cast("B"), np.uint8)
        if np.may_share_memory(other, array):
            raise ValueError(f"{name}: overlaps the array that is changed")


def vector(name: str, array: object, dtypes: tuple[type[np.generic], ...]) -> NDArray[Any]:
    """Return `array` if it is a one-dimensional contiguous array of one of `dtypes` in host order.

    Raises TypeError, ValueError; the message names the argument.
    """
    if not isinstance(array, np.ndarray) or array.dtype.type not in dtypes or not array.dtype.isnative:
        wanted = ", ".join(t.__name__ for t in dtypes)
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name}: an array of {wanted} is needed, got {got}")
    if array.ndim != 1 or not array.flags.c_contiguous:
        raise ValueError(f"{name}: must be one-dimensional and contiguous, has shape {array.shape}")
    return array


select(os.environ.get("SECAGG_KERNEL"))
