"""What a member takes, complains about, signs and opens (PROTOCOL.md, part 2, section 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from secagg.effects import RefusalReason
from secagg.messages.oneshot import Complaint, Dealing, Opening, Review, SumProposal, SumSignature
from secagg.params import Identity, Signer
from secagg.primitives.packed_sharing import added, pack_words
from secagg.primitives.signatures import verify
from secagg.protocol.oneshot.dealing import Opened, digests_of, open_dealing, shape_fault
from secagg.protocol.oneshot.phases import EpochSecrets, MemberRound, TakenDealing
from secagg.protocol.oneshot.view import OneShotView, sha256, sum_digest
from secagg.protocol.round import refuse, short

_DEALINGS = 2  # that a member takes for each upload there may be: a client may have sent two
UNKNOWN_CLIENT = 5  # reason of a complaint: its registry does not have the client


def take_dealing(
    state: MemberRound,
    member: int,
    dealing: Dealing,
    secrets: EpochSecrets,
    known: Collection[Identity] | None,
) -> None:
    """Check a Dealing, open it and keep what was found. Raises RemoteProtocolError: it counts as not sent."""
    view, who = state.view, short(dealing.identity)
    if fault := shape_fault(view, dealing):
        raise refuse(RefusalReason.MALFORMED, f"Dealing of {who}: {fault}")
    part = digests_of(member, dealing)
    if (digest := part.digest(view)) in state.taken:
        return
    if len(state.taken) >= (limit := _DEALINGS * view.parameters.maximum_uploads):
        raise refuse(RefusalReason.OUT_OF_RANGE, f"Dealing of {who}: {limit} of this round were taken")
    if not verify(part.identity, part.text(view), dealing.signature):
        raise refuse(RefusalReason.BAD_SIGNATURE, f"Dealing of {who}: signature")
    if known is not None and part.identity not in known:
        opened = Opened(None, UNKNOWN_CLIENT)
    else:
        opened = open_dealing(view, member, part, dealing, secrets.agreement, secrets.kem)
    state.taken[digest] = TakenDealing(part.identity, part.context, opened.share, opened.reason)


def review(state: MemberRound) -> Review:
    """Say what was taken."""
    complaints = sorted((digest, one.reason) for digest, one in state.taken.items() if one.reason)
    return Review(
        len(state.taken),
        state.view.reviewed(list(state.taken)),
        tuple(Complaint(digest, reason) for digest, reason in complaints),
    )


def read_proposal(view: OneShotView, message: SumProposal) -> tuple[bytes, ...]:
    """Return the upload digests of a proposal. Raises RemoteProtocolError: their order, their number."""
    raw = bytes(message.uploads)
    uploads = tuple(raw[at : at + 32] for at in range(0, len(raw), 32))
    if len(raw) % 32 or list(uploads) != sorted(set(uploads)):
        raise refuse(RefusalReason.MALFORMED, "SumProposal.uploads: not ascending digests of 32 bytes")
    if len(uploads) < view.parameters.effective_minimum:
        raise refuse(
            RefusalReason.TOO_FEW_SURVIVORS,
            f"SumProposal.uploads: {len(uploads)}, at least {view.parameters.effective_minimum} are needed",
        )
    if len(uploads) > view.parameters.maximum_uploads:
        raise refuse(
            RefusalReason.OUT_OF_RANGE,
            f"SumProposal.uploads: {len(uploads)}, maximum_uploads is {view.parameters.maximum_uploads}",
        )
    return uploads


def check_sum(state: MemberRound, uploads: tuple[bytes, ...]) -> tuple[TakenDealing, ...]:
    """Raise RemoteProtocolError unless a sum over these uploads may be signed; return their Dealings."""
    parameters, active = state.view.parameters, state.view.committee.active
    if missing := [digest for digest in uploads if digest not in state.taken]:
        raise refuse(
            RefusalReason.NOT_INCLUDED, f"SumProposal.uploads: no Dealing of {len(missing)} of them was taken"
        )
    dealings = tuple(state.taken[digest] for digest in uploads)
    for one in dealings:
        if one.reason == UNKNOWN_CLIENT or (one.reason and not active):
            raise refuse(
                RefusalReason.UNKNOWN_IDENTITY
                if one.reason == UNKNOWN_CLIENT
                else RefusalReason.NOT_INCLUDED,
                f"SumProposal.uploads: that of {short(one.identity)} was complained about",
            )
    if len({one.identity for one in dealings}) != len(dealings):
        raise refuse(RefusalReason.EQUIVOCATION, "SumProposal.uploads: two are of one client")
    least = parameters.effective_minimum_per_context
    for context, count in Counter(one.context for one in dealings).items():
        if count < least:
            raise refuse(
                RefusalReason.TOO_FEW_SURVIVORS,
                f"SumProposal.uploads: {count} of context {context.hex()[:12]}, at least {least} are needed",
            )
    return dealings


def sign_sum(view: OneShotView, member: int, sum_hash: bytes, signer: Signer) -> SumSignature:
    """Sign a sum."""
    return SumSignature(member, signer.sign(view.sum_text(sum_hash)))


def check_quorum(view: OneShotView, sum_hash: bytes, signatures: Collection[SumSignature]) -> None:
    """Raise RemoteProtocolError unless exactly a quorum of members signed this sum."""
    committee = view.committee
    if len(signatures) != committee.numbers.quorum:
        raise refuse(
            RefusalReason.NO_QUORUM,
            f"OpenRequest: needs {committee.numbers.quorum} signatures, has {len(signatures)}",
        )
    text = view.sum_text(sum_hash)
    for one in signatures:  # distinct: the list ascends by index
        if one.index >= len(committee.members):
            raise refuse(RefusalReason.NO_QUORUM, f"SumSignature.index: {one.index} is no member")
        if not verify(committee.members[one.index], text, one.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, f"SumSignature.signature: of member {one.index}")


def open_sum(state: MemberRound, member: int, signer: Signer) -> Opening:
    """Sum the shares of what was signed. Raises RemoteProtocolError when one of them is not there."""
    view = state.view
    total = np.zeros(view.rows, np.uint64)
    for digest in state.proposal:
        dealing = state.taken.get(digest)
        if dealing is None or dealing.share is None:
            total[:] = 0
            why = "was not taken" if dealing is None else "was complained about"
            raise refuse(RefusalReason.NOT_INCLUDED, f"OpenRequest: upload {digest.hex()[:12]} {why}")
        before, total = total, added(total, dealing.share[: view.rows])
        before[:] = 0  # after the first step it is one client's share
    values = pack_words(total)
    text = view.opening_text(sum_digest(state.proposal), sha256(values))
    return Opening(member, values, signer.sign(text))
