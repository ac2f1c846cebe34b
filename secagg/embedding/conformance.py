"""What every adapter must pass: five nodes, everything that happens to one of them, and the exact sum.

    from secagg.embedding import conformance

    @pytest.mark.parametrize("case", conformance.CASES, ids=str)
    def test_our_stack(case):
        conformance.check(case, run)

`run(nodes, registry, committee)` is the adapter's: it carries one round over its own stack, over all of
`nodes`, and returns it at its end: a `Round`, or a `OneShotRound` where there is a committee. Each of `nodes`
stands where a `Participant` does, and is called as one (`answer`); what it raises is to be treated as
whatever a node of that stack raises. Rounds need a minimum cohort of 4 and the default threat model; what the
nodes' vectors are is the adapter's business, and is compared. Where nodes are other processes, each makes its
own by `nodes_of` and sends its `report` to be judged (`judge`). A bit that is flipped in a sealed or revealed
share is found, and outvoted, by others, so that it is no loss: the tests of the protocol have it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.effects import AbortReason, DropReason, RefusalReason
from secagg.embedding.any_round import AnyRound
from secagg.embedding.committee import Committee
from secagg.embedding.given import Context, MakeVector, Vector
from secagg.embedding.participant import Participant
from secagg.embedding.patience import AnyPhase
from secagg.embedding.replies import LossReason, declined, is_bundle, unbundled
from secagg.kernels import lane_dtype
from secagg.messages import (
    KINDS,
    RosterAnnouncement,
    RoundParametersMessage,
    ShareDelivery,
    SurvivorSet,
    UnmaskingRequest,
    open_frame,
)
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    CommitteeAnnouncement,
    CommitteeParametersMessage,
    OneShotParametersMessage,
    OpenRequest,
    ReviewRequest,
    SumProposal,
    decode_oneshot,
)
from secagg.params import Buffer, Identity, Phase, Policy, RoundParameters
from secagg.params_oneshot import EpochPhase, OneShotPhase, OneShotPolicy
from secagg.primitives import kem
from secagg.primitives.signatures import IdentityKey
from secagg.registry import Registry
from secagg.store import MappingStore, MemoryStore, ParticipationLedger, StoredCounter

NODES = 5
ODD = 4  # the node that something happens to
_REQUESTS = (RoundParametersMessage, RosterAnnouncement, ShareDelivery, SurvivorSet, UnmaskingRequest)
_ONESHOT_PHASES: dict[type, AnyPhase] = {
    CommitteeParametersMessage: EpochPhase.KEYS,
    CommitteeAnnouncement: EpochPhase.ACCEPTANCE,
    OneShotParametersMessage: OneShotPhase.UPLOAD,
    ReviewRequest: OneShotPhase.REVIEW,
    SumProposal: OneShotPhase.AGREE,
    OpenRequest: OneShotPhase.OPEN,
}
_ORDER: tuple[AnyPhase, ...] = (*Phase, *_ONESHOT_PHASES.values())
_SPOILED = frozenset({LossReason.MALFORMED, *RefusalReason})
_GONE = frozenset({LossReason.HOST, LossReason.SILENT, DropReason.SILENT, LossReason.FAILED})


class Vanished(Exception):  # noqa: N818 - what a node that crashes raises in its host
    """The node is gone."""


class Node(Protocol):
    """What an adapter calls: as a `Participant`."""

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes: ...
    def close(self) -> None: ...


Run = Callable[[Sequence[Node], Registry, Committee | None], AnyRound[Any]]


class Probe:
    """A participant that notes what it masks. Subclasses are unlucky, or lie."""

    def __init__(self, key: IdentityKey, registry: Registry) -> None:
        self.key = key
        known = registry.identities
        self._policy = Policy(known=known, minimum_cohort=4)
        self._oneshot = OneShotPolicy(known=known, decryptors=known, require_post_quantum=kem.AVAILABLE)
        self.state: dict[str, bytes] = {}
        self._elsewhere = MemoryStore()  # what a host does not set back
        self.masked: NDArray[np.unsignedinteger[Any]] | None = None
        self.faults: list[str] = []  # what must not have happened

    def participant(self) -> Participant:
        """Start the node's process: all that it has is its key, and what was kept."""
        return Participant(
            self.key,
            self._policy,
            store=MappingStore(self.state),
            counter=StoredCounter(self._elsewhere),
            ledger=ParticipationLedger(self._elsewhere),
            oneshot=self._oneshot,
        )

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        """Answer as a node that follows the protocol."""
        return self.participant().answer(request, self.noting(vector), context=context, subject=subject)

    def close(self) -> None:
        """Nothing is open."""

    def report(self) -> Report:
        """Tell what was done."""
        return Report(self.key.identity, self.masked, tuple(self.faults))

    def noting(self, vector: MakeVector) -> MakeVector:
        """Make the vector, and keep it for the comparison."""

        def make(parameters: RoundParameters) -> Vector:
            made = vector(parameters)
            out = np.empty(parameters.vector_length, lane_dtype(parameters.ring_bits))
            if isinstance(made, np.ndarray):
                out[:] = made
            else:
                made.read(0, out)
            if self.masked is not None:
                self.faults.append("a second vector was asked for in one round")
            self.masked = out
            return out

        return make


class Vanishing(Probe):
    """Is gone from a phase on: before its answer to that, or after."""

    def __init__(self, key: IdentityKey, registry: Registry, phase: AnyPhase) -> None:
        super().__init__(key, registry)
        self._phase = phase

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        if _place(phase_of(request)) >= _place(self._phase):
            raise Vanished
        return super().answer(request, vector, context=context, subject=subject)


class Spoiling(Probe):
    """Something else than its answer arrives in a phase."""

    def __init__(
        self, key: IdentityKey, registry: Registry, phase: AnyPhase, spoil: Callable[[bytes], bytes]
    ) -> None:
        super().__init__(key, registry)
        self._phase, self._spoil = phase, spoil

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        reply = super().answer(request, vector, context=context, subject=subject)
        return self._spoil(reply) if phase_of(request) is self._phase else reply


class SetBack(Probe):
    """Its host loses what the node kept with its last answer, and asks again, with another vector."""

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        before = dict(self.state)
        reply = super().answer(request, vector, context=context, subject=subject)
        kept, self.state = self.state, before
        again = self.participant().answer(request, _other(vector), context=context, subject=subject)
        if declined(again) is None and again != reply:
            self.faults.append(f"two different answers left in {phase_of(request).name}")
        self.state = kept
        return reply


class Twice(Probe):
    """Two requests at once, of one process: the same one, twice."""

    def __init__(self, key: IdentityKey, registry: Registry) -> None:
        super().__init__(key, registry)
        self._one = self.participant()

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        replies: list[bytes] = []
        making = self.noting(vector)

        def answer() -> None:
            replies.append(self._one.answer(request, making, context=context, subject=subject))

        threads = [threading.Thread(target=answer) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        frames = {reply for reply in replies if declined(reply) is None}
        if len(frames) != 1:
            self.faults.append(f"{len(frames)} different answers left in {phase_of(request).name}")
        return next(iter(frames), b"")


class Misled(Probe):
    """Was given another model than the others."""

    def answer(
        self, request: Buffer, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        def other() -> bytes:
            right = context if isinstance(context, bytes) else context()
            return bytes(byte ^ 1 for byte in right)

        return super().answer(
            request, vector, context=other() if isinstance(context, bytes) else other, subject=subject
        )


@dataclass(frozen=True, slots=True)
class Case:
    """Something that happens to the last of five nodes.

    make       makes that node, of (its key, the registry, the key of node 0)
    survives   whether its vector is in the sum nevertheless
    reasons    why it is lost; nothing: it is not
    oneshot    the round is of the one-upload protocol, and all nodes are decryptors
    """

    name: str
    make: Callable[[IdentityKey, Registry, IdentityKey], Probe]
    survives: bool
    reasons: frozenset[object] = field(default=frozenset())
    oneshot: bool = False

    def __str__(self) -> str:
        return f"{'one upload: ' if self.oneshot else ''}{self.name}"


def phase_of(request: Buffer) -> AnyPhase:
    """Return the phase that a request asks an answer of."""
    if (bundle := is_bundle(request)) is None:
        return Phase(_REQUESTS.index(KINDS[open_frame(request).kind]))
    last = ONESHOT_FRAMES.open(unbundled(bundle)[-1])
    return _ONESHOT_PHASES[type(decode_oneshot(last))]


def _place(phase: AnyPhase) -> int:
    """Return the place of a phase; those of two kinds are the same numbers."""
    return next(i for i, one in enumerate(_ORDER) if one is phase)


@dataclass(frozen=True, slots=True)
class Report:
    """What a node did: the vector that it masked, and what must not have happened."""

    identity: Identity
    masked: NDArray[np.unsignedinteger[Any]] | None
    faults: tuple[str, ...]


def nodes_of(case: Case, seed: bytes) -> tuple[list[Probe], Registry]:
    """Return the nodes of a case; the same seed makes the same ones, in whatever process."""
    keys = [_key(seed, f"{i}") for i in range(NODES)]
    registry = Registry.of((f"node-{i}", key.identity) for i, key in enumerate(keys))
    probes = [Probe(key, registry) for key in keys[:ODD]]
    return [*probes, case.make(keys[ODD], registry, keys[0])], registry


def committee_for(case: Case) -> Committee | None:
    """Return the committee of a case; None: it is about the pairwise protocol."""
    return Committee(post_quantum=kem.AVAILABLE) if case.oneshot else None


def check(case: Case, run: Run) -> None:
    """Run a case over a stack. Raises AssertionError, which says what is not as it must be."""
    probes, registry = nodes_of(case, os.urandom(32))
    outcome = run(probes, registry, committee_for(case))
    judge(case, outcome, registry, [probe.report() for probe in probes])


def judge(case: Case, outcome: AnyRound[Any], registry: Registry, reports: Sequence[Report]) -> None:
    """Compare the round with what its nodes did, wherever they ran. Raises AssertionError."""
    present = {outcome.identities[node] for node in outcome.survivors}
    well = {report.identity for report in reports[:ODD]}
    wanted = well | ({reports[ODD].identity} if case.survives else set())
    _demand(present == wanted, f"{len(present)} nodes are in the sum, {len(wanted)} should be")
    _demand(present <= registry.identities, "somebody in the sum is not enrolled")
    lost = {loss.reason for loss in outcome.losses.values()}
    if case.reasons:
        _demand(len(lost) == 1, f"one node should be lost, were {outcome.losses}")
        _demand(lost <= case.reasons, f"a node was lost because of {lost}, not {set(case.reasons)}")
    else:
        _demand(not lost, f"no node should be lost, were {outcome.losses}")
    for report in reports if case.survives else reports[:ODD]:
        _demand(not report.faults, "; ".join(report.faults))
    of_each: list[list[NDArray[np.uint64]]] = []
    for identity in present:
        masked = [one.masked for one in reports if one.identity == identity and one.masked is not None]
        # Of two nodes with one identity one is in the sum; with the one upload both are asked.
        most = sum(one.identity == identity for one in reports) if case.oneshot else 1
        _demand(1 <= len(masked) <= most, f"{len(masked)} vectors were asked for of a node in the sum")
        of_each.append([one.astype(np.uint64) for one in masked])
    ring = np.uint64(2**outcome.parameters.ring_bits - 1)
    total = outcome.result.total.astype(np.uint64)
    same = any((sum(one, np.zeros_like(total)) & ring == total).all() for one in product(*of_each))
    _demand(same, "the sum is not that of the vectors, modulo 2^ring_bits")


def _key(seed: bytes, name: str) -> IdentityKey:
    return IdentityKey.from_seed(hashlib.sha256(seed + name.encode()).digest())


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _other(vector: MakeVector) -> MakeVector:
    def make(parameters: RoundParameters) -> Vector:
        made = vector(parameters)
        out = np.empty(parameters.vector_length, lane_dtype(parameters.ring_bits))
        if isinstance(made, np.ndarray):
            out[:] = made
        else:
            made.read(0, out)
        out[0] ^= 1
        return out

    return make


def _flipped(reply: bytes) -> bytes:
    """Flip a bit in the middle: of a key, a share, a masked entry, a signature."""
    changed = bytearray(reply)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


def _cases(*, oneshot: bool) -> list[Case]:
    def vanishing(phase: AnyPhase) -> Callable[[IdentityKey, Registry, IdentityKey], Probe]:
        return lambda key, registry, _other: Vanishing(key, registry, phase)

    def spoiling(
        phase: AnyPhase, spoil: Callable[[bytes], bytes]
    ) -> Callable[[IdentityKey, Registry, IdentityKey], Probe]:
        return lambda key, registry, _other: Spoiling(key, registry, phase, spoil)

    # In the sum is who is gone from `late` on, and who answers wrongly, but where the answer is `needed`.
    phases = tuple(_ONESHOT_PHASES.values()) if oneshot else tuple(Phase)
    late = _place(OneShotPhase.REVIEW if oneshot else Phase.CONSISTENCY_CHECK)
    needed = (OneShotPhase.UPLOAD,) if oneshot else phases[:3]
    spoils: Mapping[str, Callable[[bytes], bytes]] = {
        "garbage": lambda _reply: os.urandom(200),
        "nothing": lambda _reply: b"",
        "a reply that is cut": lambda reply: reply[:-1],
        "a bit that is flipped": _flipped,
    }
    unseen = {("a bit that is flipped", Phase.SHARE_KEYS), ("a bit that is flipped", Phase.UNMASKING)}
    return [
        Case("all well", lambda key, registry, _other: Probe(key, registry), survives=True),
        *(
            Case(f"gone in {phase.name}", vanishing(phase), survives=_place(phase) >= late, reasons=_GONE)
            for phase in phases
        ),
        *(
            Case(
                f"{name} in {phase.name}",
                spoiling(phase, spoil),
                survives=not any(phase is one for one in needed),
                reasons=_SPOILED if name != "nothing" else _SPOILED | _GONE,  # a host may carry no nothing
            )
            for name, spoil in spoils.items()
            for phase in phases
            if not any(name == one and phase is where for one, where in unseen)
        ),
        Case(
            "its state is set back",
            lambda key, registry, _other: SetBack(key, registry),
            survives=True,
        ),
        Case("two requests at once", lambda key, registry, _other: Twice(key, registry), survives=True),
        Case(
            "the key of another node",
            lambda _key, registry, other: Probe(other, registry),
            survives=False,
            reasons=frozenset({LossReason.TAKEN}),
        ),
        Case(
            "a key of nobody",
            lambda key, registry, _other: Probe(_key(key.seed, "nobody"), registry),
            survives=False,
            reasons=frozenset({LossReason.STRANGER}),
        ),
        Case(
            "another model",
            lambda key, registry, _other: Misled(key, registry),
            survives=False,
            reasons=frozenset({RefusalReason.CONTEXT_MISMATCH, AbortReason.CONTEXT_MISMATCH}),
        ),
    ]


CASES = (*_cases(oneshot=False), *(replace(case, oneshot=True) for case in _cases(oneshot=True)))
