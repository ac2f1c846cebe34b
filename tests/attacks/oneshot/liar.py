"""Parties of the one-upload protocol that lie, and what whoever is lied to must not change by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from secagg.effects import CommitteeFormed, RefusalReason, Refused, Send, UploadTaken
from secagg.kernels import (
    LATTICE_FIELD,
    RING,
    LatticeSecret,
    UIntArray,
    modq_words,
    pack,
    pack_lattice,
    unpack_add,
)
from secagg.messages import decode
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Acceptance,
    CommitteeCertificate,
    CommitteeKey,
    Dealing,
    Dealings,
    Opening,
    OpenRequest,
    Packed,
    PartialSum,
    SumProposal,
    SumSignature,
    Upload,
    committee_to_wire,
)
from secagg.params import Identity
from secagg.primitives.agreement import public_key
from secagg.primitives.merkle import levels
from secagg.primitives.packed_sharing import (
    TESTS,
    Words,
    added,
    dealing_matrix,
    degree_tests,
    pack_words,
    rows,
)
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.client.masked_input_collection import checked_source
from secagg.protocol.oneshot import CommitteeSession, DecryptorSession, EdgeServer, OneShotServer
from secagg.protocol.oneshot.certificate import read_certificate
from secagg.protocol.oneshot.dealing import UploadTrees, _sealed
from secagg.protocol.oneshot.uploads import check_upload
from secagg.protocol.oneshot.view import (
    CommitteeView,
    OneShotView,
    UploadDigests,
    committee_parameters_digest,
    key_text,
    sha256,
    share_leaf,
    sum_digest,
)
from tests.protocol.network import CONTEXT, CounterEntropy
from tests.protocol.oneshot.network import (
    Epoch,
    Round,
    committee_parameters_of,
    framed,
    keys,
    message_of,
    policy_of,
)

T = TypeVar("T")
OTHER = bytes(31) + b"\1"  # another context
EDGE = Identity(bytes(31) + b"\7")


def _same(value: T) -> T:
    return value


# --- clients


@dataclass(kw_only=True)
class Lies:
    """The steps of an upload, each of which may lie about what the one before it made.

    fit  test polynomials through what these members find, as many as give a polynomial
    """

    base: Callable[[Words], Words] = _same  # base values, (T + rho, B + TESTS)
    shares: Callable[[Words], Words] = _same  # (m, B + TESTS)
    blobs: Callable[[list[bytes]], list[bytes]] = _same
    leaves: Callable[[list[bytes]], list[bytes]] = _same
    sealed: Callable[[list[bytes]], list[bytes]] = _same  # what lies in the boxes, leaves being right
    boxes: Callable[[list[bytes]], list[bytes]] = _same
    packed: Callable[[bytes], bytes] = _same
    tests: Callable[[bytes], bytes] = _same
    said: Callable[[Upload], Upload] = _same  # ahead of the signature
    signed: Callable[[Upload], Upload] = _same  # behind it
    fit: Sequence[int] = ()


HONEST = Lies()


def lying_upload(
    one: Round,
    client: int,
    lies: Lies = HONEST,
    *,
    context: bytes = CONTEXT,
    entropy: str = "",
    vector: UIntArray | None = None,
) -> bytes:
    """The frame of a client that follows section 4, but for its lies."""
    view, signer = one.view, one.signers[client]
    me, numbers, bits = signer.identity, view.committee.numbers, view.parameters.ring_bits
    draw = CounterEntropy(entropy or f"{one.seed}/client/{client}")
    ephemeral, seed = draw(32), draw(32)
    values = one.vector(client) if vector is None else vector
    plain = sha256(bytes(pack(values, bits)))
    count, base = view.rows, numbers.base
    words = modq_words(
        view.seed("oneshot-secret", me, context, plain, seed),
        RING + count * numbers.privacy_threshold + TESTS * base,
    )
    masked = pack_lattice(
        checked_source(values, values.size, bits),
        LatticeSecret(words[:RING]),
        public_seed=view.lattice_seed,
        noise_seed=view.seed("oneshot-noise", me, context, plain, seed),
        ring_bits=bits,
        upload_bits=view.parameters.upload_bits,
    )
    packed = lies.packed(bytes(masked))
    dealt = rows(
        words[:RING],
        words[RING : -TESTS * base],
        words[-TESTS * base :],
        numbers.packing,
        numbers.privacy_threshold,
    )
    dealt = lies.base(dealt)
    shares = lies.shares(LATTICE_FIELD.weighted_sums(dealing_matrix(numbers.members, base), dealt))
    blobs = lies.blobs([pack_words(share) for share in shares])
    leaves = lies.leaves([share_leaf(j, blob) for j, blob in enumerate(blobs)])
    root = levels(leaves)[-1][0]
    part = UploadDigests(me, context, sha256(packed), public_key(ephemeral), root, b"", b"")
    gamma = view.gamma(part)
    tests = pack_words(fitted(shares, gamma, lies.fit, base) if lies.fit else degree_tests(dealt, gamma))
    boxes = lies.boxes(_sealed(view, part, lies.sealed(blobs), ephemeral))
    upload = Upload(
        me,
        context,
        packed,
        part.ephemeral_key,
        b"".join(leaves),
        lies.tests(tests),
        b"".join(boxes),
        bytes(64),
    )
    return framed(view.parameters.round_id, lies.signed(signed(view, signer, lies.said(upload))))


def signed(view: OneShotView, signer: IdentityKey, upload: Upload) -> Upload:
    """The upload with a signature that is right for what it says."""
    return replace(upload, signature=signer.sign(UploadTrees.of(view, upload).part.text(view)))


def fitted(shares: Words, gamma: Words, members: Sequence[int], base: int) -> Words:
    """Test polynomials, by base values, that the shares of these members lie on."""
    count = gamma.shape[1]
    chosen = np.ascontiguousarray(shares[list(members)])
    found = added(
        LATTICE_FIELD.weighted_sums(gamma, np.ascontiguousarray(chosen[:, :count].T)),
        np.ascontiguousarray(chosen[:, count:].T),
    )
    points = np.array([member + 1 for member in members], np.uint64)
    weights = LATTICE_FIELD.lagrange(points, base_points(base))
    return np.ascontiguousarray(LATTICE_FIELD.weighted_sums(weights, np.ascontiguousarray(found.T)).T)


def base_points(base: int) -> Words:
    """-1, -2, .., where the base values are."""
    return np.uint64(LATTICE_FIELD.modulus) - np.arange(1, base + 1, dtype=np.uint64)


def at(places: Collection[int], change: Callable[[bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    """Change the byte strings at these places of a list."""
    return lambda items: [change(item) if i in places else item for i, item in enumerate(items)]


def flipped(data: bytes) -> bytes:
    """The bytes with another first one."""
    return bytes([data[0] ^ 1]) + data[1:]


def taken_by(one: Round, frame: bytes) -> dict[int, tuple[int, bytes]]:
    """Reason (0: none) and digest that each member would give for an upload; they stay as they are."""
    upload = message_of(frame)
    digest = UploadTrees.of(one.view, upload).digest
    out = {}
    for member, identity in enumerate(one.epoch.members):
        session = one.epoch.decryptors[identity]
        signer = next(signer for signer in one.epoch.signers if signer.identity == identity)
        copy, _ = DecryptorSession.restore(
            session.snapshot(), signer=signer, policy=one.epoch.policy, releases=session.releases
        )
        assert copy.receive(framed(one.parameters.round_id, Dealings((dealing(one, frame, member),)))) == []
        out[member] = copy._rounds[one.parameters.round_id].taken[digest].reason, digest
    return out


def reasons_of(one: Round, frame: bytes) -> list[int]:
    """Reasons of the members' complaints about an upload, by member; 0: none."""
    return [reason for reason, _ in taken_by(one, frame).values()]


# --- servers


def dealing(one: Round, frame: bytes, member: int) -> Dealing:
    """What a server sends a member of an upload."""
    upload = message_of(frame)
    taken = check_upload(one.view, upload.identity, upload, None)
    return decode(Dealing, taken.for_members(one.view)[member].tobytes())


def digest_of(one: Round, frame: bytes) -> bytes:
    """Upload digest."""
    return UploadTrees.of(one.view, message_of(frame)).digest


def proposal(one: Round, uploads: Iterable[bytes]) -> bytes:
    """The frame of a SumProposal of these digests, in their order."""
    return framed(one.parameters.round_id, SumProposal(b"".join(uploads)))


def signature(one: Round, member: int, uploads: Iterable[bytes], *, by: int | None = None) -> SumSignature:
    """The signature of a member that signs everything; by: another one, in its name."""
    text = one.view.sum_text(sum_digest(sorted(uploads)))
    return SumSignature(member, signer_of(one, member if by is None else by).sign(text))


def signer_of(one: Round, member: int) -> IdentityKey:
    """The key of a member."""
    return next(signer for signer in one.epoch.signers if signer.identity == one.epoch.members[member])


def request(one: Round, signatures: Iterable[SumSignature]) -> bytes:
    """The frame of an OpenRequest."""
    return framed(one.parameters.round_id, OpenRequest(tuple(signatures)))


def standing_at(one: Round, kind: str) -> dict[Identity, bytes]:
    """Play the round until members are sent their first messages of a kind, which are kept back."""
    held: dict[Identity, bytes] = {}

    def change(member: Identity, frame: bytes) -> list[bytes]:
        if type(message_of(frame)).__name__ != kind:
            return [frame]
        held[member] = frame
        return []

    one.change = change
    if one.server.phase is None:
        one.start()
    while not held and one.outcome is None:
        one.carry(one.server.close_phase())
    one.change = lambda _, frame: [frame]
    return held


def deliver(one: Round, frames: Mapping[Identity, bytes]) -> None:
    """Give members what was kept back from them."""
    for member, frame in frames.items():
        for answer in one.answers(member, frame):
            one.carry(one.server.receive(member, answer))


# --- who is lied to


def state_of(session: DecryptorSession) -> object:
    """Everything that a decryptor knows."""
    kept = session.snapshot() if session._epoch_id and not session.over else b""
    rounds = {
        round_id: (
            [
                (digest, one.reason, None if one.share is None else one.share.tobytes())
                for digest, one in sorted(state.taken.items())
            ],
            state.proposal,
            state.asked,
        )
        for round_id, state in session._rounds.items()
    }
    return type(session._phase), kept, rounds, session.releases


def member_refuses(session: DecryptorSession, frame: bytes, reason: RefusalReason) -> Refused:
    """A frame is refused for this reason and changes nothing."""
    before = state_of(session)
    effects = session.receive(frame)
    (effect,) = effects
    assert isinstance(effect, Refused), effect
    assert effect.reason is reason, effect
    assert state_of(session) == before
    return effect


def server_refuses(server: OneShotServer, sender: Identity, frame: bytes, reason: RefusalReason) -> Refused:
    """A frame is refused for this reason and changes nothing."""
    noted = set(server._refused)
    before = server.snapshot()
    (effect,) = server.receive(sender, frame)
    assert isinstance(effect, Refused), effect
    assert (effect.sender, effect.reason) == (sender, reason), effect
    server._refused = noted
    assert server.snapshot() == before
    return effect


# --- members


def lying_opening(
    one: Round, member: int, frame: bytes, values: Callable[[Words], Words], *, signed_by: int | None = None
) -> bytes:
    """A member's opening with other values, signed by it."""
    count = one.view.rows
    said = message_of(frame)
    words = np.zeros(count, np.uint64)
    unpack_add(words, bytes(said.values), 50)
    packed = pack_words(values(words))
    return framed(one.parameters.round_id, opening(one, member, packed, signed_by=signed_by))


def opening(one: Round, member: int, packed: bytes, *, signed_by: int | None = None) -> Opening:
    """An opening of these bytes."""
    signer = signer_of(one, member if signed_by is None else signed_by)
    text = one.view.opening_text(sum_digest(one.server._chosen().uploads), sha256(packed))
    return Opening(member, packed, signer.sign(text))


def shifted(by: int, place: int = 0) -> Callable[[Words], Words]:
    """Values with one of them changed."""

    def change(words: Words) -> Words:
        shift = np.zeros(words.size, np.uint64)
        shift[place] = by % LATTICE_FIELD.modulus
        return added(words, shift)

    return change


def epoch_of(
    members: int,
    clients: Collection[IdentityKey] = (),
    *,
    seed: str = "round",
    change: Mapping[int, Callable[[CommitteeKey], CommitteeKey]] | None = None,
    signers: Sequence[IdentityKey] | None = None,
    **changes: Any,
) -> Epoch:
    """Form a committee some of whose candidates send other keys than they have, signed by them.

    change  by place of the signer; what it returns is signed by that signer
    """
    signers = keys(f"{seed}/decryptors", members) if signers is None else signers
    parameters = committee_parameters_of(members, **changes)
    policy = policy_of(signers, clients, adversary=parameters.threat_model.adversary)
    hashed = committee_parameters_digest(parameters)
    decryptors: dict[Identity, DecryptorSession] = {}
    server = CommitteeSession(parameters, candidates=[signer.identity for signer in signers])
    server.start()
    for i, signer in enumerate(signers):
        session = DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy(f"{seed}/{i}"))
        decryptors[signer.identity] = session
        (sent,) = session.receive(framed(parameters.epoch_id, committee_to_wire(parameters)))
        assert isinstance(sent, Send)
        key = message_of(bytes(sent.frame))
        if change and i in change:
            other = change[i](key)
            key = replace(other, signature=signer.sign(key_text(hashed, other)))
            session._phase.own = key  # type: ignore[union-attr]
        assert server.receive(signer.identity, framed(parameters.epoch_id, key)) == []
    waiting = deque(server.close_phase())
    while waiting:
        effect = waiting.popleft()
        if isinstance(effect, CommitteeFormed):
            certificate = bytes(effect.certificate)
            view = read_certificate(certificate, policy)
            return Epoch(parameters, tuple(signers), policy, decryptors, certificate, view)
        assert isinstance(effect, Send), effect
        assert effect.to is not None
        for said in decryptors[effect.to].receive(bytes(effect.frame)):
            if isinstance(said, Send):
                assert server.receive(effect.to, bytes(said.frame)) == []
        if not waiting:
            waiting.extend(server.close_phase())
    raise AssertionError("no committee")


def with_epoch(one: Round, epoch: Epoch) -> Round:
    """The round with another committee."""
    one.epoch = epoch
    one.parameters = replace(one.parameters, committee_digest=epoch.committee.committee_digest)
    one.view = OneShotView.build(one.parameters, epoch.committee)
    one.server = OneShotServer(
        one.parameters, epoch.committee, known=[signer.identity for signer in one.signers]
    )
    one.sent = {member: [] for member in epoch.members}
    return one


def certificate(epoch: Epoch, view: CommitteeView, acceptances: Sequence[Acceptance]) -> bytes:
    """A certificate that says this, whoever signed what."""
    message = CommitteeCertificate(
        committee_to_wire(view.parameters), view.committee, view.keys, tuple(acceptances)
    )
    return framed(epoch.parameters.epoch_id, message)


def acceptance(epoch: Epoch, view: CommitteeView, member: int, *, by: int | None = None) -> Acceptance:
    """A member's acceptance; by: another one, in its name."""
    identity = view.members[member if by is None else by]
    signer = next(signer for signer in epoch.signers if signer.identity == identity)
    return Acceptance(member, signer.sign(view.acceptance_text()))


# --- edges


def with_edges(one: Round, edges: Collection[Identity]) -> Round:
    """The round with a server that takes partial sums."""
    known = [signer.identity for signer in one.signers]
    one.server = OneShotServer(one.parameters, one.committee, known=known, edges=edges)
    return one


def edge_of(one: Round, clients: Iterable[int], frames: Mapping[int, bytes] | None = None) -> EdgeServer:
    """An edge that has the uploads of these clients."""
    edge = EdgeServer(one.parameters, one.committee, known=None)
    for client in clients:
        frame = one.upload(client) if frames is None else frames[client]
        edge.receive(one.signers[client].identity, frame)
    return edge


def sent_on(edge: EdgeServer) -> bytes:
    """The frame of its partial sum."""
    (sent,) = edge.send_on()
    assert isinstance(sent, Send)
    return bytes(sent.frame)


def packed_of(one: Round, upload: bytes, packed: bytes) -> bytes:
    """The frame of a Packed."""
    return bytes(ONESHOT_FRAMES.encode(one.parameters.round_id, Packed(upload, packed)))


@dataclass
class Tree:
    """A round with edges: who brings which uploads.

    answer  is given what an edge says to a PackedRequest, and may say something else, or nothing
    serve   gives the round a server that takes partial sums
    """

    one: Round
    brought: Mapping[Identity, Iterable[int]]
    frames: dict[int, bytes] = field(default_factory=dict)
    edges: dict[Identity, EdgeServer] = field(init=False)
    asked: list[Identity] = field(default_factory=list)
    sent: dict[Identity, bytes] = field(default_factory=dict)
    answer: Callable[[Identity, bytes], list[bytes]] = lambda _, frame: [frame]

    serve: Callable[[Round, Collection[Identity]], Round] = with_edges

    def __post_init__(self) -> None:
        self.serve(self.one, list(self.brought))
        self.frames = {i: self.one.upload(i) for i in range(self.one.clients)} | self.frames
        self.edges = {name: edge_of(self.one, clients, self.frames) for name, clients in self.brought.items()}
        self.one.carry(self.one.server.start())

    def direct(self, *clients: int) -> None:
        for client in clients:
            self.one.carry(self.one.server.receive(self.one.signers[client].identity, self.frames[client]))

    def bring(self, edge: Identity) -> list[UploadTaken]:
        self.sent[edge] = sent_on(self.edges[edge])
        effects = self.one.server.receive(edge, self.sent[edge])
        taken = [effect for effect in effects if isinstance(effect, UploadTaken)]
        assert taken == effects
        return taken

    def carry(self, effects: Iterable[Any]) -> None:
        """Carry frames to edges and members."""
        for effect in effects:
            if isinstance(effect, Send) and effect.to in self.edges:
                assert effect.to is not None
                self.asked.append(effect.to)
                for said in self.edges[effect.to].receive(None, bytes(effect.frame)):
                    assert isinstance(said, Send), said
                    for frame in self.answer(effect.to, bytes(said.frame)):
                        self.carry(self.one.server.receive(effect.to, frame))
            else:
                self.one.carry([effect])

    def play(self) -> Round:
        while self.one.outcome is None:
            self.carry(self.one.server.close_phase())
        return self.one


def shifted_total(one: Round, place: int, by: int) -> Callable[[PartialSum], PartialSum]:
    bits = one.view.parameters.upload_bits

    def change(partial: PartialSum) -> PartialSum:
        lanes = np.zeros(one.view.parameters.entries, np.uint64)
        unpack_add(lanes, bytes(partial.total), bits)
        lanes[place] += np.uint64(by)
        return replace(partial, total=bytes(pack(lanes & np.uint64((1 << bits) - 1), bits)))

    return change
