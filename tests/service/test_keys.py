import stat
from pathlib import Path

import pytest

from secagg.service import KeyFileError, ServerCredentials


def test_a_server_certificate_survives_its_files(tmp_path: Path) -> None:
    made = ServerCredentials.generate(["example.org", "10.0.0.1"])
    made.write(tmp_path / "server.crt", tmp_path / "server.key")
    assert stat.S_IMODE((tmp_path / "server.key").stat().st_mode) == 0o600
    read = ServerCredentials.load(tmp_path / "server.crt", tmp_path / "server.key")
    assert read == made
    assert len(read.digest) == 32
    assert ServerCredentials.load(tmp_path / "server.crt").private_key is None


def test_no_repr_shows_a_secret() -> None:
    assert "PRIVATE KEY" not in repr(ServerCredentials.generate())


def test_garbage_is_no_certificate(tmp_path: Path) -> None:
    path = tmp_path / "server.crt"
    path.write_bytes(b"garbage")
    with pytest.raises(KeyFileError, match="not a certificate"):
        ServerCredentials.load(path)
