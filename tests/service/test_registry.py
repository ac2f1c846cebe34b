from pathlib import Path

import pytest

from secagg import IdentityKey
from secagg.service import Registry, RegistryError

ONE, TWO = (IdentityKey.from_seed(bytes([i]) * 32).identity for i in (1, 2))


def test_a_registry_survives_its_file(tmp_path: Path) -> None:
    registry = Registry.of([("b", TWO), ("a", ONE)])
    path = tmp_path / "registry.toml"
    path.write_text(registry.dump(), encoding="utf-8")
    assert Registry.load(path) == registry
    assert registry.name_of(ONE) == "a"
    assert registry.name_of(bytes(32)) == "000000000000"


@pytest.mark.parametrize(
    ("parties", "message"),
    [
        ([("a", ONE), ("a", TWO)], "party a: .*twice"),
        ([("a", ONE), ("b", ONE)], "party b: .*twice"),
        ([("", ONE)], "party.name"),
        ([("x y", ONE)], "party.name"),
        ([("a", ONE[:31])], "party a: identity: must be 32 bytes"),
        ([("a", (1).to_bytes(32, "little"))], "party a: .*small order"),
    ],
)
def test_a_bad_entry_is_named(parties: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        Registry.of(parties)


@pytest.mark.parametrize(
    "text", ["party = 3", "[[party]]\nname = 'a'", "[[party]]\nname='a'\nidentity='xy'", "\0", "x = 1"]
)
def test_a_file_that_is_no_registry_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError, match="registry.toml"):
        Registry.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="missing.toml"):
        Registry.load(tmp_path / "missing.toml")
