from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secagg.cli import app
from secagg.effects import Aborted, AbortReason, OneShotAggregate
from secagg.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.oneshot import Complaint, Review
from secagg.params import Identity
from secagg.params_oneshot import OneShotPhase
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.oneshot import MemoryPacked
from secagg.service import Registry
from secagg.transcript import OneShotReport, RecordedOneShotServer, verify_oneshot
from secagg.transcript.entries import (
    Entry,
    EntryKind,
    Outcome,
    Seal,
    address,
    framed,
    seal_text,
    transcript_digest,
)
from secagg.transcript.oneshot import ONESHOT_MAGIC
from tests.attacks.oneshot.liar import EDGE, Tree, edge_of, sent_on, shifted_total
from tests.protocol.network import CounterEntropy
from tests.protocol.oneshot.network import Round, changed, message_of

SECOND = Identity(bytes(31) + b"\x08")
SERVER = IdentityKey.generate(CounterEntropy("server of the transcripts"))


def with_record(
    one: Round, file: io.BytesIO, *, keep_inputs: bool = True, edges: Collection[Identity] = ()
) -> Round:
    """The round with a server that records it."""
    one.server = RecordedOneShotServer(
        one.parameters,
        one.committee,
        certificate=one.epoch.certificate,
        file=file,
        signer=SERVER,
        keep_inputs=keep_inputs,
        known=[signer.identity for signer in one.signers],
        edges=edges,
    )
    return one


def recorded(
    *, keep_inputs: bool = True, clients: int = 5, members: int = 8, **changes: Any
) -> tuple[Round, io.BytesIO]:
    file = io.BytesIO()
    return with_record(Round(clients, members, **changes), file, keep_inputs=keep_inputs), file


def played(*, keep_inputs: bool = True, **changes: Any) -> tuple[Round, bytes]:
    one, file = recorded(keep_inputs=keep_inputs, **changes)
    one.play(clients=range(one.clients - 1))
    return one, file.getvalue()


ONE, WHOLE = played()


def check(data: bytes, **options: Any) -> OneShotReport:
    return verify_oneshot(io.BytesIO(data), server=SERVER.identity, **options)


def entries_of(data: bytes) -> list[bytes]:
    at, out = len(ONESHOT_MAGIC), []
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "big")
        out.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return out


def sealed(entries: list[bytes], signer: IdentityKey = SERVER) -> bytes:
    """A transcript of these entries with a right seal: what a lying server can make."""
    addresses = [address(entry) for entry in entries]
    seal = Seal(b"".join(addresses), signer.sign(seal_text(transcript_digest(addresses))))
    whole = [*entries, framed(EntryKind.SEAL, content=encode(seal))[1]]
    return ONESHOT_MAGIC + b"".join(len(entry).to_bytes(8, "big") + entry for entry in whole)


def findings(data: bytes, **options: Any) -> list[str]:
    return [str(finding) for finding in check(data, **options).findings]


def place(kind: str, number: int = 0) -> int:
    found = [
        i
        for i, raw in enumerate(entries_of(WHOLE)[:-1])
        if (one := decode(Entry, raw)).kind == EntryKind.TAKEN
        and type(message_of(one.content)).__name__ == kind
    ]
    return found[number]


def altered(at: int, change: Callable[[Entry], Entry]) -> bytes:
    entries = entries_of(WHOLE)[:-1]
    entries[at] = encode(change(decode(Entry, entries[at])))
    return sealed(entries)


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_the_sum_is_recomputed_from_signed_data(adversary: str) -> None:
    one, data = played(adversary=adversary)
    report = check(
        data,
        known=frozenset(signer.identity for signer in one.signers),
        decryptors=frozenset(signer.identity for signer in one.epoch.signers),
    )
    assert report.ok, report.findings
    assert isinstance(one.server, RecordedOneShotServer)
    assert one.server.sealed
    assert report.transcript == one.server.transcript
    assert isinstance(one.outcome, OneShotAggregate)
    assert report.facts.total is not None
    assert report.facts.total.tolist() == one.outcome.total.tolist() == one.expected(range(4))
    assert report.facts.survivors == one.outcome.survivors
    assert report.facts.outcome == "completed"


def test_without_vectors_the_record_is_small_and_all_but_the_sum_is_checked() -> None:
    one, data = played(keep_inputs=False, vector_length=20_000)
    _, kept = played(vector_length=20_000)
    assert len(kept) - len(data) > 3 * one.view.packed_size
    report = check(data)
    assert report.ok, report.findings
    assert report.facts.total is None
    assert not report.facts.inputs_kept
    assert len(report.facts.survivors) == 4


def test_a_round_with_lies_and_losses_is_replayed() -> None:
    one, file = recorded(members=16)
    one.start()
    gone = one.epoch.members[0]
    one.lost = {gone: OneShotPhase.REVIEW}
    one.close(until=OneShotPhase.REVIEW)
    one.carry(one.server.drop(gone))
    one.close()
    one.exact(range(5))
    report = check(file.getvalue())
    assert report.ok, report.findings
    kinds = [decode(Entry, raw).kind for raw in entries_of(file.getvalue())]
    assert kinds.count(EntryKind.GIVEN_UP) == 1


@pytest.mark.parametrize("keep_inputs", [True, False])
def test_a_round_with_edges_is_replayed_and_their_totals_are_their_word(
    keep_inputs: bool, tmp_path: Path
) -> None:
    """The first edge brings only what the root has already; the second one shifts its total."""
    file = io.BytesIO()

    def serve(one: Round, edges: Collection[Identity]) -> Round:
        return with_record(one, file, keep_inputs=keep_inputs, edges=edges)

    tree = Tree(Round(5, 8), {EDGE: (1, 2), SECOND: (4,)}, serve=serve)
    tree.direct(0, 1, 2, 3)
    tree.bring(EDGE)
    partial = changed(sent_on(tree.edges[SECOND]), shifted_total(tree.one, 0, 7 << 5))
    tree.one.server.receive(SECOND, partial)
    tree.play()
    assert isinstance(tree.one.outcome, OneShotAggregate)
    assert tree.one.outcome.total.tolist() == [8, 2, 3, 4, 5]
    report = check(file.getvalue())
    assert report.ok, report.findings
    assert report.facts.edges == {EDGE, SECOND}
    assert report.facts.inputs_kept is keep_inputs
    assert (report.facts.total is not None) is keep_inputs
    if keep_inputs:
        path = tmp_path / "round.transcript"
        path.write_bytes(file.getvalue())
        said = " ".join(CliRunner().invoke(app, ["verify", str(path)]).output.split())
        assert "recomputed from what 2 edges say of their uploads" in said
        assert "the totals of edges" in said


def test_a_round_without_a_result_says_why() -> None:
    for keep_inputs in (True, False):
        one, file = recorded(keep_inputs=keep_inputs)
        one.lost = dict.fromkeys(one.epoch.members[:5], OneShotPhase.OPEN)
        assert isinstance(one.play(), Aborted)
        report = check(file.getvalue())
        assert report.ok, report.findings
        assert report.facts.outcome == str(AbortReason.TOO_FEW_OPENINGS)


def test_every_changed_byte_is_found() -> None:
    for at in range(0, len(WHOLE), 997):
        data = bytearray(WHOLE)
        data[at] ^= 1
        assert findings(bytes(data)), at
    for cut in (1, 9, 1000, len(WHOLE) // 2, len(WHOLE) - 1):
        assert findings(WHOLE[:cut]), cut
    assert findings(WHOLE + b"\0")
    assert findings(b"")


@pytest.mark.parametrize("kind", ["Upload", "Review", "SumSignature", "Opening"])
def test_no_message_can_be_another_party_s_or_be_left_out(kind: str) -> None:
    at = place(kind)
    other = decode(Entry, entries_of(WHOLE)[place(kind, 1)]).party
    assert findings(altered(at, lambda entry: replace(entry, party=other)))
    entries = entries_of(WHOLE)[:-1]
    if kind not in {"Review", "SumSignature", "Opening"}:  # one less of these may be enough
        assert findings(sealed([*entries[:at], *entries[at + 1 :]]))


def test_another_sum_cannot_be_sealed() -> None:
    entries = entries_of(WHOLE)[:-1]
    outcome = decode(Outcome, decode(Entry, entries[-1]).content)
    wrong = replace(outcome, total_digest=bytes(32))
    entries[-1] = framed(EntryKind.OUTCOME, content=encode(wrong))[1]
    assert f"entry {len(entries) - 1}: the digest is not that of the sum" in findings(sealed(entries))
    blamed = replace(outcome, blamed=(ONE.signers[0].identity,))
    entries[-1] = framed(EntryKind.OUTCOME, content=encode(blamed))[1]
    assert any("others are blamed" in what for what in findings(sealed(entries)))
    failed = replace(outcome, total_digest=b"", reason=str(AbortReason.CHECK_FAILED).encode())
    entries[-1] = framed(EntryKind.OUTCOME, content=encode(failed))[1]
    assert any("the digest is not that of the sum" in what for what in findings(sealed(entries)))


def test_an_opening_of_a_member_that_did_not_make_it_is_found() -> None:
    at = place("Opening")

    def forged(entry: Entry) -> Entry:
        frame = changed(
            bytes(entry.content), lambda one: type(one)(one.index, bytes(len(one.values)), one.signature)
        )
        return replace(entry, content=frame)

    assert any("bad signature: Opening.signature" in what for what in findings(altered(at, forged)))


def test_the_command_takes_a_registry_of_decryptors_of_their_own(tmp_path: Path) -> None:
    path, clients, members = tmp_path / "transcript", tmp_path / "clients.toml", tmp_path / "decryptors.toml"
    path.write_bytes(WHOLE)
    for where, parties in (
        (clients, [signer.identity for signer in ONE.signers]),
        (members, list(ONE.epoch.members)),
    ):
        where.write_text(Registry.of((f"p{i}", one) for i, one in enumerate(parties)).dump(), "utf-8")
    given = ["verify", str(path), "--server", SERVER.identity.hex(), "--registry", str(clients)]
    assert CliRunner().invoke(app, given).exit_code == 1  # its members are not in it
    assert CliRunner().invoke(app, [*given, "--decryptors", str(members)]).exit_code == 0


def test_strangers_are_found() -> None:
    clients = frozenset(signer.identity for signer in ONE.signers[1:])
    assert any("not enrolled" in what for what in findings(WHOLE, known=clients))
    _, without = played(keep_inputs=False)
    assert any("not enrolled" in what for what in findings(without, known=clients))
    members = frozenset(Identity(member) for member in ONE.epoch.members[1:])
    assert any("may be no decryptor" in what for what in findings(WHOLE, decryptors=members))
    assert any(
        "not that of the server asked for" in str(one)
        for one in verify_oneshot(io.BytesIO(WHOLE), server=ONE.signers[0].identity).findings
    )


def test_a_round_that_needs_too_much_memory_is_not_replayed() -> None:
    assert any("are allowed" in what for what in findings(WHOLE, memory_limit=100))


class Full(io.BytesIO):
    """A disk that is full after so many bytes."""

    def write(self, data: Any) -> int:
        if self.tell() > 100_000:
            raise OSError(28, "no space left")
        return super().write(data)


def test_a_round_goes_on_without_a_record_when_the_disk_is_full() -> None:
    one, file = Round(5, 8), Full()
    one.server = RecordedOneShotServer(
        one.parameters,
        one.committee,
        certificate=one.epoch.certificate,
        file=file,
        signer=SERVER,
        keep_inputs=True,
        known=None,
    )
    one.play()
    one.exact(range(5))
    assert isinstance(one.server, RecordedOneShotServer)
    assert one.server.failure is not None
    assert not one.server.sealed
    assert not check(file.getvalue()).ok


def test_the_command_verifies_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "round.transcript"
    path.write_bytes(WHOLE)
    done = CliRunner().invoke(app, ["verify", str(path), "--server", SERVER.identity.hex()])
    assert done.exit_code == 0, done.output
    assert "recomputed bit for bit" in done.output
    assert "that no more was uploaded or sent" in " ".join(done.output.split())
    assert "verified" in done.output
    damaged = bytearray(WHOLE)
    damaged[-100] ^= 1
    path.write_bytes(bytes(damaged))
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exit_code == 1
    assert "NOT verified" in done.output


def test_a_phase_without_effects_is_written_down_like_others() -> None:
    """All complain about an edge's upload, the edge is given up: nobody is left to be asked."""
    file = io.BytesIO()

    def serve(one: Round, edges: Collection[Identity]) -> Round:
        return with_record(one, file, edges=edges)

    tree = Tree(Round(6, 8), {EDGE: (4, 5)}, serve=serve)
    one = tree.one
    tree.direct(0, 1, 2, 3)
    tree.bring(EDGE)
    bad = one.server._uploads[one.signers[5].identity].digest

    def complain(_: Identity, answer: bytes) -> list[bytes]:
        if isinstance(message_of(answer), Review):
            return [changed(answer, lambda review: replace(review, complaints=(Complaint(bad, 1),)))]
        return [answer]

    one.change_answer = complain
    tree.carry(one.server.close_phase())
    tree.carry(one.server.drop(EDGE))
    tree.carry(one.server.close_phase())
    assert one.server.phase is OneShotPhase.FETCH
    tree.play()
    one.exact(range(4))
    report = check(file.getvalue())
    assert report.ok, report.findings


@pytest.mark.parametrize("keep_inputs", [True, False])
def test_an_edge_may_be_a_client(keep_inputs: bool) -> None:
    one, file = Round(5, 8), io.BytesIO()
    edge = one.signers[0].identity
    with_record(one, file, keep_inputs=keep_inputs, edges=[edge, edge])
    one.start([0, 1, 2])
    one.server.receive(edge, sent_on(edge_of(one, (3, 4))))
    one.close()
    one.exact(range(5))
    report = check(file.getvalue())
    assert report.ok, report.findings
    assert report.facts.edges == {edge}


def test_a_round_of_another_committee_is_not_recorded() -> None:
    one, other = Round(5, 8), Round(5, 8, seed="other")
    one.epoch.certificate = other.epoch.certificate
    with pytest.raises(ParameterError, match="certificate: must be the committee's"):
        with_record(one, io.BytesIO())
    one.epoch.certificate = b"zz"
    with pytest.raises(RemoteProtocolError):
        with_record(one, io.BytesIO())


def test_a_record_ends_with_its_server_and_says_so() -> None:
    one, _ = recorded()
    one.start()
    with pytest.raises(LocalProtocolError, match="OneShotServer.restore does, without a record"):
        RecordedOneShotServer.restore(one.server.snapshot(), packed=MemoryPacked())


def test_a_round_goes_on_without_a_record_when_its_file_is_closed() -> None:
    one, file = recorded()
    one.start([0, 1, 2])
    file.close()
    one.close()
    one.exact(range(3))
    assert isinstance(one.server, RecordedOneShotServer)
    assert isinstance(one.server.failure, ValueError)


def test_vectors_count_against_the_memory_that_is_allowed() -> None:
    """And so does what is kept of those that are withheld."""
    _, kept = played(vector_length=20_000, clients=12)
    _, withheld = played(vector_length=20_000, clients=12, keep_inputs=False)
    entries = 3 * 8 * 20_016
    for data in (kept, withheld):
        assert any("memory_limit" in what for what in findings(data, memory_limit=entries + len(data) // 2))
        assert not findings(data, memory_limit=entries + len(data))
    assert any("memory_limit" in what for what in findings(kept, memory_limit=entries + len(withheld)))


def test_nobody_is_blamed_beside_checks_that_are_said_to_have_failed() -> None:
    one, data = played(keep_inputs=False)
    entries = entries_of(data)[:-1]
    outcome = decode(Outcome, decode(Entry, entries[-1]).content)
    failed = str(AbortReason.CHECK_FAILED).encode()
    for changes, right in (
        ({"total_digest": b""}, True),
        ({"total_digest": b"", "blamed": (one.signers[0].identity,)}, False),
        ({}, False),
    ):
        said = replace(outcome, reason=failed, **changes)
        entries[-1] = framed(EntryKind.OUTCOME, content=encode(said))[1]
        assert (not findings(sealed(entries))) is right, changes


def test_what_is_sent_again_is_not_written_down_again() -> None:
    """Or a member fills the disk with one message."""
    one, file = recorded()
    one.change_answer = lambda _, answer: [answer] * 3
    one.play(clients=range(4))
    one.exact(range(4))
    assert [decode(Entry, raw).kind for raw in entries_of(file.getvalue())] == [
        decode(Entry, raw).kind for raw in entries_of(WHOLE)
    ]
    assert check(file.getvalue()).ok
