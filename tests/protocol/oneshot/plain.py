"""The one-upload protocol once more, written from its text alone, plain and slow.

Nothing of the package is used here, so that an error in the package is not repeated: every value is
computed with Python's integers, in the order in which the text defines it. Section numbers are those of
PROTOCOL.md, part 2; D3.x is what it cites of part 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb, isqrt

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

# --- 1: constants

Q = 2**50 - 2**14 + 1
N = 2048
PSI = 765727830662934
CHECKS = 16
TESTS = 2
CIPHERTEXT_BYTES = 1088  # of ML-KEM-768
MILLION = 10**6


class Refuse(Exception):  # noqa: N818 - what is done, as in the text
    """A message that counts as not sent."""


class Infeasible(Exception):  # noqa: N818
    """No committee meets these demands."""


class DecodeFailed(Exception):  # noqa: N818
    """More wrong openings than can be corrected."""


class TooFewOpenings(Exception):  # noqa: N818
    """Fewer than T + rho usable openings."""


class CheckFailed(Exception):  # noqa: N818
    """The zeros behind the vector did not come out as zeros."""


# --- bytes (D3.2, D3.5, D3.6)


def encode(purpose: str, *parts: bytes) -> bytes:
    text = b"secagg/v2/" + purpose.encode("ascii") + b"\0"
    for part in parts:
        text += len(part).to_bytes(4, "big") + part
    return text


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def digest(purpose: str, *parts: bytes) -> bytes:
    """H of the text."""
    return sha256(encode(purpose, *parts))


def words(seed: bytes) -> Iterator[int]:
    """The 8-byte little-endian words of PRG(seed)."""
    stream = Cipher(AES(seed[:16]), CTR(seed[16:28] + bytes(4))).encryptor()
    while True:
        block = stream.update(bytes(4096))
        for at in range(0, len(block), 8):
            yield int.from_bytes(block[at : at + 8], "little")


def uniform(seed: bytes) -> Iterator[int]:
    """Uniform elements of Z_q by rejection (4, step 1)."""
    for word in words(seed):
        if word % 2**50 < Q:
            yield word % 2**50


def pack(values: Sequence[int], bits: int) -> bytes:
    """D3.5: element i is bits i * bits .. of a little-endian bit string."""
    assert all(0 <= value < 2**bits for value in values)
    digits = "".join(f"{value:0{bits}b}" for value in reversed(values))
    return int(digits, 2).to_bytes(packed_bytes(len(values), bits), "little")


def packed_bytes(count: int, bits: int) -> int:
    return (count * bits + 7) // 8


def unpack(data: bytes, bits: int, count: int) -> list[int] | None:
    """The elements, or none where the size is another or a spare bit is set."""
    if len(data) != packed_bytes(count, bits):
        return None
    number = int.from_bytes(data, "little")
    if number >> (count * bits):
        return None
    digits = f"{number:0{count * bits}b}"
    return [int(digits[at : at + bits], 2) for at in range(0, count * bits, bits)][::-1]


def unpack_elements(data: bytes, count: int) -> list[int] | None:
    """Elements of Z_q, or none where one is q or more, too."""
    values = unpack(data, 50, count)
    return values if values is not None and all(value < Q for value in values) else None


def bitmap(entries: Sequence[bool]) -> bytes:
    out = bytearray((len(entries) + 7) // 8)
    for i, entry in enumerate(entries):
        out[i // 8] |= entry << (i % 8)
    return bytes(out)


def varint(value: int) -> bytes:
    if value < 128:
        return bytes([value])
    return bytes([value % 128 | 128]) + varint(value // 128)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Protocol Buffers in canonical form: default values are omitted, the caller gives fields ascending."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value) if value else b""
        elif value:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def frame(round_id: bytes, kind: int, body: bytes) -> bytes:
    return message((1, 2), (2, round_id), (3, kind), (4, body))


def identity_of(seed: bytes) -> bytes:
    return bytes(SigningKey(seed).verify_key)


def sign(seed: bytes, text: bytes) -> bytes:
    return bytes(SigningKey(seed).sign(text).signature)


def is_signed(identity: bytes, text: bytes, signature: bytes) -> bool:
    if len(signature) != 64:
        return False
    try:
        VerifyKey(identity).verify(text, signature)
    except BadSignatureError:
        return False
    return True


def x25519(private: bytes, public: bytes) -> bytes:
    own = X25519PrivateKey.from_private_bytes(private)
    return own.exchange(X25519PublicKey.from_public_bytes(public))


def x25519_public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def is_agreement_key(public: bytes) -> bool:
    """Canonical and not of small order: a point of small order gives zero with any private key."""
    if len(public) != 32 or int.from_bytes(public, "little") >= 2**255 - 19:
        return False
    try:
        x25519(bytes(32), public)
    except ValueError:
        return False
    return True


# --- 2: the committee


@dataclass(frozen=True)
class ThreatModel:
    corrupt_ppm: int
    dropout_ppm: int
    active: bool
    security_bits: int
    correctness_bits: int
    grinding_bits: int

    def encoded(self) -> bytes:
        return message(
            (1, self.corrupt_ppm),
            (2, self.dropout_ppm),
            (3, 2 if self.active else 1),
            (4, self.security_bits),
            (5, self.correctness_bits),
            (6, self.grinding_bits),
        )


@dataclass(frozen=True)
class CommitteeParameters:
    epoch_id: bytes
    model: ThreatModel
    minimum_candidates: int
    minimum_committee: int
    committee_size: int
    post_quantum: bool

    def encoded(self) -> bytes:
        return message(
            (1, 2),
            (2, self.epoch_id),
            (3, self.model.encoded()),
            (4, self.minimum_candidates),
            (5, self.minimum_committee),
            (6, self.committee_size),
            (7, int(self.post_quantum)),
        )

    def digest(self) -> bytes:
        return digest("committee-parameters-digest", self.encoded())


@dataclass(frozen=True)
class Numbers:
    """The sizes of a committee; those that a passive one does not have are 0."""

    m: int
    T: int
    liars: int  # T'
    rho: int
    quorum: int
    L: int
    R: int

    @property
    def base(self) -> int:
        """Base values of a row, and so the openings that are needed."""
        return self.T + self.rho


def part(ppm: int, count: int) -> int:
    """A share of so many, rounded up."""
    return -(-ppm * count // MILLION)


def drawn_at_most(n: int, m: int, marked: int, bits: int) -> int:
    """The smallest x with P[more than x of m drawn from n are marked] <= 2^-bits."""

    def ways(x: int) -> int:
        return sum(comb(marked, i) * comb(n - marked, m - i) for i in range(x + 1, m + 1))

    return next(x for x in range(m + 1) if ways(x) << (bits + 20) <= (2**20 - 1) * comb(n, m))


def committee_numbers(n: int, parameters: CommitteeParameters) -> Numbers:
    """Section 2, for n candidates."""
    model = parameters.model
    if not parameters.minimum_candidates <= n <= 2**16:
        raise Infeasible("minimum_candidates")
    everybody = n <= parameters.committee_size
    corrupt, dropouts = part(model.corrupt_ppm, n), part(model.dropout_ppm, n)
    if everybody:
        m, T, L = n, max(1, corrupt), dropouts
        liars = T
    else:
        m = parameters.committee_size
        s = model.security_bits + (model.grinding_bits if model.active else 0)
        T = max(1, drawn_at_most(n, m, corrupt, s))
        liars = max(1, drawn_at_most(n, m, corrupt, model.correctness_bits))
        L = drawn_at_most(n, m, dropouts, model.correctness_bits)
    rho = max(1, m - L - T - (3 * liars if model.active else 0))
    if everybody:
        cut = max(1, min(rho, m // 8))
        raised = T + rho - cut
        if model.active:
            raised = min(raised, max(T, m - 2 * L - 2 * liars - 1))
        T, rho = raised, cut
    quorum = max((m + T) // 2 + 1, m - L - liars) if model.active else 0
    corrected = (m - L - T - rho) // 2 if model.active else 0
    if m < parameters.minimum_committee or m - L < T + rho or m - L < quorum:
        raise Infeasible(f"{m} members")
    return Numbers(m, T, liars if model.active else 0, rho, quorum, L, corrected)


# --- 3: the epoch


@dataclass(frozen=True)
class CommitteeKey:
    identity: bytes
    agreement_key: bytes
    kem_key: bytes
    signature: bytes

    def encoded(self) -> bytes:
        return message((1, self.identity), (2, self.agreement_key), (3, self.kem_key), (4, self.signature))

    def digest(self) -> bytes:
        return digest("committee-key-digest", self.identity, self.agreement_key, self.kem_key)


@dataclass(frozen=True)
class EpochSecret:
    """What a candidate draws: 32 bytes, and 64 for ML-KEM or none."""

    agreement: bytes
    kem: bytes = b""


def committee_key(parameters: CommitteeParameters, signer: bytes, secret: EpochSecret) -> CommitteeKey:
    """E0: a candidate's answer; signer is the seed of its identity."""
    agreement = x25519_public(secret.agreement)
    kem = (
        MLKEM768PrivateKey.from_seed_bytes(secret.kem).public_key().public_bytes_raw() if secret.kem else b""
    )
    text = encode("committee-key", parameters.digest(), agreement, kem)
    return CommitteeKey(identity_of(signer), agreement, kem, sign(signer, text))


@dataclass(frozen=True)
class Committee:
    """Who the candidates are, and who of them the members are, with their keys; all by identity."""

    parameters: CommitteeParameters
    numbers: Numbers
    candidates: Sequence[CommitteeKey]
    members: Sequence[CommitteeKey]

    def encoded(self) -> bytes:
        entries = [message((1, key.identity), (2, key.digest())) for key in self.candidates]
        members = {key.identity for key in self.members}
        chosen = bitmap([key.identity in members for key in self.candidates])
        return message(
            (1, self.numbers.T), (2, self.numbers.rho), *((3, entry) for entry in entries), (4, chosen)
        )

    def digest(self) -> bytes:
        return digest("committee-digest", self.parameters.digest(), self.encoded())

    def acceptance_text(self) -> bytes:
        return encode("committee", self.digest())


def form_committee(parameters: CommitteeParameters, keys: Collection[CommitteeKey]) -> Committee:
    """E1: the committee of those whose keys are right."""
    candidates = sorted(keys, key=lambda key: key.identity)
    numbers = committee_numbers(len(candidates), parameters)
    entries = [key.identity + key.digest() for key in candidates]
    candidates_digest = digest("candidates-digest", parameters.digest(), *entries)
    places = sorted(candidates, key=lambda key: digest("committee-place", candidates_digest, key.identity))
    members = sorted(places[: numbers.m], key=lambda key: key.identity)
    return Committee(parameters, numbers, candidates, members)


def announcement(committee: Committee) -> bytes:
    """E1: CommitteeAnnouncement."""
    return message((1, committee.encoded()), *((2, key.encoded()) for key in committee.members))


def certificate(committee: Committee, acceptances: Mapping[int, bytes]) -> bytes:
    """E2: with the acceptances of a quorum, those of lowest index (passive: of nobody)."""
    lowest = sorted(acceptances)[: committee.numbers.quorum]
    return message(
        (1, committee.parameters.encoded()),
        (2, committee.encoded()),
        *((3, key.encoded()) for key in committee.members),
        *((4, message((1, index), (2, acceptances[index]))) for index in lowest),
    )


# --- 2: the round


def noise_bits(b: int, M: int) -> int:
    for g in range(1, 45 - b):
        if 2 ** (g - 1) >= min(M, isqrt(12 * M) + 1) + (3 * M >> (51 - b - g)) + 4:
            return g
    raise Infeasible("noise bits")


@dataclass(frozen=True)
class Round:
    """OneShotParameters, and the committee whose digest is in them."""

    committee: Committee
    round_id: bytes
    d: int
    b: int
    contexts: Sequence[bytes]
    maximum_uploads: int
    minimum_survivors: int
    minimum_per_context: int
    colluding: int

    def encoded(self) -> bytes:
        return message(
            (1, 2),
            (2, self.round_id),
            (3, self.committee.digest()),
            (4, self.d),
            (5, self.b),
            *((6, context) for context in self.contexts),
            (7, self.maximum_uploads),
            (8, self.minimum_survivors),
            (9, self.minimum_per_context),
            (10, self.colluding),
        )

    def digest(self) -> bytes:
        return digest("oneshot-round", self.encoded())

    @property
    def numbers(self) -> Numbers:
        return self.committee.numbers

    @property
    def g(self) -> int:
        return noise_bits(self.b, self.maximum_uploads)

    @property
    def upload_bits(self) -> int:
        """b' of the text."""
        return self.b + self.g

    @property
    def rows(self) -> int:
        """B of the text."""
        return -(-N // self.numbers.rho)

    @property
    def ciphertext_bytes(self) -> int:
        return CIPHERTEXT_BYTES if self.committee.parameters.post_quantum else 0

    @property
    def sealed_bytes(self) -> int:
        """What is sealed for one member."""
        return self.ciphertext_bytes + packed_bytes(self.rows + TESTS, 50) + 16


# --- polynomials


def reversed_bits(i: int) -> int:
    """Brv of the text: the reversal of 11 bits."""
    return int(f"{i:011b}"[::-1], 2)


def inverse_transform(values: Sequence[int], root: int) -> list[int]:
    """The c with values[j] = sum_k c_k root^(jk), times their number: sums with the inverse of the root."""
    if len(values) == 1:
        return list(values)
    even = inverse_transform(values[0::2], root * root % Q)
    odd = inverse_transform(values[1::2], root * root % Q)
    back, power, half = pow(root, -1, Q), 1, len(values) // 2
    out = [0] * len(values)
    for k in range(half):
        turned = odd[k] * power % Q
        out[k], out[k + half] = (even[k] + turned) % Q, (even[k] - turned) % Q
        power = power * back % Q
    return out


def intt(values: Sequence[int]) -> list[int]:
    """Coefficients of the polynomial with c(psi^(2 brv(i) + 1)) = values[i].

    c(psi^(2j + 1)) = sum_k (c_k psi^k) (psi^2)^(jk): an ordinary transform of the c_k psi^k.
    """
    ordered = [values[reversed_bits(j)] for j in range(N)]
    twisted = inverse_transform(ordered, PSI * PSI % Q)
    back, scale = pow(PSI, -1, Q), pow(N, -1, Q)
    out = []
    for value in twisted:
        out.append(value * scale % Q)
        scale = scale * back % Q
    return out


def masks(one: Round, secret: Sequence[int]) -> list[int]:
    """The d + CHECKS coefficients of a * secret, block after block (4, step 2)."""
    public = words(digest("lattice", one.digest()))
    out: list[int] = []
    while len(out) < one.d + CHECKS:
        block = []
        for value in secret:
            a = next(public) % 2**50
            block.append((a - Q if a >= Q else a) * value % Q)
        out += intt(block)
    return out[: one.d + CHECKS]


def truncate(z: int, bits: int) -> int:
    return (z + (z >> 36)) >> (50 - bits)


# --- sharing


def lagrange(points: Sequence[int], at: int) -> list[int]:
    """The weights with which values at the points give the value at another one."""
    weights = []
    for k, x in enumerate(points):
        over = under = 1
        for other in [*points[:k], *points[k + 1 :]]:
            over = over * (at - other) % Q
            under = under * (x - other) % Q
        weights.append(over * pow(under, -1, Q) % Q)
    return weights


def inner(left: Sequence[int], right: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(left, right, strict=True)) % Q


def base_points(numbers: Numbers) -> list[int]:
    """X = -1, -2, .., -(T + rho)."""
    return [-k for k in range(1, numbers.base + 1)]


def tree(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels from the padded leaves to the root."""
    level = list(leaves)
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    levels = [level]
    while len(level) > 1:
        level = [digest("share-node", level[i], level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def root_of(leaves: Sequence[bytes]) -> bytes:
    return tree(leaves)[-1][0]


def siblings(leaves: Sequence[bytes], index: int) -> bytes:
    """From the bottom up."""
    out = b""
    for level in tree(leaves)[:-1]:
        out += level[index ^ 1]
        index //= 2
    return out


def climbed(leaf: bytes, index: int, path: bytes) -> bytes:
    """The root that a leaf and its siblings give."""
    node = leaf
    for at in range(0, len(path), 32):
        sibling = path[at : at + 32]
        node = digest("share-node", sibling, node) if index % 2 else digest("share-node", node, sibling)
        index //= 2
    return node


def share_leaf(j: int, blob: bytes) -> bytes:
    return digest("share-leaf", j.to_bytes(4, "big"), blob)


def sealed_leaf(j: int, sealed: bytes) -> bytes:
    return digest("sealed-leaf", j.to_bytes(4, "big"), sealed)


# --- 4: the upload


@dataclass(frozen=True)
class Upload:
    identity: bytes
    context: bytes
    packed: bytes
    ephemeral_key: bytes
    leaves: Sequence[bytes]
    tests: bytes
    sealed: Sequence[bytes]
    signature: bytes

    def encoded(self) -> bytes:
        return message(
            (1, self.identity),
            (2, self.context),
            (3, self.packed),
            (4, self.ephemeral_key),
            (5, b"".join(self.leaves)),
            (6, self.tests),
            (7, b"".join(self.sealed)),
            (8, self.signature),
        )

    def digest(self, one: Round) -> bytes:
        parts = signed_parts(
            self.context,
            sha256(self.packed),
            self.ephemeral_key,
            root_of(self.leaves),
            self.tests,
            sealed_root(self.sealed),
        )
        return upload_digest(one, self.identity, parts)


@dataclass(frozen=True)
class Rows:
    """A client's secret s, and the base values of its rows."""

    secret: Sequence[int]
    rows: Sequence[Sequence[int]]
    blinding: Sequence[Sequence[int]]


def upload_seed(
    one: Round, label: str, identity: bytes, context: bytes, vector: Sequence[int], seed: bytes
) -> bytes:
    return digest(label, one.digest(), identity, context, sha256(pack(vector, one.b)), seed)


def secret_rows(one: Round, seed: bytes) -> Rows:
    """Steps 1 and 3: the stream gives s, then each row's T words, then the blinding rows."""
    rho, stream = one.numbers.rho, uniform(seed)
    secret = list(islice(stream, N))
    padded = secret + [0] * (one.rows * rho - N)
    rows = [padded[r * rho : (r + 1) * rho] + list(islice(stream, one.numbers.T)) for r in range(one.rows)]
    blinding = [list(islice(stream, one.numbers.base)) for _ in range(TESTS)]
    return Rows(secret, rows, blinding)


def masked_vector(one: Round, secret: Sequence[int], noise: bytes, vector: Sequence[int]) -> bytes:
    """Step 2: `packed`."""
    out = []
    for x, c, w in zip([*vector, *[0] * CHECKS], masks(one, secret), words(noise), strict=False):
        e = (w % 2**32).bit_count() - (w >> 32).bit_count()
        scaled = (x << (50 - one.b)) - ((x * 16383) >> one.b)
        out.append(truncate((c + e + scaled) % Q, one.upload_bits))
    return pack(out, one.upload_bits)


def blobs_of(one: Round, rows: Rows) -> list[bytes]:
    """Step 3: what each member gets, by identity."""
    points, out = base_points(one.numbers), []
    for j in range(1, one.numbers.m + 1):
        weights = lagrange(points, j)
        out.append(pack([inner(weights, row) for row in [*rows.rows, *rows.blinding]], 50))
    return out


def gammas(one: Round, bound: Sequence[bytes]) -> list[list[int]]:
    """The random combinations of the degree test, from what they are bound to."""
    stream = uniform(digest("degree-test", one.digest(), *bound))
    return [list(islice(stream, one.rows)) for _ in range(TESTS)]


def degree_tests(one: Round, rows: Rows, bound: Sequence[bytes]) -> bytes:
    """Step 3: `tests`."""
    out: list[int] = []
    for gamma, blinding in zip(gammas(one, bound), rows.blinding, strict=True):
        columns = zip(*rows.rows, strict=True)
        out += [(b + inner(gamma, column)) % Q for b, column in zip(blinding, columns, strict=True)]
    return pack(out, 50)


def sealing_key(
    one: Round,
    shared: bytes,
    client: bytes,
    member: bytes,
    ephemeral_key: bytes,
    ciphertext: bytes,
    root: bytes,
) -> ChaCha20Poly1305:
    """Step 4; shared is X25519 || kem."""
    info = encode("deal", client, member, ephemeral_key, ciphertext, root)
    return ChaCha20Poly1305(HKDF(SHA256(), 32, salt=one.digest(), info=info).derive(shared))


def dealt(one: Round, client: bytes, member: bytes, root: bytes) -> bytes:
    return encode("dealt", one.digest(), client, member, root)


def seal(
    one: Round, client: bytes, ephemeral: bytes, root: bytes, j: int, blob: bytes, kem: tuple[bytes, bytes]
) -> bytes:
    """Step 4: ciphertext || sealed blob for member j."""
    member, (ciphertext, secret) = one.committee.members[j - 1], kem
    shared = x25519(ephemeral, member.agreement_key) + secret
    key = sealing_key(one, shared, client, member.identity, x25519_public(ephemeral), ciphertext, root)
    return ciphertext + key.encrypt(bytes(12), blob, dealt(one, client, member.identity, root))


def sealed_root(sealed: Sequence[bytes]) -> bytes:
    return root_of([sealed_leaf(j, one) for j, one in enumerate(sealed, 1)])


def signed_parts(
    context: bytes, packed_digest: bytes, ephemeral_key: bytes, root: bytes, tests: bytes, sealed: bytes
) -> tuple[bytes, ...]:
    """What an upload's signature and digest have in common; sealed is the root of what is sealed."""
    return (context, packed_digest, ephemeral_key, root, sha256(tests), sealed)


def upload_text(one: Round, parts: Sequence[bytes]) -> bytes:
    return encode("oneshot-upload", one.digest(), *parts)


def upload_digest(one: Round, identity: bytes, parts: Sequence[bytes]) -> bytes:
    return digest("upload-digest", one.digest(), identity, *parts)


def signed_upload(
    one: Round,
    signer: bytes,
    context: bytes,
    packed: bytes,
    ephemeral: bytes,
    leaves: Sequence[bytes],
    tests: bytes,
    sealed: Sequence[bytes],
) -> Upload:
    """Step 5."""
    public = x25519_public(ephemeral)
    parts = signed_parts(context, sha256(packed), public, root_of(leaves), tests, sealed_root(sealed))
    signature = sign(signer, upload_text(one, parts))
    return Upload(identity_of(signer), context, packed, public, leaves, tests, sealed, signature)


def unchanged(_j: int, data: bytes) -> bytes:
    return data


def upload(
    one: Round,
    signer: bytes,
    context: bytes,
    vector: Sequence[int],
    ephemeral: bytes,
    seed: bytes,
    kems: Sequence[tuple[bytes, bytes]] | None = None,
    *,
    deal: Callable[[int, bytes], bytes] = unchanged,
    swap: Callable[[int, bytes], bytes] = unchanged,
    spoil: Callable[[int, bytes], bytes] = unchanged,
) -> Upload:
    """All that a client does, with the two strings that it draws.

    kems                (ciphertext, secret) for each member; none without post_quantum
    deal, swap, spoil   lies: another blob under its leaf, in its sealing, and another sealed string
    """
    identity, m = identity_of(signer), one.numbers.m
    rows = secret_rows(one, upload_seed(one, "oneshot-secret", identity, context, vector, seed))
    noise = upload_seed(one, "oneshot-noise", identity, context, vector, seed)
    packed = masked_vector(one, rows.secret, noise, vector)
    blobs = [deal(j, blob) for j, blob in enumerate(blobs_of(one, rows), 1)]
    leaves = [share_leaf(j, blob) for j, blob in enumerate(blobs, 1)]
    root = root_of(leaves)
    bound = (identity, x25519_public(ephemeral), context, sha256(packed), root)
    sealed = [
        spoil(j, seal(one, identity, ephemeral, root, j, swap(j, blob), kem))
        for j, blob, kem in zip(range(1, m + 1), blobs, kems or [(b"", b"")] * m, strict=True)
    ]
    tests = degree_tests(one, rows, bound)
    return signed_upload(one, signer, context, packed, ephemeral, leaves, tests, sealed)


# --- 5: the sum


@dataclass(frozen=True)
class Dealing:
    identity: bytes
    context: bytes
    packed_digest: bytes
    ephemeral_key: bytes
    tests: bytes
    signature: bytes
    sealed: bytes
    path: bytes
    sealed_path: bytes

    def encoded(self) -> bytes:
        return message(
            (1, self.identity),
            (2, self.context),
            (3, self.packed_digest),
            (4, self.ephemeral_key),
            (5, self.tests),
            (6, self.signature),
            (7, self.sealed),
            (8, self.path),
            (9, self.sealed_path),
        )


def dealing_of(sent: Upload, j: int) -> Dealing:
    """S1: what the server passes on to member j."""
    return Dealing(
        sent.identity,
        sent.context,
        sha256(sent.packed),
        sent.ephemeral_key,
        sent.tests,
        sent.signature,
        sent.sealed[j - 1],
        sent.leaves[j - 1] + siblings(sent.leaves, j - 1),
        siblings([sealed_leaf(i, one) for i, one in enumerate(sent.sealed, 1)], j - 1),
    )


@dataclass(frozen=True)
class Taken:
    """A Dealing that a member took: the reason of a complaint, or 0 and its shares of the rows."""

    upload: bytes
    reason: int
    shares: Sequence[int] = ()


def dealt_root(j: int, dealing: Dealing) -> bytes:
    return climbed(dealing.path[:32], j - 1, dealing.path[32:])


def dealing_parts(j: int, dealing: Dealing) -> tuple[bytes, ...]:
    """What the client signed, as far as member j is told of it."""
    return signed_parts(
        dealing.context,
        dealing.packed_digest,
        dealing.ephemeral_key,
        dealt_root(j, dealing),
        dealing.tests,
        climbed(sealed_leaf(j, dealing.sealed), j - 1, dealing.sealed_path),
    )


def take(one: Round, j: int, secret: EpochSecret, known: Collection[bytes], dealing: Dealing) -> Taken:
    """S1: member j's check of a Dealing. Raises Refuse."""
    depth = (one.numbers.m - 1).bit_length()
    tests = unpack_elements(dealing.tests, TESTS * one.numbers.base)
    if tests is None or len(dealing.sealed) != one.sealed_bytes:
        raise Refuse("tests, sealed")
    if len(dealing.path) != 32 * (1 + depth) or len(dealing.sealed_path) != 32 * depth:
        raise Refuse("path, sealed_path")
    if dealing.context not in one.contexts or not is_agreement_key(dealing.ephemeral_key):
        raise Refuse("context, ephemeral_key")
    leaf, root, parts = dealing.path[:32], dealt_root(j, dealing), dealing_parts(j, dealing)
    if not is_signed(dealing.identity, upload_text(one, parts), dealing.signature):
        raise Refuse("signature")
    name = upload_digest(one, dealing.identity, parts)
    if dealing.identity not in known:
        return Taken(name, 5)
    blob = opened(one, j, secret, dealing, root)
    if blob is None:
        return Taken(name, 1)
    if share_leaf(j, blob) != leaf:
        return Taken(name, 2)
    shares = unpack_elements(blob, one.rows + TESTS)
    if shares is None:
        return Taken(name, 3)
    rows, blinding = shares[: one.rows], shares[one.rows :]
    weights = lagrange(base_points(one.numbers), j)
    bound = (dealing.identity, dealing.ephemeral_key, dealing.context, dealing.packed_digest, root)
    for t, gamma in enumerate(gammas(one, bound)):
        test = tests[t * one.numbers.base : (t + 1) * one.numbers.base]
        if inner(weights, test) != (blinding[t] + inner(gamma, rows)) % Q:
            return Taken(name, 4)
    return Taken(name, 0, rows)


def opened(one: Round, j: int, secret: EpochSecret, dealing: Dealing, root: bytes) -> bytes | None:
    """The blob, or none where it does not open."""
    member = one.committee.members[j - 1].identity
    ciphertext, sealed = dealing.sealed[: one.ciphertext_bytes], dealing.sealed[one.ciphertext_bytes :]
    shared = x25519(secret.agreement, dealing.ephemeral_key)
    if secret.kem:
        shared += MLKEM768PrivateKey.from_seed_bytes(secret.kem).decapsulate(ciphertext)
    key = sealing_key(one, shared, dealing.identity, member, dealing.ephemeral_key, ciphertext, root)
    try:
        return key.decrypt(bytes(12), sealed, dealt(one, dealing.identity, member, root))
    except InvalidTag:
        return None


def review(one: Round, taken: Collection[Taken]) -> bytes:
    """S1: Review."""
    ordered = sorted(taken, key=lambda each: each.upload)
    reviewed = digest("reviewed", one.digest(), b"".join(each.upload for each in ordered))
    complaints = [message((1, each.upload), (2, each.reason)) for each in ordered if each.reason]
    return message((1, len(ordered)), (2, reviewed), *((3, complaint) for complaint in complaints))


def sum_proposal(uploads: Collection[bytes]) -> bytes:
    """S2: SumProposal."""
    return message((1, b"".join(sorted(uploads))))


def sum_digest(uploads: Collection[bytes]) -> bytes:
    return digest("sum-digest", b"".join(sorted(uploads)))


def may_sign(
    one: Round, taken: Collection[Taken], uploads: Mapping[bytes, tuple[bytes, bytes]], proposal: bytes
) -> bool:
    """S2, with what the member took, and the identity and context of each upload."""
    names = [proposal[at : at + 32] for at in range(0, len(proposal), 32)]
    reasons = {each.upload: each.reason for each in taken}
    if len(proposal) % 32 or names != sorted(set(names)) or not set(names) <= set(reasons):
        return False
    active = one.committee.parameters.model.active
    if any(reasons[name] == 5 or (reasons[name] and not active) for name in names):
        return False
    if len({uploads[name][0] for name in names}) < len(names):
        return False
    if not max(one.minimum_survivors, one.colluding + 2) <= len(names) <= one.maximum_uploads:
        return False
    contexts = [uploads[name][1] for name in names]
    enough = max(one.minimum_per_context, one.colluding + 2)
    return all(contexts.count(context) >= enough for context in contexts)


def sum_signature(one: Round, index: int, signer: bytes, uploads: Collection[bytes]) -> bytes:
    """S2: SumSignature; index is from 0."""
    text = encode("sum", one.digest(), sum_digest(uploads))
    return message((1, index), (2, sign(signer, text)))


def open_request(one: Round, signatures: Mapping[int, bytes]) -> bytes:
    """S3: OpenRequest, of the SumSignatures of a quorum, those of lowest index."""
    lowest = sorted(signatures)[: one.numbers.quorum]
    return message(*((1, signatures[index]) for index in lowest))


def opening_values(one: Round, summed: Collection[Taken]) -> bytes:
    """S3: the sum of a member's shares, packed."""
    return pack([sum(each.shares[r] for each in summed) % Q for r in range(one.rows)], 50)


def opening(one: Round, index: int, signer: bytes, uploads: Collection[bytes], values: bytes) -> bytes:
    """S3: Opening."""
    text = encode("opening", one.digest(), sum_digest(uploads), sha256(values))
    return message((1, index), (2, values), (3, sign(signer, text)))


@dataclass(frozen=True)
class Choice:
    """What the server makes of complaints."""

    chosen: Sequence[bytes]  # S, by digest
    guilty: frozenset[bytes]  # uploads
    silent: frozenset[int]  # members that do not open


def choose(one: Round, contexts: Mapping[bytes, bytes], reviews: Mapping[int, Collection[Taken]]) -> Choice:
    """Complaints (5, its last paragraph); contexts has every upload."""
    liars = one.numbers.liars
    reasons = {i: {each.upload: each.reason for each in taken if each.reason} for i, taken in reviews.items()}
    about = {name: {i: of[name] for i, of in reasons.items() if name in of} for name in contexts}
    out = {name for name, complaints in about.items() if len(complaints) > liars}
    guilty = {name for name in out if sum(reason != 5 for reason in about[name].values()) > liars}
    rest = set(contexts) - out
    complained = {name for name in rest if about[name]}
    silent: list[int] = []
    too_few = len(in_large_contexts(one, contexts, rest - complained)) < effective_minimum(one)
    if 10 * len(complained) > len(rest) or too_few:
        counts = {i: len(rest & set(of)) for i, of in reasons.items()}
        silent = sorted((i for i in counts if counts[i]), key=lambda i: (-counts[i], i))[:liars]
        complained = {name for name in complained if set(about[name]) - set(silent)}
    rest = in_large_contexts(one, contexts, rest - complained)
    return Choice(sorted(rest), frozenset(guilty), frozenset(silent))


def effective_minimum(one: Round) -> int:
    """Of uploads in a sum."""
    return max(one.minimum_survivors, one.colluding + 2)


def in_large_contexts(one: Round, contexts: Mapping[bytes, bytes], uploads: Collection[bytes]) -> set[bytes]:
    """Without those of a context that too few are about."""
    left = set(uploads)
    enough = max(one.minimum_per_context, one.colluding + 2)
    for context in one.contexts:
        its = {name for name in left if contexts[name] == context}
        if len(its) < enough:
            left -= its
    return left


def on_one_polynomial(values: Mapping[int, int], degree_below: int) -> bool:
    """Whether the values, by point, are those of one polynomial of degree below this."""
    points = list(values)
    base = points[:degree_below]
    return all(
        inner(lagrange(base, point), [values[x] for x in base]) == values[point]
        for point in points[degree_below:]
    )


@dataclass(frozen=True)
class Decoded:
    """The sum of the secrets; the indexes of members whose openings were wrong."""

    secret: Sequence[int]
    guilty: frozenset[int]
    unprotected: bool


def decode(one: Round, uploads: Collection[bytes], openings: Mapping[int, bytes]) -> Decoded:
    """The sum of the secrets, from the values of openings by index from 0.

    Raises DecodeFailed, TooFewOpenings. Wrong ones are looked for by trying who they may be: no other choice
    of so few gives one polynomial.
    """
    numbers = one.numbers
    rows = {}
    for index in sorted(openings):
        row = unpack_elements(openings[index], one.rows)
        if row is not None:
            rows[index] = row
    surplus, usable = len(openings) - numbers.base, len(rows) - numbers.base
    if usable < 0:
        raise TooFewOpenings
    unprotected = surplus < numbers.liars
    limit = 0 if unprotected else min(usable // 2, surplus - numbers.liars)
    sums = [sha256(openings[index]) for index in rows]
    factors = list(
        islice(uniform(digest("openings", one.digest(), sum_digest(uploads), b"".join(sums))), one.rows)
    )
    combined = {index + 1: inner(factors, row) for index, row in rows.items()}
    for count in range(limit + 1):
        for wrong in combinations(rows, count):
            kept = [index for index in rows if index not in wrong]
            if on_one_polynomial({i + 1: combined[i + 1] for i in kept}, numbers.base):
                guilty = frozenset(() if unprotected else {*wrong, *openings} - set(kept))
                return Decoded(secret_of(one, {i: rows[i] for i in kept}), guilty, unprotected)
    raise DecodeFailed("too many wrong openings")


def secret_of(one: Round, rows: Mapping[int, Sequence[int]]) -> list[int]:
    """The base values of all rows, so the sum of the secrets; every opening is compared on every row."""
    points = [index + 1 for index in rows]
    base, rest = points[: one.numbers.base], points[one.numbers.base :]
    to_secret = [lagrange(base, x) for x in base_points(one.numbers)[: one.numbers.rho]]
    to_rest = {point: lagrange(base, point) for point in rest}
    secret = []
    for r in range(one.rows):
        values = [rows[point - 1][r] for point in base]
        if any(inner(weights, values) != rows[point - 1][r] for point, weights in to_rest.items()):
            raise DecodeFailed("an opening is wrong on a row")
        secret += [inner(weights, values) for weights in to_secret]
    return secret[:N]


def unmasked(one: Round, packed: Collection[bytes], secret: Sequence[int]) -> list[int]:
    """The sum of the vectors, from `packed` of S and the sum of the secrets. Raises CheckFailed."""
    total = [0] * (one.d + CHECKS)
    for each in packed:
        entries = unpack(each, one.upload_bits, one.d + CHECKS)
        assert entries is not None
        total = [a + u for a, u in zip(total, entries, strict=True)]
    rounding = len(packed) // 2 + 2 ** (one.g - 1)
    out = []
    for sum_of, mask in zip(total, masks(one, secret), strict=True):
        w = truncate(mask, one.upload_bits)
        out.append(((sum_of - w + rounding) % 2**one.upload_bits) >> one.g)
    if any(out[one.d :]):
        raise CheckFailed
    return out[: one.d]
