"""Values that every party computes from a committee and a round, and the texts that are signed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from secagg.effects import RefusalReason
from secagg.errors import InfeasibleParameters
from secagg.kernels import modq_words, packed_bytes
from secagg.messages import encode
from secagg.messages.oneshot import (
    Acceptance,
    Candidate,
    Committee,
    CommitteeCertificate,
    CommitteeKey,
    committee_to_wire,
    oneshot_to_wire,
)
from secagg.params import Buffer, Identity, Secret, require
from secagg.params_oneshot import CommitteeParameters, OneShotParameters, OneShotPolicy
from secagg.primitives import kem
from secagg.primitives.agreement import is_usable
from secagg.primitives.bitmap import to_bitmap
from secagg.primitives.committee import (
    MAXIMUM_CANDIDATES,
    CommitteeNumbers,
    committee_parameters,
    members_of,
)
from secagg.primitives.labels import ONESHOT
from secagg.primitives.merkle import depth
from secagg.primitives.packed_sharing import TESTS, Words, rows_of, words_bytes
from secagg.primitives.sealing import SEALED_TAG_BYTES
from secagg.primitives.signatures import verify
from secagg.protocol.round import refuse, short


def committee_parameters_digest(parameters: CommitteeParameters) -> bytes:
    """H("committee-parameters-digest", bytes(CommitteeParameters))."""
    return ONESHOT.digest("committee-parameters-digest", encode(committee_to_wire(parameters)))


def key_text(parameters_hash: bytes, key: CommitteeKey) -> bytes:
    """Text of a candidate's signature under its keys."""
    return ONESHOT.encode("committee-key", parameters_hash, key.agreement_key, key.kem_key)


def candidate_of(key: CommitteeKey) -> Candidate:
    """Return what the committee says of a candidate's keys."""
    return Candidate(
        key.identity,
        ONESHOT.digest("committee-key-digest", key.identity, key.agreement_key, key.kem_key),
    )


def candidates_digest(parameters_hash: bytes, candidates: Sequence[Candidate]) -> bytes:
    """Digest that the places of the candidates follow from."""
    parts = (candidate.identity + candidate.key_digest for candidate in candidates)
    return ONESHOT.digest("candidates-digest", parameters_hash, *parts)


def check_key(parameters: CommitteeParameters, parameters_hash: bytes, key: CommitteeKey) -> None:
    """Raise RemoteProtocolError unless a candidate's keys are usable and signed by it."""
    if len(key.kem_key) != (kem.KEY_BYTES if parameters.post_quantum else 0):
        raise refuse(RefusalReason.WRONG_LENGTH, "CommitteeKey.kem_key: not the size for post_quantum")
    if not verify(key.identity, key_text(parameters_hash, key), key.signature):
        raise refuse(RefusalReason.BAD_SIGNATURE, f"CommitteeKey.signature: of {short(key.identity)}")
    if not is_usable(key.agreement_key):
        raise refuse(RefusalReason.BAD_KEY, f"CommitteeKey.agreement_key: of {short(key.identity)}")
    if parameters.post_quantum and not kem.is_usable(key.kem_key):
        raise refuse(RefusalReason.BAD_KEY, f"CommitteeKey.kem_key: of {short(key.identity)}")


def numbers_for(parameters: CommitteeParameters, candidates: int) -> CommitteeNumbers:
    """Return the numbers of a committee of so many candidates. Raises InfeasibleParameters."""
    return committee_parameters(
        candidates, parameters.committee_size, parameters.minimum_committee, parameters.threat_model
    )


@dataclass(frozen=True, slots=True)
class CommitteeView:
    """A committee and what follows from it. Members are meant by their index, by identity."""

    parameters: CommitteeParameters
    committee: Committee
    committee_digest: bytes
    numbers: CommitteeNumbers
    members: tuple[Identity, ...]
    keys: tuple[CommitteeKey, ...] = field(repr=False)
    index: dict[Identity, int] = field(repr=False)

    @classmethod
    def form(cls, parameters: CommitteeParameters, keys: Sequence[CommitteeKey]) -> CommitteeView:
        """Form the committee of these candidates. Raises InfeasibleParameters."""
        parameters_hash = committee_parameters_digest(parameters)
        ordered = sorted(keys, key=lambda key: key.identity)
        candidates = tuple(candidate_of(key) for key in ordered)
        numbers = numbers_for(parameters, len(candidates))
        chosen = members_of(
            [Identity(candidate.identity) for candidate in candidates],
            candidates_digest(parameters_hash, candidates),
            parameters.committee_size,
        )
        committee = Committee(
            numbers.privacy_threshold, numbers.packing, candidates, to_bitmap(chosen, len(candidates))
        )
        return cls._of(parameters, committee, numbers, [ordered[i] for i in chosen])

    @classmethod
    def check(
        cls,
        parameters: CommitteeParameters,
        committee: Committee,
        keys: Sequence[CommitteeKey],
        policy: OneShotPolicy,
    ) -> CommitteeView:
        """Check everything that a member or a client checks of a committee. Raises RemoteProtocolError."""
        names = [Identity(candidate.identity) for candidate in committee.candidates]
        if not parameters.minimum_candidates <= len(names) <= MAXIMUM_CANDIDATES:
            raise refuse(
                RefusalReason.WEAK_PARAMETERS,
                f"Committee.candidates: {len(names)}, minimum_candidates is {parameters.minimum_candidates}",
            )
        if policy.decryptors is not None and (strangers := set(names) - policy.decryptors):
            who = short(min(strangers))
            raise refuse(RefusalReason.UNKNOWN_IDENTITY, f"Committee.candidates: {who} may be no decryptor")
        try:
            numbers = numbers_for(parameters, len(names))
        except InfeasibleParameters as error:
            raise refuse(RefusalReason.WEAK_PARAMETERS, f"Committee: {error}") from error
        if (committee.privacy_threshold, committee.packing) != (numbers.privacy_threshold, numbers.packing):
            raise refuse(
                RefusalReason.WEAK_PARAMETERS,
                f"Committee: threshold, packing must be {numbers.privacy_threshold}, {numbers.packing}, "
                f"are {committee.privacy_threshold}, {committee.packing}",
            )
        parameters_hash = committee_parameters_digest(parameters)
        digest = candidates_digest(parameters_hash, committee.candidates)
        chosen = members_of(names, digest, parameters.committee_size)
        if bytes(committee.members) != to_bitmap(chosen, len(names)):
            raise refuse(RefusalReason.WEAK_PARAMETERS, "Committee.members: not those of smallest place")
        if [candidate_of(key) for key in keys] != [committee.candidates[i] for i in chosen]:
            raise refuse(RefusalReason.MALFORMED, "keys: not exactly those of the members")
        for key in keys:
            check_key(parameters, parameters_hash, key)
        own = replace(committee, members=bytes(committee.members))  # the frame is the caller's
        return cls._of(parameters, own, numbers, keys)

    @classmethod
    def _of(
        cls,
        parameters: CommitteeParameters,
        committee: Committee,
        numbers: CommitteeNumbers,
        keys: Sequence[CommitteeKey],
    ) -> CommitteeView:
        parameters_hash = committee_parameters_digest(parameters)
        members = tuple(Identity(key.identity) for key in keys)
        return cls(
            parameters,
            committee,
            ONESHOT.digest("committee-digest", parameters_hash, encode(committee)),
            numbers,
            members,
            tuple(keys),
            {identity: i for i, identity in enumerate(members)},
        )

    @property
    def active(self) -> bool:
        """Return whether the server may lie."""
        return self.parameters.threat_model.active

    @property
    def candidates(self) -> frozenset[Identity]:
        """Everybody that sent keys."""
        return frozenset(Identity(candidate.identity) for candidate in self.committee.candidates)

    def acceptance_text(self) -> bytes:
        """Return what a member signs to accept the committee."""
        return ONESHOT.encode("committee", self.committee_digest)

    def check_certificate(self, acceptances: Sequence[Acceptance]) -> None:
        """Raise RemoteProtocolError unless exactly a quorum accepted; passive: nobody."""
        if len(acceptances) != self.numbers.quorum:
            raise refuse(
                RefusalReason.NO_QUORUM,
                f"CommitteeCertificate: needs {self.numbers.quorum} acceptances, has {len(acceptances)}",
            )
        text = self.acceptance_text()
        for acceptance in acceptances:  # distinct: the list ascends by index
            if acceptance.index >= len(self.members):
                raise refuse(RefusalReason.NO_QUORUM, f"Acceptance.index: {acceptance.index} is no member")
            if not verify(self.members[acceptance.index], text, acceptance.signature):
                raise refuse(
                    RefusalReason.BAD_SIGNATURE, f"Acceptance.signature: of member {acceptance.index}"
                )

    def certificate(self, acceptances: Sequence[Acceptance]) -> CommitteeCertificate:
        """Return the certificate that clients get."""
        return CommitteeCertificate(
            committee_to_wire(self.parameters), self.committee, self.keys, tuple(acceptances)
        )


@dataclass(frozen=True, slots=True)
class OneShotView:
    """A round and its committee, and what follows from both."""

    parameters: OneShotParameters
    committee: CommitteeView
    round_digest: bytes

    @classmethod
    def build(cls, parameters: OneShotParameters, committee: CommitteeView) -> OneShotView:
        """Compute the digest of the round."""
        return cls(
            parameters, committee, ONESHOT.digest("oneshot-round", encode(oneshot_to_wire(parameters)))
        )

    @property
    def rows(self) -> int:
        """B: rows that carry a secret."""
        return rows_of(self.committee.numbers.packing)

    @property
    def blob_bytes(self) -> int:
        """Size of a member's share."""
        return words_bytes(self.rows + TESTS)

    @property
    def ciphertext_bytes(self) -> int:
        """Size of a member's KEM ciphertext: 0 or 1088."""
        return kem.CIPHERTEXT_BYTES if self.committee.parameters.post_quantum else 0

    @property
    def sealed_bytes(self) -> int:
        """Size of what is sealed for one member."""
        return self.ciphertext_bytes + self.blob_bytes + SEALED_TAG_BYTES

    @property
    def tests_bytes(self) -> int:
        """Size of the test polynomials."""
        return words_bytes(TESTS * self.committee.numbers.base)

    @property
    def opening_bytes(self) -> int:
        """Size of the values of an opening."""
        return words_bytes(self.rows)

    @property
    def packed_size(self) -> int:
        """Size of a packed upload, or of a total."""
        return packed_bytes(self.parameters.entries, self.parameters.upload_bits)

    @property
    def path_bytes(self) -> int:
        """Size of the siblings in a tree over the members."""
        return 32 * depth(len(self.committee.members))

    @property
    def lattice_seed(self) -> bytes:
        """Seed of the public polynomials a."""
        return ONESHOT.digest("lattice", self.round_digest)

    def seed(
        self, label: str, identity: Identity, context: bytes, plain_digest: bytes, seed: Secret
    ) -> bytes:
        """Seed of secret or noise: bound to vector and round, so that repeated entropy repeats no mask."""
        return ONESHOT.digest(label, self.round_digest, identity, context, plain_digest, seed)

    def gamma(self, part: UploadDigests) -> Words:
        """Coefficients of the degree test, (TESTS, B)."""
        seed = ONESHOT.digest(
            "degree-test",
            self.round_digest,
            part.identity,
            part.ephemeral_key,
            part.context,
            part.packed,
            part.root,
        )
        return modq_words(seed, TESTS * self.rows).reshape(TESTS, self.rows)

    def seal_info(
        self, client: bytes, member: bytes, ephemeral_key: bytes, ciphertext: bytes, root: bytes
    ) -> bytes:
        """Return the HKDF info of a member's sealing key."""
        return ONESHOT.encode("deal", client, member, ephemeral_key, ciphertext, root)

    def seal_text(self, client: bytes, member: bytes, root: bytes) -> bytes:
        """Return the data that a sealed share is authentic with."""
        return ONESHOT.encode("dealt", self.round_digest, client, member, root)

    def sum_text(self, sum_hash: bytes) -> bytes:
        """Return what a member signs to agree on a sum."""
        return ONESHOT.encode("sum", self.round_digest, sum_hash)

    def opening_text(self, sum_hash: bytes, values_digest: bytes) -> bytes:
        """Return what a member signs under its opening."""
        return ONESHOT.encode("opening", self.round_digest, sum_hash, values_digest)

    def reviewed(self, digests: Sequence[bytes]) -> bytes:
        """Digest of the Dealings that a member took."""
        return ONESHOT.digest("reviewed", self.round_digest, b"".join(sorted(digests)))


@dataclass(frozen=True, slots=True)
class UploadDigests:
    """All that is signed of an upload."""

    identity: Identity
    context: bytes
    packed: bytes  # SHA-256
    ephemeral_key: bytes
    root: bytes
    tests: bytes  # SHA-256
    sealed_root: bytes

    def text(self, view: OneShotView) -> bytes:
        """Return what the client signs."""
        return ONESHOT.encode(
            "oneshot-upload",
            view.round_digest,
            self.context,
            self.packed,
            self.ephemeral_key,
            self.root,
            self.tests,
            self.sealed_root,
        )

    def digest(self, view: OneShotView) -> bytes:
        """Upload digest."""
        return ONESHOT.digest(
            "upload-digest",
            view.round_digest,
            self.identity,
            self.context,
            self.packed,
            self.ephemeral_key,
            self.root,
            self.tests,
            self.sealed_root,
        )


def require_committee(parameters: OneShotParameters, committee: CommitteeView) -> None:
    """Raise ParameterError unless a round is of this committee."""
    require(
        parameters.committee_digest == committee.committee_digest,
        "committee_digest",
        "that of the committee",
        parameters.committee_digest.hex(),
    )


def sum_digest(uploads: Sequence[bytes]) -> bytes:
    """H("sum-digest", the upload digests in ascending order, concatenated)."""
    return ONESHOT.digest("sum-digest", b"".join(uploads))


_SEALED_LEAF = ONESHOT.encode("sealed-leaf") + (4).to_bytes(4, "big")  # a server makes very many


def _place(member: int) -> bytes:
    return (member + 1).to_bytes(4, "big")


def share_leaf(member: int, blob: bytes) -> bytes:
    """Leaf of a member's share; members count from 1 here."""
    return ONESHOT.digest("share-leaf", _place(member), blob)


def sealed_leaf(member: int, sealed: bytes) -> bytes:
    """Leaf of what is sealed for a member."""
    return sha256(b"".join((_SEALED_LEAF, _place(member), len(sealed).to_bytes(4, "big"), sealed)))


def sha256(data: Buffer) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()
