"""Hiding, measured: what is left of the clients' vectors when the server has used all that it knows.

Real rounds over small rings. y_i is client i's upload without every mask that the server can compute. Over
the entries the tuples (y_1 .. y_m) must be uniform among those with the right sum, and distributed alike for
two inputs with the same sum: chi-square tests over the 2^(b (m - 1)) cells, with twelve entries expected in
each.

All randomness comes from fixed seeds, so that a verdict never changes from run to run. Over the choice of
the seeds a single test rejects in error with probability REJECT = 1e-6, as far as the chi-square
approximation goes; there are fewer than 100 of them, so any does with probability below 1e-4 (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.effects import Aggregate, Effect, Send
from secagg.kernels import UIntArray, lane_dtype, mask_apply, pack_masked, ring_mask, unpack_add
from secagg.kernels import upload as upload_kernel
from secagg.messages import Advertisement, MaskedInput, SharedKeys, UnmaskingResponse, decode_frame
from secagg.params import Identity, Phase
from secagg.primitives import masks
from secagg.primitives.agreement import public_key
from secagg.primitives.masks import mask_sign, pairwise_seed, seed_commitment
from secagg.primitives.sealing import hkdf
from secagg.primitives.shamir import correct_shares, from_limbs, share_words
from secagg.protocol import ServerSession
from secagg.protocol.client import masked_input_collection
from secagg.protocol.round import RoundView
from secagg.protocol.server import removal
from tests.lazy import Lazy
from tests.protocol.network import NEVER, Cohort

stats: Any = Lazy("scipy.stats")

REJECT = 1e-6
SEEDS, KEYS = 0, 1
EXPECTED_PER_CELL = 12

Vector = NDArray[np.int64]


class Measured(Cohort):
    """A cohort with given inputs; keeps all that leaves its clients, also what comes too late."""

    def __init__(
        self, inputs: Collection[Vector], bits: int, seed: str, round_id: bytes | None = None
    ) -> None:
        self.inputs = list(inputs)
        length = self.inputs[0].size
        super().__init__(len(self.inputs), ring_bits=bits, vector_length=length, minimum_cohort=4, seed=seed)
        if round_id is not None:
            self.parameters = replace(self.parameters, round_id=round_id)
            self.server = ServerSession(self.parameters, admitted=self.identities)
        self.sent: list[tuple[int, bytes]] = []

    def vector(self, i: int) -> UIntArray:
        return self.inputs[i].astype(lane_dtype(self.parameters.ring_bits))

    def take_client(self, i: int, effects: list[Effect]) -> list[Effect]:
        self.sent += [(i, bytes(effect.frame)) for effect in effects if isinstance(effect, Send)]
        return super().take_client(i, effects)


@dataclass
class Seen:
    """What the server sees of a round, and what it computes from it."""

    cohort: Measured
    view: RoundView
    advertisements: dict[int, Advertisement] = field(default_factory=dict)
    commitments: dict[int, bytes] = field(default_factory=dict)
    uploads: dict[int, bytes] = field(default_factory=dict)  # packed
    shares: tuple[dict[int, dict[int, bytes]], dict[int, dict[int, bytes]]] = field(
        default_factory=lambda: ({}, {})
    )  # of seeds, of keys; by dealer and holder
    survivors: tuple[int, ...] = ()
    total: Vector = field(default_factory=lambda: np.zeros(0, np.int64))

    def take(self, sender: int, frame: bytes) -> None:
        message = decode_frame(frame)[1]
        match message:
            case Advertisement():
                self.advertisements[sender] = message
            case SharedKeys():
                self.commitments[sender] = message.seed_commitment
            case MaskedInput():
                self.uploads[sender] = bytes(message.packed)
            case UnmaskingResponse():
                for kind, shares in enumerate((message.self_seed_shares, message.mask_key_shares)):
                    for share in shares:
                        dealer = self.cohort.index[Identity(share.dealer)]
                        self.shares[kind].setdefault(dealer, {})[sender] = share.share
            case _:
                pass

    def secret(self, kind: int, dealer: int) -> bytes | None:
        """A secret rebuilt from t shares; it passes its check."""
        held = self.shares[kind].get(dealer, {})
        if len(held) < self.view.roster.threshold:
            return None
        around = self.view.graph.neighbors_of(dealer)
        points = np.array([1 + around.index(holder) for holder in held], np.uint64)
        correction = correct_shares(points, share_words([*held.values()]), self.view.roster.threshold)
        secret = None if correction is None else from_limbs(correction.secret)
        assert secret is not None
        if kind == SEEDS:
            name = self.cohort.identities[dealer]
            assert seed_commitment(self.view.roster_digest, name, secret) == self.commitments[dealer]
        else:
            assert public_key(secret) == self.advertisements[dealer].mask_key
        return secret

    def raw(self, client: int) -> UIntArray:
        out = np.zeros(self.view.parameters.vector_length, lane_dtype(self.view.parameters.ring_bits))
        unpack_add(out, self.uploads[client], self.view.parameters.ring_bits)
        return out

    def left(self, client: int, colluding: Collection[int] = (), guess: bytes | None = None) -> Vector:
        """The upload without the masks that are known: rebuilt, or shared with a colluding client.

        guess  taken for every mask key that is not known
        """
        names, digest = self.cohort.identities, self.view.roster_digest
        own = self.secret(SEEDS, client)
        seeds, signs = ([], []) if own is None else ([own], [-1])
        public = self.advertisements[client].mask_key
        for other in self.view.graph.neighbors_of(client):
            key = self.cohort.secrets(other).mask if other in colluding else self.secret(KEYS, other)
            key, mine = key or guess, self.secret(KEYS, client)
            if key is not None:
                seed = pairwise_seed(key, public, digest, names[client], names[other])
            elif mine is not None:
                theirs = self.advertisements[other].mask_key
                seed = pairwise_seed(mine, theirs, digest, names[client], names[other])
            else:
                continue
            seeds.append(seed)
            signs.append(-mask_sign(names[client], names[other]))
        out = self.raw(client)
        mask_apply(out, b"".join(seeds), np.array(signs, np.int8))
        return (out & out.dtype.type(ring_mask(self.view.parameters.ring_bits))).astype(np.int64)


def seen(
    cohort: Measured, lost: Mapping[int, Phase] = NEVER, late: Collection[int] = (), *, exact: bool = True
) -> Seen:
    """Run a round. late: their uploads come after the phase was closed. exact: the sum must be right."""
    cohort.advance(Phase.MASKED_INPUT_COLLECTION, lost)
    out = Seen(cohort, cohort.view())
    cohort.ask_all(lost)
    for i in cohort.waiting():
        if lost.get(i, len(Phase)) > Phase.MASKED_INPUT_COLLECTION and i not in late:
            cohort.tell(i)
    cohort.close()
    outcome = cohort.finish(lost)
    assert isinstance(outcome, Aggregate), outcome
    for sender, frame in cohort.sent:
        out.take(sender, frame)
    out.survivors = tuple(cohort.index[identity] for identity in outcome.survivors)
    out.total = outcome.total.astype(np.int64)
    if exact:
        bits = cohort.parameters.ring_bits
        assert np.array_equal(out.total, sum(cohort.inputs[i] for i in out.survivors) % 2**bits)
        left = sum(out.left(i) for i in out.survivors)
        assert np.array_equal(out.total, left % 2**bits)
    return out


# --- inputs and tests


def constant(values: Collection[int], bits: int, length: int) -> list[Vector]:
    """Client i's vector is values[i] everywhere."""
    return [np.full(length, value % 2**bits, np.int64) for value in values]


def with_the_same_sum(clients: Collection[int], bits: int) -> tuple[dict[int, int], dict[int, int]]:
    """Two inputs of these clients: one has everything, or everybody has something."""
    spread = {client: 1 + i for i, client in enumerate(clients)}
    first, *others = clients
    return {first: sum(spread.values()) % 2**bits, **dict.fromkeys(others, 0)}, spread


def length_for(bits: int, free: int) -> int:
    """Entries that give every cell of `free` values its expected count; 2000 at least."""
    return max(2000, EXPECTED_PER_CELL << bits * free)


def cells(columns: Collection[Vector], bits: int) -> Vector:
    """How many entries fall into each cell of the columns' joint distribution."""
    index = np.zeros_like(next(iter(columns)))
    for column in columns:
        index = index * 2**bits + column
    return np.bincount(index, minlength=2 ** (bits * len(columns)))


def p_uniform(counts: Vector) -> float:
    assert counts.sum() >= EXPECTED_PER_CELL * counts.size
    return float(stats.chisquare(counts).pvalue)


def p_alike(one: Vector, other: Vector) -> float:
    table = np.array([one, other])
    if (table > 0).any(axis=0).sum() < 2:
        return 1.0  # everything is in one cell, in both
    return float(stats.chi2_contingency(table[:, (table > 0).any(axis=0)], correction=False).pvalue)


def p_values(a: Seen, b: Seen, honest: Collection[int], colluding: Collection[int] = ()) -> list[float]:
    """Of what is left of the honest survivors: uniform in both rounds, and alike."""
    bits = a.view.parameters.ring_bits
    # The last one follows from the sum.
    one, other = (cells([view.left(i, colluding) for i in [*honest][:-1]], bits) for view in (a, b))
    return [p_uniform(one), p_uniform(other), p_alike(one, other)]


def two_rounds(
    clients: int,
    bits: int,
    lost: Mapping[int, Phase] = NEVER,
    colluding: Collection[int] = (),
    *,
    exact: bool = True,
) -> tuple[Seen, Seen, list[int]]:
    """Rounds over two inputs with the same sum over the honest survivors; those who did not upload have 0."""
    gone = {i for i, phase in lost.items() if phase <= Phase.MASKED_INPUT_COLLECTION}
    honest = [i for i in range(clients) if i not in {*gone, *colluding}]
    length = length_for(bits, len(honest) - 1)
    rounds = []
    for name, values in zip("ab", with_the_same_sum(honest, bits), strict=True):
        inputs = constant([values.get(i, 1) for i in range(clients)], bits, length)
        rounds.append(seen(Measured(inputs, bits, f"hiding {name}"), lost, exact=exact))
    assert np.array_equal(rounds[0].total, rounds[1].total) or not exact
    return rounds[0], rounds[1], honest


# --- with all defences


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("clients", "lost", "colluding"),
    [
        pytest.param(4, {}, (), id="all stay"),
        pytest.param(5, {2: Phase.MASKED_INPUT_COLLECTION}, (), id="one drops out with its masks"),
        pytest.param(4, {1: Phase.UNMASKING}, (), id="one does not answer"),
        pytest.param(4, {}, (2,), id="one colludes"),
        pytest.param(5, {0: Phase.MASKED_INPUT_COLLECTION}, (3,), id="one drops out, one colludes"),
    ],
)
def test_the_server_sees_a_uniform_view_of_the_honest_inputs_with_this_sum(
    clients: int, bits: int, lost: Mapping[int, Phase], colluding: Collection[int]
) -> None:
    a, b, honest = two_rounds(clients, bits, lost, colluding)
    assert min(p_values(a, b, honest, colluding)) > REJECT


def p_with_a_guess() -> float:
    bits = 2
    inputs = constant([1, 2, 3, 0], bits, length_for(bits, 3))
    view = seen(Measured(inputs, bits, "guess"))
    return p_uniform(cells([view.left(i, guess=bytes([1] * 32)) for i in range(3)], bits))


def test_masks_cannot_be_computed_with_a_key_of_the_server_s_own() -> None:
    assert p_with_a_guess() > REJECT


def test_a_late_upload_of_one_declared_dropped_stays_hidden_by_its_self_mask() -> None:
    assert p_uniform(late_upload(exact=True)) > REJECT


def late_upload(*, exact: bool) -> Vector:
    """Cells of an upload that comes when its pairwise masks are known, of a client with input 5."""
    bits, client = 3, 1
    inputs = constant([1, 5, 2, 3], bits, length_for(bits, 1))
    view = seen(Measured(inputs, bits, "late"), {client: Phase.CONSISTENCY_CHECK}, late=[client], exact=exact)
    assert client not in view.survivors
    assert view.secret(KEYS, client) is not None
    assert view.secret(SEEDS, client) is None
    return cells([view.left(client)], bits)


def p_across_rounds() -> float:
    """Of the differences of the same clients' uploads in two rounds in which they draw the same."""
    bits = 2
    length = length_for(bits, 3)
    one, other = (
        seen(Measured(constant([values] * 4, bits, length), bits, "repeated", round_id))
        for values, round_id in ((1, bytes(16)), (3, bytes(15) + b"\1"))
    )
    return p_uniform(cells([(one.left(i) - other.left(i)) % 2**bits for i in range(3)], bits))


def test_masks_of_another_round_do_not_repeat_even_when_all_randomness_does() -> None:
    assert p_across_rounds() > REJECT


def p_within_a_round(*, exact: bool) -> float:
    """Of the differences of entries a chunk apart, in uploads as they come."""
    bits, chunk = 4, upload_kernel.CHUNK
    view = seen(Measured(constant([1, 2, 3, 4], bits, 2 * chunk), bits, "chunks"), exact=exact)
    mask = ring_mask(bits)
    columns = [view.raw(i).astype(np.int64) & mask for i in range(3)]
    return p_uniform(cells([(column[:chunk] - column[chunk:]) & mask for column in columns], bits))


def test_no_keystream_masks_two_entries() -> None:
    assert p_within_a_round(exact=True) > REJECT


# --- the check can fail


def test_without_pairwise_masks_the_inputs_show(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_self(
        source: Any, seeds: bytes, signs: NDArray[np.int8], bits: int, *, threads: int
    ) -> bytearray:
        return pack_masked(source, seeds[:32], signs[:1], bits, threads=threads)

    monkeypatch.setattr(masked_input_collection, "pack_masked", only_self)
    for bits in (1, 2, 3, 4):
        a, b, honest = two_rounds(4, bits)
        uniform_a, uniform_b, alike = p_values(a, b, honest)
        assert max(uniform_a, uniform_b, alike) < 1e-100


def test_a_constant_keystream_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (masked_input_collection, removal):
        monkeypatch.setattr(module, "pairwise_seed", lambda *_: bytes(32))
    a, b, honest = two_rounds(4, 2)
    assert max(p_values(a, b, honest)) < 1e-100


def test_one_sign_for_both_shows_in_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is uniform still, but it no longer adds up."""
    monkeypatch.setattr(masked_input_collection, "mask_sign", lambda *_: 1)
    with pytest.raises(AssertionError):
        two_rounds(4, 2)
    two_rounds(4, 1)  # modulo 2 there are no signs


def test_without_the_self_mask_a_late_upload_is_the_plain_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_pairwise(
        source: Any, seeds: bytes, signs: NDArray[np.int8], bits: int, *, threads: int
    ) -> bytearray:
        return pack_masked(source, seeds[32:], signs[1:], bits, threads=threads)

    monkeypatch.setattr(masked_input_collection, "pack_masked", only_pairwise)
    counts = late_upload(exact=False)
    assert np.flatnonzero(counts).tolist() == [5]


def test_without_the_roster_in_a_seed_two_rounds_differ_by_their_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masks, "hkdf", lambda ikm, _salt, info: hkdf(ikm, b"", info))
    assert p_across_rounds() < 1e-100


def test_without_the_key_agreement_the_server_computes_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "agree", lambda *_: bytes(32))
    assert p_with_a_guess() < 1e-100


def test_a_counter_that_starts_again_with_each_chunk_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_the_start(acc: UIntArray, seeds: bytes, signs: NDArray[np.int8], **_: int) -> None:
        mask_apply(acc, seeds, signs)

    monkeypatch.setattr(upload_kernel, "mask_apply", from_the_start)
    assert p_within_a_round(exact=False) < 1e-100
