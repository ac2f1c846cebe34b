"""What a client deals to the committee, and what a member finds in it (PROTOCOL.md, part 2, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from secagg.kernels import LATTICE_FIELD, RING, LatticeSecret, VectorSource, modq_words, pack_lattice
from secagg.messages.oneshot import Dealing, Upload
from secagg.params import Identity, Secret, Signer
from secagg.primitives import kem
from secagg.primitives.agreement import agree, is_usable, public_key
from secagg.primitives.merkle import climb, levels, root
from secagg.primitives.packed_sharing import (
    TESTS,
    Words,
    dealing_matrix,
    degree_tests,
    elements,
    pack_words,
    passes_tests,
    rows,
)
from secagg.primitives.sealing import hkdf, seal, unseal
from secagg.protocol.oneshot.view import (
    OneShotView,
    UploadDigests,
    sealed_leaf,
    sha256,
    share_leaf,
)


def make_upload(
    view: OneShotView,
    source: VectorSource,
    context: bytes,
    plain_digest: bytes,
    *,
    ephemeral: Secret,
    seed: Secret,
    signer: Signer,
    threads: int,
) -> Upload:
    """Mask the vector, deal the secret, seal the shares, sign.

    plain_digest  SHA-256 of the vector packed to ring_bits
    ephemeral     32 bytes, an X25519 private key; seed: 32 bytes
    raises        what source and signer raise
    """
    me, numbers = signer.identity, view.committee.numbers
    count, base = view.rows, numbers.base
    words = modq_words(
        view.seed("oneshot-secret", me, context, plain_digest, seed),
        RING + count * numbers.privacy_threshold + TESTS * base,
    )
    secret = words[:RING]
    key = LatticeSecret(secret)
    try:
        packed = pack_lattice(
            source,
            key,
            public_seed=view.lattice_seed,
            noise_seed=view.seed("oneshot-noise", me, context, plain_digest, seed),
            ring_bits=view.parameters.ring_bits,
            upload_bits=view.parameters.upload_bits,
            threads=threads,
        )
    except BaseException:  # of the source
        words[:] = 0
        raise
    finally:
        key.wipe()
    base_values = rows(
        secret,
        words[RING : -TESTS * base],
        words[-TESTS * base :],
        numbers.packing,
        numbers.privacy_threshold,
    )
    words[:] = 0
    shares = LATTICE_FIELD.weighted_sums(dealing_matrix(numbers.members, base), base_values)
    blobs = [pack_words(share) for share in shares]
    shares[:] = 0
    leaves = [share_leaf(j, blob) for j, blob in enumerate(blobs)]
    part = UploadDigests(
        me, context, sha256(memoryview(packed)), public_key(ephemeral), root(leaves), b"", b""
    )
    tests = pack_words(degree_tests(base_values, view.gamma(part)))
    base_values[:] = 0
    boxes = _sealed(view, part, blobs, ephemeral)
    part = UploadDigests(
        me,
        context,
        part.packed,
        part.ephemeral_key,
        part.root,
        sha256(tests),
        root([sealed_leaf(j, box) for j, box in enumerate(boxes)]),
    )
    return Upload(
        me,
        context,
        memoryview(packed).toreadonly(),
        part.ephemeral_key,
        b"".join(leaves),
        tests,
        b"".join(boxes),
        signer.sign(part.text(view)),
    )


def _sealed(view: OneShotView, part: UploadDigests, blobs: list[bytes], ephemeral: Secret) -> list[bytes]:
    boxes = []
    for key, blob in zip(view.committee.keys, blobs, strict=True):
        ciphertext, shared = b"", agree(ephemeral, key.agreement_key)
        if view.committee.parameters.post_quantum:
            ciphertext, secret = kem.encapsulate(key.kem_key)
            shared += secret
        info = view.seal_info(part.identity, key.identity, part.ephemeral_key, ciphertext, part.root)
        text = view.seal_text(part.identity, key.identity, part.root)
        boxes.append(ciphertext + seal(hkdf(shared, view.round_digest, info), blob, text))
    return boxes


@dataclass(frozen=True, slots=True)
class UploadTrees:
    """Both trees of an upload, for the paths that members get."""

    part: UploadDigests
    digest: bytes
    leaves: list[list[bytes]] = field(repr=False)
    sealed_leaves: list[list[bytes]] = field(repr=False)

    @classmethod
    def of(cls, view: OneShotView, upload: Upload) -> UploadTrees:
        """Compute everything that an upload's signature is over. Its sizes are right."""
        return cls.build(
            view,
            Identity(upload.identity),
            upload.context,
            sha256(upload.packed),
            upload.ephemeral_key,
            bytes(upload.leaves),
            bytes(upload.tests),
            bytes(upload.sealed),
        )

    @classmethod
    def build(
        cls,
        view: OneShotView,
        identity: Identity,
        context: bytes,
        packed_digest: bytes,
        ephemeral_key: bytes,
        leaves: bytes,
        tests: bytes,
        sealed: bytes,
    ) -> UploadTrees:
        """Compute everything that an upload's signature is over from its fields."""
        size = view.sealed_bytes
        tree = levels([leaves[at : at + 32] for at in range(0, len(leaves), 32)])
        boxes = [sealed[at : at + size] for at in range(0, len(sealed), size)]
        sealed_tree = levels([sealed_leaf(j, box) for j, box in enumerate(boxes)])
        part = UploadDigests(
            identity,
            context,
            packed_digest,
            ephemeral_key,
            tree[-1][0],
            sha256(tests),
            sealed_tree[-1][0],
        )
        return cls(part, part.digest(view), tree, sealed_tree)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a member found in a Dealing: its share, or the reason of its complaint, 1 to 5."""

    share: Words | None = field(repr=False)
    reason: int = 0


def digests_of(member: int, dealing: Dealing) -> UploadDigests:
    """Return what the client signed, by the paths of a Dealing of the right sizes."""
    path = bytes(dealing.path)
    return UploadDigests(
        Identity(dealing.identity),
        dealing.context,
        dealing.packed_digest,
        dealing.ephemeral_key,
        climb(path[:32], member, path[32:]),
        sha256(dealing.tests),
        climb(sealed_leaf(member, bytes(dealing.sealed)), member, bytes(dealing.sealed_path)),
    )


def shape_fault(view: OneShotView, dealing: Dealing) -> str:
    """Return what is wrong with the shape of a member's Dealing; nothing: ""."""
    for name, size in (
        ("tests", view.tests_bytes),
        ("sealed", view.sealed_bytes),
        ("path", 32 + view.path_bytes),
        ("sealed_path", view.path_bytes),
    ):
        if (got := memoryview(getattr(dealing, name)).nbytes) != size:
            return f"Dealing.{name}: must have {size} bytes, has {got}"
    return signed_fault(view, dealing.context, dealing.ephemeral_key, bytes(dealing.tests))


def signed_fault(view: OneShotView, context: bytes, ephemeral_key: bytes, tests: bytes) -> str:
    """Return what is wrong with the fields that uploads and Dealings have in common."""
    if context not in view.parameters.contexts:
        return "context: none of the round's"
    if not is_usable(ephemeral_key):
        return "ephemeral_key: unusable"
    if elements(tests, TESTS * view.committee.numbers.base) is None:
        return "tests: a word out of range or a spare bit"
    return ""


def open_dealing(
    view: OneShotView,
    member: int,
    part: UploadDigests,
    dealing: Dealing,
    agreement: Secret,
    kem_secret: kem.KemSecret | None,
) -> Opened:
    """Open a share and check it against what everybody's shares have in common.

    returns  the share (B + TESTS,), or the first reason that applies: 1 does not open, 2 is not under its
             leaf, 3 has a word out of range or a spare bit, 4 fails a test
    """
    numbers, me = view.committee.numbers, view.committee.members[member]
    sealed = bytes(dealing.sealed)
    ciphertext, box = sealed[: view.ciphertext_bytes], sealed[view.ciphertext_bytes :]
    shared = agree(agreement, part.ephemeral_key)
    if kem_secret is not None:
        shared += kem_secret.decapsulate(ciphertext)
    info = view.seal_info(part.identity, me, part.ephemeral_key, ciphertext, part.root)
    blob = unseal(hkdf(shared, view.round_digest, info), box, view.seal_text(part.identity, me, part.root))
    if blob is None:
        return Opened(None, 1)
    if share_leaf(member, blob) != bytes(dealing.path)[:32]:
        return Opened(None, 2)
    share = elements(blob, view.rows + TESTS)
    if share is None:
        return Opened(None, 3)
    tests = elements(dealing.tests, TESTS * numbers.base)
    weights = dealing_matrix(numbers.members, numbers.base)[member]
    if tests is None or not passes_tests(
        share, tests.reshape(TESTS, numbers.base), view.gamma(part), weights
    ):
        return Opened(None, 4)
    return Opened(share)
