"""Other stacks, each in an environment of its own: secagg installs beside it, without conflict, and runs.

.ci/hosts.py [NAME...]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "hosts"
PLAIN = ("tests/embedding/test_conformance.py", "tests/embedding/test_plain_calls.py")
HOSTS_TESTS = "tests/embedding/hosts"


@dataclass(frozen=True)
class Host:
    """An environment: what is installed, then what is without what it needs, and the adapter's tests."""

    name: str
    packages: tuple[str, ...]
    imports: str
    tests: tuple[str, ...] = PLAIN
    alone: tuple[str, ...] = ()


OLDEST = ("numpy==1.23.5", "cffi==1.16.0", "cryptography==40.0.2", "pynacl==1.5.0")
CORE = ("tests/protocol/client", "tests/protocol/server", "tests/protocol/test_round.py")
# What its workflow interface needs beside, in versions that go together.
OPENFL = ("openfl==1.9", "dill==0.3.6", "metaflow==2.7.15", "nbdev==2.3.37", "fastcore<2", "execnb<0.2")
OPENFL = (*OPENFL, "nbformat", "ray", "tabulate", "numpy<2")
SYFT_FLWR = ("syft-flwr==0.4.3", "syft-rds<0.6")
SECRETFLOW = ("secretflow-lite==1.5.0.dev20240321", "setuptools<70")  # its Ray wants pkg_resources
# All that Fed-BioMed needs but MONAI, ITK, pyarrow and unet, which are for images; one build of torch.
FEDBIOMED = (
    *("torch==2.13.0", "torchvision==0.28.0", "opacus>=1.6", "cryptography==40.0.2", "gmpy2<2.2"),
    *("grpcio==1.82.*", "grpcio-tools==1.82.*", "joblib", "msgpack==1.*", "nibabel==5.*", "packaging==24.*"),
    *(
        "declearn==2.8.*",
        "pandas<3",
        "pathvalidate==3.0.*",
        "persist-queue<0.6",
        "polars==1.32.*",
        "psutil==6.0.*",
    ),
    *("pygments==2.18.*", "pyopenssl==23.1.*", "python-minifier==2.11.*", "requests", "scikit-learn"),
    *("tabulate<0.10", "tensorboard==2.18.*", "tinydb==4.7.*", "validators<0.21"),
)
HOSTS = (
    Host("oldest-core", OLDEST, "cryptography", (*PLAIN, *CORE, "tests/embedding/test_participant.py")),
    Host("flower-1.23", ("flwr==1.23.0", "numpy<2"), "flwr", (f"{HOSTS_TESTS}/test_flower.py",)),
    Host("flower-1.41", ("flwr==1.41.0", "numpy>=2"), "flwr", (*PLAIN, HOSTS_TESTS)),
    Host("flower-newest", ("flwr>=1.41", "numpy>=2"), "flwr", (f"{HOSTS_TESTS}/test_flower.py",)),
    Host("flare", ("nvflare>=2.9,<3", "numpy>=2"), "nvflare", (*PLAIN, HOSTS_TESTS)),
    Host("flare-numpy-1", ("nvflare>=2.9,<3", "numpy<2"), "nvflare"),
    Host("declearn", ("declearn[websockets]>=2.8,<3", "numpy>=2"), "declearn", (*PLAIN, HOSTS_TESTS)),
    Host("pfl", ("pfl>=0.5", "numpy>=2"), "pfl", (f"{HOSTS_TESTS}/test_pfl.py",)),
    Host("openfl", OPENFL, "openfl", (f"{HOSTS_TESTS}/test_openfl.py",)),
    Host("syft-flwr", SYFT_FLWR, "syft_flwr", (f"{HOSTS_TESTS}/test_syft_flwr.py",)),
    Host("secretflow", SECRETFLOW, "secretflow", (f"{HOSTS_TESTS}/test_secretflow.py",)),
    Host(
        "fedbiomed",
        FEDBIOMED,
        "fedbiomed",
        (f"{HOSTS_TESTS}/test_fedbiomed.py",),
        alone=("fedbiomed==6.4.1",),
    ),
)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; end with its status if it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}")


def conflicts(python: Path) -> set[str]:
    """Return what `pip check` says."""
    done = subprocess.run([str(python), "-m", "pip", "check"], capture_output=True, text=True, check=False)
    return set(done.stdout.splitlines()) if done.returncode else set()


def made(host: Host, wheel: Path) -> Path:
    """Make the environment; returns its Python."""
    folder = FOLDER / host.name
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, *host.packages)
    if host.alone:
        run(*install, "--no-deps", *host.alone)
    before = conflicts(python)
    run(*install, wheel, *host.packages)  # again: what secagg needs must not move the host's own
    if added := conflicts(python) - before:
        raise SystemExit(f"{host.name}: secagg adds conflicts: {added}")
    run(python, "-c", f"import {host.imports}, secagg.embedding", cwd=folder)
    run(*install, "pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
    return python


def check(host: Host, python: Path) -> None:
    """Run what the environment is for."""
    folder = FOLDER / host.name
    shutil.copytree(
        ROOT / "tests", folder / "tests"
    )  # beside the checkout: its packages would be tested instead
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning")
    marks = ("-m", "host or not (exhaustive or soak or fuzz or peers or host)")
    run(*command, *marks, *host.tests, cwd=folder)


def main() -> None:
    """Check the hosts that are named, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.whl"):
        old.unlink()
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", FOLDER, ROOT)
    (wheel,) = FOLDER.glob("*.whl")
    names = sys.argv[1:] or [host.name for host in HOSTS]
    if unknown := set(names) - {host.name for host in HOSTS}:
        raise SystemExit(f"no such host: {', '.join(sorted(unknown))}")
    chosen = [host for host in HOSTS if host.name in names]
    with ThreadPoolExecutor(1) as ahead:  # an environment is made while the one before it is tested
        making = [(host, ahead.submit(made, host, wheel)) for host in chosen]
        try:
            for host, python in making:
                ready = python.result()
                sys.stdout.write(f"--- {host.name}\n")
                sys.stdout.flush()
                check(host, ready)
        finally:
            ahead.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
