"""Plan a round of the one-upload protocol, and compare it with the pairwise one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from secagg.costs_oneshot import OneShotCosts, OneShotLoad
from secagg.errors import InfeasibleParameters, ParameterError
from secagg.kernels import CHECKS, RING, packed_bytes
from secagg.messages.fields import varint
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Acceptance,
    Candidate,
    Committee,
    CommitteeCertificate,
    CommitteeKey,
    Dealing,
    Dealings,
    Opening,
    OpenRequest,
    Review,
    ReviewRequest,
    SumProposal,
    SumSignature,
    Upload,
    committee_to_wire,
    oneshot_to_wire,
)
from secagg.messages.rows import Rows
from secagg.params import HYBRID, Adversary, ThreatModel, require
from secagg.params_oneshot import CommitteeParameters, OneShotParameters
from secagg.planning import Plan, Risk, ring_bits_for
from secagg.primitives.committee import CommitteeNumbers, committee_parameters
from secagg.primitives.kem import CIPHERTEXT_BYTES, KEY_BYTES
from secagg.primitives.merkle import depth
from secagg.primitives.packed_sharing import TESTS, rows_of, words_bytes
from secagg.primitives.sealing import SEALED_TAG_BYTES

# log2 of classical work on a lattice of these parameters, by bits of an entry, where the truncation counts as
# the error that it is (d = 2^20; core-SVP; PROTOCOL.md, part 2, section 1).
_TRUNCATED = {30: 246, 35: 177, 40: 131, 44: 115}
_UNTRUNCATED = 115


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotPlan:
    """A round with so many uploads and decryptors.

    numbers            of the committee
    fewest_survivors   below this many uploads no sum is opened
    client_up          bytes of the one upload; client_down: certificate and parameters
    decryptor_up, decryptor_down   bytes of one member in the round
    lattice_bits       log2 of the classical work on the masks, without and with the truncation, as estimated
                       for d = 2^20 whatever d is; None: the mask is a one-time pad
    client_s, decryptor_s, server_s   predicted seconds, one thread; None without unit costs
    """

    clients: int
    candidates: int
    vector_length: int
    ring_bits: int
    upload_bits: int
    threat_model: ThreatModel
    post_quantum: bool
    numbers: CommitteeNumbers
    fewest_survivors: int
    client_up: int
    client_down: int
    decryptor_up: int
    decryptor_down: int
    lattice_bits: tuple[int, int] | None
    client_s: float | None
    decryptor_s: float | None
    server_s: float | None

    @property
    def risks(self) -> tuple[Risk, ...]:
        """Counts are certain where every candidate is a member; else the bits that were asked for."""
        model, numbers = self.threat_model, self.numbers
        secure = -float(model.security_bits + (model.grinding_bits if model.active else 0))
        correct = -float(model.correctness_bits)
        sampled = self.candidates > numbers.members
        return (
            Risk(
                f"more than {numbers.privacy_threshold} of {numbers.members} members collude",
                secure if sampled else -float("inf"),
                secure,
            ),
            Risk(
                f"more than {numbers.dropouts} of {numbers.members} members drop out over the epoch",
                correct if sampled else -float("inf"),
                correct,
            ),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers of the committee leave open."""
        numbers, notes = self.numbers, []
        if self.threat_model.active:
            if numbers.corrected < numbers.liars:
                notes.append(
                    f"fewer than the {numbers.liars} members that may lie are corrected: {numbers.corrected}"
                )
            if numbers.members - numbers.dropouts - numbers.liars < numbers.quorum:
                notes.append(
                    f"{numbers.liars} silent members beside {numbers.dropouts} dropouts stop a round"
                )
        return tuple(notes)


def plan_oneshot(
    *,
    clients: int,
    decryptors: int,
    vector_length: int,
    value_bits: int,
    maximum_weight: int = 1,
    noise_bound: int = 0,
    minimum_survivors: int = 3,
    colluding: int = 1,
    committee_size: int = 256,
    post_quantum: bool = True,
    corrupt: float = 0.1,
    dropout: float = 0.1,
    adversary: Adversary = "active",
    security_bits: int = 40,
    correctness_bits: int = 20,
    grinding_bits: int = 40,
    costs: OneShotCosts | None = None,
) -> OneShotPlan:
    """Plan a round in which every client uploads; who vanishes only makes it smaller.

    decryptors        candidates for the committee; corrupt, dropout: shares of them
    colluding         clients that collude, at most, an absolute number
    the rest          as for `secagg.plan`
    raises            ParameterError; InfeasibleParameters, which says what to relax
    """
    require(isinstance(clients, int) and 2 <= clients <= 2**20, "clients", "an integer in 2..2^20", clients)
    model = ThreatModel(
        corrupt=corrupt,
        dropout=dropout,
        adversary=adversary,
        security_bits=security_bits,
        correctness_bits=correctness_bits,
        grinding_bits=grinding_bits,
    )
    ring_bits = ring_bits_for(clients, value_bits, maximum_weight, noise_bound)
    try:
        parameters = OneShotParameters(
            round_id=bytes(16),
            committee_digest=bytes(32),
            vector_length=vector_length,
            ring_bits=ring_bits,
            contexts=(bytes(32),),
            maximum_uploads=clients,
            minimum_survivors=minimum_survivors,
            colluding=colluding,
        )
    except ParameterError as error:
        raise InfeasibleParameters(f"one-shot: {error}") from error
    numbers = committee_parameters(decryptors, committee_size, 3, model)
    committee = CommitteeParameters(
        epoch_id=bytes(16),
        threat_model=model,
        minimum_candidates=decryptors,
        minimum_committee=3,
        committee_size=committee_size,
        post_quantum=post_quantum,
    )
    sizes = _traffic(parameters, committee, numbers, clients, decryptors)
    load = OneShotLoad(uploads=clients, parameters=parameters, numbers=numbers, post_quantum=post_quantum)
    return OneShotPlan(
        clients=clients,
        candidates=decryptors,
        vector_length=vector_length,
        ring_bits=ring_bits,
        upload_bits=parameters.upload_bits,
        threat_model=model,
        post_quantum=post_quantum,
        numbers=numbers,
        fewest_survivors=parameters.effective_minimum,
        lattice_bits=_lattice_bits(parameters),
        client_s=None if costs is None else costs.client_seconds(load),
        decryptor_s=None if costs is None else costs.decryptor_seconds(load),
        server_s=None if costs is None else costs.server_seconds(load),
        **sizes,
    )


def load_of(planned: OneShotPlan) -> OneShotLoad:
    """Return the work of a plan, to measure its costs by."""
    parameters = OneShotParameters(
        round_id=bytes(16),
        committee_digest=bytes(32),
        vector_length=planned.vector_length,
        ring_bits=planned.ring_bits,
        contexts=(bytes(32),),
        maximum_uploads=planned.clients,
        minimum_survivors=2,
        colluding=0,
    )
    return OneShotLoad(
        uploads=planned.clients,
        parameters=parameters,
        numbers=planned.numbers,
        post_quantum=planned.post_quantum,
    )


def _lattice_bits(parameters: OneShotParameters) -> tuple[int, int] | None:
    if parameters.vector_length + CHECKS <= RING:
        return None
    counted = next(bits for limit, bits in _TRUNCATED.items() if parameters.upload_bits <= limit)
    return _UNTRUNCATED, counted


def _traffic(
    parameters: OneShotParameters,
    committee: CommitteeParameters,
    numbers: CommitteeNumbers,
    clients: int,
    decryptors: int,
) -> dict[str, int]:
    """Bytes of the frames of one client and of one member, made of zeros; everybody speaks and is honest."""
    m, rows = numbers.members, rows_of(numbers.packing)
    kem_key, ciphertext = (KEY_BYTES, CIPHERTEXT_BYTES) if committee.post_quantum else (0, 0)
    name, signature = bytes(32), bytes(64)
    sealed = ciphertext + words_bytes(rows + TESTS) + SEALED_TAG_BYTES
    tests, path = bytes(words_bytes(TESTS * numbers.base)), 32 * depth(m)

    def size(message: object) -> int:
        return ONESHOT_FRAMES.encode(bytes(16), message).size

    def several(count: int, kind: type, **sizes: int) -> Rows[object]:
        return Rows.build(kind, count, **{field: bytes(length) for field, length in sizes.items()})

    keys = several(m, CommitteeKey, identity=32, agreement_key=32, kem_key=kem_key, signature=64)
    certificate = CommitteeCertificate(
        committee_to_wire(committee),
        Committee(
            numbers.privacy_threshold,
            numbers.packing,
            several(decryptors, Candidate, identity=32, key_digest=32),  # type: ignore[arg-type]
            bytes(-(-decryptors // 8)),
        ),
        keys,  # type: ignore[arg-type]
        tuple(Acceptance(i, signature) for i in range(numbers.quorum)),
    )
    packed = packed_bytes(parameters.entries, parameters.upload_bits)
    one = Upload(name, name, b"", name, bytes(32 * m), tests, bytes(m * sealed), signature)
    empty, head = size(one), len(varint(packed)) + 1
    body = size(Upload(name, name, bytes(1), name, bytes(32 * m), tests, bytes(m * sealed), signature))
    upload = body - 3 + head + packed + len(varint(empty + packed)) - len(varint(empty))
    dealing = Dealing(name, name, name, name, tests, signature, bytes(sealed), bytes(32 + path), bytes(path))
    dealt = size(Dealings((dealing,)))
    signatures = tuple(SumSignature(i, signature) for i in range(numbers.quorum))
    down = clients * dealt + size(oneshot_to_wire(parameters)) + size(ReviewRequest())
    down += size(SumProposal(bytes(32 * clients))) + size(OpenRequest(signatures))
    up = size(Review(clients, name, ())) + size(Opening(m - 1, bytes(words_bytes(rows)), signature))
    up += size(SumSignature(m - 1, signature)) if numbers.quorum else 0
    return {
        "client_up": upload,
        "client_down": size(certificate) + size(oneshot_to_wire(parameters)),
        "decryptor_up": up,
        "decryptor_down": down,
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both protocols for one federation.

    rows         what is compared: (name, pairwise, one-shot)
    recommended  the protocol to begin with; why: in a sentence
    """

    rows: tuple[tuple[str, str, str], ...]
    recommended: Literal["pairwise", "one-shot"]
    why: str


def compare(pairwise: Plan | None, oneshot: OneShotPlan | None, *, refused: str = "") -> Comparison:
    """Compare plans of both protocols, None where there is none.

    refused  why there is none
    raises   ParameterError: there is neither
    """
    if pairwise is None and oneshot is None:
        raise ParameterError("compare: one of both plans must be there")
    rows = tuple(
        (name, of_pairwise, of_oneshot) for name, of_pairwise, of_oneshot in _compared(pairwise, oneshot)
    )
    recommended, why = _recommended(pairwise, oneshot)
    return Comparison(rows, recommended, f"{why}: {refused}" if refused else why)


_ABSENT = "cannot be planned"


def _compared(pairwise: Plan | None, oneshot: OneShotPlan | None) -> list[tuple[str, str, str]]:
    a = _pairwise_column(pairwise) if pairwise is not None else {}
    b = _oneshot_column(oneshot) if oneshot is not None else {}
    return [(name, a.get(name, _ABSENT), b.get(name, _ABSENT)) for name in (a or b)]


def _pairwise_column(one: Plan) -> Mapping[str, str]:
    return {
        "answers of a client": "5" if one.threat_model.active else "4",
        "bytes up, a client": f"{sum(one.up.values()):,}",
        "bytes down, a client": f"{sum(one.down.values()):,}",
        "seconds, a client": _seconds(one.client_s),
        "seconds, a decryptor": "none",
        "seconds, server": _seconds(one.server_s),
        "drop-outs survived": f"{one.dropouts} of {one.clients}, at any time; they cost the server work",
        "trusted": f"no more than {one.colluders} of the {one.clients} clients collude",
        "post-quantum": "yes" if one.suite == HYBRID else "no",
    }


def _oneshot_column(one: OneShotPlan) -> Mapping[str, str]:
    numbers = one.numbers
    return {
        "answers of a client": "1",
        "bytes up, a client": f"{one.client_up:,}",
        "bytes down, a client": f"{one.client_down:,}, most of it once an epoch",
        "seconds, a client": _seconds(one.client_s),
        "seconds, a decryptor": _seconds(one.decryptor_s),
        "seconds, server": _seconds(one.server_s),
        "drop-outs survived": f"any but {one.fewest_survivors} clients, at no cost; {numbers.dropouts} of "
        f"{numbers.members} decryptors",
        "trusted": f"no more than {numbers.privacy_threshold} of {numbers.members} decryptors collude until "
        "the epoch is closed",
        "post-quantum": "yes" if one.post_quantum else "masks only",
    }


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


def _recommended(
    pairwise: Plan | None, oneshot: OneShotPlan | None
) -> tuple[Literal["pairwise", "one-shot"], str]:
    if pairwise is None:
        return "one-shot", "the pairwise protocol cannot be planned for these demands"
    if oneshot is None:
        return "pairwise", "the one-upload protocol cannot be planned for these demands"
    up = sum(pairwise.up.values())
    if pairwise.clients <= 64 and pairwise.threat_model.dropout <= 0.1 and oneshot.client_up > up:
        return (
            "pairwise",
            "few clients that are nearly always there: it needs no committee and sends less",
        )
    return (
        "one-shot",
        (
            "clients speak once and may vanish at no cost; begin with pilots of 7 decryptors or more, "
            "post_quantum on and short epochs"
        ),
    )
