"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz.run --seconds 60`.

Without --target all targets run in one process, and the first byte of an input says which it is for.
The status is 0 unless a promise was broken; then the input is left in --findings, for
`python -m tests.fuzz.run INPUT`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

_LARGEST = 1 << 14
_PACKAGES = ("secagg", "fedcore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--corpus", type=Path, help="keep what is found here; used again by the next run")
    parser.add_argument("--findings", type=Path, default=Path(), help="where an input that fails is left")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("inputs", nargs="*", help="run these files, which begin with the target's place")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _fuzz(arguments, Path(folder))


def _fuzz(arguments: argparse.Namespace, folder: Path) -> None:
    atheris: Any = importlib.import_module("atheris")  # it has no types, and no wheel for some platforms
    sys.meta_path.insert(0, _PlainLoader())
    with atheris.instrument_imports(include=list(_PACKAGES)):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
        mutate = importlib.import_module("tests.fuzz.mutate").mutated
        inputs = importlib.import_module("tests.fuzz.corpus").inputs
    places = [i for i, one in enumerate(targets) if arguments.target in {None, one.name}]
    if not places:
        raise SystemExit(f"no such target: {arguments.target}")
    seeds = {place: inputs(targets[place]) for place in places}
    started = folder / "seeds"
    started.mkdir()
    whole = [bytes([place]) + data for place in places for data in seeds[place]]
    for i, data in enumerate(whole):
        (started / str(i)).write_bytes(data)
    found = arguments.corpus or folder / "found"
    found.mkdir(parents=True, exist_ok=True)
    arguments.findings.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={arguments.seconds}",
        f"-seed={arguments.seed}",
        f"-max_len={_LARGEST}",
        f"-artifact_prefix={arguments.findings}/",
        "-len_control=0",
        "-keep_seed=1",  # states of sessions differ in more than coverage
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, *(arguments.inputs or (str(found), str(started)))],
        _one_input(targets, places),
        custom_mutator=_mutator(atheris, targets, mutate, places, seeds),
    )
    atheris.Fuzz()


class _PlainLoader(MetaPathFinder):
    """Has sources of an editable installation loaded as plain files: only these does atheris instrument."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _PACKAGES:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.origin is not None and spec.origin.endswith(".py"):
                    spec.loader = SourceFileLoader(fullname, spec.origin)
                return spec
        return None


def _one_input(targets: Sequence[Any], places: Sequence[int]) -> Callable[[bytes], None]:
    def one_input(data: bytes) -> None:
        if data and data[0] in places:
            targets[data[0]].run(data[1:])

    return one_input


def _mutator(
    atheris: Any,
    targets: Sequence[Any],
    mutate: Callable[[Any, bytes, Random, list[bytes]], bytes],
    places: Sequence[int],
    seeds: dict[int, list[bytes]],
) -> Callable[[bytes, int, int], bytes]:
    """Half of the changes are ours, half are libFuzzer's; these leave the target as it is."""

    def mutator(data: bytes, largest: int, seed: int) -> bytes:
        random = Random(seed)
        if not data or data[0] not in places:
            place = random.choice(places)
            return bytes([place]) + random.choice(seeds[place])
        place, rest = data[0], data[1:]
        if random.randrange(2):
            out: bytes = mutate(targets[place], rest, random, seeds[place])
        else:
            out = atheris.Mutate(rest, largest - 1)
        return (bytes([place]) + out)[:largest]

    return mutator


if __name__ == "__main__":
    main()
