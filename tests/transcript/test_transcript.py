from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import Aborted, Aggregate
from secagg.errors import LocalProtocolError
from secagg.messages import decode, decode_frame, encode, encode_frame
from secagg.messages.types import SharedKeys, SurvivorSignature, UnmaskingResponse
from secagg.params import Identity, Phase
from secagg.primitives.masks import seed_commitment
from secagg.primitives.shamir import share_pairs
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ServerSession
from secagg.transcript import RecordedServerSession, Report, verify
from secagg.transcript.entries import (
    MAGIC,
    Entry,
    EntryKind,
    Header,
    Outcome,
    Seal,
    address,
    framed,
    seal_text,
    transcript_digest,
)
from secagg.transcript.replay import Replay
from tests.protocol.network import Cohort, CounterEntropy, changed

SERVER = IdentityKey.generate(CounterEntropy("server of the transcripts"))
LOST: Mapping[int, Phase] = {
    5: Phase.MASKED_INPUT_COLLECTION,
    6: Phase.CONSISTENCY_CHECK,
    7: Phase.SHARE_KEYS,
}


def recorded(
    clients: int = 10, lost: Mapping[int, Phase] = LOST, *, keep_inputs: bool = True, **options: object
) -> tuple[Cohort, bytes]:
    """Run a round; return its cohort and its transcript."""
    cohort = Cohort(clients, **({"dropout": 0.4} | options))  # type: ignore[arg-type]
    file = record(cohort, keep_inputs=keep_inputs)
    cohort.finish(lost)
    return cohort, file.getvalue()


def record(cohort: Cohort, *, keep_inputs: bool = True) -> io.BytesIO:
    file = io.BytesIO()
    cohort.server = RecordedServerSession(
        cohort.parameters, admitted=cohort.identities, file=file, signer=SERVER, keep_inputs=keep_inputs
    )
    return file


def check(data: bytes) -> Report:
    return verify(io.BytesIO(data), server=SERVER.identity)


def entries_of(data: bytes) -> list[bytes]:
    at, out = len(MAGIC), []
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "big")
        out.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return out


def sealed(entries: list[bytes], signer: IdentityKey = SERVER) -> bytes:
    """A transcript of these entries with a right seal: what a lying server can make."""
    addresses = [address(entry) for entry in entries]
    signature = signer.sign(seal_text(transcript_digest(addresses)))
    parts = [MAGIC]
    for entry in entries:
        parts += (len(entry).to_bytes(8, "big"), entry)
    parts += framed(EntryKind.SEAL, content=encode(Seal(b"".join(addresses), signature)))
    return b"".join(parts)


def findings(data: bytes) -> list[str]:
    return [str(finding) for finding in check(data).findings]


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_everything_public_is_recomputed_and_the_sum_bit_for_bit(adversary: str) -> None:
    cohort, data = recorded(adversary=adversary)
    report = check(data)
    assert report.findings == ()
    outcome, facts = cohort.outcome, report.facts
    assert isinstance(outcome, Aggregate)
    assert report.total is not None
    assert report.total.dtype == outcome.total.dtype
    assert np.array_equal(report.total, outcome.total)
    names = cohort.identities
    assert facts.parameters == cohort.parameters
    assert facts.roster == names
    assert facts.graph is not None
    assert facts.graph.degree == 9
    assert facts.shared_keys == set(names) - {names[7]}
    assert facts.survivors == set(names) - {names[7], names[5]}
    lost_signers = {names[6]} if adversary == "active" else set()
    assert facts.signed == (facts.survivors - lost_signers if adversary == "active" else set())
    assert facts.answered == dict.fromkeys(
        facts.survivors - {names[6]}, (7, 1)
    )  # its neighbors in S, and one dropout
    assert facts.outcome == "completed"
    assert report.server == SERVER.identity
    assert isinstance(cohort.server, RecordedServerSession)
    assert report.transcript == cohort.server.transcript


def test_without_inputs_the_record_is_small_and_all_but_the_sum_is_recomputed() -> None:
    cohort, data = recorded(vector_length=5000, keep_inputs=False)
    _, whole = recorded(vector_length=5000)
    assert len(data) < len(whole) - 8 * 9_900
    report = check(data)
    assert report.findings == ()
    assert report.total is None
    assert len(report.facts.survivors) == 8
    assert isinstance(cohort.outcome, Aggregate)
    assert report.facts.total_digest == check(whole).facts.total_digest


def test_a_round_without_a_result_is_recorded_with_its_reason() -> None:
    cohort, data = recorded(4, {0: Phase.MASKED_INPUT_COLLECTION, 1: Phase.MASKED_INPUT_COLLECTION},
                            dropout=0.0)  # fmt: skip
    assert isinstance(cohort.outcome, Aborted)
    report = check(data)
    assert report.findings == ()
    assert report.facts.outcome == "aborted: too few survivors"
    assert report.total is None


def test_clients_that_were_given_up_and_blamed_are_in_the_record() -> None:
    cohort = Cohort(10, dropout=0.3)
    file = record(cohort)
    cohort.advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.server.drop(cohort.identities[9])
    cohort.advance(Phase.UNMASKING, {9: Phase.MASKED_INPUT_COLLECTION}).ask_all()
    message = decode_frame(cohort.answer(3))[1]
    assert isinstance(message, UnmaskingResponse)
    wrong = replace(message.self_seed_shares[0], share=bytes(40))
    shares = (wrong, *message.self_seed_shares[1:])
    cohort.tell(3, changed(cohort, UnmaskingResponse, cohort.answer(3), self_seed_shares=shares))
    cohort.tell_all().close()
    report = check(file.getvalue())
    assert report.findings == ()
    assert report.facts.blamed == (cohort.identities[0], cohort.identities[3])
    assert report.facts.guilty == ()


# --- tampering by others than the server

COHORT, WHOLE = recorded(7, {6: Phase.MASKED_INPUT_COLLECTION}, dropout=0.15)
_, SMALL = recorded(7, {6: Phase.MASKED_INPUT_COLLECTION}, dropout=0.15, keep_inputs=False)


def place_of(data: bytes, offset: int) -> int | None:
    """The entry in which, or in whose length, a byte lies."""
    at = len(MAGIC)
    if offset < at:
        return None
    for place, entry in enumerate(entries_of(data)):
        at += 8 + len(entry)
        if offset < at:
            return place
    raise IndexError(offset)


@pytest.mark.slow
@pytest.mark.parametrize("coarser", [4, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("data", [WHOLE, SMALL], ids=["inputs", "no inputs"])
def test_a_changed_byte_anywhere_is_found_and_located(data: bytes, coarser: int) -> None:
    step = coarser * (97 if len(data) > 20_000 else 37)
    for offset in (*range(len(MAGIC) + 40), *range(0, len(data), step), *range(len(data) - 80, len(data))):
        damaged = bytearray(data)
        damaged[offset] ^= 1 + offset % 255
        report = check(bytes(damaged))
        place = place_of(data, offset)
        found = {finding.place for finding in report.findings}
        assert place in found, (offset, place, report.findings)


@pytest.mark.parametrize("cut", [0, 5, len(MAGIC), len(MAGIC) + 3, len(WHOLE) // 2, len(WHOLE) - 1])
def test_a_record_cut_short_is_found(cut: int) -> None:
    assert "there is no seal" in findings(WHOLE[:cut])


def test_bytes_after_the_seal_are_found() -> None:
    assert findings(WHOLE + b"\0") == [f"entry {len(entries_of(WHOLE)) - 1}: 1 bytes follow the seal"]


def rebuilt(entries: list[bytes]) -> bytes:
    """The file with these entries and the old seal."""
    parts = [MAGIC]
    for entry in (*entries, entries_of(WHOLE)[-1]):
        parts += (len(entry).to_bytes(8, "big"), entry)
    return b"".join(parts)


@pytest.mark.parametrize("place", [0, 3, 9, 20, 25])
def test_an_entry_removed_doubled_or_moved_is_found_where_it_was(place: int) -> None:
    entries = entries_of(WHOLE)[:-1]
    missing = [*entries[:place], *entries[place + 1 :]]
    doubled = [*entries[: place + 1], *entries[place:]]
    moved = [*entries[:place], entries[place + 1], entries[place], *entries[place + 2 :]]
    for changed_ in (missing, doubled, moved):
        first = next(f.place for f in check(rebuilt(changed_)).findings if f.place is not None)
        assert first in {place, place + 1}


@settings(max_examples=100, derandomize=True)
@given(st.binary(max_size=300))
def test_any_bytes_are_reported_on(data: bytes) -> None:
    assert findings(data)
    assert findings(MAGIC + data)
    assert findings(MAGIC + len(data).to_bytes(8, "big") + data)


# --- a server that seals lies


def altered(place: int, change: Callable[[Entry], Entry], signer: IdentityKey = SERVER) -> bytes:
    entries = entries_of(WHOLE)[:-1]
    entries[place] = encode(change(decode(Entry, entries[place])))
    return sealed(entries, signer)


def place(kind: type, number: int = 0) -> int:
    """The entry with the message of this kind by the client of this number."""
    found = [
        i
        for i, entry in enumerate(entries_of(WHOLE)[:-1])
        if (one := decode(Entry, entry)).kind == EntryKind.TAKEN
        and isinstance(decode_frame(one.content)[1], kind)
    ]
    return found[number]


def test_the_seal_of_another_server_is_found() -> None:
    other = IdentityKey.generate(CounterEntropy("another server"))
    entries = entries_of(WHOLE)[:-1]
    assert findings(sealed(entries)) == []
    assert any("signature is not the server's" in what for what in findings(sealed(entries, other)))
    report = verify(io.BytesIO(WHOLE), server=other.identity)
    assert [str(f) for f in report.findings] == ["the transcript is not that of the server asked for"]


def test_a_sum_that_is_not_that_of_the_inputs_is_found() -> None:
    last = len(entries_of(WHOLE)) - 2

    def lie(entry: Entry) -> Entry:
        outcome = replace(decode(Outcome, entry.content), total_digest=bytes(32))
        return replace(entry, content=encode(outcome))

    assert findings(altered(last, lie)) == [f"entry {last}: the sum is not that of the masked inputs"]


def test_blame_that_does_not_follow_from_the_answers_is_found() -> None:
    last = len(entries_of(WHOLE)) - 2

    def lie(entry: Entry) -> Entry:
        outcome = replace(decode(Outcome, entry.content), blamed=(COHORT.identities[0],))
        return replace(entry, content=encode(outcome))

    (found,) = findings(altered(last, lie))
    assert "blame and guilt are not those that follow" in found


def test_a_result_told_as_a_failure_is_found() -> None:
    last = len(entries_of(WHOLE)) - 2

    def lie(entry: Entry) -> Entry:
        return replace(entry, content=encode(Outcome(b"", b"no quorum", (), ())))

    assert findings(altered(last, lie)) == [f"entry {last}: the outcome must be: a sum"]


def test_an_upload_left_out_contradicts_the_signatures_of_the_survivors() -> None:
    entries = entries_of(WHOLE)[:-1]
    kinds = [decode(Entry, entry) for entry in entries]
    upload = next(
        i
        for i, entry in enumerate(kinds)
        if entry.kind == EntryKind.TAKEN and type(decode_frame(entry.content)[1]).__name__ == "MaskedInput"
    )
    found = findings(sealed([*entries[:upload], *entries[upload + 1 :]]))
    assert sum("bad signature: SurvivorSignature.signature" in what for what in found) >= 4


def test_a_client_left_out_of_the_roster_contradicts_the_acceptances() -> None:
    entries = entries_of(recorded(8, {}, dropout=0.1, minimum_cohort=7)[1])[:-1]
    found = findings(sealed([*entries[:1], *entries[2:]]))  # without the first advertisement
    assert sum("SharedKeys.shares: not exactly the neighbors" in what for what in found) == 7


@pytest.mark.parametrize("kind", [SharedKeys, SurvivorSignature, UnmaskingResponse])
def test_a_message_told_to_come_from_another_client_is_found(kind: type) -> None:
    at = place(kind)
    other = decode(Entry, entries_of(WHOLE)[place(kind, 1)]).party
    data = altered(at, lambda entry: replace(entry, party=other))
    assert any(what.startswith(f"entry {at}: ") for what in findings(data))


def test_a_message_of_another_kind_in_the_place_of_one_is_found() -> None:
    entries = entries_of(WHOLE)
    at = place(SharedKeys)
    party = decode(Entry, entries[at]).party
    advertised = next(e for e in map(partial(decode, Entry), entries[1:]) if e.party == party)
    found = findings(altered(at, lambda entry: replace(entry, content=advertised.content)))
    assert f"entry {at}: wrong phase: Advertisement in ShareKeys" in found


def test_a_message_after_its_phase_is_found() -> None:
    entries = entries_of(WHOLE)[:-1]
    at = place(SharedKeys)
    late = [*entries[:at], *entries[at + 1 : -2], entries[at], *entries[-2:]]
    assert any("in Unmasking" in what or "was not asked" in what for what in findings(sealed(late)))


# --- what a record cannot tell: the limits of section 7 of SECURITY.md


def rewritten(change: Callable[[Any], Any], *, keep: Callable[[Any], bool] = lambda _: True) -> bytes:
    """A transcript with other messages in it, sealed with the outcome that follows from them."""
    replay, out = Replay(None, 1, 2**32), []
    for raw in entries_of(WHOLE)[:-2]:
        entry = decode(Entry, raw)
        if entry.kind == EntryKind.TAKEN:
            round_id, message = decode_frame(entry.content)
            if not keep(message):
                continue
            new = change((Identity(entry.party), message))
            entry = replace(entry, content=bytes(encode_frame(round_id, new)))
        out.append(encode(entry))
        replay.take(entry)
    assert replay._end is not None
    return sealed([*out, framed(EntryKind.OUTCOME, content=encode(replay._end))[1]])


def test_a_server_that_makes_up_a_commitment_and_the_answers_seals_another_sum() -> None:
    """Clients sign neither: said in SECURITY.md, and to be known by whoever reads a transcript."""
    cohort = Cohort(7, dropout=0.15).advance(Phase.SHARE_KEYS)
    view, victim, seed = cohort.view(), cohort.identities[0], b"\x07" * 31 + b"\x01"
    holders = view.graph.neighbors_of(0)
    pairs = share_pairs(
        bytes(32),
        seed,
        share_seed=bytes(32),
        roster_digest=view.roster_digest,
        threshold=view.roster.threshold,
        holders=len(holders),
    )
    made_up = {cohort.identities[h]: pair[40:] for h, pair in zip(holders, pairs, strict=True)}

    def change(sent: tuple[Identity, Any]) -> Any:
        party, message = sent
        if isinstance(message, SharedKeys) and party == victim:
            return replace(message, seed_commitment=seed_commitment(view.roster_digest, victim, seed))
        if isinstance(message, UnmaskingResponse):
            shares = (
                replace(share, share=made_up[party]) if share.dealer == victim else share
                for share in message.self_seed_shares
            )
            return replace(message, self_seed_shares=tuple(shares))
        return message

    report, honest = check(rewritten(change)), check(WHOLE)
    assert report.ok
    assert report.total is not None
    assert honest.total is not None
    assert not np.array_equal(report.total, honest.total)
    assert report.facts.survivors == honest.facts.survivors  # these the clients signed


def test_a_server_that_withholds_the_answers_seals_an_abort_of_the_same_round() -> None:
    data = rewritten(lambda sent: sent[1], keep=lambda message: not isinstance(message, UnmaskingResponse))
    report = check(data)
    assert report.ok
    assert report.facts.outcome == "aborted: too few unmasking answers"


# --- hostile files


def with_header(**fields: object) -> bytes:
    entries = entries_of(WHOLE)[:-1]
    entry = decode(Entry, entries[0])
    header = replace(decode(Header, entry.content), **fields)  # type: ignore[arg-type]
    return sealed([encode(replace(entry, content=encode(header))), *entries[1:]])


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"admitted": ()}, "0 clients were admitted, minimum_cohort is 7"),
        ({"admitted": tuple(sorted((*COHORT.identities, SERVER.identity)))}, "identity of a client"),
        ({"version": 2}, "version 2 is not known"),
    ],
    ids=["nobody", "the server itself", "version"],
)
def test_a_header_that_no_session_makes_is_found(fields: dict[str, object], what: str) -> None:
    first = check(with_header(**fields)).findings[0]
    assert first.place == 0
    assert what in first.what


def test_a_round_that_needs_more_memory_than_allowed_is_not_replayed() -> None:
    header = decode(Header, decode(Entry, entries_of(WHOLE)[0]).content)
    long = replace(header.parameters, vector_length=2**33, ring_bits=64)
    first = check(with_header(parameters=long)).findings[0]
    assert str(first) == f"entry 0: to replay it takes {2**36} bytes, {2**32} are allowed"
    report = verify(io.BytesIO(WHOLE), memory_limit=1000)
    assert any("to replay it takes" in finding.what for finding in report.findings)


def test_a_file_of_nothing_but_errors_costs_little() -> None:
    report = check(MAGIC + bytes(2_000_000))
    assert len(report.findings) < 110
    assert report.entries < 1000
    assert "too much is wrong to go on" in map(str, report.findings)


def test_parties_that_are_not_in_the_registry_are_found() -> None:
    known = frozenset(COHORT.identities)
    assert verify(io.BytesIO(WHOLE), known=known).ok
    report = verify(io.BytesIO(WHOLE), known=known - {COHORT.identities[3]})
    (finding,) = report.findings  # one cause, one line
    assert finding.what == f"admitted: {COHORT.identities[3].hex()[:12]} not in the registry"
    assert not report.ok
    assert report.facts.total is not None  # what they did is replayed all the same


def test_nothing_follows_an_outcome() -> None:
    entries = entries_of(SMALL)[:-1]
    outcome = decode(Outcome, decode(Entry, entries[-1]).content)
    lie = framed(EntryKind.OUTCOME, content=encode(replace(outcome, total_digest=b"\xee" * 32)))[1]
    report = check(sealed([*entries, lie]))
    assert [str(f) for f in report.findings] == [f"entry {len(entries)}: an entry after the outcome"]
    assert report.facts.total_digest == outcome.total_digest


# --- the recorder


def test_a_round_that_its_caller_ends_is_sealed_with_the_reason() -> None:
    cohort = Cohort(4)
    file = record(cohort)
    cohort.advance(Phase.CONSISTENCY_CHECK)
    assert isinstance(cohort.server, RecordedServerSession)
    cohort.server.end("the ledger refuses")
    report = check(file.getvalue())
    assert report.ok
    assert report.facts.outcome == "ended by the server: the ledger refuses"
    assert len(report.facts.survivors) == 4


def test_a_round_goes_on_when_its_record_cannot_be_written_and_is_not_sealed() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 3000:
                raise OSError("no space left")
            return super().write(data)

    cohort = Cohort(5)
    server = RecordedServerSession(
        cohort.parameters, admitted=cohort.identities, file=Full(), signer=SERVER, keep_inputs=True
    )
    cohort.server = server
    assert cohort.total() == [1] * 5
    assert str(server.failure) == "no space left"
    assert not server.sealed


def test_a_recorded_session_is_not_restored() -> None:
    cohort = Cohort(4)
    record(cohort)
    cohort.advance(Phase.SHARE_KEYS)
    with pytest.raises(LocalProtocolError, match="restore a ServerSession, or resume"):
        RecordedServerSession.restore(cohort.server.snapshot())
    assert ServerSession.restore(cohort.server.snapshot())[0].phase is Phase.SHARE_KEYS
