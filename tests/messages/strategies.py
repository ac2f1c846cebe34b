"""A strategy for every message: all that the codec must carry, canonical lists included."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from secagg.messages import (
    Advertisement,
    MaskedInput,
    RevealedShare,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    RoundParametersMessage,
    SealedContribution,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
)
from secagg.messages.oneshot import (
    KEM_KEY_BYTES,
    Acceptance,
    Candidate,
    Committee,
    CommitteeAnnouncement,
    CommitteeCertificate,
    CommitteeKey,
    CommitteeParametersMessage,
    Complaint,
    Dealing,
    Dealings,
    OneShotParametersMessage,
    Opening,
    OpenRequest,
    Packed,
    PackedRequest,
    PartialSum,
    Review,
    ReviewRequest,
    SumProposal,
    SumSignature,
    Upload,
)
from secagg.messages.types import ThreatModelMessage
from secagg.primitives.kem import CIPHERTEXT_BYTES as KEM_CIPHERTEXT_BYTES


def octets(size: int) -> SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def ascending(items: SearchStrategy[Any], first_field: str, most: int = 4) -> SearchStrategy[tuple[Any, ...]]:
    def key(item: object) -> Any:
        return getattr(item, first_field)

    return st.lists(items, unique_by=key, max_size=most).map(lambda many: tuple(sorted(many, key=key)))


uint32 = st.sampled_from([0, 1, 127, 128, 2**14, 2**32 - 1]) | st.integers(0, 2**32 - 1)
uint64 = uint32 | st.sampled_from([2**32, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
large = st.binary(max_size=200)

threat_models = st.builds(ThreatModelMessage, uint32, uint32, uint32, uint32, uint32, uint32)
round_parameters = st.builds(
    RoundParametersMessage, uint32, octets(16), uint64, uint32, threat_models, uint32, uint32, octets(32)
)
kem_keys = st.just(b"") | octets(32).map(lambda part: part * (KEM_KEY_BYTES // 32))
kem_ciphertexts = octets(32).map(lambda part: part * (KEM_CIPHERTEXT_BYTES // 32))
advertisements = st.builds(Advertisement, octets(32), octets(32), octets(32), octets(64), kem_keys, kem_keys)
roster_entries = st.builds(RosterEntry, octets(32), octets(32))
rosters = st.builds(Roster, uint32, uint32, ascending(roster_entries, "identity"))
sealed_shares = st.builds(
    SealedShare, octets(32), octets(96), st.just(b"") | octets(64), st.just(b"") | kem_ciphertexts
)
contributions = ascending(st.builds(SealedContribution, octets(32), kem_ciphertexts, octets(48)), "peer")
survivor_signatures = st.builds(SurvivorSignature, uint32, octets(64))
upload_proofs = st.builds(UploadProof, octets(32), octets(32), octets(64))
revealed_shares = st.builds(RevealedShare, octets(32), octets(40))
complaints = st.lists(octets(32), unique=True, max_size=4).map(lambda many: tuple(sorted(many)))

# In the order of their kinds.
BODIES: dict[type, SearchStrategy[Any]] = {
    RoundParametersMessage: round_parameters,
    Advertisement: advertisements,
    RosterAnnouncement: st.builds(RosterAnnouncement, rosters, ascending(advertisements, "identity", 3)),
    SharedKeys: st.builds(
        SharedKeys, ascending(sealed_shares, "peer"), octets(32), octets(64), contributions
    ),
    ShareDelivery: st.builds(ShareDelivery, large, ascending(sealed_shares, "peer"), contributions),
    MaskedInput: st.builds(MaskedInput, large, complaints, octets(64), complaints),
    SurvivorSet: st.builds(SurvivorSet, large),
    SurvivorSignature: survivor_signatures,
    UnmaskingRequest: st.builds(
        UnmaskingRequest,
        large,
        ascending(upload_proofs, "identity"),
        ascending(survivor_signatures, "index"),
    ),
    UnmaskingResponse: st.builds(
        UnmaskingResponse, ascending(revealed_shares, "dealer"), ascending(revealed_shares, "dealer")
    ),
}
PARTS: dict[type, SearchStrategy[Any]] = {
    ThreatModelMessage: threat_models,
    RosterEntry: roster_entries,
    Roster: rosters,
    SealedShare: sealed_shares,
    SealedContribution: st.builds(SealedContribution, octets(32), kem_ciphertexts, octets(48)),
    UploadProof: upload_proofs,
    RevealedShare: revealed_shares,
}

# --- version 2 -------------------------------------------------------------------------------------

committee_parameters = st.builds(
    CommitteeParametersMessage,
    uint32,
    octets(16),
    threat_models,
    uint32,
    uint32,
    uint32,
    st.integers(0, 1),
)
committee_keys = st.builds(CommitteeKey, octets(32), octets(32), kem_keys, octets(64))
candidates = st.builds(Candidate, octets(32), octets(32))
committees = st.builds(Committee, uint32, uint32, ascending(candidates, "identity"), large)
acceptances = st.builds(Acceptance, uint32, octets(64))
contexts = st.lists(octets(32), unique=True, max_size=4).map(lambda many: tuple(sorted(many)))
dealings = st.builds(
    Dealing, octets(32), octets(32), octets(32), octets(32), large, octets(64), large, large, large
)
complaints_of_members = st.builds(Complaint, octets(32), st.integers(0, 5))
sum_signatures = st.builds(SumSignature, uint32, octets(64))

# In the order of their kinds, from 21.
ONESHOT_BODIES: dict[type, SearchStrategy[Any]] = {
    CommitteeParametersMessage: committee_parameters,
    CommitteeKey: committee_keys,
    CommitteeAnnouncement: st.builds(
        CommitteeAnnouncement, committees, ascending(committee_keys, "identity", 2)
    ),
    Acceptance: acceptances,
    CommitteeCertificate: st.builds(
        CommitteeCertificate,
        committee_parameters,
        committees,
        ascending(committee_keys, "identity", 2),
        ascending(acceptances, "index"),
    ),
    OneShotParametersMessage: st.builds(
        OneShotParametersMessage,
        uint32,
        octets(16),
        octets(32),
        uint64,
        uint32,
        contexts,
        uint32,
        uint32,
        uint32,
        uint32,
    ),
    Upload: st.builds(Upload, octets(32), octets(32), large, octets(32), large, large, large, octets(64)),
    Dealings: st.builds(Dealings, ascending(dealings, "identity", 2)),
    ReviewRequest: st.builds(ReviewRequest),
    Review: st.builds(Review, uint32, octets(32), ascending(complaints_of_members, "upload")),
    SumProposal: st.builds(SumProposal, large),
    SumSignature: sum_signatures,
    OpenRequest: st.builds(OpenRequest, ascending(sum_signatures, "index")),
    Opening: st.builds(Opening, uint32, large, octets(64)),
    PartialSum: st.builds(PartialSum, large, ascending(dealings, "identity", 2)),
    PackedRequest: st.builds(PackedRequest, octets(32)),
    Packed: st.builds(Packed, octets(32), large),
}
ONESHOT_PARTS: dict[type, SearchStrategy[Any]] = {
    Candidate: candidates,
    Committee: committees,
    Dealing: dealings,
    Complaint: complaints_of_members,
}
MESSAGES = BODIES | PARTS | ONESHOT_BODIES | ONESHOT_PARTS
bodies = st.one_of(*BODIES.values())
oneshot_bodies = st.one_of(*ONESHOT_BODIES.values())


def name_of(kind: type) -> str:
    """Name in secagg.proto; the classes of parameters bear another, for theirs is taken."""
    return kind.__name__.removesuffix("Message")
