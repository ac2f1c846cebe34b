"""A PostgreSQL of its own for tests: the system's programs, a new data folder, loopback only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_START_S = 30.0


def program(name: str) -> str | None:
    """Path of one of PostgreSQL's programs."""
    path = os.pathsep.join([*map(str, _PLACES), os.environ.get("PATH", "")])
    return shutil.which(name, path=path)


class Cluster:
    """A server that a test may kill, stop and start."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self) -> None:
        postgres = program("postgres")
        assert postgres is not None
        self._process = subprocess.Popen(
            [
                *(postgres, "-D", str(self.folder), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"),
                *("-c", f"unix_socket_directories={self.folder}", "-c", "max_connections=60"),
                *("-c", "shared_buffers=32MB", "-c", "log_min_messages=panic"),
            ],
            user=_owner(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _START_S
        while True:
            try:
                self.execute("SELECT 1")
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: ends at once, rolls back; SIGQUIT: as if the power went."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as db:
            found = db.execute(statement.encode())
            return list(found.fetchall()) if found.description else []

    def url(self, database: str) -> str:
        return f"postgresql://secagg:not-a-secret@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """URL of an empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def _owner() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one in a new folder; skip where there is none, but not in CI."""
    # Not in pytest's folder, which is root's alone where PostgreSQL runs as somebody else.
    with TemporaryDirectory(prefix="secagg-postgresql-") as folder:
        yield from _in(Path(folder))


def _in(folder: Path) -> Iterator[Cluster]:
    initdb = program("initdb")
    if initdb is None:
        assert "CI" not in os.environ, "PostgreSQL is not installed"
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    password = folder / "password"
    password.write_text("not-a-secret")
    data = folder / "data"
    data.mkdir()
    if (owner := _owner()) is not None:
        for path in (folder, password, data):
            shutil.chown(path, owner)
    subprocess.run(
        [
            *(initdb, "-D", str(data), "-U", "secagg", "--pwfile", str(password)),
            *("--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
        ],
        user=owner,
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = Cluster(data, port)
    one.start()
    try:
        yield one
    finally:
        one.stop()
