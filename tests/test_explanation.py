from __future__ import annotations

import ast
import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg import ParameterError, plan
from secagg.effects import Send, SignWanted
from secagg.explanation import explain
from secagg.kernels import mask_apply, unpack_add
from secagg.messages import (
    MaskedInput,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
    decode_frame,
)
from secagg.params import Identity, Phase
from secagg.primitives.agreement import public_key
from secagg.primitives.masks import mask_sign, pairwise_seed
from secagg.primitives.shamir import correct_shares, from_limbs, share_words
from tests.protocol.network import Cohort, opened

ROOT = Path(__file__).parent.parent
PLANS = {
    "active": plan(clients=10, vector_length=100, value_bits=8),
    "passive": plan(clients=10, vector_length=100, value_bits=8, adversary="passive"),
    "sparse": plan(clients=1000, vector_length=100, value_bits=8),
    "sparse passive": plan(clients=1000, vector_length=100, value_bits=8, adversary="passive"),
}


@cache
def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("colluding", [None, 0, 5, 10])
@pytest.mark.parametrize("options", [{}, {"keep_inputs": True, "encrypted": False}], ids=str)
def test_every_statement_names_a_test_that_exists(
    name: str, colluding: int | None, options: dict[str, bool]
) -> None:
    statements = explain(PLANS[name], colluding=colluding, **options)
    assert len({statement.party for statement in statements}) >= 6
    for statement in statements:
        file, test = statement.test.split("::")
        assert test in names_in(ROOT / file), statement


def of(name: str, party: str, **options: Any) -> str:
    return " ".join(s.learns for s in explain(PLANS[name], **options) if s.party.startswith(party))


def test_a_passive_plan_promises_nothing_against_a_server_that_lies() -> None:
    assert "POSSIBLY EVERYTHING" in of("passive", "server that lies")
    assert "POSSIBLY" not in of("active", "server that lies")


@pytest.mark.parametrize(
    ("name", "colluding", "said"),
    [
        ("active", 1, "at least 2 of them"),
        ("active", 2, "EVERY SINGLE VECTOR, when the server lies"),
        ("passive", 2, "POSSIBLY only 1 of them"),
        ("passive", 7, "POSSIBLY single vectors"),
        ("sparse", 100, "at least 2 of them"),
        ("sparse", 102, "EVERY SINGLE VECTOR, when the server lies"),
        ("sparse passive", 300, "POSSIBLY single vectors"),
    ],
)
def test_more_colluders_than_planned_are_told_what_they_open(name: str, colluding: int, said: str) -> None:
    assert said in of(name, "server and", colluding=colluding)


def test_a_network_without_encryption_learns_what_the_server_learns() -> None:
    assert "ALL that a curious server learns" in of("active", "network", encrypted=False)
    assert "ALL" not in of("active", "network")


def test_more_colluders_than_clients_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"colluding: must be in 0\.\.10, is 11"):
        explain(PLANS["active"], colluding=11)


def test_a_client_sees_of_other_vectors_only_digests_of_masked_ones() -> None:
    """Same randomness, other vectors: the frames to a client differ in upload digests and signatures only."""
    one, two = Cohort(5), Cohort(5)
    two.vector = lambda i: one.vector(i) if i == 0 else one.vector((i + 1) % 5) * 7  # type: ignore[method-assign]
    seen: list[list[bytes]] = []
    for cohort in (one, two):
        frames: list[bytes] = []
        cohort.start()
        while cohort.server.phase is not None:
            frames.append(cohort.request(0))
            cohort.ask_all().tell_all().close()
        seen.append(frames)
    assert [a == b for a, b in zip(*seen, strict=True)] == [True, True, True, True, False]
    requests = [decode_frame(frames[-1])[1] for frames in seen]
    stripped = [
        replace(
            request,
            uploads=tuple(replace(p, packed_digest=bytes(32), signature=bytes(64)) for p in request.uploads),
        )
        for request in requests
        if isinstance(request, UnmaskingRequest)
    ]
    assert len(stripped) == 2
    assert stripped[0] == stripped[1]


def test_in_a_passive_round_a_server_that_lies_opens_a_single_vector() -> None:
    """Everybody is told that almost all others dropped out: so the masks of one victim all open."""
    cohort, victim = Cohort(10, adversary="passive", vector_length=50), 4
    cohort.advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    upload = opened(MaskedInput, cohort.answer(victim))
    cohort.tell_all().close()
    view, n = cohort.view(), 10
    shares: dict[int, dict[int, bytes]] = {u: {} for u in range(n)}  # dealer -> point -> share
    for holder in range(n):
        told = {victim, holder, (holder + 1) % n, (holder + 2) % n}
        right = opened(UnmaskingRequest, cohort.request(holder))
        proofs = tuple(p for p in right.uploads if cohort.index[Identity(p.identity)] in told)
        lie = replace(right, survivors=view.bitmap(told), uploads=proofs)
        (wanted,) = cohort.clients[holder].receive(cohort.frame(lie))
        assert isinstance(wanted, SignWanted)
        (answer, *_) = cohort.clients[holder].sign()
        assert isinstance(answer, Send)
        response = opened(UnmaskingResponse, bytes(answer.frame))
        for seed in response.self_seed_shares:
            if cohort.index[Identity(seed.dealer)] == victim:
                shares[victim][holder] = seed.share
        for key in response.mask_key_shares:
            shares[cohort.index[Identity(key.dealer)]][holder] = key.share
    secrets = {}
    for dealer, held in shares.items():
        points = [1 + view.graph.neighbors_of(dealer).index(holder) for holder in held]
        assert len(points) >= view.roster.threshold
        right_ = correct_shares(
            np.array(points, np.uint64), share_words([*held.values()]), view.roster.threshold
        )
        assert right_ is not None
        secrets[dealer] = from_limbs(right_.secret) or b""
    me, names = cohort.identities[victim], cohort.identities
    public = public_key(cohort.secrets(victim).mask)  # as advertised
    seeds, signs = [secrets[victim]], [-1]
    for u in range(n):
        if u != victim:
            seeds.append(pairwise_seed(secrets[u], public, view.roster_digest, names[u], me))
            signs.append(-mask_sign(me, names[u]))
    plain = np.zeros(50, np.uint16)
    unpack_add(plain, upload.packed, 16)
    mask_apply(plain, b"".join(seeds), np.array(signs, np.int8))
    assert np.array_equal(plain, cohort.vector(victim))


def test_more_colluders_than_planned_open_a_single_vector() -> None:
    """Two more on a sparse graph: the server tells half the cohort that the victim dropped out."""
    n, planned = 120, 3
    cohort = Cohort(
        n,
        corrupt=0.03,
        security_bits=4,
        correctness_bits=2,
        grinding_bits=0,
        vector_length=4,
        minimum_cohort=n,
    )
    cohort.advance(Phase.CONSISTENCY_CHECK)
    view, names = cohort.view(), cohort.identities
    victim, bad = 0, set(range(n - planned - 2, n))
    around = set(view.graph.neighbors_of(victim))
    honest = [i for i in range(n) if i not in bad and i != victim]
    halves = ({victim, *honest[::2]}, set(honest[1::2]))
    told = (frozenset(range(n)), frozenset(range(n)) - {victim})
    proofs = {names[i]: _proof(cohort, i) for i in range(n)}
    held = [bad & around, bad & around]  # who reveals the victim's seed, and its mask key
    for kind, (half, survivors) in enumerate(zip(halves, told, strict=True)):
        bitmap = view.bitmap(survivors)
        signatures = {}
        for i in half:
            cohort.clients[i].receive(cohort.frame(SurvivorSet(bitmap)))
            (signed,) = cohort.clients[i].sign()
            assert isinstance(signed, Send)
            signatures[i] = opened(SurvivorSignature, bytes(signed.frame)).signature
        for i in bad:
            text = view.survivors_text(view.bitmap(range(n)), bitmap)
            signatures[i] = cohort.signers[i].sign(text)
        quorum = tuple(SurvivorSignature(i, signatures[i]) for i in sorted(signatures))[: view.quorum]
        assert len(quorum) == view.quorum
        for i in half & around:
            mine = [names[j] for j in view.graph.neighbors_of(i) if j in survivors]
            request = UnmaskingRequest(bitmap, tuple(proofs[name] for name in mine), quorum)
            (answer, *_) = cohort.clients[i].receive(cohort.frame(request))
            assert isinstance(answer, Send)
            response = opened(UnmaskingResponse, bytes(answer.frame))
            shares = (response.self_seed_shares, response.mask_key_shares)[kind]
            if any(share.dealer == names[victim] for share in shares):
                held[kind].add(i)
    assert min(map(len, held)) >= view.roster.threshold


def _proof(cohort: Cohort, i: int) -> UploadProof:
    upload = opened(MaskedInput, cohort.answer(i))
    return UploadProof(cohort.identities[i], hashlib.sha256(upload.packed).digest(), upload.signature)
