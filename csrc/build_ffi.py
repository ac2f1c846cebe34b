"""Write the C source of the extension module from the public header (cffi, API mode)."""

import re
import sys
from pathlib import Path

import cffi


def declarations(header: str) -> str:
    """Return the header without preprocessor lines: what cffi's parser understands."""
    body = header.split("/* cffi: begin */")[1].split("/* cffi: end */", maxsplit=1)[0]
    return re.sub(r"^\s*#.*$", "", body, flags=re.MULTILINE)


def main() -> None:
    ffi = cffi.FFI()
    ffi.cdef(declarations((Path(__file__).parent / "secagg_kernels.h").read_text(encoding="utf-8")))
    ffi.set_source("secagg.kernels._native", '#include "secagg_kernels.h"')
    ffi.emit_c_code(sys.argv[1])


if __name__ == "__main__":
    main()
