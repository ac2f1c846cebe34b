"""Processes that are forked from one that has imported everything: a start costs milliseconds."""

from __future__ import annotations

import multiprocessing
import socket
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.service.kill.victim import Place


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.service.kill.victim"])
    return context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    port = free_port()
    if request.param == "sqlite":
        return Place(str(tmp_path / "server.db"), tmp_path, port)
    url = str(request.getfixturevalue("postgresql").new_database())
    return Place(url, tmp_path, port, lease_s=0.6)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come back at once."""
    monkeypatch.setattr("secagg.service.line._RETRY_S", 0.02)
    monkeypatch.setattr("secagg.service.line._RETRY_MOST_S", 0.1)
