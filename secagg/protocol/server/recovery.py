"""Rebuild secrets from shares; correct wrong shares with the surplus; say whom that speaks against."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from secagg.effects import AbortReason, Blame
from secagg.kernels import field_lagrange, field_weighted_sums
from secagg.primitives.agreement import public_key
from secagg.primitives.hybrid import MaskKeys, mask_secret
from secagg.primitives.masks import seed_commitment
from secagg.primitives.shamir import LIMBS, Words, correct_shares, from_limbs, in_field
from secagg.protocol.round import listed, parameters_digest
from secagg.protocol.server.answers import Answers
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.contributions import open_contributions
from secagg.protocol.server.masked import Masked, Pair

Check = Callable[[bytes], bool]
Weights = Callable[[Words, int], Words]
_ZERO = np.zeros(1, np.uint64)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What removes the masks.

    secrets        by dealer: self-mask seeds of S, mask private keys of dropouts
    contributions  hybrid: to the seeds of a dropout and a survivor, by these two
    """

    secrets: dict[int, bytes] = field(repr=False)
    contributions: dict[Pair, bytes] = field(repr=False)
    blamed: tuple[Blame, ...]


def recover_secrets(masked: Masked, answers: Answers, threads: int = 1) -> Recovered:
    """Rebuild the self-mask seed of each survivor and the mask key of each dropout that is needed.

    raises  RoundEnded when a secret cannot be rebuilt, or a contribution not opened
    """
    suspicions = Suspicions.of_complaints(masked.uploads, masked.departures)
    weights, effort = _weight_cache(), _Effort()
    secrets, failed = {}, []
    for dealer in masked.needed_dealers().tolist():
        secret = _recover(masked, dealer, answers, suspicions, weights, effort)
        if secret is None:
            failed.append(dealer)
        else:
            secrets[dealer] = secret
    contributions: dict[Pair, bytes] = {}
    closed: frozenset[int] = frozenset()
    if masked.view.hybrid:  # first: what they prove stands, whatever else fails
        roots = {dealer: root for dealer, root in secrets.items() if not masked.in_survivors[dealer]}
        contributions, closed = open_contributions(masked, roots, suspicions, threads)
        hashed = parameters_digest(masked.view.parameters)
        secrets |= {dealer: mask_secret(root, hashed) for dealer, root in roots.items()}
    if failed:
        # Whoever lied is among the dealers and those who answered for them.
        suspects = {*failed, *(i for dealer in failed for i in answers.of_dealer(dealer)[0].tolist())}
        names = listed(masked.view.named(failed))
        raise suspicions.ended(
            masked.view,
            AbortReason.UNRECOVERABLE_SECRET,
            f"the secrets of {names} fail their checks",
            masked.view.named(suspects),
        )
    if closed:
        raise suspicions.ended(
            masked.view,
            AbortReason.BAD_CONTRIBUTION,
            f"the masks of {listed(masked.view.named(closed))} cannot be removed",
        )
    return Recovered(secrets, contributions, suspicions.blame(masked.view))


def _weight_cache() -> Weights:
    """On the complete graph most dealers have the same holders: compute their weights once."""
    cache: dict[tuple[int, bytes], Words] = {}

    def weights(points: Words, threshold: int) -> Words:
        key = threshold, points.tobytes()
        if key not in cache:
            if len(cache) > 64:
                cache.clear()
            ats = np.concatenate([_ZERO, points[threshold:]])
            cache[key] = field_lagrange(points[:threshold], ats)
        return cache[key]

    return weights


class _Effort:
    """The budget of a round for leaving out holders: garbage of colluders must not cost minutes.

    A decoding among m shares costs m^2; the bound is some ten seconds.
    """

    def __init__(self) -> None:
        self._left = 2**28

    def spend(self, shares: int) -> bool:
        """Take one decoding among `shares` shares off the budget; False when it does not suffice."""
        self._left -= LIMBS * shares**2
        return self._left >= 0


def _recover(
    masked: Masked,
    dealer: int,
    answers: Answers,
    suspicions: Suspicions,
    weights: Weights,
    effort: _Effort,
) -> bytes | None:
    threshold = masked.view.roster.threshold
    check = _check_of(masked, dealer)
    holders, points, words = answers.of_dealer(dealer)
    valid = in_field(words)
    if not valid.all():
        suspicions.wrong_shares |= {(dealer, holder) for holder in holders[~valid].tolist()}
        holders, points, words = holders[valid], points[valid], words[valid]
    if points.size < threshold:
        suspicions.not_opened(dealer, points.size, 0, threshold)
        return None
    values = field_weighted_sums(weights(points, threshold), words[:threshold])
    right = np.ones(points.size, bool)
    if np.array_equal(values[1:], words[threshold:]):  # all on one polynomial
        secret = _checked(values[0], check)
    else:
        secret, right = _correct(points, words, threshold, check, effort)
    if secret is None:
        suspicions.not_opened(dealer, points.size, int(right.sum()), threshold)
        return None
    suspicions.wrong_shares |= {(dealer, holder) for holder in holders[~right].tolist()}
    return secret


def _correct(
    points: Words, words: Words, threshold: int, check: Check, effort: _Effort
) -> tuple[bytes | None, NDArray[np.bool_]]:
    """Decode; if that does not give the right secret, once more without each holder in turn.

    Leaving one out helps only when the surplus is odd: then the rest corrects as many wrong shares, and the
    one is extra. When it is even, the rest corrects one less, and what it decodes to agrees with enough of
    all shares to have been found among them.

    returns  the secret, or None, and which shares agree on it, or on a wrong one
    """
    everything = correct_shares(points, words, threshold)
    if everything is not None:
        # Another decoding without one holder would share t points with this one, and be the same.
        return _checked(everything.secret, check), ~everything.wrong
    agreed = np.zeros(points.size, bool)
    odd = (points.size - threshold) % 2
    for left_out in range(points.size if odd else 0):
        if not effort.spend(points.size):
            break
        correction = correct_shares(
            np.delete(points, left_out), np.delete(words, left_out, axis=0), threshold
        )
        if correction is None:
            continue
        right = np.insert(~correction.wrong, left_out, False)
        secret = _checked(correction.secret, check)
        if secret is not None:
            return secret, right
        agreed = max(agreed, right, key=np.count_nonzero)
    return None, agreed


def _checked(limbs: Words, check: Check) -> bytes | None:
    """Return the secret if its limbs are in range and it passes its check."""
    secret = from_limbs(limbs)
    return secret if secret is not None and check(secret) else None


def _check_of(masked: Masked, dealer: int) -> Check:
    if masked.in_survivors[dealer]:
        return partial(_opens, masked, dealer)
    if masked.view.hybrid:
        return partial(_is_root, masked, dealer)
    return lambda secret: hmac.compare_digest(public_key(secret), masked.mask_keys[dealer])


def _is_root(masked: Masked, dealer: int, root: bytes) -> bool:
    public = MaskKeys.of(root, parameters_digest(masked.view.parameters)).public
    return hmac.compare_digest(b"".join(public), masked.mask_keys[dealer] + masked.kem_keys[dealer])


def _opens(masked: Masked, dealer: int, secret: bytes) -> bool:
    view = masked.view
    commitment = seed_commitment(view.roster_digest, view.identities[dealer], secret)
    return hmac.compare_digest(commitment, masked.commitments[dealer])
