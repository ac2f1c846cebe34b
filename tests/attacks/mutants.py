"""Remove each defence in turn and see which attacks succeed: `make mutants`.

A mutant is a change of the source that is made while the module is imported; nothing on disk changes.
Exits with status 1 when a defence can be removed unnoticed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.attacks.defences import DEFENCES, Defence

ROOT = Path(__file__).parents[2]
SUITE = ("test_lying_server.py", "test_lying_clients.py", "test_network.py", "test_hiding.py")
_TIMEOUT_S = 600


class _Mutator(MetaPathFinder):
    """Loads one module from its source with the defence removed."""

    def __init__(self, defence: Defence) -> None:
        self._defence = defence

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._defence.module:
            return None
        location = self._defence.path
        return importlib.util.spec_from_file_location(
            fullname, location, loader=_MutatedLoader(fullname, str(location), self._defence)
        )


class _MutatedLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, defence: Defence) -> None:
        super().__init__(fullname, path)
        self._defence = defence

    def get_code(self, fullname: str) -> Any:
        return compile(self._defence.removed(), self.path, "exec", dont_inherit=True)


class _Failures:
    """A pytest plugin that notes which tests failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.append(report.nodeid.removeprefix("tests/attacks/"))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            raise SystemExit(f"{report.nodeid}: cannot be collected: {report.longrepr}")


def _run_one(name: str, out: Path) -> None:
    """In a process of its own: install the mutant, run the suite, write the names of failing tests."""
    if name != "none":
        defence = next(defence for defence in DEFENCES if defence.name == name)
        if defence.module in sys.modules:
            raise SystemExit(f"{defence.module} is imported already")
        sys.meta_path.insert(0, _Mutator(defence))
    import pytest

    failures = _Failures()
    suite = [str(path) for path in (Path(__file__).parent / name for name in SUITE) if path.exists()]
    status = pytest.main(
        ["-q", "--no-header", "-p", "no:cacheprovider", "--tb=no", "-W", "ignore", *suite], [failures]
    )
    if status not in {0, 1}:
        raise SystemExit(f"pytest: status {int(status)}")
    out.write_text(json.dumps(failures.names))


def failing(name: str) -> list[str]:
    """Names of the attacks that succeed without this defence ("none": with all of them)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "failures.json"
        command = [sys.executable, "-m", "tests.attacks.mutants", "--one", name, "--out", str(out)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return list(json.loads(out.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these defences")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _run_one(arguments.one, arguments.out)
        return
    names = arguments.names or [defence.name for defence in DEFENCES]
    if unknown := set(names) - {defence.name for defence in DEFENCES}:
        raise SystemExit(f"no such defence: {', '.join(sorted(unknown))}")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(["none", *names], pool.map(failing, ["none", *names]), strict=True))
    if found["none"]:
        raise SystemExit(f"the suite fails with all defences in place: {found['none']}")
    for defence in DEFENCES:
        if defence.name not in found:
            continue
        attacks = found[defence.name]
        print(f"{defence.name}: {defence.about}")
        for attack in attacks or ["NOTHING FAILS: this defence can be removed unnoticed"]:
            print(f"    {attack}")
    survived = [name for name in names if not found[name]]
    print(
        f"{len(names)} defences removed in turn; {len(survived)} unnoticed: {', '.join(survived) or 'none'}"
    )
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
