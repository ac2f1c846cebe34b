"""Rebuild secrets from shares; correct wrong shares with the surplus; say whom that speaks against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from secagg.effects import AbortReason, Blame
from secagg.primitives.agreement import public_key
from secagg.primitives.masks import seed_commitment
from secagg.primitives.shamir import (
    Words,
    correct_shares,
    from_limbs,
    in_field,
    interpolate,
    interpolation_weights,
    share_words,
)
from secagg.protocol.round import listed
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.masked import Masked

Check = Callable[[bytes], bool]
Weights = Callable[[tuple[int, ...], tuple[int, ...]], Words]


def recover_secrets(
    masked: Masked, answers: Mapping[int, Mapping[int, bytes]]
) -> tuple[dict[int, bytes], tuple[Blame, ...]]:
    """Rebuild the self-mask seed of each survivor and the mask key of each dropout that is needed.

    answers  shares of 40 bytes by holder, then dealer
    returns  secrets by dealer, and whom the shares speak against
    raises   RoundEnded when a secret cannot be rebuilt
    """
    suspicions = Suspicions.of_complaints(masked.uploads)
    by_dealer: dict[int, dict[int, bytes]] = {}
    for holder, shares in answers.items():
        for dealer, share in shares.items():
            by_dealer.setdefault(dealer, {})[holder] = share
    weights = _weight_cache()
    secrets, failed = {}, []
    for dealer in masked.needed_dealers():
        secret = _recover(masked, dealer, by_dealer.get(dealer, {}), suspicions, weights)
        if secret is None:
            failed.append(dealer)
        else:
            secrets[dealer] = secret
    if failed:
        # Whoever lied is among the dealers and those who answered for them.
        suspects = masked.view.named({*failed, *(i for dealer in failed for i in by_dealer.get(dealer, ()))})
        names = listed(masked.view.named(failed))
        raise suspicions.ended(
            masked.view,
            AbortReason.UNRECOVERABLE_SECRET,
            f"the secrets of {names} fail their checks",
            suspects,
        )
    return secrets, suspicions.blame(masked.view)


def _weight_cache() -> Weights:
    """On the complete graph most dealers have the same holders: compute their weights once."""
    cache: dict[tuple[tuple[int, ...], tuple[int, ...]], Words] = {}

    def weights(points: tuple[int, ...], ats: tuple[int, ...]) -> Words:
        if (points, ats) not in cache:
            if len(cache) > 64:
                cache.clear()
            cache[points, ats] = interpolation_weights(np.array(points, np.uint64), list(ats))
        return cache[points, ats]

    return weights


def _recover(
    masked: Masked,
    dealer: int,
    shares: Mapping[int, bytes],
    suspicions: Suspicions,
    weights: Weights,
) -> bytes | None:
    view, threshold = masked.view, masked.view.roster.threshold
    check = _check_of(masked, dealer)
    # A holder's point is 1 + its place among all the dealer's neighbors.
    point_of = {holder: point for point, holder in enumerate(masked.neighbors[dealer], 1)}
    holders = sorted(shares)
    words = share_words([shares[holder] for holder in holders])
    valid = in_field(words)
    right_holders = [holder for holder, right in zip(holders, valid, strict=True) if right]
    suspicions.wrong_shares |= {(dealer, holder) for holder in set(holders) - set(right_holders)}
    words = words[valid]
    points = tuple(point_of[holder] for holder in right_holders)
    if len(points) < threshold:
        return None
    values = interpolate(weights(points[:threshold], (0, *points[threshold:])), words[:threshold])
    if np.array_equal(values[1:], words[threshold:]):  # all on one polynomial
        secret, trusted = _checked(values[0], check), points
    else:
        secret, trusted = _correct(points, words, threshold, check)
    if secret is None:
        # At least t of so many agreeing answers are honest: the dealer shared this polynomial.
        if len(trusted) >= threshold + view.suspicion_limit:
            suspicions.wrong_secrets.add(dealer)
        return None
    if trusted != points:
        base = [points.index(point) for point in trusted[:threshold]]
        predicted = interpolate(weights(trusted[:threshold], points), words[base])
        wrong = (predicted != words).any(axis=1)
        suspicions.wrong_shares |= {
            (dealer, holder) for holder, bad in zip(right_holders, wrong, strict=True) if bad
        }
    return secret


def _correct(
    points: tuple[int, ...], words: Words, threshold: int, check: Check
) -> tuple[bytes | None, tuple[int, ...]]:
    """Decode; if that does not give the right secret, once more without each holder in turn.

    returns  the secret, or None, and the points that agreed on it, or on a wrong one
    """
    at = np.array(points, np.uint64)
    everything = correct_shares(at, words, threshold)
    if everything is not None:
        # Another decoding without one holder would share t points with this one, and be the same.
        return _checked(everything.secret, check), tuple(at[~everything.wrong].tolist())
    agreed: tuple[int, ...] = ()
    for left_out in range(len(points)):
        chosen = np.delete(at, left_out)
        correction = correct_shares(chosen, np.delete(words, left_out, axis=0), threshold)
        if correction is None:
            continue
        secret = _checked(correction.secret, check)
        trusted = tuple(chosen[~correction.wrong].tolist())
        if secret is not None:
            return secret, trusted
        agreed = max(agreed, trusted, key=len)
    return None, agreed


def _checked(limbs: Words, check: Check) -> bytes | None:
    """Return the secret if its limbs are in range and it passes its check."""
    secret = from_limbs(limbs)
    return secret if secret is not None and check(secret) else None


def _check_of(masked: Masked, dealer: int) -> Check:
    if dealer in masked.uploads:
        return partial(_opens, masked, dealer)
    return lambda secret: public_key(secret) == masked.mask_keys[dealer]


def _opens(masked: Masked, dealer: int, secret: bytes) -> bool:
    view = masked.view
    commitment = seed_commitment(view.roster_digest, view.identities[dealer], secret)
    return commitment == masked.commitments[dealer]
