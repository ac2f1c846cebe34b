"""kill -9 of a server, a member and a client ahead of everything that they keep, and right after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.process
@pytest.mark.parametrize(("party", "steps", "out"), [("server", 40, 0), ("member", 8, 0), ("client", 4, 2)])
def test_whatever_step_it_is_killed_at_the_sum_is_that_of_those_that_spoke(
    party: str, steps: int, out: int, tmp_path: Path
) -> None:
    """A client that kept the round id and not its upload is out of the round, as the rules say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.protocol.oneshot.kills", str(tmp_path), party],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    words = done.stdout.split()
    assert int(words[0]) >= steps
    assert int(words[-1]) == out
