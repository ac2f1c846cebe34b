import os
import stat
from pathlib import Path

import pytest

from secagg import IdentityKey
from secagg.errors import KeyFileError
from secagg.key_files import read_identity, write_identity, write_private


def test_an_identity_survives_its_file_which_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    key = write_identity(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_identity(path).identity == key.identity


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    write_identity(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="party.key"):
        write_identity(path)
    assert path.read_bytes() == before


def test_a_private_file_is_its_owner_s_alone_from_its_first_byte_and_follows_no_link(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "a", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="exists"):
        write_private(tmp_path / "b", b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    write_identity(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode must be 0600, is 0640"):
        read_identity(path)


def test_a_damaged_key_file_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    write_private(path, b"deadbeef-not-hex")
    with pytest.raises(KeyFileError, match="64 hexadecimal") as caught:
        read_identity(path)
    assert "deadbeef" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_repr_shows_a_secret() -> None:
    key = IdentityKey.from_seed(bytes(range(32)))
    assert key.seed.hex() not in repr(key)
    assert str(key.seed) not in repr(key)
