"""`secagg invite`, `enroll` and `admit`: how a party comes in, and how it gets its next keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secagg.cli_registry.common import (
    AUTHORITY_CRT,
    AUTHORITY_KEY,
    JsonOption,
    KeyOption,
    answer,
    now_ms,
    read,
    replace,
)

if TYPE_CHECKING:
    from secagg.params import Signer
    from secagg.registry import RegistryDocument, RegistryFile
    from secagg.service.authority import Authority
    from secagg.service.enrolment import Admission, InvitationLedger

_DAY_MS = 86_400_000
PARTY_KEY, TLS_KEY, PARTY_CRT, REGISTRY = "party.key", "tls.key", "party.crt", "registry.toml"
NEXT = ".next"  # behind the name of a key that is asked for, and not in use yet

RegistryOption = Annotated[Path, typer.Option("--registry", help="The operator's registry file.")]
AuthorityOption = Annotated[Path, typer.Option("--authority", help="Folder of the operator's authority.")]
LedgerOption = Annotated[
    Path | None, typer.Option("--ledger", help="Record of invitations; default: REGISTRY.invitations.")
]
FolderOption = Annotated[Path, typer.Option("--folder", help="The party's folder, for its keys.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(
        epilog="Example: secagg invite hospital-3 --registry registry.toml --authority authority "
        "--key operator.key --server sum.example.org:7000 --out hospital-3.invitation"
    )(invite)
    app.command(
        epilog="Examples: secagg enroll hospital-3.invitation --folder mine (send mine/request.txt to the "
        "operator); secagg enroll hospital-3.invitation --folder mine --admission hospital-3.admission; "
        "a year later: secagg enroll --renew --folder mine (send mine/renewal.txt); "
        "secagg enroll --folder mine --admission hospital-3.admission"
    )(enroll)
    app.command(
        epilog="Example: secagg admit request.txt --registry registry.toml --authority authority "
        "--key operator.key --out hospital-3.admission"
    )(admit)


def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name that the party will have.")],
    *,
    registry: RegistryOption,
    key: KeyOption,
    authority: AuthorityOption,
    out: Annotated[Path | None, typer.Option(help="New file for the invitation, which is secret.")] = None,
    server: Annotated[list[str] | None, typer.Option(help="host:port of a server; repeatable.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="Role; repeatable. Default: participant.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long it may be used.")] = 7,
    ledger: LedgerOption = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back those of NAME instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Invite a party: whoever has the file may take the name, once. Send it so that nobody else reads it."""
    from secagg.registry import RegistryFile, parse_roles
    from secagg.service import read_identity
    from secagg.service.authority import fingerprint
    from secagg.service.enrolment import invite as make

    if withdraw:
        _withdraw(name, _ledger_path(registry, ledger), as_json)
        return
    if out is None:
        raise typer.BadParameter("--out: a new file for the invitation is needed")
    signer, document = read_identity(key), RegistryFile(registry).document()
    _check_invited(document, signer, name)
    made = make(
        signer,
        federation=document.federation,
        name=name,
        roles=parse_roles(role or ["participant"]),
        expires_ms=now_ms() + days * _DAY_MS,
        authority=fingerprint((authority / AUTHORITY_CRT).read_bytes()),
        servers=tuple(server or ()),
        entropy=os.urandom,
    )
    from secagg.service import write_private

    with _Ledger(_ledger_path(registry, ledger)) as kept:
        write_private(out, made.armored().encode("ascii"))
        kept.add(made.offer)
    answer(
        as_json,
        {"invitation": made.offer.invitation.hex(), "file": str(out), "expires_ms": made.offer.expires_ms},
        f"{out}: invites {name} for {days} days. It is secret: send it so that nobody else reads it",
    )


def enroll(
    invitation: Annotated[
        Path | None, typer.Argument(metavar="INVITATION", help="Invitation; none: already enrolled.")
    ] = None,
    *,
    folder: FolderOption,
    admission: Annotated[Path | None, typer.Option(help="The operator's answer.")] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Ask for another certificate, with a new key.")
    ] = False,
    rotate: Annotated[bool, typer.Option("--rotate", help="Ask for a new identity, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a party's keys and its request, or take the operator's answer; the keys never leave the folder."""
    if sum((invitation is not None, renew or rotate)) > 1 or (admission and (renew or rotate)):
        raise typer.BadParameter("INVITATION, --renew and --rotate, --admission: give what fits one step")
    if invitation is not None and admission is None:
        _ask(invitation, folder, as_json)
    elif renew or rotate:
        _ask_again(folder, rotate, as_json)
    elif admission is not None:
        _take(invitation, folder, admission, as_json)
    else:
        raise typer.BadParameter("give an INVITATION, --renew, --rotate or --admission")


def admit(
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="What the party sent.")],
    *,
    registry: RegistryOption,
    key: KeyOption,
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option(help="File for the answer; nothing in it is secret.")],
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long the certificate holds.")] = 397,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Admit a party that was invited, or one with new keys: the next registry, and a certificate."""
    from secagg.registry import RegistryFile, changes
    from secagg.service import read_identity
    from secagg.service.authority import Authority
    from secagg.service.enrolment import RENEWAL, kind_of

    text, signer, file = read(request), read_identity(key), RegistryFile(registry)
    issuer = Authority.load(authority / AUTHORITY_CRT, authority / AUTHORITY_KEY)
    before = file.document()
    if kind_of(text) == RENEWAL:
        made = _admit_again(text, file, issuer, signer, days)
    else:
        with _Ledger(_ledger_path(registry, ledger)) as kept:
            made = _admit(text, file, issuer, signer, days, kept)
    replace(out, made.armored().encode("ascii"))
    lines = [str(one) for one in changes(before, made.document)]
    answer(
        as_json,
        {"version": made.document.version, "file": str(out), "changes": lines},
        *lines,
        f"{out}: send it to the party; {registry}, version {made.document.version}, and the folder "
        f"{registry}.history go to the servers and to all parties",
    )


# --- the operator's steps


def _check_invited(document: RegistryDocument, signer: Signer, name: str) -> None:
    """Say now what would be refused when the party answers. Raises RegistryError."""
    from secagg.registry import WrongOperatorError
    from secagg.service import RegistryError

    if document.party(name) is not None:
        raise RegistryError(f"party {name}: is, or was, in the registry already: take another name")
    if signer.identity != document.signer_after:
        raise WrongOperatorError(
            f"registry {document.federation}: its operator is {document.signer_after.hex()}, and the key is "
            f"{signer.identity.hex()}: take the operator's key"
        )


def _withdraw(name: str, path: Path, as_json: bool) -> None:
    from secagg.service.enrolment import UnknownInvitationError

    with _Ledger(path) as kept:
        mine = [one.offer for one in kept.records() if one.offer.name == name and one.open]
        if not mine:
            raise UnknownInvitationError(f"invitation of {name}: there is none that could be taken back")
        for offer in mine:
            kept.withdraw(offer.invitation)
    answer(as_json, {"withdrawn": len(mine)}, f"{len(mine)} of {name} taken back")


def _admit(
    text: str, file: RegistryFile, issuer: Authority, signer: Signer, days: int, kept: InvitationLedger
) -> Admission:
    from secagg.service.enrolment import EnrolmentRequest
    from secagg.service.enrolment import admit as make

    asked = EnrolmentRequest.parse(text)
    made: list[Admission] = []

    def change(_: RegistryDocument) -> RegistryDocument:
        record = kept.record(asked.invitation)
        one = make(asked, record, file.chain(), authority=issuer, signer=signer, now_ms=now_ms(), days=days)
        # Noted first: should this machine fail now, the same request is answered the same way.
        kept.spend(asked.invitation, asked.digest, one.certificate)
        made.append(one)
        return one.document

    file.edit(change)
    return made[0]


def _admit_again(text: str, file: RegistryFile, issuer: Authority, signer: Signer, days: int) -> Admission:
    from secagg.service.enrolment import RenewalRequest, admit_again

    asked = RenewalRequest.parse(text)
    made: list[Admission] = []

    def change(_: RegistryDocument) -> RegistryDocument:
        one = admit_again(asked, file.chain(), authority=issuer, signer=signer, now_ms=now_ms(), days=days)
        made.append(one)
        return one.document

    file.edit(change)
    return made[0]


def _ledger_path(registry: Path, ledger: Path | None) -> Path:
    return registry.with_name(f"{registry.name}.invitations") if ledger is None else ledger


class _Ledger:
    """The operator's record of invitations, open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> InvitationLedger:
        from secagg.service.enrolment import InvitationLedger
        from secagg.store import SqliteStore

        self._store = SqliteStore(self._path)
        return InvitationLedger(self._store)

    def __exit__(self, *_: object) -> None:
        self._store.close()


# --- the party's steps


def _ask(invitation: Path, folder: Path, as_json: bool) -> None:
    from secagg.registry.document import in_order
    from secagg.service.enrolment import Invitation
    from secagg.service.enrolment import enroll as make

    invited = Invitation.parse(read(invitation))
    invited.offer.check(now_ms())  # before there is a key
    folder.mkdir(parents=True, exist_ok=True)
    signer, tls_key = _identity(folder / PARTY_KEY), _tls_key(folder / TLS_KEY)
    asked = make(invited, signer, tls_key, now_ms())
    replace(folder / "request.txt", asked.armored().encode("ascii"))
    offer = invited.offer
    answer(
        as_json,
        {"request": str(folder / "request.txt"), "name": offer.name, "identity": signer.identity.hex()},
        f"{offer.federation} invites {offer.name} as {', '.join(in_order(offer.roles))}",
        f"signed by the operator {offer.operator.hex()}: compare it by another way",
        f"send {folder / 'request.txt'} to the operator; the answer goes to --admission",
    )


def _ask_again(folder: Path, rotate: bool, as_json: bool) -> None:
    from secagg.registry import load
    from secagg.service import ServerCredentials, read_identity
    from secagg.service.authority import party_of
    from secagg.service.enrolment import renew

    present = read_identity(folder / PARTY_KEY)
    name = party_of(ServerCredentials.load(folder / PARTY_CRT).certificate).name
    new = _identity(folder / f"{PARTY_KEY}{NEXT}") if rotate else None
    tls_key = _tls_key(folder / f"{TLS_KEY}{NEXT}")
    asked = renew(load(folder / REGISTRY), name, present, tls_key, now_ms(), new=new)
    replace(folder / "renewal.txt", asked.armored().encode("ascii"))
    answer(
        as_json,
        {"request": str(folder / "renewal.txt"), "name": name, "identity": asked.party.identity.hex()},
        f"send {folder / 'renewal.txt'} to the operator; until the answer is here the present keys hold",
    )


def _take(invitation: Path | None, folder: Path, admission: Path, as_json: bool) -> None:
    """Check the operator's answer with the keys that were asked for, and put everything in place."""
    from secagg.key_files import read_private, retire_key
    from secagg.registry import check_chain, dump, load
    from secagg.service import ServerCredentials, read_identity
    from secagg.service.authority import CertifiedParty, party_of
    from secagg.service.enrolment import Admission, Invitation, accept, accept_again

    given = Admission.parse(read(admission))
    certified = party_of(given.certificate)
    identities = {path: read_identity(path).identity for path in _present(folder / PARTY_KEY)}
    # The one that was asked for: a request for another may have been made, and never answered.
    key = next((path for path, one in identities.items() if one == certified.identity), folder / PARTY_KEY)
    tls = _present(folder / TLS_KEY)[0]
    identity, tls_key = identities[key], read_private(tls)
    if invitation is not None:
        document = accept(given, Invitation.parse(read(invitation)), identity, tls_key, now_ms())
        if (folder / REGISTRY).exists():  # taken before: what came since stays
            check_chain(load(folder / REGISTRY), given.documents)
    else:
        known, authority = load(folder / REGISTRY), ServerCredentials.load(folder / AUTHORITY_CRT).certificate
        party = CertifiedParty(certified.name, identity)
        document = accept_again(given, known, party, tls_key, authority, now_ms())
    replace(folder / PARTY_CRT, given.certificate)
    replace(folder / AUTHORITY_CRT, given.authority)
    replace(folder / REGISTRY, dump(document).encode("ascii"))
    if key != folder / PARTY_KEY and (folder / PARTY_KEY).exists():
        retire_key(folder / PARTY_KEY)
    for asked, name in ((tls, TLS_KEY), (key, PARTY_KEY)):
        asked.replace(folder / name)
    called = certified.name
    answer(
        as_json,
        {"name": called, "identity": identity.hex(), "version": document.version},
        f"{called} is in {document.federation}, version {document.version}; "
        f"{folder / PARTY_CRT}, {folder / AUTHORITY_CRT} and {folder / REGISTRY} are what a client needs",
    )


def _present(path: Path) -> list[Path]:
    """Return where a key is: that which was asked for, then that in use. An earlier try may have moved it."""
    following = path.with_name(f"{path.name}{NEXT}")
    return [one for one in (following, path) if one.exists()] or [path]


def _identity(path: Path) -> Signer:
    """Read an identity, or make it: a request that is made again is for the same keys."""
    from secagg.service import read_identity, write_identity

    return read_identity(path) if path.exists() else write_identity(path)


def _tls_key(path: Path) -> bytes:
    from secagg.key_files import read_private
    from secagg.service.authority import write_tls_key

    return read_private(path) if path.exists() else write_tls_key(path)
