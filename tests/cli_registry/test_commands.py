"""The commands of admission, from an empty folder: what they make, what they say, how they end."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import secagg.cli
from secagg import SecAggError
from secagg.registry import RegistryFile, load
from secagg.service import Registry, ServerCredentials, former_keys, read_identity, write_identity
from secagg.service.authority import PartyCredentials, check_issued

Call = Callable[..., Any]


class Answer:
    def __init__(self, arguments: tuple[object, ...]) -> None:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(secagg.cli.app, list(map(str, arguments)))
        error = result.exception
        refused = isinstance(error, SecAggError)
        if error is not None and not refused and not isinstance(error, SystemExit):
            raise error
        self.status = error.exit_status if isinstance(error, SecAggError) else result.exit_code
        self.out = result.output
        self.said = str(error) if refused else result.output

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def secagg_(*arguments: object) -> Answer:
    answer = Answer(arguments)
    assert answer.status == 0, answer.said
    return answer


def refused(status: int, message: str, *arguments: object) -> None:
    answer = Answer(arguments)
    assert answer.status == status, answer.said
    assert message in " ".join(answer.said.split()), answer.said


REGISTRY = ("--registry", "registry.toml", "--key", "operator.key", "--authority", "authority")


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which an operator has made an authority, a server's certificate and a registry."""
    monkeypatch.chdir(tmp_path)
    secagg_("keygen", "operator.key")
    secagg_("authority", "new", "authority")
    secagg_("authority", "server", "authority", "server", "--host", "sum.example.org")
    secagg_("registry", "new", "registry.toml", "--federation", "icu", "--key", "operator.key")
    return tmp_path


def invite(name: str, *more: object) -> None:
    where = ("--server", "sum.example.org:7000", "--out", f"{name}.invitation")
    secagg_("invite", name, *REGISTRY, *where, *more)


def admit(request: str, out: str) -> Answer:
    return secagg_("admit", request, *REGISTRY, "--out", out)


def enrolled(name: str, *more: object) -> None:
    invite(name, *more)
    secagg_("enroll", f"{name}.invitation", "--folder", name)
    admit(f"{name}/request.txt", f"{name}.admission")
    secagg_("enroll", f"{name}.invitation", "--folder", name, "--admission", f"{name}.admission")


def test_a_party_comes_in_from_an_empty_folder(operator: Path) -> None:
    enrolled("hospital-1", "--role", "participant", "--role", "auditor")
    document = load(operator / "registry.toml")
    identity = read_identity(operator / "hospital-1" / "party.key").identity
    assert document.registry("auditor").names == {identity: "hospital-1"}
    mine = operator / "hospital-1"
    credentials = PartyCredentials.load(mine / "party.crt", mine / "tls.key", mine / "authority.crt")
    assert (credentials.party.name, credentials.party.identity) == ("hospital-1", identity)
    assert load(mine / "registry.toml") == document
    assert Registry.load(mine / "registry.toml") == document.registry()
    for path in (
        "hospital-1.invitation",
        "hospital-1/party.key",
        "hospital-1/tls.key",
        "authority/authority.key",
    ):
        assert stat.S_IMODE((operator / path).stat().st_mode) == 0o600
    server = ServerCredentials.load(operator / "server" / "server.crt", operator / "server" / "server.key")
    check_issued(server.certificate, credentials.authority, document.time_ms / 1000)


def test_the_operator_s_files_hold_no_secret_of_a_party(operator: Path) -> None:
    enrolled("hospital-1")
    invitation = (operator / "hospital-1.invitation").read_text(encoding="ascii")
    from secagg.service.enrolment import Invitation

    secret = Invitation.parse(invitation).secret
    for path in operator.rglob("*"):
        if path.is_file() and path.name != "hospital-1.invitation":
            assert secret not in path.read_bytes()


def test_an_invitation_holds_once(operator: Path) -> None:
    enrolled("hospital-1")
    secagg_("enroll", "hospital-1.invitation", "--folder", "thief")
    refused(
        1,
        "invitation of hospital-1: was used already, and holds once",
        *("admit", "thief/request.txt", *REGISTRY, "--out", "thief.admission"),
    )
    assert not (operator / "thief.admission").exists()
    before = (operator / "registry.toml").read_bytes()
    again = admit("hospital-1/request.txt", "again.admission")  # the very same request: an answer was lost
    assert "version 2" in again.out
    assert (operator / "registry.toml").read_bytes() == before
    assert (operator / "again.admission").read_bytes() == (operator / "hospital-1.admission").read_bytes()


@pytest.mark.usefixtures("operator")
def test_an_invitation_can_be_taken_back() -> None:
    invite("hospital-1")
    secagg_("enroll", "hospital-1.invitation", "--folder", "hospital-1")
    assert secagg_("invite", "hospital-1", *REGISTRY, "--withdraw", "--json").json == {"withdrawn": 1}
    refused(
        1,
        "invitation of hospital-1: was taken back",
        *("admit", "hospital-1/request.txt", *REGISTRY, "--out", "a"),
    )
    refused(1, "there is none that could be taken back", "invite", "hospital-1", *REGISTRY, "--withdraw")


def test_a_name_that_was_given_is_not_offered(operator: Path) -> None:
    enrolled("hospital-1")
    refused(
        2,
        "party hospital-1: is, or was, in the registry already",
        "invite",
        "hospital-1",
        *REGISTRY,
        "--out",
        "x",
    )
    write_identity(operator / "other.key")
    wrong = ("--registry", "registry.toml", "--key", "other.key", "--authority", "authority", "--out", "x")
    refused(1, "registry icu: its operator is", "invite", "hospital-2", *wrong)
    assert not (operator / "x").exists()


def test_another_s_answer_is_not_taken(operator: Path) -> None:
    enrolled("hospital-1")
    invite("hospital-2")
    secagg_("enroll", "hospital-2.invitation", "--folder", "hospital-2")
    refused(
        1,
        "certificate: is of another key for TLS",
        *("enroll", "hospital-2.invitation", "--folder", "hospital-2", "--admission", "hospital-1.admission"),
    )
    assert sorted(path.name for path in (operator / "hospital-2").iterdir()) == [
        "party.key",
        "request.txt",
        "tls.key",
    ]


def test_keys_are_renewed_and_nobody_is_lost(operator: Path) -> None:
    for name in ("hospital-1", "hospital-2"):
        enrolled(name)
    mine = operator / "hospital-1"
    first, key = read_identity(mine / "party.key").identity, (mine / "tls.key").read_bytes()
    secagg_("enroll", "--rotate", "--folder", "hospital-1")  # never answered
    secagg_("enroll", "--renew", "--folder", "hospital-1")
    admit("hospital-1/renewal.txt", "answer")
    secagg_("enroll", "--folder", "hospital-1", "--admission", "answer")
    assert read_identity(mine / "party.key").identity == first
    assert (mine / "tls.key").read_bytes() != key
    secagg_("enroll", "--rotate", "--folder", "hospital-1")
    said = admit("hospital-1/renewal.txt", "answer").out
    assert "hospital-1 has a new identity" in said
    assert admit("hospital-1/renewal.txt", "answer").out.startswith("answer: send it")  # once more
    secagg_("enroll", "--folder", "hospital-1", "--admission", "answer")
    second = read_identity(mine / "party.key").identity
    assert second != first
    (former,) = former_keys(mine / "party.key")
    assert read_identity(former).identity == first  # what it has sealed can be opened
    assert sorted(load(operator / "registry.toml").registry().names.values()) == ["hospital-1", "hospital-2"]
    credentials = PartyCredentials.load(mine / "party.crt", mine / "tls.key", mine / "authority.crt")
    assert credentials.party.identity == second
    assert not list(mine.glob("*.next"))
    secagg_("registry", "revoke", "registry.toml", "hospital-1", "--key", "operator.key")
    secagg_("enroll", "--renew", "--folder", "hospital-1")
    refused(
        1,
        "request of hospital-1: nobody active is called so",
        *("admit", "hospital-1/renewal.txt", *REGISTRY, "--out", "answer"),
    )


def test_an_admission_that_is_taken_again_does_not_set_the_registry_back(operator: Path) -> None:
    enrolled("hospital-1")
    take = (
        "enroll",
        "hospital-1.invitation",
        "--folder",
        "hospital-1",
        "--admission",
        "hospital-1.admission",
    )
    secagg_(*take)
    enrolled("hospital-2")
    newest = (operator / "registry.toml").read_bytes()
    mine = operator / "hospital-1" / "registry.toml"
    mine.write_bytes(newest)
    refused(1, "versions do not go back", *take)
    assert mine.read_bytes() == newest


def test_the_operator_s_key_is_replaced_while_an_invitation_is_out(operator: Path) -> None:
    invite("hospital-1")
    secagg_("enroll", "hospital-1.invitation", "--folder", "hospital-1")
    follower = write_identity(operator / "next.key").identity.hex()
    rotated = ("registry", "rotate", "registry.toml", "--key", "operator.key", "--to", follower)
    assert "from version 3 on the operator is" in secagg_(*rotated).out
    old = ("admit", "hospital-1/request.txt", *REGISTRY, "--out", "a")
    refused(1, "version 3: must be signed by", *old)
    (operator / "operator.key").rename(operator / "operator.old")
    (operator / "next.key").rename(operator / "operator.key")
    admit("hospital-1/request.txt", "a")
    secagg_("enroll", "hospital-1.invitation", "--folder", "hospital-1", "--admission", "a")
    assert load(operator / "hospital-1" / "registry.toml").version == 3


def test_a_registry_without_signatures_is_taken_over(operator: Path) -> None:
    secagg_("keygen", "a.key", "--name", "site-a", "--registry", "plain.toml")
    new = (
        "registry",
        "new",
        "b.toml",
        "--federation",
        "lab",
        "--key",
        "operator.key",
        "--from",
        "plain.toml",
    )
    assert "site-a was enrolled as participant" in secagg_(*new).out
    assert Registry.load(Path("b.toml")) == Registry.load(Path("plain.toml"))
    refused(2, "b.toml: exists", *new)
    refused(2, "b.toml: is a signed registry", "keygen", "c.key", "--name", "c", "--registry", "b.toml")
    assert not (operator / "c.key").exists()


@pytest.mark.usefixtures("operator")
def test_what_changed_is_shown() -> None:
    enrolled("hospital-1")
    roles = (
        "registry",
        "roles",
        "registry.toml",
        "hospital-1",
        "decryptor",
        "auditor",
        "--key",
        "operator.key",
    )
    assert "hospital-1 is decryptor, auditor now, was participant" in secagg_(*roles).out
    revoked = ("registry", "revoke", "registry.toml", "hospital-1", "--key", "operator.key", "--json")
    assert secagg_(*revoked).json["changes"] == ["hospital-1 was revoked"]
    first = "registry.toml.history/000002.toml"
    diff = secagg_("registry", "diff", first, "registry.toml", "--json").json
    assert [one["kind"] for one in diff["changes"]] == ["roles", "revoked"]
    refused(1, "give the older first", "registry", "diff", "registry.toml", first)
    assert secagg_("registry", "diff", first, first).out == "nothing changed\n"
    shown = secagg_("registry", "show", "registry.toml").out
    assert "icu, version 4, digest " in shown
    assert "revoked since 4  decryptor, auditor" in shown
    facts = secagg_("registry", "show", "registry.toml", "--json").json
    assert facts["parties"][0]["state"] == "revoked"
    refused(2, "'boss' is not a valid Role", *roles[:4], "boss", "--key", "operator.key")
    refused(
        2,
        "party nobody: is not in the registry",
        "registry",
        "revoke",
        "registry.toml",
        "nobody",
        "--key",
        "operator.key",
    )


def test_a_registry_is_verified(operator: Path) -> None:
    enrolled("hospital-1")
    who = read_identity(operator / "operator.key").identity.hex()
    board = write_identity(operator / "board.key").identity.hex()
    verify = ("registry", "verify", "registry.toml")
    known = ("--known", "registry.toml.history/000001.toml")
    said = secagg_(*verify, "--operator", who, *known, "--json").json
    assert (said["ok"], said["version"], said["versions"]) == (True, 2, 2)
    assert "compare the operator's identity" in secagg_(*verify).out
    refused(1, "is signed by", *verify, "--operator", board)
    refused(2, "--operator: must be an identity", *verify, "--operator", "x")
    refused(
        1,
        f"0 of the witnesses have signed it, 1 must; ask for the countersignature of: {board[:12]}",
        *verify,
        "--witness",
        board,
    )
    (operator / "copy.toml").write_bytes((operator / "registry.toml").read_bytes())
    secagg_("registry", "countersign", "copy.toml", "--key", "board.key", *known)
    secagg_("registry", "countersign", "registry.toml", "--from", "copy.toml")
    assert secagg_(*verify, "--witness", board, "--needed", 1).status == 0
    refused(2, "one of them is needed", "registry", "countersign", "registry.toml")
    refused(
        1, "a witness is somebody else", "registry", "countersign", "registry.toml", "--key", "operator.key"
    )


def test_a_registry_that_was_changed_fails_its_verification(operator: Path) -> None:
    enrolled("hospital-1")
    path = operator / "registry.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"participant"', '"auditor"'), encoding="utf-8")
    said = Answer(("registry", "verify", "registry.toml", "--json"))
    assert said.status == 1
    assert said.json["error"] == "DocumentSignatureError"
    refused(1, "the operator's signature is not that of this text", "registry", "show", "registry.toml")
    path.write_text("garbage", encoding="utf-8")
    refused(2, "no signed registry", "registry", "verify", "registry.toml")
    old = operator / "registry.toml.history" / "000001.toml"
    path.write_bytes(old.read_bytes())
    refused(1, "the file was set back; put the newest in its place", "registry", "verify", "registry.toml")
    (operator / "copy.toml").write_bytes(old.read_bytes())
    refused(
        1,
        "versions do not go back",
        "registry",
        "verify",
        "copy.toml",
        "--known",
        "registry.toml.history/000002.toml",
    )


def test_steps_that_do_not_fit_are_refused(operator: Path) -> None:
    refused(2, "give an INVITATION", "enroll", "--folder", "x")
    refused(2, "give what fits one step", "enroll", "--folder", "x", "--renew", "--admission", "y")
    refused(2, "a new file for the invitation is needed", "invite", "hospital-1", *REGISTRY)
    (operator / "garbage").write_text("garbage", encoding="utf-8")
    refused(2, "invitation: the text must hold one", "enroll", "garbage", "--folder", "x")
    refused(2, "enrolment request: the text must hold one", "admit", "garbage", *REGISTRY, "--out", "y")
    assert not (operator / "x").exists()


def test_an_end_between_the_ledger_and_the_registry_keeps_nobody_out(
    operator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invite("hospital-1")
    secagg_("enroll", "hospital-1.invitation", "--folder", "hospital-1")

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, AssertionError)):
        patch.setattr(RegistryFile, "_write", fails)
        admit("hospital-1/request.txt", "a")
    assert load(operator / "registry.toml").version == 1
    enrolled_other = "hospital-2"
    enrolled(enrolled_other)  # meanwhile the version is somebody else's
    admit("hospital-1/request.txt", "a")
    secagg_("enroll", "hospital-1.invitation", "--folder", "hospital-1", "--admission", "a")
    assert load(operator / "registry.toml").version == 3


@pytest.mark.usefixtures("operator")
def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["secagg", "registry", "show", "missing.toml"])
    with pytest.raises(SystemExit) as caught:
        secagg.cli.main()
    assert caught.value.code == 2
    assert capfd.readouterr().err.startswith("secagg: missing.toml: no signed registry: ")


@pytest.mark.parametrize(
    "command",
    ["authority new", "authority server", "invite", "enroll", "admit"]
    + [
        f"registry {one}"
        for one in ("new", "show", "diff", "verify", "revoke", "roles", "countersign", "rotate")
    ],
)
def test_every_command_shows_an_example(command: str) -> None:
    said = " ".join(secagg_(*command.split(), "--help").out.split())
    assert f"secagg {command}" in said[said.index("Example") :]
