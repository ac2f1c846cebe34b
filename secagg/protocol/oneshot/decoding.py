"""The sum of the secrets from the members' openings, some of which may be wrong (part 2, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from secagg.effects import AbortReason
from secagg.kernels import modq_words
from secagg.messages.oneshot import Opening
from secagg.primitives.labels import ONESHOT
from secagg.primitives.packed_sharing import Words, elements, rebuild, secret_of
from secagg.protocol.oneshot.view import OneShotView, sha256
from secagg.protocol.round import RoundEnded


@dataclass(frozen=True, slots=True)
class Decoded:
    """What openings give.

    secret       the sum of the secrets, (2048,)
    wrong        members whose openings contradict the others; nobody is named where it is unprotected
    unprotected  too few opened to know whether one of them lied
    """

    secret: Words = field(repr=False)
    wrong: tuple[int, ...]
    unprotected: bool


def decode_openings(view: OneShotView, openings: Mapping[int, Opening], sum_hash: bytes) -> Decoded:
    """Decode openings of the right size, with right signatures and spare bits.

    openings  by member
    raises    RoundEnded: too few, or more wrong ones than can be corrected
    """
    numbers, count = view.committee.numbers, len(openings)
    base = numbers.base
    readable = {
        member: values
        for member, opening in sorted(openings.items())
        if (values := elements(opening.values, view.rows)) is not None
    }
    if len(readable) < base:
        raise RoundEnded(AbortReason.TOO_FEW_OPENINGS, f"{len(readable)} members opened the sum, {base} must")
    unprotected = count < base + numbers.liars
    correct = 0 if unprotected else min((len(readable) - base) // 2, count - base - numbers.liars)
    points = np.array([member + 1 for member in readable], np.uint64)

    def gamma(words: int) -> Words:
        digests = (sha256(openings[member].values) for member in readable)
        return modq_words(ONESHOT.digest("openings", view.round_digest, sum_hash, *digests), words)

    rebuilt = rebuild(points, np.stack(list(readable.values())), base, correct, gamma)
    if rebuilt is None:
        raise RoundEnded(
            AbortReason.DECODE_FAILED, f"of {count} openings more than {correct} contradict the others"
        )
    off = np.array(list(readable))[rebuilt.wrong].tolist()
    wrong = () if unprotected else tuple(sorted([*off, *(openings.keys() - readable.keys())]))
    return Decoded(secret_of(rebuilt.values, numbers.packing), wrong, unprotected)
