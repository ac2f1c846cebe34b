"""Whether a registry document follows the one that is known: nobody is shown another past."""

from __future__ import annotations

from collections.abc import Iterable

from secagg.errors import RegistryError
from secagg.params import Identity
from secagg.registry.document import Party, RegistryDocument
from secagg.registry.errors import (
    ForkError,
    GapError,
    IdentityChangedError,
    OtherFederationError,
    PartyHistoryError,
    RevokedReturnedError,
    RollbackError,
    WrongOperatorError,
)


def check_first(document: RegistryDocument, *, federation: str, operator: Identity) -> None:
    """Check the first document that somebody sees, of any version, against what is known otherwise.

    operator  whose signature is believed, as told by an invitation

    raises    DocumentSignatureError, IdentityChangedError, OtherFederationError, WrongOperatorError
    """
    _check_federation(document, federation)
    document.check()
    if document.operator != operator:
        raise WrongOperatorError(
            f"registry {federation}, version {document.version}: is signed by {document.operator.hex()}, "
            f"and the operator that is known here is {operator.hex()}: ask the operator by another "
            f"way whether its key was replaced, and for the versions in between"
        )


def check_successor(known: RegistryDocument, new: RegistryDocument) -> None:
    """Check that `new` is what is known already, or the version after it.

    raises  DocumentError: one of DocumentSignatureError, OtherFederationError, WrongOperatorError,
            RollbackError, ForkError, GapError, IdentityChangedError, RevokedReturnedError, PartyHistoryError
    """
    _check_federation(new, known.federation)
    new.check()
    called = f"registry {new.federation}, version {new.version}"
    if new.version < known.version:
        raise RollbackError(
            f"{called}: version {known.version} is known here, and versions do not go back: get the newest "
            f"from the operator"
        )
    if new.version == known.version:
        _check_same(known, new)
        return
    if new.version > known.version + 1:
        missing = f"{known.version + 1} to {new.version - 1}"
        raise GapError(
            f"{called}: version {known.version} is known here, and versions {missing} are missing: "
            f"put the operator's folder registry.toml.history beside the file, it has every version"
        )
    if new.operator != known.signer_after:
        raise WrongOperatorError(
            f"{called}: is signed by {new.operator.hex()}, and version {known.version} names "
            f"{known.signer_after.hex()} as its operator: do not use it, and tell the operator"
        )
    if new.before != known.digest:
        raise ForkError(
            f"{called}: follows another version {known.version} than the one known here "
            f"({new.before.hex()[:12]}, not {known.digest.hex()[:12]}): somebody was shown another registry; "
            f"keep both files, and ask the operator"
        )
    if new.time_ms < known.time_ms:
        raise PartyHistoryError(
            f"{called}: was made before version {known.version}: set the operator's clock"
        )
    _check_parties(known, new)


def check_chain(known: RegistryDocument, documents: Iterable[RegistryDocument]) -> RegistryDocument:
    """Check documents, in any order, that lead from the known one to the newest, which is returned.

    Versions before the known one do not matter where newer ones are given.
    raises  DocumentError, as `check_successor`
    """
    given = sorted(documents, key=lambda document: document.version)
    if given and given[-1].version < known.version:
        check_successor(known, given[-1])
    for document in given:
        if document.version >= known.version:
            check_successor(known, document)
            known = document
    return known


def _check_federation(document: RegistryDocument, federation: str) -> None:
    if document.federation != federation:
        raise OtherFederationError(
            f"registry {document.federation}, version {document.version}: is of another federation than "
            f"{federation}: take the file of {federation}"
        )


def _check_same(known: RegistryDocument, new: RegistryDocument) -> None:
    if new.digest == known.digest:
        return
    called = f"registry {new.federation}, version {new.version}"
    if new.operator != known.operator:
        raise WrongOperatorError(
            f"{called}: is signed by {new.operator.hex()}, and the operator of this version is "
            f"{known.operator.hex()}: do not use it, and tell the operator"
        )
    raise ForkError(
        f"{called}: there are two of it, both signed by the operator ("
        f"{known.digest.hex()[:12]} is known here, not {new.digest.hex()[:12]}): somebody was "
        f"shown another registry; keep both files, and ask the operator"
    )


def _check_parties(known: RegistryDocument, new: RegistryDocument) -> None:
    """Compare every party with what was known of it. The identities of a document are unique in it."""
    after = {party.name: party for party in new.parties}
    for party in known.parties:
        if party.name not in after:
            raise PartyHistoryError(
                f"party {party.name}: is not in version {new.version} any more: names are kept for ever, "
                f"revoke it instead"
            )
        _check_party(party, after.pop(party.name), new.version)
    for party in after.values():
        if party.former or not party.active or party.since != new.version:
            raise PartyHistoryError(
                f"party {party.name}: is new in version {new.version}, and tells of a past: enrol it as "
                f"active, since this version"
            )


def _check_party(party: Party, now: Party, version: int) -> None:
    if now.active and not party.active:
        raise RevokedReturnedError(
            f"party {party.name}: was revoked in version {party.since}, and is active in version {version}: "
            f"enrol it under another name, with another identity"
        )
    if now.identities[: len(party.identities)] != party.identities:
        raise IdentityChangedError(
            f"party {party.name}: its identity was {party.identity.hex()}, and is {now.identity.hex()} in "
            f"version {version} without the former key's signature: revoke it, and enrol it under "
            f"another name"
        )
    added = now.former[len(party.former) :]
    if now.former[: len(party.former)] != party.former or any(one.until != version for one in added):
        raise PartyHistoryError(
            f"party {party.name}: version {version} tells otherwise when, or how, its identity changed"
        )
    if now.since != (party.since if now.state is party.state else version):
        raise PartyHistoryError(
            f"party {party.name}: is {now.state} since version {now.since} by version {version}, which "
            f"should say {party.since if now.state is party.state else version}"
        )
    if not party.active and (added or now.roles != party.roles):
        raise PartyHistoryError(
            f"party {party.name}: was revoked in version {party.since}, and changes in version {version}: "
            f"leave it as it was"
        )


def lacking(chain: Iterable[RegistryDocument], version: int) -> tuple[RegistryDocument, ...]:
    """Return those documents of a chain that somebody who knows `version` lacks, ascending.

    raises  RegistryError: there are none that go on from it
    """
    after = sorted((one for one in chain if one.version > version), key=lambda one: one.version)
    if version and after and after[0].version != version + 1:
        raise RegistryError(
            f"registry: version {version + 1} is not here, the first after it is {after[0].version}"
        )
    return tuple(after)
