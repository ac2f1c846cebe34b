"""Everything that reads bytes of others keeps its promises on any bytes (`targets.py` says which)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from secagg.effects import Effect
from secagg.messages import wire
from secagg.messages.fields import malformed
from secagg.params import Buffer, Identity
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.oneshot import Contributor, DecryptorSession, OneShotServer
from tests.fuzz.corpus import inputs, kept
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS, PROCESSES = 30, 2
LONG_SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
TRIED = {
    "transcript": 100,
    "server": 150,
    "client": 500,
    "client_snapshot": 300,
    "server_snapshot": 200,
    "oneshot_server": 500,
    "oneshot_client": 800,
}
ENDS = {"outcome": 3, "hello": 4, "records": 8, "schema": 5}

every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def try_changed(target: Target, tried: int) -> None:
    """Run the target on changes of what is recorded and kept."""
    random, seeds = Random(f"quick {target.name}"), inputs(target)
    for _ in range(tried):
        data = mutated(target, random.choice(seeds), random, seeds)
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{target.name}, input {data.hex()}") from error


@every_target
def test_no_recorded_or_kept_input_breaks_a_promise(target: Target) -> None:
    assert kept(target)
    ends = set()
    for data in inputs(target):
        try:
            ends.add(target.run(data))
        except Exception as error:
            raise AssertionError(f"{target.name}, input {data.hex()}") from error
    # One that never gets beyond its first check would promise little.
    assert len(ends) >= ENDS.get(target.name, 15)


@every_target
def test_no_change_of_an_input_breaks_a_promise(target: Target) -> None:
    try_changed(target, TRIED.get(target.name, 1500))


# --- what is broken on purpose is noticed ----------------------------------------------------------


def named(name: str) -> Target:
    return next(target for target in TARGETS if target.name == name)


def noticed(name: str) -> None:
    with pytest.raises(AssertionError, match=f"{name}, input"):
        try_changed(named(name), 3000)


@pytest.mark.parametrize("name", ["frame", "message"])
def test_a_decoder_of_lists_in_any_order_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_order(_name: str, _field: Any, items: Sequence[Any]) -> Sequence[Any]:
        return tuple(sorted(items, key=lambda item: item if isinstance(item, bytes) else wire.encode(item)))

    monkeypatch.setattr(wire, "_ascending", in_order)
    noticed(name)


@pytest.mark.parametrize("name", ["frame", "message"])
def test_a_decoder_of_long_numbers_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lax(_name: str, data: memoryview, at: int) -> tuple[int, int]:
        value = shift = 0
        while at < len(data):
            value |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                return value, at
        raise malformed("ends within a number")

    monkeypatch.setattr(wire, "_varint", lax)
    noticed(name)


def lax(fault: Callable[[Any], None], receive: Callable[..., list[Effect]]) -> Callable[..., list[Effect]]:
    """Return a `receive` that does something wrong when it refuses a message for its signature."""

    def changed(session: Any, *arguments: Buffer | Identity) -> list[Effect]:
        effects = receive(session, *arguments)
        if any(str(getattr(effect, "reason", "")) in {"bad signature", "malformed"} for effect in effects):
            fault(session)
        return effects

    return changed


def raises(_session: Any) -> None:
    raise KeyError("a lookup without a check")


def forgets(session: Any) -> None:
    session._answered = {}


def gives_up(session: Any) -> None:
    session._gone = {next(iter(session._admitted))}


def forgets_rounds(session: Any) -> None:
    session._rounds = {}


def gives_a_member_up(session: Any) -> None:
    session._gone = {session._view.committee.members[0]}


def takes_no_vector(session: Any) -> None:
    session._entropy = None


@pytest.mark.parametrize(
    ("name", "session", "fault"),
    [
        ("client", ClientSession, raises),
        ("client", ClientSession, forgets),
        ("server", ServerSession, raises),
        ("server", ServerSession, gives_up),
        ("oneshot_member", DecryptorSession, raises),
        ("oneshot_member", DecryptorSession, forgets_rounds),
        ("oneshot_server", OneShotServer, raises),
        ("oneshot_server", OneShotServer, gives_a_member_up),
        ("oneshot_client", Contributor, raises),
        ("oneshot_client", Contributor, takes_no_vector),
    ],
)
def test_a_session_that_raises_or_changes_when_it_refuses_is_noticed(
    name: str, session: type, fault: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive: Callable[..., list[Effect]] = session.receive  # type: ignore[attr-defined]
    monkeypatch.setattr(session, "receive", lax(fault, receive))
    noticed(name)


# --- guided by coverage ----------------------------------------------------------------------------


def fuzz(seconds: int, folder: Path, *options: str) -> None:
    """Fuzz in several processes; a finding fails the test."""
    if importlib.util.find_spec("atheris") is None:
        pytest.fail("atheris is not installed: there are wheels for CPython on Linux, x86-64")
    command = [sys.executable, "-m", "tests.fuzz.run", "--seconds", str(seconds), *options]
    running = [
        subprocess.Popen(
            [*command, "--seed", str(seed), "--findings", str(folder / str(seed))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in range(1, PROCESSES + 1)
    ]
    try:
        for process in running:
            out, _ = process.communicate(timeout=seconds + 240)
            assert process.returncode == 0, out[-6000:]
            assert "DONE" in out, out[-6000:]
            assert "no interesting inputs" not in out, out[-6000:]
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.process
@pytest.mark.skipif(os.environ.get("CI") != "true", reason="takes a minute of two cores: on CI only")
def test_a_minute_guided_by_coverage_finds_nothing(tmp_path: Path) -> None:
    fuzz(SECONDS, tmp_path)


@pytest.mark.fuzz
@pytest.mark.process
@pytest.mark.timeout(LONG_SECONDS + 300)
def test_a_long_run_guided_by_coverage_finds_nothing() -> None:
    """The corpus is kept, so that a later run starts where this one ended."""
    folder = ROOT / "build" / "fuzz" / "python"
    left = LONG_SECONDS
    while left > 0:  # anew every half hour: the fuzzer's own memory grows
        fuzz(min(left, 1800), folder / "findings", "--corpus", str(folder / "corpus"))
        left -= 1800
