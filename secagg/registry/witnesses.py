"""Countersignatures: others than the operator say that a version is the one that they have seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from secagg.params import Signer, require
from secagg.primitives.signatures import verify
from secagg.registry.document import Countersignature, RegistryDocument, countersigned_text
from secagg.registry.errors import CountersignatureError, ForkError


def countersign(document: RegistryDocument, signer: Signer) -> RegistryDocument:
    """Return the document with a witness's signature over its digest, which covers its whole past.

    raises  DocumentSignatureError, IdentityChangedError; CountersignatureError: the operator's own key
    """
    document.check()
    if signer.identity == document.operator:
        raise CountersignatureError(
            f"registry {document.federation}, version {document.version}: the operator has signed it "
            f"already: a witness is somebody else"
        )
    made = Countersignature(signer.identity, signer.sign(countersigned_text(document.digest)))
    return _with(document, (made,))


def merged(one: RegistryDocument, other: RegistryDocument) -> RegistryDocument:
    """Return a version with the countersignatures of two copies of it. Raises ForkError: two versions."""
    if one.digest != other.digest:
        raise ForkError(
            f"registry {one.federation}: these are not copies of one version: take a copy of version "
            f"{one.version}"
        )
    return _with(one, other.countersignatures)


def _with(document: RegistryDocument, more: Collection[Countersignature]) -> RegistryDocument:
    by_identity = {one.identity: one for one in (*more, *document.countersignatures)}
    return replace(document, countersignatures=tuple(by_identity[key] for key in sorted(by_identity)))


def demand(document: RegistryDocument, witnesses: Collection[bytes], needed: int) -> None:
    """Check that enough witnesses have signed a document; the operator is none.

    witnesses  identities whose signatures count
    needed     how many of them, 0 .. len(witnesses)

    raises     CountersignatureError, which names who has not signed; ParameterError: more are needed than
               there are
    """
    counted = set(witnesses) - {document.operator}
    require(0 <= needed <= len(set(witnesses)), "needed", f"in 0..{len(set(witnesses))}", needed)
    text = countersigned_text(document.digest)
    signed = {
        one.identity
        for one in document.countersignatures
        if one.identity in counted and verify(one.identity, text, one.signature)
    }
    if len(signed) < needed:
        absent = ", ".join(sorted(_called(document, one) for one in counted - signed))
        raise CountersignatureError(
            f"registry {document.federation}, version {document.version}: {len(signed)} of the witnesses "
            f"have signed it, {needed} must; ask for the countersignature of: {absent or 'another witness'}"
        )


def _called(document: RegistryDocument, identity: bytes) -> str:
    party = document.party_of(identity)
    return identity.hex()[:12] if party is None else party.name
