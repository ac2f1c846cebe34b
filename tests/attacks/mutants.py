"""Remove each defence in turn and see which attacks succeed: `make mutants`.

A mutant is a change of the source that is made while the module is imported; nothing on disk changes.
`matrix.json` keeps, for each defence, some attacks that succeeded without it when they were last looked
for; they are tried first, and when they all fail the whole suite is run. Exits with status 1 when a
defence can be removed unnoticed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.attacks import (
    defences_committee,
    defences_embedding,
    defences_hybrid,
    defences_oneshot,
    defences_service,
    defences_tables,
    defences_ways,
)
from tests.attacks.defence import Defence
from tests.attacks.defences import DEFENCES

ROOT = Path(__file__).parents[2]
MATRIX = Path(__file__).parent / "matrix.json"
_SERVER_LIES = ("tests/attacks/test_lying_server.py", "tests/attacks/test_hiding.py")
_OTHERS_LIE = ("tests/attacks/test_lying_clients.py", "tests/attacks/test_network.py")
_STATE = (
    "tests/protocol/client/test_consent.py",
    "tests/protocol/client/test_vault.py",
    "tests/protocol/client/test_policy.py",
    "tests/protocol/client/test_share_keys.py",
    "tests/protocol/client/test_snapshot.py",
    "tests/store",
    "tests/service/test_ledger.py",
    "tests/service/test_seat.py",
    "tests/transcript",
    "tests/test_hygiene.py",
)
_SERVICE = (
    *(
        f"tests/service/test_{name}.py"
        for name in (
            *("hello", "keys", "seat", "transcripts", "ledger", "hostile", "service"),
            *("durable", "limits", "strangers", "admission", "audit", "ends", "streams", "heart", "reach"),
            "network_faults",
        )
    ),
    "tests/test_key_files.py",
    "tests/registry/test_kept.py",
    "tests/service/oneshot/test_liars.py",
)
_EMBEDDING = (
    "tests/embedding",
    "tests/store/test_folder.py",
    "tests/store/test_ledger.py",
    "tests/fedcore/codec/test_mean.py",
    "tests/test_digests.py",
)
_TRAINING = (
    "tests/attacks/training",
    *(
        f"tests/fedcore/rounds/test_{name}.py"
        for name in (
            "lying_server",
            "site_guard",
            "no_oracle",
            "local_training",
            "site",
            "agreement",
            "options",
            "losses",
        )
    ),
    "tests/fedcore/privacy",
    "tests/fedcore/service",
    "tests/test_cli.py",
)
_TABLES = (
    *(f"tests/fedcore/data/test_{name}.py" for name in ("layout", "reading", "dataset", "files")),
    "tests/fedcore/learners/test_per_person.py",
    "tests/fedcore/statistics/test_filled.py",
    "tests/fedcore/rounds/test_losses.py",
    "tests/fedcore/evaluation/test_prediction.py",
    "tests/fedcore/evaluation/test_numbers.py",
)
_WAYS = (
    "tests/attacks/training/test_rows.py",
    *(f"tests/fedcore/statistics/test_{name}.py" for name in ("moments",)),
    *(
        f"tests/fedcore/rounds/test_{name}.py"
        for name in ("parameter_types", "state", "options", "lying_server")
    ),
    *(f"tests/fedcore/service/test_{name}.py" for name in ("resuming", "waiting", "renewed", "join")),
    "tests/fedcore/strategies/test_averaging.py",
    "tests/fedcore/data/test_watch.py",
    "tests/fedcore/test_foreign.py",
    "tests/fedcore/test_settings.py",
    "tests/service/test_reach.py",
)
_ONESHOT = (
    "tests/attacks/oneshot",
    "tests/protocol/oneshot",
    "tests/transcript/test_oneshot.py",
    "tests/test_local_oneshot.py",
    "tests/test_params_oneshot.py",
)
_COMMITTEE = ("tests/service/oneshot", "tests/store/sql")
_HYBRID = (
    "tests/attacks/test_hybrid.py",
    "tests/protocol/test_hybrid.py",
    "tests/primitives/test_hybrid.py",
    "tests/service/test_hybrid.py",
)
_FOUND = 3  # attacks that are kept per defence
_SLOWEST = 20  # of which the time is shown
_HANGS_S = 40  # many times what any of these tests takes: without its defence it waits for ever
_TIMEOUT_S = 900


class _Mutator(MetaPathFinder):
    """Loads one module from its source with the defence removed."""

    def __init__(self, defence: Defence) -> None:
        self._defence = defence

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._defence.module:
            return None
        location = str(self._defence.path)
        loader = _MutatedLoader(fullname, location, self._defence)
        return importlib.util.spec_from_file_location(fullname, location, loader=loader)


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
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:  # an attack that plays its round when it is imported
            self.names.append(report.nodeid)


def _run_one(name: str, tests: Sequence[str], limit: int, out: Path) -> None:
    """In a process of its own: install the mutant, run tests, write the names of those that fail."""
    if name:
        defence = next(defence for defence in DEFENCES if defence.name == name)
        if defence.module in sys.modules:
            raise SystemExit(f"{defence.module} is imported already")
        sys.meta_path.insert(0, _Mutator(defence))
    import pytest

    failures = _Failures()
    options = [
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        "-W",
        "ignore",
        f"--timeout={_HANGS_S}",
    ]
    options += [f"--maxfail={limit}"] if limit else ["--continue-on-collection-errors"]
    if not name:  # a mutant is in one process
        options += ["-n", "auto", "--dist", "worksteal"]
    status = pytest.main([*options, *tests], [failures])
    # 2: stopped early; 4: a test of the matrix is gone, or its module cannot be imported
    if status not in {0, 1, 2, 4} or (status == 4 and not failures.names and not name):
        raise SystemExit(f"pytest: status {int(status)}")
    out.write_text(json.dumps(failures.names))


def failing(name: str, tests: Sequence[str], limit: int) -> list[str]:
    """Attacks among these tests that succeed without a defence ("": with all of them)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "failures.json"
        command = [sys.executable, "-m", "tests.attacks.mutants", "--one", name, "--out", str(out)]
        run = partial(
            subprocess.run,
            [*command, "--limit", str(limit), *tests],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        done = run()
        if done.returncode < 0:  # a signal: a test that was stopped within a library may take it along
            done = run()
        if done.returncode:
            raise SystemExit(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return list(json.loads(out.read_text()))


def find(defence: Defence, known: Mapping[str, list[str]], *, every: bool) -> list[str]:
    """Attacks that succeed without a defence: those known to, or else the first that the suite shows."""
    tests = known.get(defence.name, [])
    if not every and tests and (found := failing(defence.name, tests, 1)):
        return found
    return failing(defence.name, _suite(defence), 0 if every else 1)


def _suite(defence: Defence) -> tuple[str, ...]:
    """All attacks, first those that are most likely to meet the defence."""
    if defence in defences_tables.DEFENCES:
        return (*_TABLES, "tests/registry/test_names.py", *_TRAINING)
    if defence in defences_ways.DEFENCES:
        return _WAYS
    if defence in defences_embedding.DEFENCES:
        return _EMBEDDING
    if defence in defences_hybrid.DEFENCES:
        return _HYBRID
    if defence in defences_committee.DEFENCES:
        return _COMMITTEE
    if defence in defences_oneshot.DEFENCES:
        return _ONESHOT
    if defence in defences_service.DEFENCES and defence.module.startswith("secagg."):
        return (*_SERVICE, *_STATE, *_OTHERS_LIE)
    if defence.module.startswith("fedcore.") or defence.module.endswith(".context"):
        return _TRAINING
    if any(part in defence.module for part in (".service.", ".embedding.", ".registry.", ".key_files")):
        return (*_SERVICE, *_STATE)
    if any(part in defence.module for part in (".server.", ".messages.", ".recovery")):
        return (*_OTHERS_LIE, *_SERVER_LIES, *_STATE)
    if any(part in defence.module for part in (".vault", ".store.", ".transcript.")):
        return (*_STATE, *_SERVER_LIES, *_OTHERS_LIE)
    return (*_SERVER_LIES, *_STATE, *_OTHERS_LIE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these defences")
    parser.add_argument("--all", action="store_true", help="find every attack, in the whole suite")
    parser.add_argument("--record", action="store_true", help="write what was found to matrix.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.out:
        _run_one(arguments.one, arguments.names, arguments.limit, arguments.out)
        return
    chosen = [one for one in DEFENCES if not arguments.names or one.name in arguments.names]
    if unknown := set(arguments.names) - {one.name for one in chosen}:
        raise SystemExit(f"no such defence: {', '.join(sorted(unknown))}")
    known: dict[str, list[str]] = json.loads(MATRIX.read_text()) if MATRIX.exists() else {}
    whole = sorted({test for one in chosen for test in known.get(one.name, ())})
    if whole and (broken := failing("", whole, 0)):
        raise SystemExit(f"these fail with all defences in place: {broken}")

    took: dict[str, float] = {}

    def search(defence: Defence) -> list[str]:
        began = time.monotonic()
        try:
            return find(defence, known, every=arguments.all)
        finally:
            took[defence.name] = time.monotonic() - began

    found = _show(chosen, search)
    for name in sorted(took, key=took.__getitem__, reverse=True)[:_SLOWEST]:
        print(f"{took[name]:6.1f} s {name}")
    if arguments.record:
        for name, attacks in found.items():
            if not set(attacks) <= set(known.get(name, ())):
                known[name] = attacks[:_FOUND]
        kept = {one.name: known.get(one.name, []) for one in DEFENCES}
        MATRIX.write_text(json.dumps(kept, indent=1) + "\n")
    unnoticed = [name for name, attacks in found.items() if not attacks]
    print(f"{len(found)} defences removed in turn; unnoticed: {', '.join(unnoticed) or 'none'}")
    sys.exit(bool(unnoticed))


def _show(chosen: Sequence[Defence], search: Callable[[Defence], list[str]]) -> dict[str, list[str]]:
    """Print the matrix as it comes."""
    found = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for defence, attacks in zip(chosen, pool.map(search, chosen), strict=True):
            found[defence.name] = attacks
            print(f"{defence.name}: {defence.about}")
            for attack in attacks or ["NOTHING FAILS: this defence can be removed unnoticed"]:
                print(f"    {attack.removeprefix('tests/')}", flush=True)
    return found


if __name__ == "__main__":
    main()
