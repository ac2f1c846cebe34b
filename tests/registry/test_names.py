import subprocess
import sys
from pathlib import Path

import pytest

from secagg import Identity, IdentityKey
from secagg.service import Registry, RegistryError, read_identity

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


@pytest.mark.process
def test_parties_that_enrol_at_once_are_all_in_the_registry(tmp_path: Path) -> None:
    """Eight that started together left five in the file, and all said that they were."""
    command = [sys.executable, "-m", "secagg.cli", "keygen"]
    started = [
        subprocess.Popen(
            [
                *command,
                tmp_path / f"{i}.key",
                "--name",
                f"site-{i}",
                "--registry",
                tmp_path / "registry.toml",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for i in range(8)
    ]
    ended = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 8, ended
    found = Registry.load(tmp_path / "registry.toml")
    assert sorted(found.names.values()) == [f"site-{i}" for i in range(8)]
    for i in range(8):
        assert found.name_of(read_identity(tmp_path / f"{i}.key").identity) == f"site-{i}"


def test_a_name_that_is_taken_makes_no_key(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    Registry.enrol(path, "a", lambda: ONE)
    made: list[int] = []

    def make() -> Identity:
        made.append(1)
        return TWO

    with pytest.raises(RegistryError, match=r"party a: is in .*registry\.toml already"):
        Registry.enrol(path, "a", make)
    assert not made
    assert Registry.load(path).names == {ONE: "a"}
    assert Registry.enrol(path, "b", make).names == {ONE: "a", TWO: "b"}
    assert sorted(one.name for one in tmp_path.iterdir()) == [".registry.toml.lock", "registry.toml"]


def test_a_registry_without_signatures_may_have_keys_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text('federation = "icu"\n' + Registry.of([("a", ONE)]).dump(), encoding="utf-8")
    assert Registry.load(path).names == {ONE: "a"}


def test_a_registry_with_the_mark_of_utf_8_is_read(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text("\N{ZERO WIDTH NO-BREAK SPACE}" + Registry.of([("a", ONE)]).dump(), encoding="utf-8")
    assert Registry.load(path).names == {ONE: "a"}
