"""Which uploads the server proposes to sum, after the complaints of the members (part 2, section 5).

That is the server's choice and not part of the promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from secagg.effects import Blame, BlameReason
from secagg.params import Identity
from secagg.protocol.oneshot.review import UNKNOWN_CLIENT
from secagg.protocol.oneshot.view import OneShotView, sum_digest

_TENTH = 10


@dataclass(frozen=True, slots=True)
class Proposal:
    """The uploads of a sum, ascending, and their sum_digest; who is blamed; who does not open.

    silent  members that complained about one of them
    """

    uploads: tuple[bytes, ...]
    digest: bytes
    blamed: tuple[Blame, ...]
    silent: frozenset[int]


def propose(
    view: OneShotView,
    uploads: Mapping[bytes, tuple[Identity, bytes]],
    complaints: Mapping[int, Mapping[bytes, int]],
) -> Proposal:
    """Choose a sum.

    uploads     client and context by upload digest, one of each client
    complaints  reasons by upload digest, by member
    """
    liars = view.committee.numbers.liars
    about: dict[bytes, dict[int, int]] = {}
    for member, said in complaints.items():
        for digest, reason in said.items():
            if digest in uploads:
                about.setdefault(digest, {})[member] = reason
    out = {digest for digest, reasons in about.items() if len(reasons) > liars}
    blamed = []
    for digest in sorted(out):
        proved = sum(reason != UNKNOWN_CLIENT for reason in about[digest].values()) > liars
        blamed.append(Blame(uploads[digest][0], proved, BlameReason.BAD_DEALING))
    rest = {digest: reasons for digest, reasons in about.items() if digest not in out}
    chosen: set[bytes] = set()
    if _TENTH * len(rest) <= len(uploads) - len(out):
        chosen = _within_contexts(view, uploads, uploads.keys() - out - rest.keys())
    if len(chosen) < view.parameters.effective_minimum:  # too much, or too few without them
        counts = Counter(member for reasons in rest.values() for member in reasons)
        most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:liars]
        ignored = {member for member, _ in most}
        doubted = {digest for digest, reasons in rest.items() if reasons.keys() - ignored}
        chosen = _within_contexts(view, uploads, uploads.keys() - out - doubted)
    silent = frozenset(member for digest in chosen for member in about.get(digest, ()))
    ordered = tuple(sorted(chosen))
    return Proposal(ordered, sum_digest(ordered), tuple(blamed), silent)


def _within_contexts(
    view: OneShotView, uploads: Mapping[bytes, tuple[Identity, bytes]], chosen: AbstractSet[bytes]
) -> set[bytes]:
    """Leave out whole contexts that are below their minimum."""
    least = view.parameters.effective_minimum_per_context
    sizes = Counter(uploads[digest][1] for digest in chosen)
    return {digest for digest in chosen if sizes[uploads[digest][1]] >= least}
