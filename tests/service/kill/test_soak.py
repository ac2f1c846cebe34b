"""Many rounds, while server and clients are killed at any time: exact sums or clean ends, nothing grows."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg.store.sql import AuditLog, Database
from tests.service.kill import soaker, victim
from tests.service.kill.conftest import free_port
from tests.service.kill.victim import RING_BITS, N, Place

pytestmark = [pytest.mark.process, pytest.mark.slow]
_STUCK_S = 90.0  # without a round


class Soak:
    """The processes, and the rounds that have an outcome."""

    def __init__(self, forkserver: ForkServerContext, place: Place, rounds: int, seed: int) -> None:
        self._forkserver, self._place, self._rounds = forkserver, place, rounds
        self._random = random.Random(seed)
        self.processes: dict[str, BaseProcess] = {}
        self.killed: Counter[str] = Counter()

    def start(self, name: str) -> None:
        call: Any = soaker.serve if name == "server" else soaker.take_part
        last = self._rounds if name == "server" else int(name)
        self.processes[name] = self._forkserver.Process(target=call, args=(self._place, last))
        self.processes[name].start()

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].join()
        self.killed["server" if name == "server" else "client"] += 1
        self.start(name)

    def count(self) -> int:
        return len(list(self._place.folder.glob("outcomes/*")))

    def outcomes(self) -> list[dict[str, Any]]:
        paths = [self._place.folder / "outcomes" / str(number) for number in range(1, self._rounds + 1)]
        return [json.loads(path.read_bytes()) for path in paths]

    def until(self, rounds: int, victims: list[str]) -> None:
        """Go on to so many rounds; meanwhile some of these are killed, at any time."""
        seen, since = self.count(), time.monotonic()
        while seen < rounds:
            time.sleep(self._random.uniform(0.02, 0.4))
            if (now := self.count()) > seen:
                seen, since = now, time.monotonic()
            assert time.monotonic() - since < _STUCK_S, f"nothing comes after round {seen}"
            if seen == self._rounds:
                return  # clients have heard of it
            for name, process in self.processes.items():
                over = process.exitcode == 0 and self.count() == self._rounds
                assert over or process.is_alive(), f"{name} ended with {process.exitcode}"
            if victims and self._random.random() < 0.6:
                self.kill(self._random.choice(victims))

    def finish(self) -> None:
        until = time.monotonic() + _STUCK_S
        for i in range(N):
            self.processes[str(i)].join(max(0.0, until - time.monotonic()))
            assert self.processes[str(i)].exitcode == 0
        (self._place.folder / "done").touch()
        self.processes["server"].join(_STUCK_S)
        assert self.processes["server"].exitcode == 0


@contextmanager
def soaking(soak: Soak) -> Iterator[Soak]:
    try:
        for name in ("server", *map(str, range(N))):
            soak.start(name)
        yield soak
    finally:
        for process in soak.processes.values():
            process.kill()
            process.join()


def check_sums(outcomes: list[dict[str, Any]]) -> int:
    """Every sum is exact over its members; returns how many there are."""
    sums = [one for one in outcomes if "members" in one]
    for one in sums:
        expected = np.sum([victim.vector(i) for i in one["members"]], axis=0, dtype=np.uint64) % 2**RING_BITS
        assert len(one["members"]) >= 4
        assert one["total"] == expected.tolist()
    return len(sums)


def check_frames(folder: Path) -> None:
    """Of each kind one frame, ever, in a round: no second upload under one mask, no other shares."""
    for i in range(N):
        sent = {tuple(line.split()) for line in (folder / f"frames-{i}").read_text().splitlines()}
        assert not [kind for kind, times in Counter(kind for kind, _ in sent).items() if times > 1]


def check_rest(place: Place, rounds: int) -> None:
    names = os.listdir(place.folder / "spool")  # noqa: PTH208
    assert [name.rpartition(".")[2] for name in names] in ([], ["total"])
    with Database(place.url) as database, database.connection() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM messages").scalar_one() == 0
        assert db.exec_driver_sql("SELECT count(*) FROM rounds").scalar_one() == rounds
        assert AuditLog(database, None, database.now).head().index == rounds + 1  # start, registry, rounds


def soak(forkserver: ForkServerContext, place: Place, wild: int, calm: int, seed: int) -> None:
    """Rounds in which the server and clients are killed, then some in which it stays, and is weighed."""
    clients = [str(i) for i in range(N)]
    with soaking(Soak(forkserver, place, wild + calm, seed)) as one:
        one.until(wild, clients + N * ["server"])
        database = place.folder / "server.db"
        before = database.stat().st_size if database.exists() else 0
        one.until(wild + calm, clients)
        one.finish()
    outcomes = one.outcomes()
    assert check_sums(outcomes) >= len(outcomes) // 2
    assert one.killed["server"] > 0
    assert one.killed["client"] > 0
    check_frames(place.folder)
    check_rest(place, wild + calm)
    weighed = [one for one in outcomes if one["pid"] == outcomes[-1]["pid"]][calm // 3 :]
    assert weighed[-1]["fds"] <= weighed[0]["fds"] + 2 * N
    assert weighed[-1]["rss"] <= weighed[0]["rss"] + 20_000 + 50 * len(weighed)  # KiB
    if before:
        assert database.stat().st_size - before < 64_000 + 20_000 * calm  # outcomes, ledger and audit log
    print(f"{len(outcomes)} rounds, {check_sums(outcomes)} sums, killed: {dict(one.killed)}")  # noqa: T201


@pytest.mark.exhaustive
def test_a_short_soak(forkserver: ForkServerContext, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "server.db"), tmp_path, free_port())
    soak(forkserver, place, wild=12, calm=9, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_soak(forkserver: ForkServerContext, place: Place) -> None:
    rounds = int(os.environ.get("SOAK_ROUNDS", "300"))
    soak(forkserver, replace(place, spooled=True), wild=rounds * 2 // 3, calm=rounds // 3, seed=2)
