from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secagg import ParameterError
from secagg.registry import (
    CountersignatureError,
    DocumentSignatureError,
    ForkError,
    GapError,
    KeptRegistry,
    OtherFederationError,
    RegistryDocument,
    RollbackError,
    WrongOperatorError,
    countersign,
    demand,
    dump,
    found,
    hand_over,
    merged,
    revoke,
)
from secagg.service import Registry, RegistryError, accept_file, follow_file
from secagg.store import MemoryStore, SqliteStore, Store
from tests.registry.federation import OPERATOR, SECOND_OPERATOR, key, with_parties

CHAIN = with_parties("hospital-1", "hospital-2", "hospital-3")
BOARD, OTHER = key(70), key(71)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with SqliteStore(tmp_path / "state.db") as one:
            yield one


def kept(store: Store, **options: Any) -> KeptRegistry:
    return KeptRegistry(store, **{"federation": "icu", "operator": OPERATOR.identity} | options)


def test_what_was_accepted_stays_and_does_not_go_back(store: Store) -> None:
    registry = kept(store)
    assert registry.document is None
    assert not registry.registry().names
    assert len(registry.accept([CHAIN[1]])) == 1
    assert [str(one) for one in registry.accept(CHAIN[2:])] == [
        f"hospital-2 was enrolled as participant ({key(2).identity.hex()[:12]})",
        f"hospital-3 was enrolled as participant ({key(3).identity.hex()[:12]})",
    ]
    again = kept(store)
    assert again.document == CHAIN[3]
    assert sorted(again.registry().names.values()) == ["hospital-1", "hospital-2", "hospital-3"]
    assert not again.registry("auditor").names
    with pytest.raises(RollbackError):
        again.accept([CHAIN[2]])
    assert again.accept([CHAIN[3]]) == ()
    assert again.accept([]) == ()
    assert again.document == CHAIN[3]
    assert repr(again) == "KeptRegistry('icu')"


def test_what_is_refused_is_not_kept(store: Store) -> None:
    registry = kept(store)
    other = revoke(CHAIN[2], OPERATOR, 9_000, name="hospital-1")
    with pytest.raises(OtherFederationError):
        kept(store, federation="lab").accept(CHAIN)
    with pytest.raises(WrongOperatorError):
        kept(store, operator=BOARD.identity).accept(CHAIN)
    with pytest.raises(DocumentSignatureError):
        registry.accept([replace(CHAIN[0], time_ms=1)])
    with pytest.raises(GapError):
        registry.accept([CHAIN[0], CHAIN[2]])
    with pytest.raises(ForkError):
        registry.accept([*CHAIN, other])
    assert store.names("") == []
    registry.accept([CHAIN[2]])
    registry.accept([other])
    with pytest.raises(ForkError):
        registry.accept([CHAIN[3]])
    assert registry.document == other


def test_a_new_operator_is_followed(store: Store) -> None:
    named = hand_over(CHAIN[3], OPERATOR, 9_000, to=SECOND_OPERATOR.identity)
    after = revoke(named, SECOND_OPERATOR, 9_000, name="hospital-1")
    registry = kept(store)
    with pytest.raises(WrongOperatorError, match="for the versions in between"):
        registry.accept([after])
    registry.accept([named, after])
    assert registry.document == after


def test_who_lacks_versions_gets_them(store: Store) -> None:
    registry = kept(store)
    assert registry.since(0) == ()
    registry.accept(CHAIN[1:])
    assert registry.since(0) == (CHAIN[3],)
    assert registry.since(2) == tuple(CHAIN[2:])
    assert registry.since(4) == ()
    assert registry.since(1) == tuple(CHAIN[1:])
    late = kept(MemoryStore())
    late.accept(CHAIN[2:])
    with pytest.raises(RegistryError, match="version 2 is not here"):
        late.since(1)


def test_versions_wait_for_their_witnesses(store: Store) -> None:
    registry = kept(store, witnesses=[BOARD.identity, OTHER.identity], needed=2)
    with pytest.raises(CountersignatureError, match="0 of the witnesses have signed it, 2 must"):
        registry.accept(CHAIN)
    assert registry.since(0) == ()
    once = countersign(CHAIN[3], BOARD)
    with pytest.raises(
        CountersignatureError, match=f"for the countersignature of: {OTHER.identity.hex()[:12]}"
    ):
        registry.accept([*CHAIN[:3], once])
    twice = countersign(once, OTHER)
    assert len(registry.accept([*CHAIN[:3], twice])) == 3  # the newest covers those before it
    assert registry.since(0) == (twice,)
    assert registry.accept([CHAIN[3]]) == ()  # a copy without them takes none away
    assert registry.since(0) == (twice,)


def test_countersignatures_of_a_copy_are_kept(store: Store) -> None:
    registry = kept(store)
    registry.accept(CHAIN)
    registry.accept([countersign(CHAIN[3], BOARD)])
    registry.accept([countersign(CHAIN[3], OTHER)])
    document = registry.document
    assert document is not None
    assert {one.identity for one in document.countersignatures} == {BOARD.identity, OTHER.identity}
    demand(document, [BOARD.identity, OTHER.identity], 2)


def test_an_operator_is_no_witness() -> None:
    with pytest.raises(CountersignatureError, match="a witness is somebody else"):
        countersign(CHAIN[0], OPERATOR)
    with pytest.raises(CountersignatureError, match="ask for the countersignature of: another witness"):
        demand(CHAIN[0], [OPERATOR.identity], 1)


def test_a_witness_is_called_by_its_name() -> None:
    with pytest.raises(CountersignatureError, match="ask for the countersignature of: hospital-1$"):
        demand(CHAIN[3], [key(1).identity], 1)
    demand(countersign(CHAIN[3], key(1)), [key(1).identity], 1)
    demand(CHAIN[3], [], 0)
    with pytest.raises(ParameterError, match=r"needed: must be in 0..1, is 2"):
        demand(CHAIN[3], [key(1).identity], 2)


def test_a_countersignature_does_not_stand_for_another_or_for_a_version() -> None:
    forged = replace(CHAIN[3], countersignatures=countersign(CHAIN[2], BOARD).countersignatures)
    with pytest.raises(CountersignatureError):
        demand(forged, [BOARD.identity], 1)
    with pytest.raises(DocumentSignatureError):
        countersign(forged, OTHER)
    with pytest.raises(ForkError, match="not copies of one version"):
        merged(CHAIN[0], CHAIN[1])
    assert not revoke(countersign(CHAIN[3], BOARD), OPERATOR, 0, name="hospital-1").countersignatures


def in_file(path: Path, number: int, chain: list[RegistryDocument] = CHAIN) -> Path:
    path.write_text(dump(chain[number]))
    return path


def test_a_store_that_accepted_signatures_takes_no_file_without(tmp_path: Path, store: Store) -> None:
    plain, signed = tmp_path / "plain.toml", in_file(tmp_path / "signed.toml", 3)
    Registry.enrol(plain, "evil", lambda: key(99).identity)
    assert accept_file(plain, store) == []  # nothing is known yet
    assert OPERATOR.identity.hex() in accept_file(signed, store)[0]
    assert accept_file(signed, store) == []
    with pytest.raises(RegistryError, match="is not signed, and signed registries of icu"):
        accept_file(plain, store)
    with pytest.raises(RollbackError):
        accept_file(in_file(tmp_path / "older.toml", 2), store)


def test_another_federation_is_named_when_it_is_accepted(tmp_path: Path, store: Store) -> None:
    accept_file(in_file(tmp_path / "signed.toml", 3), store)
    other = found(SECOND_OPERATOR, "ward", 1_000)
    (said,) = accept_file(in_file(tmp_path / "other.toml", 0, [other]), store)
    assert said == f"ward, version 1: the first; its operator is {SECOND_OPERATOR.identity.hex()}"


def test_a_file_follows_the_one_that_a_party_was_admitted_with(tmp_path: Path) -> None:
    own = in_file(tmp_path / "own.toml", 2)
    follow_file(own, in_file(tmp_path / "newer.toml", 3))
    follow_file(own, own)
    with pytest.raises(RollbackError):
        follow_file(own, in_file(tmp_path / "older.toml", 1))
    with pytest.raises(OtherFederationError):
        follow_file(own, in_file(tmp_path / "other.toml", 0, [found(OPERATOR, "ward", 1_000)]))
    plain = tmp_path / "plain.toml"
    Registry.enrol(plain, "evil", lambda: key(99).identity)
    with pytest.raises(RegistryError, match="is not signed"):
        follow_file(own, plain)
    follow_file(plain, own)  # of a party that came before there were signatures
