"""The committed vectors are those of this code, and fresh sessions give the same bytes and refusals."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    Completed,
    Effect,
    InputWanted,
    RefusalReason,
    Refused,
    Send,
    SignWanted,
)
from secagg.kernels import PRIME, lane_dtype, reference
from secagg.messages import KINDS, decode_frame
from secagg.params import Entropy, Identity, Policy, RoundParameters, ThreatModel
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession, ServerSession
from secagg.transcript import verify
from tests.vectors import make
from tests.vectors.rounds import Encapsulations, hybrid_cohort

ONESHOT = tuple(name for name, _, _ in make.ONESHOT)
FILES = (
    *("active_round.json", "passive_round.json", "hybrid_round.json"),
    *("bad_cases.json", "primitives.json", "transcripts.json"),
    *ONESHOT,
)


@cache
def vectors(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((make.FOLDER / name).read_bytes())
    return content


def test_the_committed_vectors_are_what_is_made_byte_for_byte() -> None:
    made = make.build()
    assert set(made) == set(FILES)
    for name, content in made.items():
        assert (make.FOLDER / name).read_bytes() == make.render(content), f"{name}: run tests.vectors.make"


def test_no_vector_file_is_left_over() -> None:
    assert sorted(path.name for path in make.FOLDER.glob("*.json")) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is(name: str) -> None:
    assert next(iter(vectors(name))) == "_comment"


@pytest.mark.parametrize(
    ("name", "address"), [("with_inputs", "address"), ("without_inputs", "address_without")]
)
def test_the_recorded_transcripts_are_right(name: str, address: str) -> None:
    data = vectors("transcripts.json")
    server = Identity(bytes.fromhex(data["server"]))
    report = verify(io.BytesIO(bytes.fromhex(data[name])), server=server)
    assert report.findings == ()
    assert report.transcript.hex() == data[address]
    if name == "with_inputs":
        assert report.total is not None
        assert report.total.tolist() == data["sum"] == vectors("active_round.json")["sum"]


@pytest.mark.parametrize("number", range(9))
def test_a_changed_byte_of_a_recorded_transcript_is_found_where_it_is(number: int) -> None:
    data = vectors("transcripts.json")
    case, file = data["bad"][number], bytearray.fromhex(data["with_inputs"])
    assert file[case["offset"]] == case["byte"]
    file[case["offset"]] = case["value"]
    found = [[finding.place, finding.what] for finding in verify(io.BytesIO(bytes(file))).findings]
    assert found
    assert found == case["findings"]


class Replay:
    """Fresh sessions fed with the recorded operations."""

    def __init__(self, round_: str) -> None:
        self.data = vectors(f"{round_}_round.json")
        self.frames = [bytes.fromhex(frame) for frame in self.data["frames"]]
        self.signers = [
            IdentityKey.from_seed(bytes.fromhex(client["identity_seed"])) for client in self.data["clients"]
        ]
        self.identities = [signer.identity for signer in self.signers]
        fields = dict(self.data["parameters"])
        model = {
            name: fields.pop(name)
            for name in (
                "corrupt",
                "dropout",
                "adversary",
                "security_bits",
                "correctness_bits",
                "grinding_bits",
            )
        }
        for name in ("round_id", "context"):
            fields[name] = bytes.fromhex(fields[name])
        self.parameters = RoundParameters(threat_model=ThreatModel(**model), **fields)
        policy = Policy(known=frozenset(self.identities), **self.data["policy"])
        self.server = ServerSession(self.parameters, admitted=self.identities)
        self.clients = [
            ClientSession(
                signer=signer,
                context=self.parameters.context,
                policy=policy,
                entropy=drawing(bytes.fromhex(client["entropy"])),
            )
            for signer, client in zip(self.signers, self.data["clients"], strict=True)
        ]
        self.outcome: Aggregate | Aborted | None = None

    def downward(self, effects: list[Effect]) -> list[dict[str, int]]:
        for effect in effects:
            if isinstance(effect, Completed):
                self.outcome = effect.result
            if isinstance(effect, Aborted):
                self.outcome = effect
        return [
            {"client": self.identities.index(effect.to), "frame": self.frames.index(bytes(effect.frame))}
            for effect in effects
            if isinstance(effect, Send) and effect.to is not None
        ]

    def upward(self, effects: list[Effect]) -> list[int]:
        return [self.frames.index(bytes(effect.frame)) for effect in effects if isinstance(effect, Send)]

    def play(self, operation: dict[str, Any]) -> None:
        """One operation; what comes out is what was recorded."""
        match operation["op"]:
            case "start":
                assert self.downward(self.server.start()) == operation["out"]
            case "close":
                assert self.server.phase is not None
                assert self.server.phase.name == operation["phase"]
                assert self.downward(self.server.close_phase()) == operation["out"]
            case "receive":
                effects = self.hand(operation, self.frames[operation["in"]])
                assert self.upward(effects) == operation["out"]
                if not operation["out"]:
                    assert any(isinstance(effect, InputWanted) for effect in effects)
            case "submit":
                values = self.data["clients"][operation["client"]]["vector"]
                vector = np.array(values, lane_dtype(self.parameters.ring_bits))
                effects = self.clients[operation["client"]].submit(vector)
                assert self.upward(effects) == operation["out"]
            case "accept":
                assert self.hand(operation, self.frames[operation["in"]]) == []
            case other:
                raise AssertionError(other)

    def hand(self, operation: dict[str, Any], frame: bytes) -> list[Effect]:
        """Give a frame to the server as a client's, or to a client."""
        client: int = operation["client"]
        if operation["op"] == "accept":
            return self.server.receive(self.identities[client], frame)
        effects = self.clients[client].receive(frame)
        if any(isinstance(effect, SignWanted) for effect in effects):
            return self.clients[client].sign()
        return effects


def drawing(entropy: bytes) -> Entropy:
    """Hand out these bytes and no more."""
    rest = io.BytesIO(entropy)

    def draw(size: int) -> bytes:
        out = rest.read(size)
        assert len(out) == size
        return out

    return draw


@pytest.fixture
def known_ciphertexts() -> Iterator[None]:
    """Encapsulations with the ciphertexts of the recorded hybrid round."""
    with Encapsulations(hybrid_cohort(), vectors("hybrid_round.json")["ciphertexts"])():
        yield


@pytest.mark.usefixtures("known_ciphertexts")
@pytest.mark.parametrize("round_", ["active", "passive", "hybrid"])
def test_fresh_sessions_replay_the_round(round_: str) -> None:
    replay = Replay(round_)
    assert [i.hex() for i in replay.identities] == [c["identity"] for c in replay.data["clients"]]
    for operation in replay.data["operations"]:
        replay.play(operation)
    assert isinstance(replay.outcome, Aggregate)
    assert [int(value) for value in replay.outcome.total] == replay.data["sum"]
    assert [replay.identities.index(i) for i in replay.outcome.survivors] == replay.data["survivors"]


@pytest.mark.parametrize("round_", ["active", "passive", "hybrid"])
def test_the_recorded_sum_is_that_of_the_survivors(round_: str) -> None:
    data = vectors(f"{round_}_round.json")
    survivors = [data["clients"][i]["vector"] for i in data["survivors"]]
    assert data["survivors"] == ([0, 2, 3, 4, 5] if round_ == "hybrid" else [0, 2, 4, 5, 6, 7, 8, 9])
    modulus = 2 ** data["parameters"]["ring_bits"]
    assert data["sum"] == [sum(column) % modulus for column in zip(*survivors, strict=True)]


def test_the_recorded_rounds_hold_every_kind_of_message() -> None:
    kinds = {type(decode_frame(bytes.fromhex(f))[1]) for f in vectors("active_round.json")["frames"]}
    assert kinds == set(KINDS)


CASES: list[dict[str, Any]] = (
    vectors("bad_cases.json")["cases"] if (make.FOLDER / "bad_cases.json").exists() else []
)


def reason(effect: Effect) -> str:
    match effect:
        case Refused(reason=refusal):
            return f"RefusalReason.{refusal.name}"
        case Aborted(reason=abort):
            return f"AbortReason.{abort.name}"
        case _:
            return type(effect).__name__


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case['corrupted']}-{case['error']}-{at}" for at, case in enumerate(CASES)]
)
def test_one_corrupted_field_gives_the_named_reason(case: dict[str, Any]) -> None:
    replay = Replay(case["round"])
    operations = replay.data["operations"]
    for operation in operations[: case["after"]]:
        replay.play(operation)
    effects = replay.hand(case, bytes.fromhex(case["frame"]))
    rest = operations[case["after"] :]
    if case.get("plays_on"):
        assert effects == []
        for operation in rest[1:]:
            replay.play(operation)
        assert isinstance(replay.outcome, Aborted)
        assert reason(replay.outcome) == case["error"]
        return
    assert [reason(effect) for effect in effects] == [case["error"]]
    if case["error"].startswith("RefusalReason"):
        for operation in rest:
            replay.play(operation)
        assert isinstance(replay.outcome, Aggregate)
        assert [int(value) for value in replay.outcome.total] == replay.data["sum"]


def test_bad_cases_are_many_named_and_over_every_kind_of_message() -> None:
    assert len(CASES) >= 20
    names = {f"RefusalReason.{r.name}" for r in RefusalReason} | {
        f"AbortReason.{r.name}" for r in AbortReason
    }
    assert {case["error"] for case in CASES} <= names
    kinds = {re.split(r"\W", case["corrupted"])[0] for case in CASES}
    assert kinds == {kind.__name__ for kind in KINDS} | {"Frame"}


# --- primitives, once more without the library


def labelled(purpose: str, *parts: bytes) -> bytes:
    return b"secagg/v1/" + purpose.encode() + b"\0" + b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def hkdf(ikm: bytes, salt: bytes, info: bytes) -> bytes:
    key = hmac.digest(salt, ikm, "sha256")
    return hmac.digest(key, info + b"\x01", "sha256")


def agreed(secret: str, public: bytes) -> bytes:
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def raw(value: str) -> bytes:
    return bytes.fromhex(value)


def test_labels_are_the_purpose_and_each_part_behind_its_length() -> None:
    for row in vectors("primitives.json")["labels"]:
        text = labelled(row["purpose"], *map(raw, row["parts"]))
        assert text.hex() == row["encoded"]
        assert hashlib.sha256(text).hexdigest() == row["sha256"]


def test_masks_are_the_keystream() -> None:
    for row in vectors("primitives.json")["prg"]:
        wanted = reference.prg(raw(row["seed"]), row["first"], len(row["elements"]), row["ring_bits"])
        assert row["elements"] == wanted


def test_packed_vectors_are_one_little_endian_string() -> None:
    for row in vectors("primitives.json")["packing"]:
        bits = row["ring_bits"]
        string = sum(value << i * bits for i, value in enumerate(row["elements"]))
        assert raw(row["packed"]) == string.to_bytes(-(-bits * len(row["elements"]) // 8), "little")


def test_shares_lie_on_the_polynomials_of_the_share_seed() -> None:
    row = vectors("primitives.json")["shamir"]
    t = row["threshold"]
    secrets = [int.from_bytes(raw(row[name]), "little") for name in ("mask_secret", "self_seed")]
    limbs = [secret >> 52 * i & 2**52 - 1 for secret in secrets for i in range(5)]
    seed = hashlib.sha256(labelled("share-seed", raw(row["roster_digest"]), raw(row["share_seed"]))).digest()
    words = [w & PRIME for w in reference.prg(seed, 0, 10 * (t - 1) + 4, 64) if w & PRIME != PRIME]
    for holder, share in enumerate(row["shares"], 1):
        values = []
        for j, limb in enumerate(limbs):
            polynomial = [limb, *words[j * (t - 1) : (j + 1) * (t - 1)]]
            values.append(reference.evaluate(polynomial, holder).to_bytes(8, "little"))
        assert b"".join(values).hex() == share


def test_a_pairwise_seed_is_the_same_from_both_ends() -> None:
    row = vectors("primitives.json")["pairwise_mask"]
    info = labelled("pairwise-mask", *map(raw, row["identities"]))
    for secret, public in zip(row["mask_secrets"], reversed(row["mask_keys"]), strict=True):
        assert hkdf(agreed(secret, raw(public)), raw(row["roster_digest"]), info).hex() == row["seed"]


def test_a_commitment_is_the_hash_of_roster_identity_and_seed() -> None:
    row = vectors("primitives.json")["self_mask"]
    text = labelled("self-seed", *(raw(row[name]) for name in ("roster_digest", "identity", "seed")))
    assert hashlib.sha256(text).hexdigest() == row["commitment"]


def test_a_sealed_share_opens_with_the_key_of_either_end() -> None:
    row = vectors("primitives.json")["sealed_share"]
    dealer, holder, digest = raw(row["dealer"]), raw(row["holder"]), raw(row["roster_digest"])
    info = labelled("share-key", dealer, holder)
    mine, theirs = row["agreement_secrets"]
    for secret, other in ((mine, theirs), (theirs, mine)):
        public = X25519PrivateKey.from_private_bytes(raw(other)).public_key().public_bytes_raw()
        assert hkdf(agreed(secret, public), digest, info).hex() == row["key"]
    associated = labelled("share", digest, dealer, holder)
    assert associated.hex() == row["associated_data"]
    opened = ChaCha20Poly1305(raw(row["key"])).decrypt(bytes(12), raw(row["ciphertext"]), associated)
    assert opened.hex() == row["plaintext"]
    assert len(raw(row["ciphertext"])) == 96


def test_the_roster_is_bound_to_the_parameters_and_orders_the_circle() -> None:
    rows = vectors("primitives.json")
    identities = [raw(client["identity"]) for client in vectors("active_round.json")["clients"]]
    row = rows["roster"]
    parameters = hashlib.sha256(labelled("parameters", raw(row["parameters"]))).digest()
    assert parameters.hex() == row["parameters_digest"]
    digest = hashlib.sha256(labelled("roster", parameters, raw(row["roster"]))).digest()
    assert digest.hex() == row["roster_digest"]
    places = [hashlib.sha256(labelled("place", digest, identity)).digest() for identity in identities[:10]]
    assert row["circle"] == sorted(range(10), key=places.__getitem__)
    sparse = rows["circle"]
    parameters = hashlib.sha256(labelled("parameters", raw(sparse["parameters"]))).digest()
    assert (
        hashlib.sha256(labelled("roster", parameters, raw(sparse["roster"]))).hexdigest()
        == (sparse["roster_digest"])
    )
    circle, place = sparse["circle"], sparse["circle"].index(0)
    around = [circle[(place + j) % 70] for j in (-4, -3, -2, -1, 1, 2, 3, 4)]
    assert sorted(around) == sparse["neighbors_of_0"]


def test_the_table_of_graph_parameters_holds_the_examples_of_the_specification() -> None:
    table = {
        (row["clients"], row["corrupt"], row["dropout"], row["adversary"]): row
        for row in vectors("primitives.json")["graph_parameters"]
    }
    passive, active = table[1000, 0.1, 0.1, "passive"], table[1000, 0.1, 0.1, "active"]
    assert (passive["degree"], passive["threshold"]) == (48, 27)
    assert (active["degree"], active["threshold"], active["w"]) == (128, 56, 40)
    ten = table[10, 0.1, 0.4, "active"]
    assert (ten["degree"], ten["threshold"], ten["quorum"], ten["effective_minimum"]) == (9, 5, 6, 3)
    assert table[4, 0.3, 0.1, "active"] == {
        "clients": 4,
        "corrupt": 0.3,
        "dropout": 0.1,
        "adversary": "active",
        "infeasible": True,
    }


def test_identities_are_those_of_the_seeds() -> None:
    for client in vectors("active_round.json")["clients"]:
        key = IdentityKey.from_seed(raw(client["identity_seed"]))
        assert key.identity == Identity(raw(client["identity"]))
