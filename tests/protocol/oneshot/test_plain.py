"""The package against another implementation of the same text, byte for byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from secagg.effects import Aborted, AbortReason, OneShotAggregate
from secagg.errors import InfeasibleParameters, ParameterError
from secagg.kernels import lane_dtype
from secagg.messages.oneshot import ONESHOT_FRAMES
from secagg.params import Identity, ThreatModel
from secagg.params_oneshot import OneShotPhase, noise_bits
from secagg.primitives.committee import committee_parameters
from secagg.protocol.oneshot import OneShotServer
from tests.protocol.network import CONTEXT, CounterEntropy
from tests.protocol.oneshot import plain
from tests.protocol.oneshot.network import EPOCH_ID, ROUND_ID, Round, message_of

OTHER = bytes(31) + b"\1"
REVIEW, PROPOSAL, SIGNATURE, REQUEST, OPENING = 30, 31, 32, 33, 34  # kinds of frames


def seeds(name: str, count: int) -> list[bytes]:
    """The seeds of the harness's signers, by identity."""
    entropy = CounterEntropy(name)
    return sorted((entropy(32) for _ in range(count)), key=plain.identity_of)


def body(frame: bytes) -> tuple[int, bytes]:
    """Kind and body, and that the frame has the form that the other implementation gives it."""
    envelope = ONESHOT_FRAMES.open(frame)
    kind, rest = envelope.kind + 21, bytes(envelope.body)
    assert frame == plain.frame(ROUND_ID, kind, rest)
    return kind, rest


@dataclass
class Both:
    """A round of the package, and all that the other implementation needs to follow it."""

    real: Round
    answers: dict[int, list[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        real = self.real
        given, model = real.epoch.parameters, real.epoch.parameters.threat_model
        self.parameters = plain.CommitteeParameters(
            EPOCH_ID,
            plain_model(model),
            given.minimum_candidates,
            given.minimum_committee,
            given.committee_size,
            given.post_quantum,
        )
        self.signers: dict[bytes, bytes] = {}
        secrets: dict[bytes, plain.EpochSecret] = {}
        keys = []
        for i, signer in enumerate(seeds(f"{real.seed}/decryptors", real.members)):
            entropy = CounterEntropy(f"{real.seed}/{i}")
            secret = plain.EpochSecret(entropy(32), entropy(64) if given.post_quantum else b"")
            key = plain.committee_key(self.parameters, signer, secret)
            keys.append(key)
            self.signers[key.identity], secrets[key.identity] = signer, secret
        self.committee = plain.form_committee(self.parameters, keys)
        self.members = [key.identity for key in self.committee.members]
        self.secrets = [secrets[member] for member in self.members]
        self.clients = seeds(f"{real.seed}/clients", real.clients)
        self.known = [plain.identity_of(seed) for seed in self.clients]
        wire = real.parameters
        self.round = plain.Round(
            self.committee,
            wire.round_id,
            wire.vector_length,
            wire.ring_bits,
            wire.contexts,
            wire.maximum_uploads,
            wire.minimum_survivors,
            wire.minimum_per_context,
            wire.colluding,
        )
        self.uploads: list[plain.Upload] = []
        real.change_answer = self._answer

    def _answer(self, member: Identity, frame: bytes) -> list[bytes]:
        self.answers[self.members.index(member)].append(body(frame))
        return [frame]

    @property
    def digests(self) -> list[bytes]:
        return [upload.digest(self.round) for upload in self.uploads]

    def draws(self, client: int) -> tuple[bytes, bytes]:
        entropy = CounterEntropy(f"{self.real.seed}/client/{client}")
        return entropy(32), entropy(32)

    def give(self, upload: plain.Upload) -> None:
        """An upload for the server."""
        self.uploads.append(upload)
        frame = plain.frame(ROUND_ID, 27, upload.encoded())
        self.real.carry(self.real.server.receive(Identity(upload.identity), frame))

    def answered(self, kind: int) -> dict[int, bytes]:
        """The last answer of this kind of each member, by index."""
        return {
            i: each[-1] for i, all_ in self.answers.items() if (each := [b for k, b in all_ if k == kind])
        }

    def asked(self, kind: int) -> list[tuple[int, bytes]]:
        """What the server sent of this kind, and to whom, by index."""
        return [
            (self.members.index(member), rest)
            for member, frames in self.real.sent.items()
            for sent, rest in map(body, frames)
            if sent == kind
        ]

    def taken(self, index: int) -> list[plain.Taken]:
        """What a member should think of all uploads."""
        j = index + 1
        return [
            plain.take(self.round, j, self.secrets[index], self.known, plain.dealing_of(upload, j))
            for upload in self.uploads
        ]


def plain_model(model: ThreatModel) -> plain.ThreatModel:
    return plain.ThreatModel(
        model.corrupt_ppm,
        model.dropout_ppm,
        model.active,
        model.security_bits,
        model.correctness_bits,
        model.grinding_bits,
    )


def vectors(count: int, length: int, bits: int) -> list[list[int]]:
    """Any values, with the smallest and the largest among them."""
    out = np.random.default_rng(length).integers(0, 2**bits, (count, length), np.uint64)
    out[0], out[1, -1] = 2**bits - 1, 0
    return [[int(x) for x in row] for row in out]


def same_upload(both: Both, client: int, context: bytes, vector: Sequence[int]) -> plain.Upload:
    """The package's upload, which must be the other's; ciphertexts are taken from it, for they are random."""
    frame = both.real.upload(
        client, context=context, vector=np.array(vector, lane_dtype(both.real.ring_bits))
    )
    sent, one = message_of(frame), both.round
    sealed = [
        bytes(sent.sealed[at : at + one.sealed_bytes]) for at in range(0, len(sent.sealed), one.sealed_bytes)
    ]
    kems = None
    if both.parameters.post_quantum:
        kems = []
        for secret, each in zip(both.secrets, sealed, strict=True):
            ciphertext = each[: plain.CIPHERTEXT_BYTES]
            key = MLKEM768PrivateKey.from_seed_bytes(secret.kem)
            kems.append((ciphertext, key.decapsulate(ciphertext)))
    right = plain.upload(one, both.clients[client], context, vector, *both.draws(client), kems)
    assert sent.identity == right.identity
    assert sent.context == right.context
    assert sent.ephemeral_key == right.ephemeral_key
    assert sent.packed == right.packed
    assert sent.leaves == b"".join(right.leaves)
    assert sent.tests == right.tests
    assert sealed == list(right.sealed)
    assert sent.signature == right.signature
    assert frame == plain.frame(ROUND_ID, 27, right.encoded())
    return right


def same_certificate(both: Both) -> None:
    committee, view = both.committee, both.real.committee
    assert list(view.members) == both.members
    assert view.committee_digest == committee.digest()
    acceptances = {
        i: plain.sign(both.signers[member], committee.acceptance_text())
        for i, member in enumerate(both.members)
    }
    certificate = plain.certificate(committee, acceptances if both.parameters.model.active else {})
    assert both.real.epoch.certificate == plain.frame(EPOCH_ID, 25, certificate)


def same_agreement(both: Both, chosen: Sequence[bytes], openers: Iterable[int]) -> dict[int, bytes]:
    """Everything that is said about a sum; returns the values of the openings by index."""
    one, members = both.round, range(len(both.members))
    assert both.asked(PROPOSAL) == [(index, plain.sum_proposal(chosen)) for index in members]
    if both.parameters.model.active:
        signatures = {
            index: plain.sum_signature(one, index, both.signers[both.members[index]], chosen)
            for index in members
        }
        assert both.answered(SIGNATURE) == signatures
        request = plain.open_request(one, signatures)
        assert both.asked(REQUEST) == [(index, request) for index in openers]
    else:
        assert both.answered(SIGNATURE) == {}
        assert both.asked(REQUEST) == []
    openings = {}
    for index in openers:
        summed = [taken for taken in both.taken(index) if taken.upload in chosen]
        openings[index] = plain.opening_values(one, summed)
    assert both.answered(OPENING) == {
        index: plain.opening(one, index, both.signers[both.members[index]], chosen, values)
        for index, values in openings.items()
    }
    return openings


def same_reviews(both: Both) -> dict[int, list[plain.Taken]]:
    taken = {index: both.taken(index) for index in range(len(both.members))}
    assert both.answered(REVIEW) == {index: plain.review(both.round, each) for index, each in taken.items()}
    return taken


@pytest.mark.parametrize(
    ("clients", "members", "length", "bits", "adversary", "post_quantum"),
    [
        (3, 4, 10, 16, "active", False),
        (2, 4, 1, 1, "active", True),
        (3, 5, 2032, 20, "active", False),
        (3, 8, 2033, 32, "active", True),
        (2, 16, 4500, 36, "active", False),
        (2, 33, 50, 8, "active", False),
        (3, 6, 40, 40, "active", False),
        (3, 4, 100, 12, "passive", False),
        (2, 9, 2100, 24, "passive", True),
    ],
)
def test_a_round_is_the_same(
    clients: int, members: int, length: int, bits: int, adversary: Any, post_quantum: bool
) -> None:
    both = Both(
        Round(
            clients,
            members,
            adversary,
            bits,
            length,
            epoch_changes={"post_quantum": post_quantum},
            changes={"maximum_uploads": 4 if bits == 40 else 100},
        )
    )
    follow(both)


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_committee_that_is_drawn_is_the_same(adversary: Any) -> None:
    changes = {
        "committee_size": 16,
        "threat_model": ThreatModel(corrupt=0.05, dropout=0.05, adversary=adversary),
    }
    follow(Both(Round(3, 24, adversary, epoch_changes=changes)))


def test_several_contexts_are_the_same() -> None:
    both = Both(Round(6, 4, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 2}))
    follow(both)


def follow(both: Both) -> None:
    """Play a whole round, and compare everything that is said."""
    real, one = both.real, both.round
    same_certificate(both)
    assert bytes(real.server.parameters_frame) == plain.frame(ROUND_ID, 26, one.encoded())
    assert real.view.round_digest == one.digest()
    given = vectors(real.clients, one.d, one.b)
    contexts = [one.contexts[client % len(one.contexts)] for client in range(real.clients)]
    real.carry(real.server.start())
    for client in range(real.clients):
        both.give(same_upload(both, client, contexts[client], given[client]))
    real.close()
    for index, frames in enumerate(real.sent.values()):
        dealings = [d for f in frames if body(f)[0] == 28 for d in message_of(f).dealings]
        expected = {upload.identity: plain.dealing_of(upload, index + 1).encoded() for upload in both.uploads}
        assert {bytes(d.identity): encoded_dealing(d) for d in dealings} == expected
    assert not any(taken.reason for each in same_reviews(both).values() for taken in each)
    chosen = both.digests
    openings = same_agreement(both, chosen, range(len(both.members)))
    decoded = plain.decode(one, chosen, openings)
    total = plain.unmasked(one, [upload.packed for upload in both.uploads], decoded.secret)
    assert total == [sum(column) % 2**one.b for column in zip(*given, strict=True)]
    assert isinstance(real.outcome, OneShotAggregate), real.outcome
    assert real.outcome.total.tolist() == total
    assert not decoded.guilty
    assert real.outcome.unprotected == decoded.unprotected


# --- complaints


def lies(told: dict[int, int]) -> dict[str, Any]:
    """What a client must do for such a complaint of each of these members."""

    def deal(j: int, blob: bytes) -> bytes:
        reason = told.get(j - 1)
        if reason == 4:
            share = (int.from_bytes(blob, "little") % 2**50 + 1) % plain.Q
            return (int.from_bytes(blob, "little") >> 50 << 50 | share).to_bytes(len(blob), "little")
        if reason == 3:
            first = plain.Q if j % 2 else int.from_bytes(blob, "little") % 2**50
            spare = 0 if j % 2 else 128
            inner = int.from_bytes(blob[:-1] + bytes([blob[-1] | spare]), "little")
            return (inner >> 50 << 50 | first).to_bytes(len(blob), "little")
        return blob

    def swap(j: int, blob: bytes) -> bytes:
        return blob[:-1] + b"\xff" if told.get(j - 1) == 2 else blob  # 3 would apply, too

    def spoil(j: int, sealed: bytes) -> bytes:
        return bytes([sealed[0] ^ 1]) + sealed[1:] if told.get(j - 1) == 1 else sealed

    return {"deal": deal, "swap": swap, "spoil": spoil}


def encapsulated(both: Both) -> list[tuple[bytes, bytes]]:
    out = []
    for secret in both.secrets:
        shared, ciphertext = MLKEM768PrivateKey.from_seed_bytes(secret.kem).public_key().encapsulate()
        out.append((ciphertext, shared))
    return out


@pytest.mark.parametrize(
    ("told", "adversary", "post_quantum"),
    [
        ({3: {2: 4}}, "active", False),  # at most a tenth
        ({3: {2: 4}, 5: {2: 1}, 7: {2: 3}}, "active", False),  # more: the member is silent
        ({3: {2: 4}, 5: {1: 1}, 7: {4: 3}, 8: {4: 2}}, "active", False),
        ({3: {2: 4}, 5: {1: 1}}, "active", False),  # a tie
        ({3: {2: 4, 5: 2}, 5: {0: 1}}, "active", True),  # a guilty client
        ({3: {2: 4, 5: 2}, 5: {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 6: 3, 7: 2}}, "active", False),
        ({3: {2: 4}, 5: {1: 1, 2: 2}}, "passive", False),
    ],
)
def test_complaints_are_the_same(told: dict[int, dict[int, int]], adversary: Any, post_quantum: bool) -> None:
    both = Both(
        Round(10, 8, adversary, epoch_changes={"post_quantum": post_quantum}, changes={"maximum_uploads": 20})
    )
    real, one = both.real, both.round
    stranger = seeds("stranger", 1)[0]
    clients = [*both.clients, stranger]
    known = [Identity(plain.identity_of(seed)) for seed in clients]
    real.server = OneShotServer(real.parameters, real.committee, known=known)
    real.carry(real.server.start())
    given = vectors(len(clients), one.d, one.b)
    for client, signer in enumerate(clients):
        kems = encapsulated(both) if post_quantum else None
        hooks = lies(told.get(client, {}))
        draws = both.draws(client)
        both.give(plain.upload(one, signer, CONTEXT, given[client], *draws, kems, **hooks))
    real.close()
    taken = same_reviews(both)
    names = both.digests
    expected = {index: {names[-1]: 5} for index in taken}
    for client, each in told.items():
        for index, reason in each.items():
            expected[index][names[client]] = reason
    assert {
        index: {one.upload: one.reason for one in each if one.reason} for index, each in taken.items()
    } == expected
    choice = plain.choose(one, dict.fromkeys(names, CONTEXT), taken)
    follow_choice(both, choice, given)


def follow_choice(both: Both, choice: plain.Choice, given: list[list[int]]) -> None:
    """The rest of a round in which there were complaints."""
    real, one, names = both.real, both.round, both.digests
    openers = [i for i in range(len(both.members)) if i not in choice.silent]
    openings = same_agreement(both, choice.chosen, openers)
    secret = plain.decode(one, choice.chosen, openings).secret
    chosen = [names.index(name) for name in choice.chosen]
    total = plain.unmasked(one, [both.uploads[i].packed for i in chosen], secret)
    assert total == [sum(column) % 2**one.b for column in zip(*(given[i] for i in chosen), strict=True)]
    assert isinstance(real.outcome, OneShotAggregate), real.outcome
    assert real.outcome.total.tolist() == total
    assert set(real.outcome.survivors) == {both.uploads[i].identity for i in chosen}
    guilty = {both.uploads[names.index(name)].identity for name in choice.guilty}
    assert {blame.client for blame in real.outcome.blamed if blame.guilty} == guilty


def encoded_dealing(dealing: Any) -> bytes:
    return plain.Dealing(
        dealing.identity,
        dealing.context,
        dealing.packed_digest,
        dealing.ephemeral_key,
        bytes(dealing.tests),
        dealing.signature,
        bytes(dealing.sealed),
        bytes(dealing.path),
        bytes(dealing.sealed_path),
    ).encoded()


# --- Dealings that count as not sent


def signed_again(dealing: plain.Dealing, j: int, one: plain.Round, signer: bytes) -> plain.Dealing:
    text = plain.upload_text(one, plain.dealing_parts(j, dealing))
    return replace(dealing, signature=plain.sign(signer, text))


def test_the_same_dealings_are_refused() -> None:
    both = Both(Round(3, 5))
    real, one, index = both.real, both.round, 4
    real.carry(real.server.start())
    signer, vector, draws = both.clients[0], [1, 2, 3], both.draws(0)
    right = plain.dealing_of(plain.upload(one, signer, CONTEXT, vector, *draws), index + 1)
    entries = one.numbers.base * plain.TESTS
    tests = plain.unpack(right.tests, 50, entries)
    assert tests is not None
    order = (2**255 - 19).to_bytes(32, "little")
    signed: list[dict[str, bytes]] = [
        {"context": OTHER},
        {"ephemeral_key": bytes(32)},
        {"ephemeral_key": order},
        {"ephemeral_key": (2**255 - 18 + 9).to_bytes(32, "little")},
        {"tests": plain.pack([plain.Q, *tests[1:]], 50)},
        {"tests": right.tests + b"\0"},
        {"sealed": right.sealed + b"\0"},
        {"sealed": right.sealed[1:]},
        {"path": right.path + bytes(32)},
        {"path": right.path[:-32]},
        {"sealed_path": right.sealed_path + bytes(32)},
        {"sealed_path": right.sealed_path[:-32]},
    ]
    if entries * 50 % 8:
        signed.append({"tests": right.tests[:-1] + bytes([right.tests[-1] | 128])})
    wrong = [signed_again(replace(right, **change), index + 1, one, signer) for change in signed]
    for name in plain.Dealing.__dataclass_fields__:
        value = getattr(right, name)
        wrong.append(replace(right, **{name: value[:-1] + bytes([value[-1] ^ 1])}))
    for dealing in wrong:
        with pytest.raises(plain.Refuse):
            plain.take(one, index + 1, both.secrets[index], both.known, dealing)
        assert reviewed(both, index, dealing) == plain.review(one, [])
    taken = [plain.take(one, index + 1, both.secrets[index], both.known, right)]
    assert reviewed(both, index, right) == plain.review(one, taken)
    other = plain.dealing_of(plain.upload(one, signer, CONTEXT, [1, 2, 4], *draws), index + 1)
    taken.append(plain.take(one, index + 1, both.secrets[index], both.known, other))
    assert reviewed(both, index, other) == plain.review(one, taken)


def reviewed(both: Both, index: int, dealing: plain.Dealing) -> bytes:
    """The Review of a member that was sent this, too."""
    member = Identity(both.members[index])
    dealings = plain.message((1, dealing.encoded()))
    assert both.real.answers(member, plain.frame(ROUND_ID, 28, dealings)) == []
    (answer,) = both.real.answers(member, plain.frame(ROUND_ID, 29, b""))
    kind, review = body(answer)
    assert kind == REVIEW
    return review


# --- sums that are not signed


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_the_same_sums_are_signed(adversary: Any) -> None:
    """One proposal of each kind, to a member that has agreed to none yet."""
    changes = {"minimum_per_context": 2, "maximum_uploads": 5, "minimum_survivors": 3}
    both = Both(Round(6, 4, adversary, contexts=(CONTEXT, OTHER), changes=changes))
    real, one, index = both.real, both.round, 1
    real.carry(real.server.start())
    stranger = seeds("stranger", 1)[0]
    signers = [*both.clients, both.clients[0], stranger]
    for i, signer in enumerate(signers):  # 0, 1, 2, 6, 7 and 3, 4, 5 are about the same
        hooks = lies({index: 4}) if i == 5 else {}
        context = OTHER if i in {3, 4, 5} else CONTEXT
        vector = [i] * one.d
        both.uploads.append(plain.upload(one, signer, context, vector, *both.draws(i), **hooks))
    dealings = sorted((plain.dealing_of(each, index + 1) for each in both.uploads), key=lambda d: d.identity)
    taken = both.taken(index)
    names = [each.upload for each in taken]
    member = Identity(both.members[index])
    for dealing in dealings:  # one identity has two
        frame = plain.frame(ROUND_ID, 28, plain.message((1, dealing.encoded())))
        assert real.answers(member, frame) == []
    uploads = {name: (each.identity, each.context) for name, each in zip(names, both.uploads, strict=True)}
    sets = [
        [0, 1],  # below the minimum
        [0, 1, 3],  # one of a context
        [0, 1, 2, 7],  # a stranger
        [0, 1, 6],  # twice the same
        [0, 1, 2, 3, 4, 5],  # too many
        [],
    ]
    proposals = [b"".join(sorted(names[i] for i in each)) for each in sets]
    proposals.append(b"".join(sorted(names[:3], reverse=True)))
    proposals.append(b"".join(sorted([*names[:3], bytes(32)])))  # nobody's
    proposals.append(b"".join(sorted([*names[:3], names[0]])))
    proposals.append(b"".join(sorted(names[:3]))[:-1])
    last = [1, 2, 4, 5] if both.parameters.model.active else [1, 2, 3, 4]
    proposals += [b"".join(sorted(names[i] for i in each)) for each in ([1, 2, 4, 5], last)]
    agreed = []
    for proposal in proposals:
        answers = real.answers(member, plain.frame(ROUND_ID, PROPOSAL, plain.message((1, proposal))))
        right = plain.may_sign(one, taken, uploads, proposal)
        assert [body(answer)[0] for answer in answers] == [answer_to(both)] * right
        agreed += [proposal] * right
    assert agreed == (proposals[-2:] if both.parameters.model.active else proposals[-1:])


def answer_to(both: Both) -> int:
    return SIGNATURE if both.parameters.model.active else OPENING


# --- wrong openings


@pytest.mark.parametrize(
    ("openers", "liars", "malformed"),
    [
        (16, 1, 0),
        (16, 4, 0),  # (16 - 8) // 2
        (16, 5, 0),
        (16, 2, 3),  # 13 are left
        (16, 3, 3),
        (13, 2, 0),
        (13, 3, 0),
        (11, 1, 0),
        (10, 1, 0),  # protected, and nothing can be corrected
        (10, 0, 1),
        (10, 0, 0),
        (9, 0, 0),  # unprotected
        (9, 0, 1),
        (9, 1, 0),
        (8, 0, 1),
    ],
)
def test_wrong_openings_are_the_same(openers: int, liars: int, malformed: int) -> None:
    both = Both(Round(2, 16))
    real, one = both.real, both.round
    real.lost = {Identity(member): OneShotPhase.OPEN for member in both.members[openers:]}
    values: dict[int, bytes] = {}

    def change(member: Identity, frame: bytes) -> list[bytes]:
        kind, _ = body(frame)
        if kind != OPENING:
            return [frame]
        index, opening = both.members.index(member), bytes(message_of(frame).values)
        words = plain.unpack(opening, 50, one.rows)
        assert words is not None
        if index < liars:
            words[index] = (words[index] + 1 + index) % plain.Q
        elif index < liars + malformed:
            words[-1] = plain.Q
        values[index] = plain.pack(words, 50)
        said = plain.opening(one, index, both.signers[member], both.digests, values[index])
        return [plain.frame(ROUND_ID, OPENING, said)]

    given = vectors(2, one.d, one.b)
    real.carry(real.server.start())
    for client in range(2):
        both.give(plain.upload(one, both.clients[client], CONTEXT, given[client], *both.draws(client)))
    real.change_answer = change
    real.close()
    assert len(values) == openers
    try:
        decoded = plain.decode(one, both.digests, values)
    except (plain.DecodeFailed, plain.TooFewOpenings) as error:
        few = isinstance(error, plain.TooFewOpenings)
        assert isinstance(real.outcome, Aborted), real.outcome
        assert real.outcome.reason is (AbortReason.TOO_FEW_OPENINGS if few else AbortReason.DECODE_FAILED)
        return
    assert isinstance(real.outcome, OneShotAggregate), real.outcome
    total = plain.unmasked(one, [upload.packed for upload in both.uploads], decoded.secret)
    assert real.outcome.total.tolist() == total == [sum(c) % 2**one.b for c in zip(*given, strict=True)]
    assert real.outcome.unprotected == decoded.unprotected
    guilty = {both.members[index] for index in decoded.guilty}
    assert {blame.client for blame in real.outcome.blamed} == guilty


# --- numbers


def test_the_constants_are_those_of_their_definitions() -> None:
    assert pow(11, (plain.Q - 1) // 4096, plain.Q) == plain.PSI
    assert pow(plain.PSI, plain.N, plain.Q) == plain.Q - 1
    values = list(islice(plain.uniform(bytes(32)), plain.N))
    coefficients = plain.intt(values)
    for i in (0, 1, 2, 1023, 2047):
        at, found = pow(plain.PSI, 2 * plain.reversed_bits(i) + 1, plain.Q), 0
        for coefficient in reversed(coefficients):
            found = (found * at + coefficient) % plain.Q
        assert found == values[i]


MODELS = [
    ThreatModel(),
    ThreatModel(adversary="passive"),
    ThreatModel(corrupt=0.05, dropout=0.05),
    ThreatModel(corrupt=0.05, dropout=0.05, adversary="passive", security_bits=80),
    ThreatModel(corrupt=0.2, dropout=0.1),
    ThreatModel(corrupt=1 / 3, dropout=0.0),
    ThreatModel(corrupt=0.0, dropout=0.3, correctness_bits=10, grinding_bits=0),
]


@pytest.mark.parametrize("model", MODELS)
def test_numbers_of_committees_are_the_same(model: ThreatModel) -> None:
    for size in (4, 20, 64, 256):
        parameters = plain.CommitteeParameters(EPOCH_ID, plain_model(model), 3, 3, size, False)
        for n in [*range(3, 40), 63, 64, 65, 100, 199, 256, 257, 300]:
            try:
                right = plain.committee_numbers(n, parameters)
            except plain.Infeasible:
                with pytest.raises(InfeasibleParameters):
                    committee_parameters(n, size, 3, model)
                continue
            found = committee_parameters(n, size, 3, model)
            assert right == plain.Numbers(
                found.members,
                found.privacy_threshold,
                found.liars,
                found.packing,
                found.quorum,
                found.dropouts,
                found.corrected,
            )


@pytest.mark.parametrize(
    ("n", "m", "T", "rho", "quorum", "L"),
    [
        (4, 4, 1, 1, 3, 1),
        (8, 8, 3, 1, 6, 1),
        (16, 16, 6, 2, 12, 2),
        (64, 64, 28, 8, 50, 7),
        (200, 200, 95, 25, 160, 20),
    ],
)
def test_the_examples_of_the_text(n: int, m: int, T: int, rho: int, quorum: int, L: int) -> None:
    parameters = plain.CommitteeParameters(EPOCH_ID, plain_model(ThreatModel()), 4, 4, 256, True)
    found = plain.committee_numbers(n, parameters)
    assert (found.m, found.T, found.rho, found.quorum, found.L) == (m, T, rho, quorum, L)


def test_noise_bits_are_the_same() -> None:
    counts = sorted({2**k + i for k in range(1, 21) for i in (-1, 0, 1)} | {30, 50, 100, 1000, 10**4, 10**5})
    for bits in range(1, 41):
        for count in counts:
            if not 2 <= count <= 2**20:
                continue
            try:
                right = plain.noise_bits(bits, count)
            except plain.Infeasible:
                with pytest.raises(ParameterError):
                    noise_bits(bits, count)
                continue
            assert noise_bits(bits, count) == right


def test_the_examples_of_noise_bits() -> None:
    for count, bits in ((100, 7), (1000, 8), (10**4, 10), (10**5, 12)):
        assert {plain.noise_bits(b, count) for b in range(1, 31)} == {bits}
    for ring, bits in ((1, 13), (25, 13), (26, 14), (27, 14), (28, 15)):
        assert plain.noise_bits(ring, 10**6) == bits
    with pytest.raises(plain.Infeasible):
        plain.noise_bits(29, 10**6)
