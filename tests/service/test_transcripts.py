"""The service's transcripts, and the command that verifies them."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from secagg import IdentityKey, ParameterError, RoundAbortedError, RoundParameters
from secagg.cli import app
from secagg.service import Deadlines, RoundOpened, TranscriptFailed, Transcripts, TranscriptSealed
from secagg.store import LedgerError, MemoryStore, ParticipationLedger
from secagg.transcript import verify
from tests.service.cohort import PAYLOAD, cohort, settle

SERVER = IdentityKey.from_seed(b"\x77" * 32)


def recorded(folder: Path, *, keep_inputs: bool) -> Path:
    """Run a round of six; return its transcript."""

    async def run() -> Path:
        kept = Transcripts(folder=folder, signer=SERVER, keep_inputs=keep_inputs)
        async with cohort(transcripts=kept) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, Deadlines())
            await asyncio.gather(*tasks)
            (sealed,) = [event for event in c.events if isinstance(event, TranscriptSealed)]
            path = folder / sealed.file
            with path.open("rb") as file:
                report = verify(file, server=SERVER.identity)
            assert report.findings == ()
            assert report.transcript == sealed.address
            assert report.facts.survivors == set(result.survivors)
            if keep_inputs:
                assert report.total is not None
                assert np.array_equal(report.total, result.total)
            return path

    return asyncio.run(run())


def test_a_transcript_is_its_owner_s_alone_from_its_first_byte(tmp_path: Path) -> None:
    """Whatever the umask."""
    kept = Transcripts(folder=tmp_path, signer=SERVER)
    keys = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(4)]
    parameters = RoundParameters(round_id=bytes(16), vector_length=1, ring_bits=8, context=bytes(32))
    before = os.umask(0)
    try:
        session = kept.session(parameters, keys, 1)
    finally:
        os.umask(before)
    (partial,) = tmp_path.iterdir()
    assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    session.file.close()


@pytest.mark.parametrize("keep_inputs", [True, False], ids=["inputs", "no inputs"])
def test_a_round_leaves_a_transcript_that_the_command_verifies(tmp_path: Path, keep_inputs: bool) -> None:
    path = recorded(tmp_path, keep_inputs=keep_inputs)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = CliRunner().invoke(app, ["verify", str(path), "--server", SERVER.identity.hex()])
    assert done.exit_code == 0, done.output
    assert "verified" in done.output
    assert ("recomputed bit for bit" if keep_inputs else "cannot be recomputed") in done.output


def test_the_command_locates_what_was_changed_and_fails(tmp_path: Path) -> None:
    path = recorded(tmp_path, keep_inputs=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exit_code == 1
    assert "NOT verified" in done.output
    assert "entry " in done.output
    assert "its content is not what was sealed" in done.output


def test_the_transcript_of_another_server_is_not_verified(tmp_path: Path) -> None:
    path = recorded(tmp_path, keep_inputs=False)
    other = IdentityKey.from_seed(b"\x78" * 32).identity
    done = CliRunner().invoke(app, ["verify", str(path), "--server", other.hex()])
    assert done.exit_code == 1
    assert "not that of the server asked for" in done.output


def test_a_round_that_its_caller_gives_up_leaves_no_transcript(tmp_path: Path) -> None:
    async def run() -> None:
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER)) as c:
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, Deadlines()))
            await settle(lambda: any(isinstance(event, RoundOpened) for event in c.events))
            assert [name.rpartition(".")[2] for name in os.listdir(tmp_path)] == ["partial"]  # noqa: PTH208
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_a_round_that_fails_leaves_its_transcript(tmp_path: Path) -> None:
    async def run() -> None:
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER)) as c:
            with pytest.raises(RoundAbortedError):
                await c.run.round(c.parameters(), PAYLOAD, Deadlines(advertise_s=0.05))

    asyncio.run(run())
    (path,) = tmp_path.iterdir()
    with path.open("rb") as file:
        report = verify(file)
    assert report.ok
    assert report.facts.outcome == "aborted: cohort too small"


def test_a_round_that_the_ledger_does_not_let_begin_leaves_no_file(tmp_path: Path) -> None:
    async def run() -> None:
        book = ParticipationLedger(MemoryStore(), repeats="refuse")
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER), ledger=book) as c:
            book.uploaded(c.parameters().context, b"0" * 16, c.keys[3].identity, 0)
            with pytest.raises(LedgerError):
                await c.run.round(c.parameters(), PAYLOAD, Deadlines())
            with pytest.raises(ParameterError, match="admitted"):
                everybody = [key.identity for key in c.keys]
                await c.run.round(c.parameters(), PAYLOAD, Deadlines(), excluded=everybody)

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_a_sum_that_the_ledger_does_not_open_leaves_its_transcript(tmp_path: Path) -> None:
    async def run() -> None:
        book = ParticipationLedger(MemoryStore())
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER), ledger=book) as c:
            others = [*(key.identity for key in c.keys[:5]), b"x" * 32]
            book.released(c.parameters().context, b"0" * 16, [*others, c.keys[5].identity])
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            with pytest.raises(RoundAbortedError, match="it could show too few members"):
                await c.run.round(c.parameters(), PAYLOAD, Deadlines())
            await asyncio.gather(*tasks)

    asyncio.run(run())
    (path,) = tmp_path.iterdir()
    with path.open("rb") as file:
        report = verify(file, server=SERVER.identity)
    assert report.ok
    assert report.facts.outcome == "ended by the server: with other sums it could show too few members"
    assert len(report.facts.survivors) == 6
    assert report.facts.answered == {}


def test_a_record_that_cannot_be_written_is_told_and_costs_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    async def run() -> None:
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER)) as c:
            monkeypatch.setattr("os.fsync", full)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, Deadlines())
            await asyncio.gather(*tasks)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            (failed,) = [event for event in c.events if isinstance(event, TranscriptFailed)]
            assert failed.reason == "no space left on device"

    asyncio.run(run())
