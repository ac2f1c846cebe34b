"""A server and its sites wait for each other, and say for whom; what waits costs nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fedcore.cli.progress import Progress
from fedcore.service import join as joining
from fedcore.service import serve as serve_module
from fedcore.service import sums
from fedcore.service.join import join
from fedcore.service.oneshot_sums import OneShotSum
from fedcore.service.serve import serve
from fedcore.service.sums import ServedSum
from secagg.service import ServiceError
from tests.fedcore.service.test_join import PATIENT, Run, told
from tests.fedcore.sites import make_sites
from tests.service.cohort import settle

GRACEFUL = replace(PATIENT, grace_s=0.2, advertise_grace_s=0.2)  # who is absent costs no more
PROTOCOLS = pytest.mark.parametrize("kind", [sums.ServiceSum, OneShotSum])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_SETTLES_S", 0.1)
    monkeypatch.setattr(serve_module, "_FAREWELL_S", 0.5)  # who never came is not told of the end


async def _listening(run: Run, serving: asyncio.Task[Any]) -> str:
    history = run.folder / "history.jsonl"
    await settle(lambda: serving.done() or (history.exists() and bool(run.events("listening"))))
    return str(run.events("listening")[0]["address"])


def _joins(run: Run, name: str, address: str) -> asyncio.Task[Any]:
    return asyncio.create_task(join(run.join_options(name, address, reveal=None), run.said[name].append))


def test_a_server_waits_for_enough_names_who_is_missing_and_spends_no_attempt(tmp_path: Path) -> None:
    run = Run(tmp_path, make_sites(5), GRACEFUL, start_s=0.1)  # four are enough
    names = list(run.sites)

    async def go() -> None:
        serving = asyncio.create_task(serve(run.serve_options()))
        address = await _listening(run, serving)
        tasks = [_joins(run, name, address) for name in names[:3]]

        def three() -> bool:
            return any(event["here"] == names[:3] for event in run.events("waiting"))

        await settle(three)
        assert not run.events("round_opened")
        tasks.append(_joins(run, names[3], address))
        await serving
        await asyncio.gather(*tasks)

    asyncio.run(go())
    waited = next(event for event in run.events("waiting") if event["here"] == names[:3])
    assert (waited["missing"], waited["needed"]) == (names[3:], 4)
    assert all(event["completed"] for event in run.events())
    assert {tuple(event["survivors"]) for event in run.events()} == {tuple(names[:4])}


def sums_over(kind: type[ServedSum[Any]], connected: Iterable[bytes], run: Run) -> ServedSum[Any]:
    """What sums over a server of which only who is connected is looked at."""
    never: Any = None
    pairwise: Any = {"gone": {}, "subjects": never, "ledger": never} if kind is sums.ServiceSum else {}
    served = SimpleNamespace(connected=frozenset(connected), edges=frozenset())
    options = run.serve_options()
    return kind(served=served, loop=never, options=options, instance=b"", on_task=never, **pairwise)


@PROTOCOLS
def test_a_wait_ends_with_its_server(kind: type[ServedSum[Any]], tmp_path: Path) -> None:
    run, ended = Run(tmp_path, make_sites(4), PATIENT), list[str]()

    sums_ = sums_over(kind, (), run)

    def wait() -> None:
        with pytest.raises(ServiceError, match="the server was stopped while it waited"):
            sums_.ready()
        ended.append("it did")

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    sums_.close()
    waiting.join(20)
    assert ended == ["it did"]


def test_a_site_waits_for_the_server_and_says_so_every_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "QUIET_S", 0.2)
    monkeypatch.setattr(joining, "_LOOK_S", 0.01)
    run = Run(tmp_path, make_sites(4), PATIENT)
    names = list(run.sites)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    nobody = f"waits for the server at {address}: nothing listens there (yet)"

    async def go() -> None:
        first = _joins(run, names[0], address)
        await settle(lambda: told(run.said[names[0]]).count(nobody) >= 2)
        serving = asyncio.create_task(serve(run.serve_options(address=address)))
        await settle(lambda: "waits for the others" in run.said[names[0]])
        tasks = [first, *(_joins(run, name, address) for name in names[1:])]
        await serving
        await asyncio.gather(*tasks)

    asyncio.run(go())
    assert any(line.startswith("train 2: done") for line in told(run.said[names[0]]))


@pytest.mark.parametrize(
    ("here", "wants"),
    [
        (["a", "b"], "waits for 2 more: 2 of 4 needed are here (a, b), missing: c, d, e"),
        (list("abcd"), "waits for the rest: 4 of 4 needed are here (a, b, c, d), missing: e"),
        ([], "waits for 4 more: 0 of 4 needed are here (none), missing: a, b, c, d, e"),
    ],
)
def test_the_console_says_who_is_there_and_who_is_missing(
    here: list[str], wants: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [name for name in "abcde" if name not in here]
    show: Callable[[dict[str, Any]], None] = Progress(Console()).show
    show({"event": "waiting", "here": here, "missing": missing, "needed": 4})
    assert capsys.readouterr().out.strip() == wants


@PROTOCOLS
def test_sums_of_some_of_the_sites_are_not_waited_for_without_end(
    kind: type[ServedSum[Any]], tmp_path: Path
) -> None:
    run = Run(tmp_path, make_sites(5), replace(PATIENT, advertise_s=0.2))

    gone, *there = run.registry.identities
    drawn = sums_over(kind, there, run)
    drawn._started = True
    drawn_names = [run.registry.name_of(one) for one in (gone, *there[:3])]
    waiting = threading.Thread(target=drawn.ready, args=(drawn_names,), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()  # the attempt says who is missing
