"""The service's transcripts, and the command that verifies them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from secagg import IdentityKey, RoundAbortedError
from secagg.cli import app
from secagg.service import Deadlines, Transcripts, TranscriptSealed
from secagg.transcript import verify
from tests.service.cohort import PAYLOAD, cohort

SERVER = IdentityKey.from_seed(b"\x77" * 32)


def recorded(folder: Path, *, keep_inputs: bool) -> Path:
    """Run a round of six; return its transcript."""

    async def run() -> Path:
        kept = Transcripts(folder=folder, signer=SERVER, keep_inputs=keep_inputs)
        async with cohort(transcripts=kept) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.server.run_round(c.parameters(), PAYLOAD, Deadlines())
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


@pytest.mark.parametrize("keep_inputs", [True, False], ids=["inputs", "no inputs"])
def test_a_round_leaves_a_transcript_that_the_command_verifies(tmp_path: Path, keep_inputs: bool) -> None:
    path = recorded(tmp_path, keep_inputs=keep_inputs)
    assert list(tmp_path.iterdir()) == [path]
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


def test_a_round_that_is_stopped_leaves_no_transcript(tmp_path: Path) -> None:
    async def run() -> None:
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER)) as c:
            running = asyncio.create_task(c.server.run_round(c.parameters(), PAYLOAD, Deadlines()))
            await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_a_round_that_fails_leaves_its_transcript(tmp_path: Path) -> None:
    async def run() -> None:
        async with cohort(transcripts=Transcripts(folder=tmp_path, signer=SERVER)) as c:
            with pytest.raises(RoundAbortedError):
                await c.server.run_round(c.parameters(), PAYLOAD, Deadlines(advertise_s=0.05))

    asyncio.run(run())
    (path,) = tmp_path.iterdir()
    with path.open("rb") as file:
        report = verify(file)
    assert report.ok
    assert report.facts.outcome == "aborted: cohort too small"
