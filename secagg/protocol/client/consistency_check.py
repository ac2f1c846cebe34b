"""Phase 3, client: check that a sum over the one set S is safe; sign it when the caller says so."""

from __future__ import annotations

from secagg.effects import RefusalReason
from secagg.messages import SurvivorSignature
from secagg.params import Signer
from secagg.protocol.round import RoundView, refuse


def check_survivors(
    view: RoundView, name: str, survivors: bytes, finished: frozenset[int], me: int
) -> frozenset[int]:
    """Return S if we are in it, it lies within U1 and it has the effective minimum; else refuse it."""
    members = view.members(f"{name}.survivors", survivors)
    if me not in members:
        raise refuse(RefusalReason.NOT_INCLUDED, f"{name}.survivors: we uploaded and are not in it")
    if not members <= finished:
        raise refuse(RefusalReason.NOT_INCLUDED, f"{name}.survivors: not within U1")
    if len(members) < view.effective_minimum:
        raise refuse(
            RefusalReason.TOO_FEW_SURVIVORS,
            f"{name}.survivors: must be at least {view.effective_minimum}, are {len(members)}",
        )
    return members


def check_set(view: RoundView, survivors: bytes, finished: frozenset[int], me: int) -> frozenset[int]:
    """Return S if it may be signed. Raises RemoteProtocolError when it fails a check."""
    members = check_survivors(view, "SurvivorSet", survivors, finished, me)
    if not view.leaves_no_gap(members):
        raise refuse(
            RefusalReason.SURVIVOR_GAP, "SurvivorSet.survivors: a stretch of the circle is too empty"
        )
    return members


def sign_survivors(
    view: RoundView, survivors: bytes, finished: frozenset[int], signer: Signer
) -> SurvivorSignature:
    """Sign U1 and an S that was checked."""
    text = view.survivors_text(view.bitmap(finished), survivors)
    return SurvivorSignature(view.index[signer.identity], signer.sign(text))
