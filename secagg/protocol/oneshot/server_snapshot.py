"""A server of a round as bytes and back. They hold public values, and nothing that opens an update.

Packed vectors are not in them: they are in the PackedStore, until the sum is out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import UINT64_LIMIT, large_octets, message, messages, octets, octets_list, uint
from secagg.messages.oneshot import (
    Committee,
    CommitteeKey,
    CommitteeParametersMessage,
    Dealing,
    OneShotParametersMessage,
    Opening,
    PartialSum,
    Review,
    SumSignature,
    committee_from_wire,
    committee_to_wire,
    oneshot_from_wire,
    oneshot_to_wire,
)
from secagg.params import Buffer, Identity, require
from secagg.params_oneshot import OneShotPhase, OneShotPolicy
from secagg.protocol.oneshot.uploads import TakenUpload, check_forwarded
from secagg.protocol.oneshot.view import CommitteeView, OneShotView
from secagg.protocol.snapshot import checked_body, parts_must_fit, with_digest

_VERSION = 1
_TRUSTING = OneShotPolicy(known=None, decryptors=None)  # the committee was checked before it was kept


@dataclass(frozen=True, slots=True)
class _Upload:
    identity: bytes = octets(1, 32)
    place: int = uint(2)  # in the order in which members get them
    dealing: Dealing = message(3, Dealing)
    edge: bytes = octets(4, 0, 32)


@dataclass(frozen=True, slots=True)
class _Partial:
    edge: bytes = octets(1, 32)
    total: Buffer = large_octets(2)
    dealings: Sequence[Dealing] = messages(3, Dealing)
    fetched: tuple[bytes, ...] = octets_list(4, 32)
    lost: int = uint(5, 2)


@dataclass(frozen=True, slots=True)
class _Member:
    index: int = uint(1)
    dealt: int = uint(2)
    again: int = uint(3, 2)
    review: Buffer = large_octets(4)
    signature: Buffer = large_octets(5)
    opening: Buffer = large_octets(6)


@dataclass(frozen=True, slots=True)
class _Traffic:
    phase: int = uint(1)
    up: int = uint(2, UINT64_LIMIT)
    down: int = uint(3, UINT64_LIMIT)


@dataclass(frozen=True, slots=True)
class _Server:
    version: int = uint(1)
    parameters: OneShotParametersMessage = message(2, OneShotParametersMessage)
    committee_parameters: CommitteeParametersMessage = message(3, CommitteeParametersMessage)
    committee: Committee = message(4, Committee)
    keys: Sequence[CommitteeKey] = messages(5, CommitteeKey)
    phase: int = uint(6)
    anybody: int = uint(7, 2)
    known: tuple[bytes, ...] = octets_list(8, 32)
    edges: tuple[bytes, ...] = octets_list(9, 32)
    total: Buffer = large_octets(10)
    uploads: Sequence[_Upload] = messages(11, _Upload)
    partial: Sequence[_Partial] = messages(12, _Partial)
    members: Sequence[_Member] = messages(13, _Member)
    gone: tuple[bytes, ...] = octets_list(14, 32)
    refused: tuple[bytes, ...] = octets_list(15, 32)
    traffic: Sequence[_Traffic] = messages(16, _Traffic)


@dataclass(slots=True)
class Partial:
    """What an edge sent: its total, its uploads, those that were fetched from it, whether it was left out."""

    total: Buffer = field(repr=False)
    taken: tuple[TakenUpload, ...] = field(repr=False)
    fetched: set[bytes] = field(default_factory=set)
    lost: bool = False

    def is_of(self, message: PartialSum) -> bool:
        """Return whether it is what this message says."""
        dealings = tuple(one.dealing for one in self.taken)
        return bytes(message.total) == self.total and tuple(message.dealings) == dealings


@dataclass(slots=True)
class OneShotState:
    """The state of a server within a round, all of it but the packed vectors.

    known     the enrolled clients; None: whoever signs
    uploads   by client; order: as members get them
    partial   by edge
    dealt     by member, how many of `order` it was sent
    again     members that got everything a second time
    """

    view: OneShotView
    phase: OneShotPhase
    known: frozenset[Identity] | None
    edges: frozenset[Identity]
    total: Buffer = field(repr=False)  # packed
    uploads: dict[Identity, TakenUpload] = field(repr=False)
    order: list[TakenUpload] = field(repr=False)
    partial: dict[Identity, Partial] = field(repr=False)
    dealt: Counter[int]
    again: set[int]
    reviews: dict[int, Review]
    signatures: dict[int, SumSignature]
    openings: dict[int, Opening] = field(repr=False)
    gone: set[Identity]
    refused: set[Identity]
    up: Counter[OneShotPhase]
    down: Counter[OneShotPhase]


def save(state: OneShotState) -> bytes:
    """Encode a server within a round."""
    committee = state.view.committee
    places = {id(one): place for place, one in enumerate(state.order)}
    indices = sorted({*state.dealt, *state.again, *state.reviews, *state.signatures, *state.openings})
    return with_digest(
        encode(
            _Server(
                version=_VERSION,
                parameters=oneshot_to_wire(state.view.parameters),
                committee_parameters=committee_to_wire(committee.parameters),
                committee=committee.committee,
                keys=committee.keys,
                phase=state.phase,
                anybody=int(state.known is None),
                known=tuple(sorted(state.known or ())),
                edges=tuple(sorted(state.edges)),
                total=state.total,
                uploads=tuple(
                    _Upload(one.identity, places[id(one)], one.dealing, one.edge or b"")
                    for one in sorted(state.order, key=lambda one: one.identity)
                ),
                partial=tuple(
                    _Partial(
                        edge,
                        one.total,
                        tuple(taken.dealing for taken in one.taken),
                        tuple(sorted(one.fetched)),
                        int(one.lost),
                    )
                    for edge, one in sorted(state.partial.items())
                ),
                members=tuple(_save_member(state, index) for index in indices),
                gone=tuple(sorted(state.gone)),
                refused=tuple(sorted(state.refused)),
                traffic=tuple(_Traffic(phase, state.up[phase], state.down[phase]) for phase in OneShotPhase),
            )
        )
    )


def _save_member(state: OneShotState, index: int) -> _Member:
    said = state.reviews.get(index), state.signatures.get(index), state.openings.get(index)
    review, signature, opening = (b"" if one is None else encode(one) for one in said)
    return _Member(index, state.dealt[index], int(index in state.again), review, signature, opening)


def load(data: bytes) -> OneShotState:
    """Decode a server. Raises ParameterError."""
    with parts_must_fit():
        try:
            return _restored(decode(_Server, checked_body(data)))
        except RemoteProtocolError as error:
            raise ParameterError(f"snapshot: {error}") from error


def _restored(saved: _Server) -> OneShotState:
    require(saved.version == _VERSION, "snapshot", f"of version {_VERSION}", saved.version)
    parameters = committee_from_wire(saved.committee_parameters)
    committee = CommitteeView.check(parameters, saved.committee, tuple(saved.keys), _TRUSTING)
    view = OneShotView.build(oneshot_from_wire(saved.parameters), committee)
    known = None if saved.anybody else frozenset(map(Identity, saved.known))
    partial = {
        Identity(one.edge): Partial(
            bytes(one.total),
            tuple(check_forwarded(view, Identity(one.edge), dealing) for dealing in one.dealings),
            set(one.fetched),
            bool(one.lost),
        )
        for one in saved.partial
    }
    by_edge = {(edge, taken.digest): taken for edge, one in partial.items() for taken in one.taken}
    uploads: dict[Identity, TakenUpload] = {}
    ordered: dict[int, TakenUpload] = {}
    for one in saved.uploads:
        edge = Identity(one.edge) if one.edge else None
        taken = check_forwarded(view, edge, one.dealing)
        if edge is not None:
            taken = by_edge[edge, taken.digest]
        ordered[one.place] = taken
        if edge is None or not partial[edge].lost:
            uploads[taken.identity] = taken
    members = {one.index: one for one in saved.members}
    signatures = {i: decode(SumSignature, one.signature) for i, one in members.items() if len(one.signature)}
    openings = {i: decode(Opening, one.opening) for i, one in members.items() if len(one.opening)}
    for name, said in (("signature", signatures), ("opening", openings)):
        wrong = [index for index, one in said.items() if one.index != index]
        require(not wrong, f"snapshot.{name}", "of the member that it is kept for", wrong)
    return OneShotState(
        view=view,
        phase=OneShotPhase(saved.phase),
        known=known,
        edges=frozenset(map(Identity, saved.edges)),
        total=bytes(saved.total),
        uploads=uploads,
        order=[ordered[place] for place in range(len(ordered))],
        partial=partial,
        dealt=Counter({index: one.dealt for index, one in members.items()}),
        again={index for index, one in members.items() if one.again},
        reviews={index: decode(Review, one.review) for index, one in members.items() if len(one.review)},
        signatures=signatures,
        openings=openings,
        gone=set(map(Identity, saved.gone)),
        refused=set(map(Identity, saved.refused)),
        up=+Counter({OneShotPhase(one.phase): one.up for one in saved.traffic}),
        down=+Counter({OneShotPhase(one.phase): one.down for one in saved.traffic}),
    )
