"""The newest registry document that somebody has accepted, kept so that it never goes back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from secagg.errors import RegistryError
from secagg.params import Identity
from secagg.registry.chain import check_chain, check_first, lacking
from secagg.registry.changes import Change, changes
from secagg.registry.document import RegistryDocument, Role
from secagg.registry.file import RegistryFile
from secagg.registry.names import Registry, signed
from secagg.registry.witnesses import demand, merged
from secagg.store.store import Store

_PREFIX = "registry/"
_DIGITS = 10  # of a version in a name: names ascend as versions do


class KeptRegistry:
    """What is accepted of a federation's registry: by a server, or by a client.

    store       where it is kept; every accepted version, so that a server can give what others lack
    federation  its name
    operator    whose signature the first document must have; afterwards the documents say who signs
    witnesses   identities whose countersignatures count, and
    needed      how many of them a version needs to be accepted

    May be used from several threads and, where the store allows it, from several processes.
    """

    def __init__(
        self,
        store: Store,
        *,
        federation: str,
        operator: Identity,
        witnesses: Collection[Identity] = (),
        needed: int = 0,
    ) -> None:
        self._store = store
        self._federation = federation
        self._operator = operator
        self._witnesses = frozenset(witnesses)
        self._needed = needed

    @property
    def document(self) -> RegistryDocument | None:
        """The newest that was accepted; None: none was."""
        names = self._store.names(self._prefix)
        return self._read(names[-1]) if names else None

    def registry(self, role: str = Role.PARTICIPANT) -> Registry:
        """Return who is active in a role; nobody before the first document."""
        document = self.document
        return Registry({}) if document is None else document.registry(role)

    def accept(self, documents: Iterable[RegistryDocument]) -> tuple[Change, ...]:
        """Keep documents, in any order, that lead from what is kept to a newer version; say what changed.

        The first time the earliest must be signed by the operator. The newest is what witnesses must have
        signed: it covers those before. A copy of the version that is kept brings its countersignatures.

        raises  DocumentError, and nothing is kept; StoreError
        """
        given = sorted(documents, key=lambda document: document.version)
        if not given:
            return ()
        with self._store.transaction():
            known = self.document
            if known is None:
                check_first(given[0], federation=self._federation, operator=self._operator)
            start = given[0] if known is None else known
            newest = check_chain(start, given)
            if known is not None and newest.version == known.version:
                for copy in (one for one in given if one.version == known.version):
                    known = merged(known, copy)
                demand(known, self._witnesses, self._needed)
                self._store.put({self._name(known): known.encoded()})
                return ()
            demand(newest, self._witnesses, self._needed)
            new = [one for one in given if known is None or one.version > known.version]
            self._store.put({self._name(one): one.encoded() for one in new})
            return changes(known, newest)

    def since(self, version: int) -> tuple[RegistryDocument, ...]:
        """Return the versions that somebody lacks who knows `version`; 0: only the newest.

        raises  RegistryError: the version after it is not kept here
        """
        if version == 0:
            document = self.document
            return () if document is None else (document,)
        first = f"{self._prefix}{version + 1:0{_DIGITS}d}"
        names = [name for name in self._store.names(self._prefix) if name >= first]
        return lacking(map(self._read, names), version)

    @property
    def _prefix(self) -> str:
        return f"{_PREFIX}{self._federation}/"

    def _name(self, document: RegistryDocument) -> str:
        return f"{self._prefix}{document.version:0{_DIGITS}d}"

    def _read(self, name: str) -> RegistryDocument:
        return RegistryDocument.decoded(self._store.get(name) or b"")

    def __repr__(self) -> str:
        return f"KeptRegistry({self._federation!r})"


def accept_file(
    path: Path, store: Store, *, witnesses: Collection[Identity] = (), needed: int = 0
) -> list[str]:
    """Accept the signed registry in a file, and the versions beside it, into a store; say what changed.

    The operator of the first is believed, and named: it is the one whose invitation the party took. A file
    without signatures says nothing of its past: it is left alone by a store that has accepted none with them.

    raises  RegistryError: not signed, where one that was has been accepted; DocumentError: it goes back, or
            does not follow what was accepted; StoreError
    """
    if not signed(path):
        if federations := sorted({name.split("/")[1] for name in store.names(_PREFIX)}):
            raise RegistryError(
                f"{path}: is not signed, and signed registries of {', '.join(federations)} were accepted "
                "before: take the operator's file"
            )
        return []
    documents = RegistryFile(path).chain()
    kept = KeptRegistry(
        store,
        federation=documents[0].federation,
        operator=documents[0].operator,
        witnesses=witnesses,
        needed=needed,
    )
    known = kept.document is not None
    told = kept.accept(documents)
    if known:
        return [str(change) for change in told]
    first, newest = documents[0], documents[-1]
    said = f"the first; its operator is {first.operator.hex()}"
    return [f"{first.federation}, version {newest.version}: {said}"]


def follow_file(own: Path, given: Path) -> None:
    """Check that a file is of the federation and operator of the registry that a party was admitted with.

    Versions between the two need not be there, unless the operator changed in one of them.

    raises  RegistryError: it is not signed; DocumentError: it is of another federation or operator, goes back
    """
    if not signed(own):
        return
    if not signed(given):
        raise RegistryError(f"{given}: is not signed, and {own} is: take the operator's file")
    known, documents = RegistryFile(own).chain()[-1], RegistryFile(given).chain()
    if documents[0].version > known.version + 1:
        check_first(documents[0], federation=known.federation, operator=known.signer_after)
        known = documents[0]
    check_chain(known, documents)
