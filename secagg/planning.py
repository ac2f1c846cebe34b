"""Plan a round before it is run: its parameters, the risks that remain, bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

from secagg.costs import Load, UnitCosts
from secagg.errors import InfeasibleParameters
from secagg.kernels import packed_bytes
from secagg.messages import (
    Advertisement,
    Encoded,
    MaskedInput,
    Message,
    RevealedShare,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    Rows,
    SealedContribution,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
    encode,
    encode_frame,
    encode_list,
    parameters_to_wire,
)
from secagg.messages.fields import varint
from secagg.params import (
    MAXIMUM_SECURITY_BITS,
    Adversary,
    GraphParameters,
    Phase,
    RoundParameters,
    Suite,
    ThreatModel,
    require,
)
from secagg.primitives.bounds import (
    choose_for,
    colluders,
    dropouts,
    effective_minimum,
    quorum,
    window_collusion,
)
from secagg.primitives.kem import CIPHERTEXT_BYTES, KEY_BYTES

M = TypeVar("M")
MOST_CLIENTS = 10_000_000


@dataclass(frozen=True, slots=True)
class Risk:
    """A bad event, the logarithm (base 2) of its exact probability, and how large that may be.

    -inf: impossible as long as no more collude and drop out than declared.
    """

    event: str
    log2: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A round for so many clients. Bytes are those of one client's frames when everybody stays.

    colluders, dropouts  most of each that the plan holds against
    quorum               survivor signatures; 0 in a passive round
    fewest_survivors     below this many no sum is opened
    client_s, server_s   predicted seconds of all phases, one thread; None without unit costs
    """

    clients: int
    vector_length: int
    ring_bits: int
    threat_model: ThreatModel
    suite: Suite
    graph: GraphParameters
    colluders: int
    dropouts: int
    quorum: int
    fewest_survivors: int
    risks: tuple[Risk, ...]
    up: Mapping[Phase, int]
    down: Mapping[Phase, int]
    client_s: float | None
    server_s: float | None

    @property
    def complete(self) -> bool:
        """Return whether every client is a neighbor of every other."""
        return self.graph.degree == self.clients - 1


def plan(
    *,
    clients: int,
    vector_length: int,
    value_bits: int,
    maximum_weight: int = 1,
    noise_bound: int = 0,
    minimum_survivors: int = 3,
    corrupt: float = 0.1,
    dropout: float = 0.1,
    adversary: Adversary = "active",
    security_bits: int = 40,
    correctness_bits: int = 20,
    grinding_bits: int = 40,
    suite: Suite = "x25519",
    costs: UnitCosts | None = None,
) -> Plan:
    """Plan a round.

    value_bits      of an entry of a vector: entries are below 2^value_bits
    maximum_weight  by which a client multiplies its vector
    noise_bound     largest magnitude of what a client adds to an entry, for privacy; doubles the range
    suite           "x25519-mlkem768" costs, on average, 1.7 KB a neighbor up and 4.1 KB down
    costs           of this machine, to predict seconds

    raises  ParameterError; InfeasibleParameters, which says what to relax
    """
    for name, value, lowest, limit in (
        ("clients", clients, 1, MOST_CLIENTS),
        ("vector_length", vector_length, 1, 2**35),
        ("value_bits", value_bits, 1, 64),
        ("maximum_weight", maximum_weight, 1, 2**63),
        ("noise_bound", noise_bound, 0, 2**63),
        ("minimum_survivors", minimum_survivors, 1, 2**32 - 1),
        ("security_bits", security_bits, 0, MAXIMUM_SECURITY_BITS),
        ("correctness_bits", correctness_bits, 0, MAXIMUM_SECURITY_BITS),
        ("grinding_bits", grinding_bits, 0, MAXIMUM_SECURITY_BITS),
    ):
        in_range = isinstance(value, int) and lowest <= value <= limit
        require(in_range, name, f"an integer in {lowest}..{limit}", value)
    model = ThreatModel(
        corrupt=corrupt,
        dropout=dropout,
        adversary=adversary,
        security_bits=security_bits,
        correctness_bits=correctness_bits,
        grinding_bits=grinding_bits,
    )
    ring_bits = ring_bits_for(clients, value_bits, maximum_weight, noise_bound)
    graph = choose_for(clients, model)
    k = graph.degree
    parameters = RoundParameters(
        round_id=bytes(16),
        vector_length=vector_length,
        ring_bits=ring_bits,
        context=bytes(32),
        threat_model=model,
        minimum_cohort=clients,
        minimum_survivors=minimum_survivors,
        suite=suite,
    )
    signatures = quorum(clients, k, model) if model.active else 0
    lost = dropouts(clients, k, model)
    fewest = effective_minimum(clients, k, model, minimum_survivors)
    if fewest > clients - lost:
        raise InfeasibleParameters(
            f"minimum_survivors: a sum needs {fewest} of {clients} clients, {clients - lost} stay when "
            f"{lost} drop out: lower minimum_survivors, corrupt or dropout"
        )
    up, down = _traffic(parameters, clients, graph, signatures)
    load = Load(
        clients=clients,
        dropouts=lost,
        length=vector_length,
        ring_bits=ring_bits,
        graph=graph,
        quorum=signatures,
        hybrid=parameters.hybrid,
    )
    return Plan(
        clients=clients,
        vector_length=vector_length,
        ring_bits=ring_bits,
        threat_model=model,
        suite=suite,
        graph=graph,
        colluders=colluders(clients, k, model),
        dropouts=lost,
        quorum=signatures,
        fewest_survivors=fewest,
        risks=_risks(clients, graph, model),
        up=up,
        down=down,
        client_s=None if costs is None else costs.client_seconds(load),
        server_s=None if costs is None else costs.server_seconds(load),
    )


def ring_bits_for(clients: int, value_bits: int, maximum_weight: int, noise_bound: int) -> int:
    """Bits in which no sum can wrap."""
    largest = clients * (((1 << value_bits) - 1) * maximum_weight + 2 * noise_bound)
    bits = largest.bit_length()
    if bits > 64:
        excess = bits - 64
        smaller = clients * (((1 << max(value_bits - excess, 0)) - 1) * maximum_weight + 2 * noise_bound)
        helps = [f"value_bits by {excess}"] if value_bits > excess and smaller.bit_length() <= 64 else []
        helps.append(f"the product of all by a factor of 2^{excess}")
        raise InfeasibleParameters(
            f"ring_bits: sums up to {clients} x ((2^{value_bits} - 1) x {maximum_weight} "
            f"+ {2 * noise_bound}) need {bits} bits, 64 is the limit: lower {', or '.join(helps)}"
        )
    return max(bits, 1)


# --- risks: the exact probabilities behind degree and threshold (PROTOCOL.md, 1) -------------------


@lru_cache(maxsize=256)
def exact_upper_tail(population: int, marked: int, draws: int, x: int) -> Fraction:
    """P[X > x], X the marked ones among `draws` drawn without replacement: exact, no floating point."""
    unmarked = population - marked
    first, last = max(x + 1, draws - unmarked, 0), min(marked, draws)
    if first > last:
        return Fraction(0)
    term = math.comb(marked, first) * math.comb(unmarked, draws - first)
    total = term
    for j in range(first, last):
        term = term * (marked - j) * (draws - j) // ((j + 1) * (unmarked - draws + j + 1))
        total += term
    return Fraction(total, math.comb(population, draws))


def log2_of(probability: Fraction) -> float:
    """Logarithm of an exact probability of any size."""
    if not probability:
        return -math.inf
    numerator, denominator = probability.numerator, probability.denominator
    shift = numerator.bit_length() - denominator.bit_length()
    ratio = Fraction(numerator, denominator) / (Fraction(2) ** shift)
    return shift + math.log2(float(ratio))


def _risks(n: int, graph: GraphParameters, model: ThreatModel) -> tuple[Risk, ...]:
    k, t = graph.degree, graph.threshold
    c, d = colluders(n, k, model), dropouts(n, k, model)
    strength = model.security_bits + (model.grinding_bits if model.active else 0)
    secure, correct = -float(strength + 1), -float(model.correctness_bits)
    if k == n - 1:  # every count is certain
        return (
            Risk(f"{t} or more of {c} colluders are somebody's neighbors", -math.inf, secure),
            Risk(f"fewer than {t} of somebody's {k} neighbors stay", -math.inf, correct),
        )

    def somebody(tail: Fraction) -> float:
        return log2_of(min(n * tail, Fraction(1)))

    collude = Risk(
        f"{t} or more of somebody's {k} neighbors collude",
        somebody(exact_upper_tail(n, c, k, t - 1)),
        secure,
    )
    stay = Risk(
        f"fewer than {t} of somebody's {k} neighbors stay",
        somebody(exact_upper_tail(n, d, k, k - t)),
        correct,
    )
    if not model.active:
        pairs = Fraction(n * (n - k - 1), 2)
        apart = log2_of(min(pairs * exact_upper_tail(n, c + d, k, k - 1), Fraction(1)))
        return collude, Risk("the graph without colluders and dropouts falls apart", apart, secure), stay
    w, half = window_collusion(n, k, model), k // 2
    return (
        collude,
        Risk(
            f"more than {w} of some {half} successive clients collude",
            somebody(exact_upper_tail(n, c, half, w)),
            secure,
        ),
        stay,
        Risk(
            f"at most {w} of some {half} successive clients stay",
            somebody(exact_upper_tail(n, d, half, half - w - 1)),
            correct,
        ),
    )


# --- bytes: the frames of one client, made of zeros ---------------------------------------------------


def _traffic(
    parameters: RoundParameters, n: int, graph: GraphParameters, signatures: int
) -> tuple[dict[Phase, int], dict[Phase, int]]:
    """Bytes of the frames of one client by phase, up and down; everybody stays and is honest.

    A survivor signature is counted for the last in the roster: its index is the longest. Contributions are
    counted for a client that is the smaller one of half of its pairs.
    """
    k, hybrid = graph.degree, parameters.hybrid
    kem_key, kem = KEY_BYTES * hybrid, CIPHERTEXT_BYTES * hybrid
    bitmap, name, signature = bytes(-(-n // 8)), bytes(32), bytes(64)

    def size(message: Message) -> int:
        return encode_frame(parameters.round_id, message).size

    def rows(kind: type[M], count: int, **sizes: int) -> Rows[M]:
        return Rows.build(kind, count, **{field: bytes(length) for field, length in sizes.items()})

    entries = rows(RosterEntry, n, identity=32, advertisement_digest=32)
    keys = {"agreement_key": 32, "mask_key": 32, "share_kem_key": kem_key, "mask_kem_key": kem_key}
    neighbors = rows(Advertisement, k, identity=32, signature=64, **keys)
    dealt = rows(SealedShare, k, peer=32, ciphertext=96, kem=kem)
    delivered = rows(SealedShare, k, peer=32, ciphertext=96, acceptance=64, kem=kem)
    added = rows(SealedContribution, (k + 1) // 2 * hybrid, peer=32, kem=CIPHERTEXT_BYTES, ciphertext=48)
    proofs = rows(UploadProof, k, identity=32, packed_digest=32, signature=64)
    revealed = rows(RevealedShare, k, dealer=32, share=40)
    signers: Any = Encoded(bytes(_signers_bytes(signatures)))
    up = {
        Phase.ADVERTISE_KEYS: size(
            Advertisement(name, name, name, signature, bytes(kem_key), bytes(kem_key))
        ),
        Phase.SHARE_KEYS: size(SharedKeys(dealt, name, signature, added)),
        Phase.MASKED_INPUT_COLLECTION: _upload_bytes(parameters),
        Phase.CONSISTENCY_CHECK: size(SurvivorSignature(n - 1, signature)) if signatures else 0,
        Phase.UNMASKING: size(UnmaskingResponse(revealed, ())),
    }
    down = {
        Phase.ADVERTISE_KEYS: size(parameters_to_wire(parameters)),
        Phase.SHARE_KEYS: size(RosterAnnouncement(Roster(k, graph.threshold, entries), neighbors)),
        Phase.MASKED_INPUT_COLLECTION: size(ShareDelivery(bitmap, delivered, added)),
        Phase.CONSISTENCY_CHECK: size(SurvivorSet(bitmap)) if signatures else 0,
        Phase.UNMASKING: size(UnmaskingRequest(bitmap, proofs, signers)),
    }
    return up, down


def _upload_bytes(parameters: RoundParameters) -> int:
    """Bytes of the frame of an upload, without making a vector of so many."""
    packed = packed_bytes(parameters.vector_length, parameters.ring_bits)
    rest = len(encode(MaskedInput(b"", (), bytes(64))))
    body = 1 + len(varint(packed)) + packed + rest
    empty = len(bytes(encode_frame(parameters.round_id, MaskedInput(b"", (), bytes(64)))))
    return empty - len(varint(rest)) - rest + len(varint(body)) + body


def _signers_bytes(count: int) -> int:
    """Bytes of the list of the survivor signatures 0 .. count - 1; an index takes 0 to 5 bytes."""
    total, limits = 0, (0, 1, *(2**bits for bits in range(7, 36, 7)))
    for first, last in pairwise(limits):
        one = encode_list(UnmaskingRequest, "signatures", [SurvivorSignature(first, bytes(64))])
        total += max(min(count, last) - first, 0) * len(one.data)
    return total
