from __future__ import annotations

import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.registry import (
    DocumentError,
    DocumentSignatureError,
    ForkError,
    GapError,
    RegistryDocument,
    RegistryFile,
    RollbackError,
    countersign,
    dump,
    load,
    parse,
    revoke,
)
from secagg.service import Registry, RegistryError
from tests.registry.federation import OPERATOR, full, key, with_parties

DOCUMENT = countersign(full(), key(9))
TEXT = dump(DOCUMENT)
CHAIN = with_parties("hospital-1", "hospital-2")


def test_a_document_survives_its_text() -> None:
    assert parse(TEXT) == DOCUMENT
    assert dump(parse(TEXT)) == TEXT
    assert 'roles = ["decryptor", "auditor"]\nstate = "active"\nsince = 4\n' in TEXT
    assert "time = 2026-01-02T03:04:05.679Z\n" in TEXT


@given(st.data())
def test_any_changed_byte_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    text = bytearray(TEXT, "ascii")
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 127))
    with suppress(RegistryError):
        assert parse(text.decode("ascii")) == DOCUMENT


@given(st.data())
def test_any_lost_line_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    lines = TEXT.splitlines(keepends=True)
    del lines[data.draw(st.integers(0, len(lines) - 1))]
    with suppress(RegistryError):
        assert parse("".join(lines)) == DOCUMENT


def test_blanks_comments_and_the_mark_of_utf_8_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    text = "\N{ZERO WIDTH NO-BREAK SPACE}" + TEXT.replace("\n", "  # seen\r\n")
    path.write_text(text, encoding="utf-8", newline="")
    assert load(path) == DOCUMENT


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 7\n", "", "'version' is missing"),
        ("version = 7\n", "version = true\n", "must be a number, is True"),
        ("version = 7\n", 'version = 7\nnote = "x"\n', "note: is nothing that a registry tells"),
        ('state = "revoked"\n', 'state = "gone"\n', "'gone' is not a valid State"),
        ('state = "revoked"\n', 'state = "active"\n', "the operator's signature is not that of this text"),
        ('["decryptor", "auditor"]', '["auditor", "decryptor"]', "party board: roles are written as"),
        ("05.679Z", "05.6791Z", "time: is finer than a millisecond"),
        ("05.679Z", "05.679", "time: must be a date with a time zone"),
        ("since = 4\n", 'since = 4\nboss = "me"\n', "boss: is nothing that a registry tells"),
        ("federation = ", "faction = ", "faction: is nothing"),
    ],
)
def test_what_was_not_signed_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RegistryError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "x = 1", "federation = 3", "party = 3\nsignature = 2", "[", "\0"])
def test_what_is_no_signed_registry_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError, match=r"registry.toml: no signed registry: "):
        load(path)
    with pytest.raises(RegistryError, match="missing.toml"):
        load(tmp_path / "missing.toml")


@pytest.mark.parametrize("name", ["party", "countersignature"])
@pytest.mark.parametrize("value", ["3", '"x"', "[3]", "[{name = 3}]", "{}", "[[]]"])
def test_a_list_of_something_else_is_refused(name: str, value: str) -> None:
    head = TEXT.split("\n\n", 1)[0]
    with pytest.raises(RegistryError):
        parse(f"{head}\n{name} = {value}\n")


def test_a_signed_registry_is_loaded_as_its_active_participants(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(TEXT, encoding="utf-8")
    assert Registry.load(path).names == {key(11).identity: "hospital-1"}
    path.write_text(TEXT.replace('"revoked"', '"active"'), encoding="utf-8")
    with pytest.raises(DocumentSignatureError):
        Registry.load(path)


def test_a_signed_registry_is_not_written_without_its_signature(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(RegistryError, match="is a signed registry: its operator takes parties in by"):
        Registry.enrol(path, "x", lambda: key(3).identity)
    assert path.read_text(encoding="utf-8") == TEXT


# --- the operator's copy


def kept(tmp_path: Path, chain: list[RegistryDocument]) -> RegistryFile:
    file = RegistryFile(tmp_path / "registry.toml")
    file.create(chain[0])
    for document in chain[1:]:
        file.edit(lambda _, made=document: made)  # type: ignore[misc]
    return file


def test_every_version_stays(tmp_path: Path) -> None:
    file = kept(tmp_path, CHAIN)
    assert file.document() == CHAIN[-1]
    assert file.chain() == tuple(CHAIN)
    with pytest.raises(RegistryError, match="exists"):
        file.create(CHAIN[0])


def test_a_change_that_does_not_follow_is_not_written(tmp_path: Path) -> None:
    file = kept(tmp_path, CHAIN)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = revoke(CHAIN[1], OPERATOR, 9_000, name="hospital-1")
    for made in (CHAIN[0], other, replace(CHAIN[2], signature=bytes(64))):
        with pytest.raises(DocumentError):
            file.edit(lambda _, made=made: made)  # type: ignore[misc]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_that_was_set_back_is_noticed(tmp_path: Path) -> None:
    file = kept(tmp_path, CHAIN)
    file.path.write_text(dump(CHAIN[1]), encoding="utf-8")
    for attempt in (file.chain, lambda: file.edit(lambda document: document)):
        with pytest.raises(RollbackError, match=r"000003.toml is there: the file was set back"):
            attempt()


def test_a_folder_that_was_left_behind_is_caught_up(tmp_path: Path) -> None:
    file = kept(tmp_path, CHAIN[:2])
    (file.history / "000002.toml").unlink()  # as if a process had ended before it
    file.edit(lambda document: revoke(document, OPERATOR, 9_000, name="hospital-1"))
    assert [document.version for document in file.chain()] == [1, 2, 3]


def test_a_folder_of_another_past_is_noticed(tmp_path: Path) -> None:
    file = kept(tmp_path, CHAIN)
    (file.history / "000002.toml").unlink()
    with pytest.raises(GapError, match="versions 2 to 2 are missing"):
        file.chain()
    other = revoke(CHAIN[1], OPERATOR, 9_000, name="hospital-1")
    file.path.write_text(dump(other), encoding="utf-8")
    (file.history / "000002.toml").write_text(dump(replace_time(CHAIN[1])), encoding="utf-8")
    with pytest.raises(ForkError):
        file.chain()


def replace_time(document: RegistryDocument) -> RegistryDocument:
    changed: dict[str, Any] = {"time_ms": document.time_ms + 1, "signature": b""}
    return replace(document, **changed).sign(OPERATOR)


def test_the_text_is_toml() -> None:
    table = tomllib.loads(TEXT)
    assert [party["name"] for party in table["party"]] == ["board", "hospital-1", "hospital-2"]
