"""`secagg registry`: the signed registry of a federation, by its operator, its witnesses and its readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secagg.cli_registry.common import (
    JsonOption,
    KeyOption,
    RegistryArgument,
    answer,
    identity_of,
    now_ms,
)

if TYPE_CHECKING:
    from secagg.registry import RegistryDocument

app = typer.Typer(no_args_is_help=True, help="The signed registry of a federation.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the party.")]


@app.command(
    epilog="Example: secagg keygen operator.key; secagg registry new registry.toml --federation icu "
    "--key operator.key"
)
def new(
    path: RegistryArgument,
    *,
    federation: Annotated[str, typer.Option(help="Name of the federation.")],
    key: KeyOption,
    plain: Annotated[
        Path | None, typer.Option("--from", help="Registry without signatures, whose parties are taken over.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make version 1 of a registry. Every version stays in REGISTRY.history, beside the file."""
    from secagg.registry import RegistryFile, found
    from secagg.service import Registry, read_identity

    known = None if plain is None else Registry.load(plain)
    made = found(read_identity(key), federation, now_ms(), plain=known)
    RegistryFile(path).create(made)
    _tell(as_json, None, made)


@app.command(epilog="Example: secagg registry show registry.toml --json")
def show(path: RegistryArgument, *, as_json: JsonOption = False) -> None:
    """Print a registry, once its signatures are checked."""
    from secagg.registry import load

    document = load(path)
    if as_json:
        typer.echo(json.dumps(_facts(document), indent=2))
        return
    typer.echo(f"{document.federation}, version {document.version}, digest {document.digest.hex()}")
    typer.echo(f"signed by the operator {document.operator.hex()}")
    if document.next_operator is not None:
        typer.echo(f"from version {document.version + 1} on by {document.next_operator.hex()}")
    for signed in document.countersignatures:
        typer.echo(f"countersigned by {signed.identity.hex()}")
    width = max((len(party.name) for party in document.parties), default=0)
    for fact in _facts(document)["parties"]:
        roles = ", ".join(fact["roles"])
        typer.echo(
            f"{fact['name']:{width}}  {fact['identity'][:12]}  {fact['state']} since {fact['since']}  {roles}"
        )


@app.command(epilog="Example: secagg registry diff registry.toml.history/000003.toml registry.toml")
def diff(
    old: Annotated[Path, typer.Argument(help="Earlier version.")],
    new: Annotated[Path, typer.Argument(help="Later version.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Say what changed between two versions of one registry; exit status 1 where the second is older."""
    from secagg.registry import RollbackError, changes, load

    before, after = load(old), load(new)
    if (before.federation, before.version) > (after.federation, after.version):
        raise RollbackError(
            f"{new}: is {_called(after)}, and {old} is {_called(before)}: give the older first"
        )
    found = changes(before, after)
    facts = [{"kind": str(one.kind), "party": one.party, "sentence": one.sentence} for one in found]
    lines = [str(one) for one in found] or ["nothing changed"]
    answer(as_json, {"from": before.version, "to": after.version, "changes": facts}, *lines)


@app.command(
    epilog="Example: secagg registry verify new.toml --known registry.toml --witness <identity> --needed 1"
)
def verify(
    path: RegistryArgument,
    *,
    operator: Annotated[
        str | None, typer.Option(help="Identity that must have signed it, 64 hexadecimal digits.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="Version that is known, and those between it and REGISTRY; repeatable."),
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="Identity whose countersignature counts; repeatable.")
    ] = None,
    needed: Annotated[
        int | None, typer.Option(min=0, help="How many must have signed; default: all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a registry: its signatures, its past, its witnesses. Exit status 1 when anything is wrong.

    Beside REGISTRY.history every version that is there is checked as well.
    """
    from secagg.registry import DocumentError, RegistryFile, check_first, demand, load

    expected = None if operator is None else identity_of(operator, "--operator")
    witnesses = [identity_of(one, "--witness") for one in witness or ()]
    try:
        document = load(path)
        chain = RegistryFile(path).chain()
        if expected is not None:
            check_first(document, federation=document.federation, operator=expected)
        if known:
            _check_known(known, document, chain)
        demand(document, witnesses, len(set(witnesses)) if needed is None else needed)
    except DocumentError as error:
        if not as_json:
            raise
        facts = {"ok": False, "error": type(error).__name__, "reason": str(error)}
        typer.echo(json.dumps(facts, indent=2))
        raise typer.Exit(1) from None
    answer(
        as_json,
        {"ok": True, "version": document.version, "digest": document.digest.hex(), "versions": len(chain)},
        f"{_called(document)} is as it should be: digest {document.digest.hex()}",
        *(() if operator or known else ("compare the operator's identity, or the digest, by another way",)),
    )


@app.command(epilog="Example: secagg registry revoke registry.toml hospital-3 --key operator.key")
def revoke(
    path: RegistryArgument, name: NameArgument, *, key: KeyOption, as_json: JsonOption = False
) -> None:
    """Revoke a party, for ever: its name and its identity never come back."""
    from secagg.registry import revoke as make
    from secagg.service import read_identity

    signer = read_identity(key)
    _edit(path, as_json, lambda document: make(document, signer, now_ms(), name=name))


@app.command(
    epilog="Example: secagg registry roles registry.toml hospital-3 participant auditor --key operator.key"
)
def roles(
    path: RegistryArgument,
    name: NameArgument,
    role: Annotated[list[str], typer.Argument(help="operator, participant, decryptor, auditor.")],
    *,
    key: KeyOption,
    as_json: JsonOption = False,
) -> None:
    """Give a party other roles."""
    from secagg.registry import parse_roles, set_roles
    from secagg.service import read_identity

    signer, wanted = read_identity(key), parse_roles(role)
    _edit(path, as_json, lambda document: set_roles(document, signer, now_ms(), name=name, roles=wanted))


@app.command(epilog="Example: secagg registry countersign registry.toml --key board.key --known last.toml")
def countersign(
    path: RegistryArgument,
    *,
    key: Annotated[
        Path | None, typer.Option("--key", help="Key file of the identity of a witness, who signs.")
    ] = None,
    copy: Annotated[
        Path | None, typer.Option("--from", help="Copy of the same version, whose countersignatures to take.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="Version that was countersigned last, and those between; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a witness's signature to a registry: that this version is the one that the witness has seen."""
    from secagg.registry import RegistryFile, load, merged
    from secagg.registry import countersign as sign
    from secagg.service import read_identity

    if (key is None) == (copy is None):
        raise typer.BadParameter("--key or --from: one of them is needed")
    if known:
        document = load(path)
        _check_known(known, document, (document,))
    if key is not None:
        signer = read_identity(key)
        document = RegistryFile(path).edit(lambda document: sign(document, signer))
    else:
        others = load(copy or path)
        document = RegistryFile(path).edit(lambda document: merged(document, others))
    by = ", ".join(one.identity.hex() for one in document.countersignatures)
    answer(as_json, _facts(document), f"{_called(document)} is countersigned by {by}")


@app.command(
    epilog="Example: secagg keygen next.key; secagg registry rotate registry.toml --key operator.key "
    "--to <identity of next.key>. A party's own keys: secagg enroll --rotate."
)
def rotate(
    path: RegistryArgument,
    *,
    key: KeyOption,
    to: Annotated[str, typer.Option(help="Identity that signs from the next version on, 64 digits.")],
    as_json: JsonOption = False,
) -> None:
    """Hand the registry over to another key of the operator, which signs from the next version on."""
    from secagg.registry import hand_over
    from secagg.service import read_identity

    signer, follower = read_identity(key), identity_of(to, "--to")
    _edit(path, as_json, lambda document: hand_over(document, signer, now_ms(), to=follower))


def _check_known(known: list[Path], document: RegistryDocument, chain: tuple[RegistryDocument, ...]) -> None:
    """Check that a document follows the versions that are known. Raises DocumentError."""
    from secagg.registry import check_chain, check_successor, load

    earlier = sorted(map(load, known), key=lambda one: one.version)
    if document.version < earlier[-1].version:
        check_successor(earlier[-1], document)  # which says that versions do not go back
    check_chain(earlier[0], [*earlier, *chain])


def _edit(path: Path, as_json: bool, change: Callable[[RegistryDocument], RegistryDocument]) -> None:
    from secagg.registry import RegistryFile

    before: list[RegistryDocument] = []

    def noted(document: RegistryDocument) -> RegistryDocument:
        before.append(document)
        return change(document)

    made = RegistryFile(path).edit(noted)
    _tell(as_json, before[0], made)


def _tell(as_json: bool, before: RegistryDocument | None, made: RegistryDocument) -> None:
    from secagg.registry import changes

    lines = [str(one) for one in changes(before, made)]
    answer(
        as_json, {**_facts(made), "changes": lines}, *lines, f"{_called(made)}, digest {made.digest.hex()}"
    )


def _called(document: RegistryDocument) -> str:
    return f"{document.federation}, version {document.version}"


def _facts(document: RegistryDocument) -> dict[str, Any]:
    from secagg.registry.document import in_order

    return {
        "federation": document.federation,
        "version": document.version,
        "digest": document.digest.hex(),
        "before": document.before.hex(),
        "time_ms": document.time_ms,
        "operator": document.operator.hex(),
        "next_operator": None if document.next_operator is None else document.next_operator.hex(),
        "countersignatures": [one.identity.hex() for one in document.countersignatures],
        "parties": [
            {
                "name": party.name,
                "identity": party.identity.hex(),
                "roles": in_order(party.roles),
                "state": str(party.state),
                "since": party.since,
                "former": [one.identity.hex() for one in party.former],
            }
            for party in document.parties
        ],
    }
