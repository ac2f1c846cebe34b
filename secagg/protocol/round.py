"""Values that every party computes from parameters and roster, and the early end of a round."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from secagg.effects import AbortReason, Breach, RefusalReason
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.messages import (
    Advertisement,
    Octets,
    Roster,
    SealedContribution,
    column,
    encode,
    parameters_to_wire,
    split,
)
from secagg.params import GraphParameters, Identity, RoundParameters
from secagg.primitives import kem
from secagg.primitives.agreement import is_usable
from secagg.primitives.bitmap import from_bitmap, to_bitmap
from secagg.primitives.bounds import (
    colluders,
    effective_minimum,
    likely_collusion,
    neighbor_collusion,
    quorum,
    stays_connected,
    window_collusion,
)
from secagg.primitives.graph import NeighborGraph
from secagg.primitives.labels import digest
from secagg.primitives.labels import encode as label


class RoundEnded(Exception):  # noqa: N818 - not an error: control flow inside a session
    """The round cannot go on; the session turns it into an Aborted effect."""

    def __init__(
        self,
        reason: AbortReason,
        detail: str,
        blamed: Collection[Identity] = (),
        guilty: Collection[Identity] = (),
        likely: Collection[Identity] = (),
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.blamed = tuple(sorted(blamed))
        self.guilty = tuple(sorted(guilty))
        self.likely = tuple(sorted(likely))


def refuse(reason: RefusalReason, detail: str, breaches: tuple[Breach, ...] = ()) -> RemoteProtocolError:
    """Make the error that refuses a message and changes nothing."""
    return RemoteProtocolError(reason, detail, breaches)


def no_entropy(_size: int) -> bytes:
    """Entropy of a session that draws nothing more. Raises LocalProtocolError."""
    raise LocalProtocolError("a restored session draws nothing")


def breach_sentence(breach: Breach) -> str:
    """Say what a policy demands and what a round has."""
    if isinstance(breach.limit, str):
        return f"{breach.field}: must be {breach.limit}, is {breach.value}"
    side = "at least" if int(breach.value) < breach.limit else "at most"
    return f"{breach.field}: must be {side} {breach.limit}, is {breach.value}"


def parameters_digest(parameters: RoundParameters) -> bytes:
    """H("parameters", bytes(RoundParameters))."""
    return digest("parameters", encode(parameters_to_wire(parameters)))


def advertisement_text(parameters_hash: bytes, advertisement: Advertisement) -> bytes:
    """Text of an advertisement's signature."""
    return label("advertise", parameters_hash, *_keys(advertisement))


def advertisement_digest(advertisement: Advertisement) -> bytes:
    """Return what the roster says of an advertisement."""
    return digest("advertisement", advertisement.identity, *_keys(advertisement))


def _keys(advertisement: Advertisement) -> tuple[bytes, ...]:
    """Return the keys of its suite: two, or four."""
    first = advertisement.agreement_key, advertisement.mask_key
    if not (advertisement.share_kem_key or advertisement.mask_kem_key):
        return first
    return *first, advertisement.share_kem_key, advertisement.mask_kem_key


def unusable_key(parameters: RoundParameters, advertisement: Advertisement) -> tuple[str, str] | None:
    """Return which key of an advertisement cannot be used in this round, and why; None: all can."""
    for name in ("agreement_key", "mask_key"):
        if not is_usable(getattr(advertisement, name)):
            return name, "not canonical or of small order"
    for name in ("share_kem_key", "mask_kem_key"):
        key = getattr(advertisement, name)
        if bool(key) != parameters.hybrid:
            return name, f"must {'' if parameters.hybrid else 'not '}be there in suite {parameters.suite}"
        if key and not kem.is_usable(key):
            return name, "not canonical"
    return None


@dataclass(frozen=True, slots=True)
class RoundView:
    """Parameters and roster, and what follows from them. Clients are meant by their roster index."""

    parameters: RoundParameters
    roster: Roster
    roster_digest: bytes
    identities: tuple[Identity, ...]
    names: Octets = field(repr=False)  # the identities, (n, 32)
    index: dict[Identity, int] = field(repr=False)
    graph: NeighborGraph = field(repr=False)

    @classmethod
    def build(cls, parameters: RoundParameters, roster: Roster) -> RoundView:
        """Compute digest, circle and indices."""
        roster_digest = digest("roster", parameters_digest(parameters), encode(roster))
        names = column(roster.entries, "identity", 32)
        identities = tuple(Identity(identity) for identity in split(names))
        graph = NeighborGraph.build(roster_digest, identities, roster.degree)
        index = {identity: i for i, identity in enumerate(identities)}
        return cls(parameters, roster, roster_digest, identities, names, index, graph)

    @property
    def clients(self) -> int:
        """Return n, the clients in the roster."""
        return len(self.identities)

    @property
    def active(self) -> bool:
        """Return whether the server may lie."""
        return self.parameters.threat_model.active

    @property
    def hybrid(self) -> bool:
        """Return whether keys are of X25519 and of ML-KEM-768."""
        return self.parameters.hybrid

    @property
    def graph_parameters(self) -> GraphParameters:
        """Return degree and threshold as the roster has them."""
        return GraphParameters(degree=self.roster.degree, threshold=self.roster.threshold)

    @property
    def colluders(self) -> int:
        """Return the most clients that collude: C, or A on the complete graph."""
        return colluders(self.clients, self.roster.degree, self.parameters.threat_model)

    @property
    def quorum(self) -> int:
        """Return how many survivor signatures rule out another set."""
        return quorum(self.clients, self.roster.degree, self.parameters.threat_model)

    @property
    def effective_minimum(self) -> int:
        """Return the fewest survivors of a sum that may be opened."""
        return effective_minimum(
            self.clients,
            self.roster.degree,
            self.parameters.threat_model,
            self.parameters.minimum_survivors,
        )

    @property
    def suspicion_limit(self) -> int:
        """More contradictions than this make guilty: t1, or A on the complete graph; at least 1.

        Where nobody is thought to collude, one contradiction still has two sides.
        """
        return max(1, neighbor_collusion(self.clients, self.roster.degree, self.parameters.threat_model))

    @property
    def likely_limit(self) -> int:
        """More contradictions than this make guilt likely."""
        return max(1, likely_collusion(self.clients, self.roster.degree, self.parameters.threat_model))

    def leaves_no_gap(self, survivors: Collection[int]) -> bool:
        """Survivors leave no gap on the circle that would split their sum (complete graph: always).

        Active: every k/2 successive places hold more than w of them. Passive: condition (a) holds for the
        dropouts that there really are, too.
        """
        if self.graph.complete:
            return True
        model = self.parameters.threat_model
        if not self.active:
            gone = self.clients - len(survivors)
            return stays_connected(self.clients, self.roster.degree, model, self.colluders + gone)
        w = window_collusion(self.clients, self.roster.degree, model)
        return self.graph.widest_gap_holds(survivors) > w

    def members(self, name: str, bitmap: bytes) -> frozenset[int]:
        """Roster indices in a bitmap. Raises RemoteProtocolError(MALFORMED)."""
        try:
            return from_bitmap(bitmap, self.clients)
        except ValueError as error:
            raise refuse(RefusalReason.MALFORMED, f"{name}: {error}") from error

    def bitmap(self, members: Collection[int]) -> bytes:
        """Return a set of roster indices as a bitmap, ceil(n / 8) bytes."""
        return to_bitmap(members, self.clients)

    def named(self, members: Collection[int]) -> frozenset[Identity]:
        """Return the identities at these roster indices."""
        return frozenset(self.identities[i] for i in members)

    def acceptance_text(self) -> bytes:
        """Return what an acceptance signature is over (PROTOCOL.md, 2)."""
        return label("accept", self.roster_digest)

    def upload_text(self, finished: bytes, packed_digest: bytes) -> bytes:
        """Return what an upload signature is over: U1 as a bitmap, SHA-256 of the packed vector."""
        return label("upload", self.roster_digest, finished, packed_digest)

    def departure_text(self, finished: bytes, unopened: Sequence[SealedContribution]) -> bytes:
        """Return what the signature of a client that leaves is over: U1, and what it got that does not open.

        unopened  as they were delivered, with their senders
        """
        said = [part for one in unopened for part in (one.peer, one.kem, one.ciphertext)]
        return label("departure", self.roster_digest, finished, *said)

    def survivors_text(self, finished: bytes, survivors: bytes) -> bytes:
        """Return what a survivor signature is over: U1 and S as bitmaps."""
        return label("survivors", self.roster_digest, finished, survivors)


def short(identity: bytes) -> str:
    """Return the first digits of an identity, for messages."""
    return identity.hex()[:12]


def listed(identities: Sequence[bytes] | Collection[bytes]) -> str:
    """Name some identities in a message."""
    shown = ", ".join(short(identity) for identity in sorted(identities)[:5])
    more = len(identities) - 5
    return f"{shown} and {more} more" if more > 0 else shown or "nobody"
