"""A server that lies to real clients: what each attack gains it, and who notices.

Conventions. Client 0 is the victim; clients are named by their index in the cohort. "refused": a typed
reason, the client's snapshot did not change, and the right message is taken afterwards. "aborted": the client
says nothing more, and blames no other client. `LyingServer.sums()` tries every set of uploads and tells those
whose sum the server can compute from all that it has; in a round that went well that is {S}. "complete" is a
complete graph of 8 (threshold 5, quorum 5, one colluder), "sparse" a graph of 70 (degree 8, threshold 3,
quorum 37, two colluders, w = 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import pytest

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    InputWanted,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
)
from secagg.errors import LocalProtocolError
from secagg.messages import (
    Advertisement,
    MaskedInput,
    Message,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    RoundParametersMessage,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Adversary, Identity, Phase
from secagg.primitives.bounds import dropouts
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.round import RoundView, advertisement_digest, advertisement_text, parameters_digest
from tests.attacks.server import KEY, SEED, LyingServer, by_identity, twin
from tests.protocol.network import (
    Cohort,
    CounterEntropy,
    changed,
    flipped,
    opened,
    refused_by_client,
    sparse,
    total_of,
)

OTHER_CONTEXT = hashlib.sha256(b"another model").digest()
GRAPHS = pytest.mark.parametrize("graph", ["complete", "sparse"])
PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.name)


def cohort_on(graph: str, adversary: Adversary = "active") -> Cohort:
    if graph == "complete":
        return Cohort(8, adversary=adversary, dropout=0.25, minimum_cohort=6)
    return twin(sparse(70, adversary), minimum_cohort=66)


@dataclass(frozen=True, slots=True)
class Scene:
    """A moment of a round: all of `finished` have uploaded, `late` among them is not in `survivors`."""

    server: LyingServer
    finished: frozenset[int]
    survivors: frozenset[int]
    absent: int  # a neighbor of 0, not in U1
    late: int  # a neighbor of 0, not in S
    near: int  # a neighbor of 0, in S

    def request(self, **fields: object) -> UnmaskingRequest:
        """The right request to client 0, signed by everybody in S, with other fields where given."""
        view = self.server.views[0]
        signed = self.server.forged(self.survivors, view, self.finished, self.survivors)
        request = self.server.request(0, self.survivors, signatures=signed if view.active else ())
        return replace(request, **fields)  # type: ignore[arg-type]

    def demand(self, survivors: Iterable[int], finished: Collection[int] | None = None) -> UnmaskingRequest:
        """A request to client 0 for another S, which everybody in the roster has signed."""
        server, members = self.server, frozenset(survivors)
        view = server.views[0]
        signed = server.forged(server.everybody, view, finished or self.finished, members)
        return server.request(0, members, signatures=signed if view.active else ())


@cache
def _advertised(graph: str, adversary: Adversary) -> LyingServer:
    return LyingServer(cohort_on(graph, adversary)).advertise()


def advertised(graph: str, adversary: Adversary = "active") -> LyingServer:
    """Client 0 waits for the roster."""
    return _advertised(graph, adversary).fork([0])


@cache
def _accepted(graph: str) -> LyingServer:
    server = _advertised(graph, "active").fork()
    return server.announce(server.roster())


def accepted(graph: str, clients: Iterable[int] = (0,)) -> LyingServer:
    """Client 0 waits for U1."""
    return _accepted(graph).fork(clients)


@cache
def _scene(graph: str, adversary: Adversary) -> Scene:
    server = _advertised(graph, adversary).fork()
    view = server.roster()
    absent, late, near = server.neighbors(view, 0)[:3]
    finished = frozenset(server.everybody) - {absent}
    server.announce(view).deliver(finished)
    return Scene(server, finished, finished - {late}, absent, late, near)


def scene(graph: str, adversary: Adversary = "active", clients: Iterable[int] | None = (0,)) -> Scene:
    """Everybody has uploaded; nothing is signed."""
    saved = _scene(graph, adversary)
    return replace(saved, server=saved.server.fork(clients))


def ends_well(graph: str, scene_: Scene) -> None:
    """Client 0 takes the right messages after all; on the small graph the sum comes out."""
    server, survivors = scene_.server, scene_.survivors
    if graph == "complete":
        server.finish(survivors)
    else:
        assert server.tried(0, server.survivor_set(0, survivors)) is None
        assert server.tried(0, scene_.request()) is None


def dealers(cohort: Cohort, shares: Iterable[Any]) -> set[int]:
    return {cohort.index[Identity(share.dealer)] for share in shares}


def aborted(server: LyingServer, i: int, message: Message, reason: AbortReason) -> None:
    """Client i gives the round up, blames nobody, and masks no vector any more."""
    (effect,) = server.fork([i]).cohort.clients[i].receive(server.frame(message))
    assert isinstance(effect, Aborted)
    assert (effect.blamed, effect.guilty) == ((), ())
    server.aborted(i, message, reason)
    with pytest.raises(LocalProtocolError, match="submit"):
        server.cohort.clients[i].submit(server.cohort.vector(i))


# --- 1. Different models, rosters, parameters or rounds for different clients


def test_another_model_is_refused_and_the_right_one_taken() -> None:
    cohort = Cohort(4).start()
    other = cohort.frame(replace(parameters_to_wire(cohort.parameters), context=OTHER_CONTEXT))
    refused_by_client(cohort, 0, other, RefusalReason.CONTEXT_MISMATCH)
    assert cohort.total() == [1] * 4


@GRAPHS
def test_a_victim_with_another_model_and_its_neighbors_refuse_one_another(graph: str) -> None:
    """Each signed its keys for its own parameters. The others go on without the victim."""
    cohort = cohort_on(graph)
    cohort.clients[0] = cohort.fresh_client(0, context=OTHER_CONTEXT)
    server = LyingServer(cohort).advertise(range(1, len(cohort.clients)))
    shown = replace(cohort.parameters, context=OTHER_CONTEXT)
    server.advertisements[0] = server.ask(Advertisement, 0, parameters_to_wire(shown))
    view, victims = server.roster(), server.roster(parameters=shown)
    server.refused(0, server.announcement(victims, 0), RefusalReason.BAD_SIGNATURE)
    around = server.neighbors(view, 0)
    for i in around:
        server.refused(i, server.announcement(view, i), RefusalReason.BAD_SIGNATURE)
    if graph == "complete":
        others = range(1, 8)
        server.announce(server.roster(others)).deliver(others).finish(others)
        return
    rest = sorted({*server.everybody} - {0, *around})
    server.announce(view, rest)
    # The arc around the victim is empty; whoever still has neighbors uploads, and signs no such set.
    far = next(i for i in rest if not {*server.neighbors(view, i)} - {*rest})
    server.ask(MaskedInput, far, server.delivery(far, rest))
    server.refused(far, server.survivor_set(far, rest), RefusalReason.SURVIVOR_GAP)


OTHER_WORLDS: dict[str, dict[str, Any]] = {
    "another model": {"context": OTHER_CONTEXT},
    "another round id": {"round_id": bytes(range(16))},
    "other parameters": {"minimum_survivors": 4},
    "another roster": {},
    "another round": {"round_id": bytes(range(16)), "seed": "another draw"},
}
WORLDS = pytest.mark.parametrize("world", OTHER_WORLDS)


def roster_of(server: LyingServer, world: str | None) -> RoundView:
    """The roster of a world; "another roster" is as right as the first, but for its threshold."""
    if world != "another roster":
        return server.roster()
    return server.roster(threshold=server.roster().roster.threshold + 1)


@cache
def _world(name: str | None) -> LyingServer:
    """Eight clients that signed S = U1 = everybody; with a name, the same clients elsewhere.

    They draw the same where nothing else is said: only the transcript can tell the two apart.
    """
    cohort = Cohort(8)
    if name is not None:
        cohort = twin(cohort, **OTHER_WORLDS[name])
    server = LyingServer(cohort).advertise()
    view = roster_of(server, name)
    return server.announce(view).deliver(range(8)).sign(range(8))


@WORLDS
def test_masks_of_clients_that_were_shown_different_things_do_not_cancel(world: str) -> None:
    """Even with every self-mask seed known, only the sum of one world comes out, and no mixture."""
    here, there = _world(None), _world(world)
    for server in (here, there):
        alone = server.fork([])
        alone.granted_seeds = {i: bytes(alone.cohort.secrets(i).self_seed) for i in range(8)}
        assert alone.sums() == {frozenset(range(8))}
    mixed = here.fork([])
    mixed.granted_seeds = {
        i: bytes((there if i >= 4 else here).cohort.secrets(i).self_seed) for i in mixed.everybody
    }
    for i in range(4, 8):
        mixed.uploads[i], mixed.views[i] = there.uploads[i], there.views[i]
    assert mixed.sums() == set()


@WORLDS
def test_shares_of_two_worlds_do_not_rebuild_a_secret(world: str) -> None:
    here, there = _world(None), _world(world)
    server = here.fork([])
    threshold = server.views[0].roster.threshold
    for half, secret in ((KEY, "mask"), (SEED, "self_seed")):
        ours = {holder: share[half] for holder, share in server.plaintexts(0).items()}
        theirs = {holder: share[half] for holder, share in there.plaintexts(0).items()}
        own = getattr(server.cohort.secrets(0), secret)
        assert server.rebuilt(0, ours) == own
        assert server.rebuilt(0, dict(list(ours.items())[: threshold - 1])) is None
        last = sorted(ours)[threshold - 1]
        assert server.rebuilt(0, ours | {last: theirs[last]}) != own
        assert not {*ours.values()} & {*theirs.values()}


@WORLDS
def test_sealed_shares_of_another_world_do_not_open(world: str) -> None:
    """The victim complains about each dealer, adds the masks of all, and reveals none of those shares."""
    server, there = _accepted("complete").fork([0]), _world(world)
    honest = server.fork([0]).deliver(range(8), [0])
    right = server.delivery(0, range(8))
    theirs = there.delivery(0, range(8))
    shares = tuple(
        replace(share, ciphertext=old.ciphertext)
        for share, old in zip(right.shares, theirs.shares, strict=True)
    )
    upload = server.ask(MaskedInput, 0, replace(right, shares=shares))
    assert upload.complaints == tuple(server.cohort.identities[1:])
    assert bytes(upload.packed) == bytes(honest.uploads[0].packed)


def test_the_places_on_the_circle_are_not_known_before_the_keys() -> None:
    """The server cannot choose neighborhoods by choosing identities alone."""
    one = _advertised("sparse", "active").roster()
    other = LyingServer(twin(cohort_on("sparse"), seed="other keys")).advertise().roster()
    assert one.identities == other.identities
    assert one.graph.circle != other.graph.circle


# --- 2. and 17. Different sets for different clients


@GRAPHS
@pytest.mark.parametrize("declared", ["survivor", "dropout"])
def test_a_victim_told_a_smaller_u1_keeps_its_update(graph: str, declared: str) -> None:
    """It masks with few; its upload signature fits no other U1, so that nobody opens its seed."""
    server = accepted(graph, clients=range(70 if graph == "sparse" else 8))
    view = server.views[0]
    around = server.neighbors(view, 0)
    few = {0, *around[: view.roster.threshold]}
    rest = frozenset(server.everybody) - {0}
    server.deliver(few, [0]).deliver(server.everybody, rest)
    survivors = rest | ({0} if declared == "survivor" else set())
    server.sign(survivors, rest)
    if declared == "survivor":
        server.refused(0, server.survivor_set(0, survivors), RefusalReason.NOT_INCLUDED)
        server.refused(0, server.request(0, few), RefusalReason.NO_QUORUM)
    server.unmask(survivors, rest)
    assert server.counts(0) == ((0, 0) if declared == "survivor" else (0, len(around)))
    assert 0 not in server.seeds()
    if graph == "sparse":
        assert server.comes_out(rest) == (declared == "dropout")
        assert not server.comes_out({0})
        assert not server.comes_out(few)
        assert not server.comes_out(server.everybody)
    else:
        assert server.sums() == (set() if declared == "survivor" else {rest})


@pytest.mark.parametrize("told", range(1, 8))
def test_two_sets_u1_never_both_find_a_quorum(told: int) -> None:
    """`told` clients hear one U1, the others another; two colluders sign both."""
    sets = (frozenset(range(10)), frozenset(range(9)))
    server = LyingServer(Cohort(10, corrupt=0.2, minimum_survivors=2), corrupt={8, 9}).advertise()
    view = server.roster()
    server.announce(view).deliver(sets[0], range(told)).deliver(sets[1], range(told, 8))
    survivors = frozenset(range(9))
    server.sign(survivors, range(8))
    counts = [len(server.quorum(view, finished, survivors)) for finished in sets]
    assert sum(counts) == 8 + 2 * 2
    assert min(counts) < view.quorum
    for i in range(8):
        request = server.request(i, survivors)
        if counts[sets.index(server.finished[i])] >= view.quorum:
            server.answers[i] = server.ask(UnmaskingResponse, i, request)
        else:
            server.refused(i, request, RefusalReason.NO_QUORUM)
    assert server.sums() == set()


@cache
def _ten() -> LyingServer:
    """Ten clients, three of them colluders: threshold 7, quorum 7."""
    server = LyingServer(Cohort(10, corrupt=0.3, minimum_survivors=2), corrupt={7, 8, 9}).advertise()
    return server.announce(server.roster()).deliver(range(10), range(7))


@pytest.mark.parametrize("told", range(7))
def test_an_uploader_called_dropped_to_some_and_survivor_to_others_keeps_one_secret(told: int) -> None:
    """No split of the honest clients gives both sets a quorum, or the server t shares of both kinds."""
    server = _ten().fork(range(7))
    view, threshold = server.views[0], server.views[0].roster.threshold
    everybody = frozenset(range(10))
    sets = (everybody, everybody - {0})
    server.sign(sets[0], [0, *range(1, 1 + told)]).sign(sets[1], range(1 + told, 7))
    counts = [len(server.quorum(view, everybody, survivors)) for survivors in sets]
    assert sum(counts) == 7 + 2 * 3
    assert min(counts) < view.quorum
    for i in range(7):
        for survivors in sets:
            signed = server.signed[i] == survivors
            enough = len(server.quorum(view, everybody, survivors)) >= view.quorum
            request = server.request(i, survivors)
            if not signed or not enough or i not in survivors:
                assert server.tried(i, request) in {
                    RefusalReason.EQUIVOCATION,
                    RefusalReason.NO_QUORUM,
                    RefusalReason.NOT_INCLUDED,
                }
            else:
                server.answers[i] = server.ask(UnmaskingResponse, i, request)
    for dealer in range(7):
        assert min(server.counts(dealer)) < threshold
    assert server.sums() <= {frozenset(range(7)), frozenset(range(1, 7))}
    assert len(server.sums()) <= 1


def test_neighbors_told_opposite_things_about_a_dropout_on_a_sparse_graph_are_no_quorum() -> None:
    """Half of the victim's neighbors hear that it survived: one of the two sets has 36 signatures of 37."""
    saved = scene("sparse", clients=range(70))
    server = saved.server
    server.corrupt = frozenset(sorted(saved.survivors - {0, *server.neighbors(server.views[0], 0)})[-2:])
    view, around = server.views[0], server.neighbors(server.views[0], 0)
    honest = [i for i in saved.survivors - server.corrupt if i != 0]
    near = [i for i in honest if i in around]
    far = [i for i in honest if i not in around]
    for extra in (0, len(far) // 2, len(far) // 2 + 2, len(far)):
        world = server.fork(range(70))
        believe = [0, *near[::2], *far[:extra]]
        doubt = [*near[1::2], *far[extra:]]
        sets = (saved.survivors, saved.survivors - {0})
        world.sign(sets[0], believe).sign(sets[1], doubt)
        enough = [len(world.quorum(view, saved.finished, s)) >= view.quorum for s in sets]
        assert enough.count(True) <= 1
        for survivors, told in zip(sets, (believe, doubt), strict=True):
            for i in set(near) & set(told):
                if enough[sets.index(survivors)]:
                    world.answers[i] = world.ask(UnmaskingResponse, i, world.request(i, survivors))
                else:
                    assert world.tried(i, world.request(i, survivors)) is RefusalReason.NO_QUORUM
        assert min(world.counts(0)) < view.roster.threshold


@GRAPHS
@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_one_request_never_opens_both_secrets_of_a_neighbor(graph: str, adversary: Adversary) -> None:
    """A dropout's true upload proof, sent along, opens nothing: the request is refused."""
    saved = scene(graph, adversary)
    right = saved.request()
    both = by_identity((*right.uploads, saved.server.proof(saved.late)))
    saved.server.refused(0, replace(right, uploads=both), RefusalReason.WRONG_NEIGHBORS)
    answer = saved.server.ask(UnmaskingResponse, 0, right)
    cohort = saved.server.cohort
    seeds, keys = dealers(cohort, answer.self_seed_shares), dealers(cohort, answer.mask_key_shares)
    assert keys == {saved.late}
    assert seeds == {*saved.server.neighbors(saved.server.views[0], 0)} & saved.survivors


ODD_RATES = [(66, 1 / 3), (99, 1 / 3), (70, 1 / 7), (70, 2 / 7), (70, 3 / 7)]


@pytest.mark.parametrize(("clients", "corrupt"), ODD_RATES)
def test_a_rate_that_is_no_whole_number_of_ppm_grants_no_colluder_too_many(
    clients: int, corrupt: float
) -> None:
    """Exactly the declared share colludes; half of the others hear that the victim survived."""
    mine = round(corrupt * clients)
    honest = range(clients - mine)
    cohort = Cohort(clients, corrupt=corrupt, dropout=0.02, vector_length=2)
    server = LyingServer(cohort, corrupt=range(honest.stop, clients)).advertise()
    view, everybody = server.roster(), frozenset(range(clients))
    assert not view.graph.complete
    server.announce(view).deliver(everybody, honest)
    sets = (everybody, everybody - {0})
    server.sign(sets[0], honest[::2]).sign(sets[1], honest[1::2])
    enough = [len(server.quorum(view, everybody, s)) >= view.quorum for s in sets]
    assert enough.count(True) <= 1
    for i in sorted({*server.neighbors(view, 0)} & {*honest}):
        world = sets.index(server.signed[i])
        if enough[world]:
            server.answers[i] = server.ask(UnmaskingResponse, i, server.request(i, sets[world]))
        else:
            assert server.tried(i, server.request(i, sets[world])) is RefusalReason.NO_QUORUM
    assert min(server.counts(0)) < view.roster.threshold
    # And no set that it may open leaves one honest client alone with the colluders.
    assert view.effective_minimum >= mine + 2


# --- 3. Survivors who never uploaded, and gaps


def with_phantoms(graph: str) -> tuple[LyingServer, frozenset[int], list[frozenset[int]]]:
    """Everybody shared keys; the phantoms never uploaded. On the sparse graph they cut the circle in two.

    returns  also the phantoms, and the arcs between them
    """
    size = 70 if graph == "sparse" else 8
    server = accepted(graph, clients=range(size))
    if graph == "complete":
        phantoms = frozenset({5, 6, 7})
        arcs = [frozenset(range(5))]
    else:
        circle = server.views[0].graph.circle
        phantoms = frozenset((*circle[:4], *circle[30:34]))
        arcs = [frozenset(circle[4:30]), frozenset(circle[34:])]
    server.deliver(server.everybody, sorted(frozenset(server.everybody) - phantoms))
    return server, phantoms, arcs


@pytest.mark.parametrize(
    ("graph", "proof"),
    [
        ("complete", "no proof"),
        ("complete", "another's proof"),
        ("complete", "a colluder's signature"),
        ("sparse", "a colluder's signature"),
    ],
)
def test_phantom_survivors_open_no_partial_sum(graph: str, proof: str) -> None:
    """Everybody signs the set, for nobody can tell; but the phantoms' mask keys and seeds stay closed."""
    server, phantoms, arcs = with_phantoms(graph)
    cohort, survivors = server.cohort, frozenset(server.everybody)
    server.sign(survivors, sorted(server.uploads))
    spare = server.proof(min(server.uploads))
    for i in sorted(server.uploads):
        request = server.request(i, survivors)
        if proof != "no proof":
            for phantom in phantoms & {*server.neighbors(server.views[i], i)}:
                forged = replace(spare, identity=cohort.identities[phantom])
                if proof == "a colluder's signature":
                    view = server.views[i]
                    text = view.upload_text(server.bitmap(view, survivors), spare.packed_digest)
                    forged = replace(forged, signature=cohort.signers[min(server.uploads)].sign(text))
                request = replace(request, uploads=by_identity((*request.uploads, forged)))
        server.answers[i] = server.ask(UnmaskingResponse, i, request)
    assert all(server.counts(phantom) == (0, 0) for phantom in phantoms)
    if graph == "complete":
        assert server.sums() == set()
    else:
        assert not any(server.comes_out(arc) for arc in (*arcs, frozenset().union(*arcs)))


def around_the_circle(server: LyingServer, missing: int) -> frozenset[int]:
    """Everybody but `missing` successive clients, far from client 0."""
    circle = server.views[0].graph.circle
    start = circle.index(0) + 20
    return frozenset(server.everybody) - {circle[(start + j) % len(circle)] for j in range(missing)}


def test_survivors_with_a_gap_on_the_circle_are_not_signed() -> None:
    """Of 4 successive places more than w = 1 must survive; else the circle could be cut there."""
    server = accepted("sparse").deliver(range(70), [0])
    for missing in (4, 3):
        gap = around_the_circle(server, missing)
        server.refused(0, server.survivor_set(0, gap), RefusalReason.SURVIVOR_GAP)
    assert server.tried(0, server.survivor_set(0, around_the_circle(server, 2))) is None


def test_a_cut_circle_without_honest_signatures_opens_neither_arc() -> None:
    """Two gaps that are declared openly: nobody signs, and a request for an arc has no quorum."""
    server, phantoms, arcs = with_phantoms("sparse")
    server.corrupt = frozenset(sorted(arcs[0])[:2])
    for survivors in (*arcs, arcs[0] | arcs[1]):
        for i in sorted(survivors)[:5]:
            server.refused(i, server.survivor_set(i, survivors), RefusalReason.SURVIVOR_GAP)
            server.refused(i, server.request(i, survivors), RefusalReason.NO_QUORUM)
    assert server.counts(min(phantoms)) == (0, 0) or min(phantoms) in server.corrupt


def falls_apart() -> tuple[LyingServer, list[frozenset[int]]]:
    """A passive round of 200: two gaps, and so many others, are gone; the arcs between them."""
    cohort = Cohort(200, adversary="passive", corrupt=0.0, dropout=0.02, vector_length=2)
    server = LyingServer(cohort).advertise()
    view = server.roster()
    circle, half = view.graph.circle, view.roster.degree // 2
    gaps = {*range(half), *range(12, 12 + half)}
    gone = gaps | set(range(12 + half, 12 + half + 4 * (50 - 2 * half), 4))
    assert len(gone) == 50
    left = frozenset(circle) - {circle[place] for place in gone}
    server.announce(view).deliver(frozenset(circle), left)
    small = left & {circle[place] for place in range(half, 12)}
    return server, [small, left - small]


def test_a_passive_cohort_that_falls_apart_opens_no_part_of_its_sum() -> None:
    """A quarter is gone where a fiftieth was declared: the sums over two arcs would come out, too."""
    server, arcs = falls_apart()
    survivors = arcs[0] | arcs[1]
    for i in sorted(survivors):
        reason = server.tried(i, server.request(i, survivors))
        assert reason is RefusalReason.SURVIVOR_GAP
    assert not server.answers
    assert not any(server.comes_out(arc) for arc in arcs)


def test_a_passive_round_ends_when_its_cohort_has_fallen_apart() -> None:
    """The server that follows the protocol does not even ask."""
    server, arcs = falls_apart()
    cohort = Cohort(200, adversary="passive", corrupt=0.0, dropout=0.02, vector_length=2)
    gone = dict.fromkeys(set(range(200)) - arcs[0] - arcs[1], Phase.MASKED_INPUT_COLLECTION)
    end = cohort.finish(gone)
    assert isinstance(end, Aborted)
    assert end.reason is AbortReason.SURVIVOR_GAP
    assert cohort.released == server.cohort.released  # nothing


@pytest.mark.parametrize(("corrupt", "dropout"), [(0.0, 0.02), (0.03, 0.05), (1 / 7, 1 / 7)])
def test_a_passive_round_with_as_many_dropouts_as_were_declared_has_its_sum(
    corrupt: float, dropout: float
) -> None:
    cohort = Cohort(98, adversary="passive", corrupt=corrupt, dropout=dropout, vector_length=98)
    cohort.advance(Phase.MASKED_INPUT_COLLECTION)
    view = cohort.view()
    assert not view.graph.complete
    lost = range(dropouts(98, view.roster.degree, cohort.parameters.threat_model))
    assert cohort.total(dict.fromkeys(lost, Phase.MASKED_INPUT_COLLECTION)) == [
        int(i not in lost) for i in range(98)
    ]


BAD_SETS: dict[str, tuple[Callable[[Scene], SurvivorSet], RefusalReason]] = {
    "without the victim": (
        lambda s: s.server.survivor_set(0, s.survivors - {0}),
        RefusalReason.NOT_INCLUDED,
    ),
    "with one outside U1": (
        lambda s: s.server.survivor_set(0, s.survivors | {s.absent}),
        RefusalReason.NOT_INCLUDED,
    ),
    "fewer than two honest clients": (
        lambda s: s.server.survivor_set(0, sorted(s.survivors)[: s.server.views[0].effective_minimum - 1]),
        RefusalReason.TOO_FEW_SURVIVORS,
    ),
    "the victim alone": (lambda s: s.server.survivor_set(0, {0}), RefusalReason.TOO_FEW_SURVIVORS),
    "a longer bitmap": (
        lambda s: SurvivorSet(bytes(s.server.survivor_set(0, s.survivors).survivors) + b"\0"),
        RefusalReason.MALFORMED,
    ),
    "a shorter bitmap": (lambda _s: SurvivorSet(b""), RefusalReason.MALFORMED),
}


@GRAPHS
@pytest.mark.parametrize("case", BAD_SETS)
def test_a_set_that_would_show_too_little_a_sum_is_not_signed(graph: str, case: str) -> None:
    saved = scene(graph, clients=None if graph == "complete" else [0])
    message, reason = BAD_SETS[case]
    saved.server.refused(0, message(saved), reason)
    ends_well(graph, saved)


def test_a_spare_bit_of_a_bitmap_is_no_second_name_for_a_set() -> None:
    """70 clients leave two spare bits; signatures are over the bitmap."""
    saved = scene("sparse")
    bitmap = bytearray(saved.server.survivor_set(0, saved.survivors).survivors)
    bitmap[-1] |= 0x80
    saved.server.refused(0, SurvivorSet(bytes(bitmap)), RefusalReason.MALFORMED)


def test_the_smallest_set_holds_two_honest_clients_by_the_rounding_of_the_complete_graph() -> None:
    """A tenth of 7 is one colluder, though 7 // 10 is none."""
    server = LyingServer(Cohort(7, minimum_survivors=2)).advertise()
    server.announce(server.roster()).deliver(range(7))
    server.refused(0, server.survivor_set(0, {0, 1}), RefusalReason.TOO_FEW_SURVIVORS)
    assert server.tried(0, server.survivor_set(0, {0, 1, 2})) is None


def test_the_declared_minimum_of_survivors_holds_beyond_the_colluders() -> None:
    server = LyingServer(Cohort(7, minimum_survivors=5)).advertise()
    server.announce(server.roster()).deliver(range(7))
    server.refused(0, server.survivor_set(0, range(4)), RefusalReason.TOO_FEW_SURVIVORS)
    assert server.tried(0, server.survivor_set(0, range(5))) is None


# --- 4. Quorums


def short_by_one(s: Scene) -> tuple[SurvivorSignature, ...]:
    view = s.server.views[0]
    return s.server.forged(sorted(s.survivors)[: view.quorum - 1], view, s.finished, s.survivors)


def of_another_round(s: Scene) -> tuple[SurvivorSignature, ...]:
    """Signatures of everybody over the same two sets, in a round of the same cohort with other keys."""
    there = LyingServer(twin(s.server.cohort, round_id=bytes(16), seed="before")).advertise()
    return there.forged(s.survivors, there.roster(), s.finished, s.survivors)


def with_last(s: Scene, **fields: Any) -> tuple[SurvivorSignature, ...]:
    """One too few, and a last one that does not count."""
    signatures = short_by_one(s)
    return (*signatures, replace(signatures[-1], **fields))


def by_a_stranger(s: Scene) -> bytes:
    """Over the right sets, by an identity that is not in the roster."""
    view = s.server.views[0]
    text = view.survivors_text(s.server.bitmap(view, s.finished), s.server.bitmap(view, s.survivors))
    return IdentityKey.generate(CounterEntropy("stranger")).sign(text)


def next_signer(s: Scene) -> int:
    """The member of S whose signature the short quorum lacks."""
    return sorted(s.survivors)[s.server.views[0].quorum - 1]


BAD_QUORUMS: dict[str, tuple[Callable[[Scene], tuple[SurvivorSignature, ...]], RefusalReason]] = {
    "none": (lambda _s: (), RefusalReason.NO_QUORUM),
    "one too few": (short_by_one, RefusalReason.NO_QUORUM),
    "padded with a stranger's index": (
        lambda s: with_last(s, index=s.server.views[0].clients),
        RefusalReason.MALFORMED,
    ),
    "padded with another's signature": (
        lambda s: with_last(s, index=next_signer(s)),
        RefusalReason.NO_QUORUM,
    ),
    "padded with a stranger's signature": (
        lambda s: with_last(s, index=next_signer(s), signature=by_a_stranger(s)),
        RefusalReason.NO_QUORUM,
    ),
    "padded with a signature of zeros": (
        lambda s: with_last(s, index=next_signer(s), signature=bytes(64)),
        RefusalReason.NO_QUORUM,
    ),
    "padded with a repeated signer": (with_last, RefusalReason.MALFORMED),
    "out of order": (
        lambda s: tuple(s.request().signatures)[::-1],
        RefusalReason.MALFORMED,
    ),
    "of another round": (of_another_round, RefusalReason.NO_QUORUM),
    "over another U1": (
        lambda s: s.server.forged(s.survivors, s.server.views[0], s.finished - {s.late}, s.survivors),
        RefusalReason.NO_QUORUM,
    ),
    "over another S": (
        lambda s: s.server.forged(s.survivors, s.server.views[0], s.finished, s.survivors - {s.near}),
        RefusalReason.NO_QUORUM,
    ),
    "over S and U1 exchanged": (
        lambda s: s.server.forged(s.survivors, s.server.views[0], s.survivors, s.finished),
        RefusalReason.NO_QUORUM,
    ),
}


@GRAPHS
@pytest.mark.parametrize("case", BAD_QUORUMS)
def test_a_bad_quorum_opens_nothing_and_a_good_one_is_taken_after_it(graph: str, case: str) -> None:
    saved = scene(graph, clients=None if graph == "complete" else [0])
    signatures, reason = BAD_QUORUMS[case]
    saved.server.refused(0, saved.request(signatures=signatures(saved)), reason)
    ends_well(graph, saved)


@GRAPHS
def test_exactly_a_quorum_is_enough(graph: str) -> None:
    saved = scene(graph)
    view = saved.server.views[0]
    signers = sorted(saved.survivors)[: view.quorum]
    signatures = saved.server.forged(signers, view, saved.finished, saved.survivors)
    assert saved.server.tried(0, saved.request(signatures=signatures)) is None


BAD_REQUESTS: dict[str, tuple[Callable[[Scene], UnmaskingRequest], RefusalReason]] = {
    "without the victim": (lambda s: s.demand(s.survivors - {0}), RefusalReason.NOT_INCLUDED),
    "with one outside U1": (lambda s: s.demand(s.survivors | {s.absent}), RefusalReason.NOT_INCLUDED),
    "too few": (lambda s: s.demand({0, s.near}), RefusalReason.TOO_FEW_SURVIVORS),
    "a bitmap that is too long": (
        lambda s: replace(s.request(), survivors=bytes(s.request().survivors) + b"\0"),
        RefusalReason.MALFORMED,
    ),
    "a proof twice": (
        lambda s: s.request(uploads=(*s.request().uploads, s.request().uploads[-1])),
        RefusalReason.MALFORMED,
    ),
    "a proof of the victim itself": (
        lambda s: s.request(uploads=by_identity((*s.request().uploads, s.server.proof(0)))),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a proof of one outside U1": (
        lambda s: s.request(
            uploads=by_identity(
                (
                    *s.request().uploads,
                    replace(s.server.proof(0), identity=s.server.cohort.identities[s.absent]),
                )
            )
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
}


@GRAPHS
@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_request_for_a_set_that_nobody_should_open_is_refused(
    graph: str, adversary: Adversary, case: str
) -> None:
    """By a client that signed nothing, so that it has only its own checks; even if everybody signed."""
    saved = scene(graph, adversary)
    message, reason = BAD_REQUESTS[case]
    saved.server.refused(0, message(saved), reason)
    assert saved.server.tried(0, saved.request()) is None


# --- 5. and 6. Asked twice


RESTARTS = pytest.mark.parametrize("restarts", [False, True], ids=["", "after a restart"])


def perhaps_restart(server: LyingServer, restarts: bool) -> None:
    if restarts:
        server.cohort.restart_client(0)


@GRAPHS
@RESTARTS
def test_a_client_signs_one_set_and_repeats_only_that_signature(graph: str, restarts: bool) -> None:
    saved = scene(graph)
    server = saved.server
    first = server.ask(SurvivorSignature, 0, server.survivor_set(0, saved.survivors))
    perhaps_restart(server, restarts)
    server.refused(0, server.survivor_set(0, saved.survivors - {saved.near}), RefusalReason.EQUIVOCATION)
    server.refused(0, server.survivor_set(0, saved.finished), RefusalReason.EQUIVOCATION)
    again = server.ask(SurvivorSignature, 0, server.survivor_set(0, saved.survivors))
    assert again == first
    assert server.tried(0, saved.request()) is None


@GRAPHS
@RESTARTS
def test_a_client_that_signed_one_set_opens_no_other_whoever_signed_it(graph: str, restarts: bool) -> None:
    saved = scene(graph)
    saved.server.sign(saved.survivors, [0])
    perhaps_restart(saved.server, restarts)
    for other in (saved.survivors - {saved.near}, saved.finished):
        saved.server.refused(0, saved.demand(other), RefusalReason.EQUIVOCATION)
    assert saved.server.tried(0, saved.request()) is None


@GRAPHS
@RESTARTS
@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_client_unmasks_once_and_repeats_only_that_answer(
    graph: str, restarts: bool, adversary: Adversary
) -> None:
    saved = scene(graph, adversary)
    server = saved.server
    first = server.ask(UnmaskingResponse, 0, saved.request())
    perhaps_restart(server, restarts)
    for other in (saved.survivors - {saved.near}, saved.finished):
        server.refused(0, saved.demand(other), RefusalReason.EQUIVOCATION)
    server.refused(0, saved.request(uploads=()), RefusalReason.EQUIVOCATION)
    assert server.ask(UnmaskingResponse, 0, saved.request()) == first


def test_a_client_that_answered_without_having_signed_signs_nothing_afterwards() -> None:
    saved = scene("complete")
    assert saved.server.tried(0, saved.request()) is None
    for survivors in (saved.survivors, saved.finished):
        saved.server.refused(0, saved.server.survivor_set(0, survivors), RefusalReason.WRONG_PHASE)


@RESTARTS
def test_another_u1_after_the_first_is_refused(restarts: bool) -> None:
    """The masks of two sets, side by side, would show the masks."""
    server = accepted("complete")
    server.deliver(range(8), [0])
    perhaps_restart(server, restarts)
    server.refused(0, server.delivery(0, range(7)), RefusalReason.EQUIVOCATION)
    again = server.ask(MaskedInput, 0, server.delivery(0, range(8)))
    assert bytes(again.packed) == bytes(server.uploads[0].packed)


# --- 7. Shares that are replayed or exchanged


def with_ciphertexts(server: LyingServer, ciphertexts: dict[int, bytes]) -> ShareDelivery:
    """The right delivery to client 0 with other ciphertexts of these dealers."""
    right = server.delivery(0, range(8))
    shares = [
        replace(
            share, ciphertext=ciphertexts.get(server.cohort.index[Identity(share.peer)], share.ciphertext)
        )
        for share in right.shares
    ]
    return replace(right, shares=tuple(shares))


def sealed(server: LyingServer, dealer: int, holder: int) -> bytes:
    (found,) = [s for s in server.shared[dealer].shares if s.peer == server.cohort.identities[holder]]
    return bytes(found.ciphertext)


SPOILT: dict[str, Callable[[LyingServer], dict[int, bytes]]] = {
    "another dealer's": lambda s: {1: sealed(s, 2, 0)},
    "exchanged between two dealers": lambda s: {1: sealed(s, 2, 0), 2: sealed(s, 1, 0)},
    "meant for another holder": lambda s: {1: sealed(s, 1, 2)},
    "the victim's own, reflected": lambda s: {1: sealed(s, 0, 1)},
    "of another round": lambda _s: {1: sealed(_world("another round"), 1, 0)},
    "of another roster": lambda _s: {1: sealed(_world("another roster"), 1, 0)},
    "of the same draws under another model": lambda _s: {1: sealed(_world("another model"), 1, 0)},
    "one bit changed": lambda s: {1: flipped(sealed(s, 1, 0), 99)},
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_sealed_share_opens_only_where_it_was_meant_to(case: str) -> None:
    """The victim complains and reveals nothing of those dealers; the sum still comes out."""
    server = accepted("complete", clients=range(8))
    spoilt = SPOILT[case](server)
    server.finished[0] = frozenset(range(8))
    server.uploads[0] = server.ask(MaskedInput, 0, with_ciphertexts(server, spoilt))
    server.deliver(range(8), range(1, 8)).finish(range(8))
    assert server.uploads[0].complaints == tuple(server.cohort.identities[i] for i in sorted(spoilt))
    assert dealers(server.cohort, server.answers[0].self_seed_shares) == {*range(1, 8)} - {*spoilt}


def test_both_sides_of_a_spoilt_share_are_suspects_and_nobody_is_guilty() -> None:
    """An honest server behind a lying link: one colluder may be made to look bad, and that is no proof."""
    cohort = Cohort(8, dropout=0.25).advance(Phase.MASKED_INPUT_COLLECTION)
    right = opened(ShareDelivery, cohort.request(0))
    shares = (replace(right.shares[0], ciphertext=bytes(96)), *right.shares[1:])
    cohort.requests[0] = cohort.frame(replace(right, shares=shares))
    outcome = cohort.finish()
    assert isinstance(outcome, Aggregate)
    assert total_of(outcome) == [1] * 8
    assert [(blame.client, blame.guilty) for blame in outcome.blamed] == [
        (identity, False) for identity in cohort.identities[:2]
    ]


def test_the_two_messages_between_two_clients_are_sealed_with_different_keys() -> None:
    """With one key their difference would be the difference of the shares."""
    server = accepted("complete")
    there, back = sealed(server, 0, 1)[:80], sealed(server, 1, 0)[:80]
    ours, theirs = server.plaintexts(0)[1], server.plaintexts(1)[0]
    assert int.from_bytes(there) ^ int.from_bytes(back) != int.from_bytes(ours) ^ int.from_bytes(theirs)


def test_shares_revealed_in_another_round_complete_no_secret() -> None:
    """Client 1 drops out in one round and survives in the next: its shares do not add up."""
    before, now = _world("another round"), _world(None)
    threshold = now.views[0].roster.threshold
    old = {holder: share[KEY] for holder, share in before.plaintexts(1).items()}
    new = {holder: share[KEY] for holder, share in now.plaintexts(1).items()}
    for ours in range(threshold):
        mixed = old | dict(sorted(new.items())[:ours])
        assert now.rebuilt(1, mixed) != bytes(now.cohort.secrets(1).mask)


# --- 8. Two rosters in one round


def test_dropouts_of_one_roster_are_no_phantom_survivors_of_another() -> None:
    """Half the cohort gets one roster, half another; 6 and 7 are in both and accepted the second.

    There they drop out and their mask keys are opened, fairly. The first half would mask with these keys
    against 6 and 7 as survivors, and a sum over fewer would come out; but 6 and 7 never accepted its roster.
    """
    server = LyingServer(Cohort(15, minimum_cohort=9), corrupt={14}).advertise()
    first, both, second = range(6), (6, 7), range(8, 14)
    one, two = server.roster([*first, *both, 14]), server.roster([*both, *second, 14])
    server.announce(one, first).announce(two, [*both, *second])
    all_of_two = [*both, *second, 14]
    server.deliver(all_of_two, second).sign([*second, 14], second).unmask([*second, 14], second)
    assert {6, 7} <= server.mask_keys().keys()
    all_of_one = [*first, *both, 14]
    for acceptance in ("that of the other roster", "made up", "left out"):
        for i in first:
            world = server.fork([i])
            message = world.delivery(i, all_of_one)
            if acceptance != "that of the other roster":
                forged = bytes(64) if acceptance == "made up" else b""
                names = {server.cohort.identities[j] for j in both}
                shares = [replace(s, acceptance=forged) if s.peer in names else s for s in message.shares]
                message = replace(message, shares=tuple(shares))
            aborted(world, i, message, AbortReason.WRONG_SHARES)
    # Without the two, each half is a round of its own: one sum each, and each over enough.
    server.deliver([*first, 14], first)
    server.refused(0, server.survivor_set(0, all_of_one), RefusalReason.NOT_INCLUDED)
    server.sign([*first, 14], first).unmask([*first, 14], first)
    assert server.comes_out(first)
    assert server.comes_out(second)
    for few in (range(5), range(1, 6), range(8, 13), (0,), (8,), (0, 8)):
        assert not server.comes_out(few)


def test_two_rosters_of_the_same_clients_leave_both_halves_without_neighbors() -> None:
    """The halves differ in the threshold that they were told; nobody accepted both."""
    server = LyingServer(Cohort(8)).advertise()
    one, two = server.roster(), server.roster(threshold=4)
    server.announce(one, range(4)).announce(two, range(4, 8))
    for i, half in ((0, range(4)), (4, range(4, 8))):
        aborted(server.fork([i]), i, server.delivery(i, range(8)), AbortReason.WRONG_SHARES)
        aborted(server.fork([i]), i, server.delivery(i, half), AbortReason.TOO_FEW_NEIGHBORS)


def test_dropouts_of_a_small_roster_do_not_cut_the_circle_of_a_large_one() -> None:
    """Two stretches of the large circle accepted a small roster and dropped out of it.

    If the others took them for survivors, their opened mask keys would split the sum in two; all who would
    have masked with one of them abort, and what remains of the circle is signed by nobody.
    """
    server = LyingServer(twin(sparse(80, "active"), minimum_cohort=18)).advertise()
    large = server.roster(range(70))
    circle = [server.cohort.index[large.identities[j]] for j in large.graph.circle]
    lost = [*circle[:4], *circle[30:34]]
    small = server.roster([*lost, *range(70, 80)])
    stay = [i for i in range(70) if i not in lost]
    server.announce(small).announce(large, stay)
    rest = range(70, 80)
    server.deliver([*lost, *rest], rest).sign(rest).unmask(rest)
    assert set(lost) <= server.mask_keys().keys()
    touched = {i for i in stay if set(server.neighbors(large, i)) & set(lost)}
    for i in sorted(touched):
        aborted(server.fork([i]), i, server.delivery(i, range(70)), AbortReason.WRONG_SHARES)
    untouched = sorted(set(stay) - touched)
    server.deliver(range(70), untouched)
    for i in untouched[:3]:
        server.refused(i, server.survivor_set(i, untouched), RefusalReason.SURVIVOR_GAP)
        server.refused(i, server.request(i, untouched), RefusalReason.NO_QUORUM)


# --- 9. Acceptance and upload signatures


def acceptance_elsewhere(server: LyingServer, world: str, i: int) -> bytes:
    """Client i's true acceptance of a roster of the same clients in another world."""
    changes = dict(OTHER_WORLDS[world])
    there = LyingServer(twin(server.cohort, **changes)).advertise()
    view = roster_of(there, world)
    return bytes(there.ask(SharedKeys, i, there.announcement(view, i)).acceptance)


BAD_ACCEPTANCES: dict[str, Callable[[LyingServer, int, int], bytes]] = {
    "missing": lambda _s, _i, _j: b"",
    "zeros": lambda _s, _i, _j: bytes(64),
    "that of another neighbor": lambda s, _i, j: bytes(s.shared[j].acceptance),
    "of another roster": lambda s, i, _j: acceptance_elsewhere(s, "another roster", i),
    "of another round": lambda s, i, _j: acceptance_elsewhere(s, "another round", i),
    "the upload of the same": lambda s, i, _j: bytes(
        s.fork([i]).deliver(s.everybody, [i]).uploads[i].signature
    ),
}


@GRAPHS
@pytest.mark.parametrize("case", BAD_ACCEPTANCES)
def test_a_neighbor_that_did_not_accept_this_roster_ends_the_victims_round(graph: str, case: str) -> None:
    server = accepted(graph)
    one, other = server.neighbors(server.views[0], 0)[1:3]
    right = server.delivery(0, server.everybody)
    forged = BAD_ACCEPTANCES[case](server, one, other)
    name = server.cohort.identities[one]
    shares = tuple(replace(s, acceptance=forged) if s.peer == name else s for s in right.shares)
    aborted(server, 0, replace(right, shares=shares), AbortReason.WRONG_SHARES)


BAD_DELIVERIES: dict[str, tuple[Callable[[LyingServer, list[int]], ShareDelivery], AbortReason]] = {
    "without the victim": (
        lambda s, _around: s.delivery(0, {*s.everybody} - {0}),
        AbortReason.NOT_FINISHED,
    ),
    "fewer neighbors than the threshold": (
        lambda s, around: s.delivery(0, {0, *around[: s.views[0].roster.threshold - 1]}),
        AbortReason.TOO_FEW_NEIGHBORS,
    ),
    "a share left out": (
        lambda s, _around: replace(
            s.delivery(0, s.everybody), shares=tuple(s.delivery(0, s.everybody).shares)[1:]
        ),
        AbortReason.WRONG_SHARES,
    ),
    "a share of one outside U1": (
        lambda s, around: replace(
            s.delivery(0, s.everybody), finished=s.bitmap(s.views[0], {*s.everybody} - {around[0]})
        ),
        AbortReason.WRONG_SHARES,
    ),
    "a share in a stranger's name": (
        lambda s, _around: replace(
            s.delivery(0, s.everybody),
            shares=(
                *tuple(s.delivery(0, s.everybody).shares)[:-1],
                SealedShare(b"\xff" * 32, bytes(96), bytes(64)),
            ),
        ),
        AbortReason.WRONG_SHARES,
    ),
}


@GRAPHS
@pytest.mark.parametrize("case", BAD_DELIVERIES)
def test_a_delivery_that_shows_a_lie_ends_the_victims_round(graph: str, case: str) -> None:
    """And an apology is not taken: nothing more comes of this client in this round."""
    server = accepted(graph)
    message, reason = BAD_DELIVERIES[case]
    aborted(server, 0, message(server, server.neighbors(server.views[0], 0)), reason)
    server.refused(0, server.delivery(0, server.everybody), RefusalReason.WRONG_PHASE)


MALFORMED_DELIVERIES: dict[str, Callable[[ShareDelivery], ShareDelivery]] = {
    "a share twice": lambda right: replace(right, shares=(*right.shares, right.shares[-1])),
    "out of order": lambda right: replace(right, shares=tuple(right.shares)[::-1]),
    "a longer bitmap": lambda right: replace(right, finished=bytes(right.finished) + b"\0"),
}


@GRAPHS
@pytest.mark.parametrize("case", MALFORMED_DELIVERIES)
def test_a_malformed_delivery_is_refused_and_the_right_one_taken(graph: str, case: str) -> None:
    server = accepted(graph)
    right = server.delivery(0, server.everybody)
    server.refused(0, MALFORMED_DELIVERIES[case](right), RefusalReason.MALFORMED)
    assert server.tried(0, right) is None


def proof_elsewhere(s: Scene, world: str) -> UploadProof:
    """The true upload proof of a neighbor, over the same U1, in another world."""
    there = LyingServer(twin(s.server.cohort, **OTHER_WORLDS[world])).advertise()
    view = roster_of(there, world)
    members = [s.near, *there.neighbors(view, s.near)]
    there.announce(view, members)
    return there.deliver(s.finished, [s.near]).proof(s.near)


def proof_over_another_u1(s: Scene) -> UploadProof:
    """The same neighbor was told a smaller U1."""
    world = _accepted("complete" if len(s.server.everybody) == 8 else "sparse").fork([s.near])
    return world.deliver(s.finished - {s.late}, [s.near]).proof(s.near)


BAD_PROOFS: dict[str, Callable[[Scene], UploadProof | None]] = {
    "missing": lambda _s: None,
    "zeros": lambda s: replace(s.server.proof(s.near), signature=bytes(64)),
    "another digest": lambda s: replace(s.server.proof(s.near), packed_digest=bytes(32)),
    "another's": lambda s: replace(s.server.proof(s.late), identity=s.server.cohort.identities[s.near]),
    "over another U1": proof_over_another_u1,
    "of another roster": lambda s: proof_elsewhere(s, "another roster"),
    "of another round": lambda s: proof_elsewhere(s, "another round"),
    "an acceptance": lambda s: replace(
        s.server.proof(s.near), signature=bytes(s.server.shared[s.near].acceptance)
    ),
}


@GRAPHS
@pytest.mark.parametrize("case", BAD_PROOFS)
def test_without_a_right_upload_proof_the_seed_of_a_survivor_stays_closed(graph: str, case: str) -> None:
    """All others are opened; the victim answers once, so that the right proof comes too late."""
    saved = scene(graph)
    server, name = saved.server, saved.server.cohort.identities[saved.near]
    proof = BAD_PROOFS[case](saved)
    right = saved.request()
    kept = [one for one in right.uploads if one.identity != name]
    uploads = by_identity([*kept, proof] if proof is not None else kept)
    answer = server.ask(UnmaskingResponse, 0, replace(right, uploads=uploads))
    assert dealers(server.cohort, answer.self_seed_shares) == dealers_of(server, saved) - {saved.near}
    assert dealers(server.cohort, answer.mask_key_shares) == {saved.late}
    server.refused(0, right, RefusalReason.EQUIVOCATION)


def dealers_of(server: LyingServer, saved: Scene) -> set[int]:
    return {*server.neighbors(server.views[0], 0)} & saved.survivors


# --- 10. A weaker round than the policy


WEAKER: dict[str, dict[str, Any]] = {
    "corrupt": {"model": {"corrupt": 0.099999}},
    "security_bits": {"model": {"security_bits": 39}},
    "grinding_bits": {"model": {"grinding_bits": 39}},
    "adversary": {"model": {"adversary": "passive"}},
    "minimum_cohort": {"minimum_cohort": 4},
    "a cohort of two": {"minimum_cohort": 2},
    "a cohort of one": {"minimum_cohort": 1},
    "minimum_survivors": {"minimum_survivors": 3},
    "a single survivor": {"minimum_survivors": 1},
    "vector_length": {"vector_length": 1001},
}


@pytest.mark.parametrize("case", WEAKER)
def test_a_round_weaker_than_the_policy_is_refused_and_the_right_one_taken(case: str) -> None:
    cohort = Cohort(6, minimum_cohort=5, minimum_survivors=4).start()
    policy = replace(cohort.policy, minimum_cohort=5, minimum_survivors=4, maximum_vector_length=1000)
    cohort.clients[0] = cohort.fresh_client(0, policy=policy)
    changes = dict(WEAKER[case])
    model = replace(cohort.parameters.threat_model, **changes.pop("model", {}))
    weaker = replace(cohort.parameters, threat_model=model, **changes)
    refused_by_client(cohort, 0, cohort.frame(parameters_to_wire(weaker)), RefusalReason.POLICY)
    assert cohort.total() == [1] * 6


# --- 11. Keys and identities that the server made up


def substituted(
    server: LyingServer, signer: Callable[[int], int | None], **keys: bytes
) -> RosterAnnouncement:
    """An announcement of a roster in which a neighbor of 0 has other keys.

    signer  who signs for client i instead of itself; None: the signature stays
    """
    for i in server.everybody[1:]:
        lied = server.fork([])
        false = replace(server.advertisements[i], **keys)
        by = signer(i)
        if by is not None:
            text = advertisement_text(parameters_digest(server.cohort.parameters), false)
            false = replace(false, signature=server.cohort.signers[by].sign(text))
        lied.advertisements[i] = false
        view = lied.roster()
        if i in lied.neighbors(view, 0):  # another roster, other places
            return lied.announcement(view, 0)
    raise AssertionError("client 0 has no neighbors")


@GRAPHS
@pytest.mark.parametrize("field", ["agreement_key", "mask_key"])
@pytest.mark.parametrize("by_colluder", [False, True], ids=["old signature", "signed by a colluder"])
def test_a_key_that_the_server_put_in_for_a_neighbors_is_refused(
    graph: str, field: str, by_colluder: bool
) -> None:
    """The roster agrees with the key; only the neighbor itself could have signed it."""
    server = advertised(graph)
    last = len(server.everybody) - 1
    key = getattr(server.advertisements[last], field)
    lied = substituted(server, lambda _: last if by_colluder else None, **{field: key})
    server.refused(0, lied, RefusalReason.BAD_SIGNATURE)
    assert server.tried(0, server.announcement(server.roster(), 0)) is None


def test_an_advertisement_of_another_round_is_refused() -> None:
    """The server may know the old mask key, if its owner dropped out then."""
    server = advertised("complete")
    old = LyingServer(twin(server.cohort, seed="before", round_id=bytes(16))).advertise().advertisements[1]
    lied = server.fork([])
    lied.advertisements[1] = old
    server.refused(0, lied.announcement(lied.roster(), 0), RefusalReason.BAD_SIGNATURE)
    assert server.tried(0, server.announcement(server.roster(), 0)) is None


@GRAPHS
@pytest.mark.parametrize("field", ["agreement_key", "mask_key"])
def test_a_colluder_shows_one_pair_of_keys_to_all(graph: str, field: str) -> None:
    """It signs two advertisements; only the one in the roster is taken."""
    server = advertised(graph)
    view = server.roster()
    i, j = server.neighbors(view, 0)[:2]
    second = replace(server.advertisements[i], **{field: getattr(server.advertisements[j], field)})
    text = advertisement_text(parameters_digest(server.cohort.parameters), second)
    second = replace(second, signature=server.cohort.signers[i].sign(text))
    right = server.announcement(view, 0)
    shown = tuple(second if n.identity == second.identity else n for n in right.neighbors)
    server.refused(0, replace(right, neighbors=shown), RefusalReason.WRONG_NEIGHBORS)
    assert server.tried(0, right) is None


def with_roster(server: LyingServer, **fields: object) -> RosterAnnouncement:
    right = server.announcement(server.roster(), 0)
    return replace(right, roster=replace(right.roster, **fields))  # type: ignore[arg-type]


def entries(server: LyingServer) -> tuple[RosterEntry, ...]:
    return tuple(server.entry(i) for i in server.everybody)


def with_strangers(server: LyingServer, count: int) -> RosterAnnouncement:
    """The server enrols identities of its own; their advertisements are right in all else."""
    entropy = CounterEntropy("made up by the server")
    digest = parameters_digest(server.cohort.parameters)
    lied = server.fork([])
    advertisements = list(server.advertisements.values())
    for _ in range(count):
        signer = IdentityKey.generate(entropy)
        false = replace(server.advertisements[1], identity=signer.identity)
        advertisements.append(replace(false, signature=signer.sign(advertisement_text(digest, false))))
    ordered = by_identity(advertisements)
    made = tuple(RosterEntry(a.identity, advertisement_digest(a)) for a in ordered)
    roster = Roster(len(ordered) - 1, lied.roster().roster.threshold + count, made)
    me = server.cohort.identities[0]
    return RosterAnnouncement(roster, tuple(a for a in ordered if a.identity != me))


def smaller(server: LyingServer, members: Iterable[int]) -> RosterAnnouncement:
    """A right roster of some, but for how few they are."""
    chosen = sorted(members)
    graph = server.roster().roster
    sparsely = len(server.everybody) > 64
    degree, threshold = (graph.degree, graph.threshold) if sparsely else (len(chosen) - 1, len(chosen) - 2)
    return server.announcement(server.roster(chosen, degree=degree, threshold=threshold), 0)


BAD_ROSTERS: dict[str, tuple[Callable[[LyingServer], RosterAnnouncement], RefusalReason]] = {
    "without the victim": (
        lambda s: with_roster(s, entries=entries(s)[1:]),
        RefusalReason.NOT_INCLUDED,
    ),
    "with other keys of the victim": (
        lambda s: with_roster(
            s, entries=(replace(entries(s)[0], advertisement_digest=bytes(32)), *entries(s)[1:])
        ),
        RefusalReason.NOT_INCLUDED,
    ),
    "an identity made up": (lambda s: with_strangers(s, 1), RefusalReason.UNKNOWN_IDENTITY),
    "many identities made up": (lambda s: with_strangers(s, 40), RefusalReason.UNKNOWN_IDENTITY),
    "an entry twice": (
        lambda s: with_roster(s, entries=(*entries(s), entries(s)[-1])),
        RefusalReason.MALFORMED,
    ),
    "out of order": (lambda s: with_roster(s, entries=entries(s)[::-1]), RefusalReason.MALFORMED),
    "the victim alone": (
        lambda s: RosterAnnouncement(Roster(1, 1, entries(s)[:1]), ()),
        RefusalReason.POLICY,
    ),
    "the victim and a colluder": (
        lambda s: RosterAnnouncement(Roster(1, 1, entries(s)[:2]), (s.advertisements[1],)),
        RefusalReason.POLICY,
    ),
    "fewer than the minimum cohort": (
        lambda s: smaller(s, range(s.cohort.parameters.minimum_cohort - 1)),
        RefusalReason.POLICY,
    ),
}


@GRAPHS
@pytest.mark.parametrize("case", BAD_ROSTERS)
def test_a_roster_that_the_server_changed_is_refused_and_the_right_one_taken(graph: str, case: str) -> None:
    server = advertised(graph)
    message, reason = BAD_ROSTERS[case]
    server.refused(0, message(server), reason)
    assert server.tried(0, server.announcement(server.roster(), 0)) is None


@GRAPHS
def test_honest_clients_left_out_are_at_most_those_beyond_the_minimum_cohort(graph: str) -> None:
    """That the server may: it looks as if they had not advertised."""
    server = advertised(graph)
    assert server.tried(0, smaller(server, range(server.cohort.parameters.minimum_cohort))) is None


@GRAPHS
@RESTARTS
def test_a_second_roster_in_one_round_is_refused_however_right(graph: str, restarts: bool) -> None:
    server = advertised(graph)
    first = server.ask(SharedKeys, 0, server.announcement(server.roster(), 0))
    perhaps_restart(server, restarts)
    other = server.roster(range(server.cohort.parameters.minimum_cohort))
    server.refused(0, server.announcement(other, 0), RefusalReason.EQUIVOCATION)
    assert server.ask(SharedKeys, 0, server.announcement(server.roster(), 0)) == first


# --- 12. Neighborhoods and parameters of the graph


def strangers_to(server: LyingServer, view: RoundView) -> list[int]:
    return sorted({*server.everybody[1:]} - {*server.neighbors(view, 0)})


BAD_NEIGHBORS: dict[str, Callable[[LyingServer, list[int]], list[int]]] = {
    "one missing": lambda _s, around: around[1:],
    "none": lambda _s, _around: [],
    "the victim itself besides": lambda _s, around: [0, *around],
    "those of another client": lambda s, around: s.neighbors(s.roster(), around[0]),
}
SPARSE_NEIGHBORS: dict[str, Callable[[LyingServer, list[int]], list[int]]] = {
    "one more": lambda s, around: sorted([*around, strangers_to(s, s.roster())[0]]),
    "one exchanged": lambda s, around: sorted([*around[1:], strangers_to(s, s.roster())[0]]),
    "all exchanged": lambda s, around: strangers_to(s, s.roster())[: len(around)],
    "everybody": lambda s, _around: list(s.everybody[1:]),
}


@pytest.mark.parametrize(
    ("graph", "case"),
    [(graph, case) for graph in ("complete", "sparse") for case in BAD_NEIGHBORS]
    + [("sparse", case) for case in SPARSE_NEIGHBORS],
)
def test_neighbors_that_are_not_those_of_the_circle_are_refused(graph: str, case: str) -> None:
    """All of them are in the roster, with right signatures."""
    server = advertised(graph)
    view = server.roster()
    chosen = (BAD_NEIGHBORS | SPARSE_NEIGHBORS)[case](server, server.neighbors(view, 0))
    shown = RosterAnnouncement(view.roster, tuple(server.advertisements[j] for j in chosen))
    server.refused(0, shown, RefusalReason.WRONG_NEIGHBORS)
    assert server.tried(0, server.announcement(view, 0)) is None


WEAK_GRAPHS: dict[str, list[tuple[int, int]]] = {  # degree, threshold
    "complete": [(7, 1), (7, 0), (7, 8), (4, 3), (6, 3), (0, 2), (8, 5), (14, 3)],
    "sparse": [(8, 2), (8, 1), (8, 9), (9, 3), (0, 2), (69, 3), (69, 70), (70, 10), (140, 10)],
}


@pytest.mark.parametrize(
    ("graph", "degree", "threshold"),
    [(graph, *pair) for graph, pairs in WEAK_GRAPHS.items() for pair in pairs],
)
def test_a_graph_that_does_not_protect_so_many_is_refused(graph: str, degree: int, threshold: int) -> None:
    server = advertised(graph)
    view = server.roster(degree=degree, threshold=threshold)
    around = server.neighbors(view, 0) if degree < len(server.everybody) else list(server.everybody[1:])
    shown = RosterAnnouncement(view.roster, tuple(server.advertisements[j] for j in around))
    server.refused(0, shown, RefusalReason.WEAK_PARAMETERS)
    assert server.tried(0, server.announcement(server.roster(), 0)) is None


def test_a_threshold_of_one_is_no_sharing_even_where_nobody_colludes() -> None:
    """Every single holder would have the secrets."""
    cohort = Cohort(6, corrupt=0.0)
    server = LyingServer(cohort).advertise()
    server.refused(0, server.announcement(server.roster(threshold=1), 0), RefusalReason.WEAK_PARAMETERS)
    assert server.tried(0, server.announcement(server.roster(threshold=2), 0)) is None


@pytest.mark.parametrize("degree", [2, 4])
def test_a_passive_graph_that_dropouts_and_colluders_can_cut_is_refused(degree: int) -> None:
    """Its threshold is high enough; but the sum would come out in pieces."""
    server = advertised("sparse", "passive")
    view = server.roster(degree=degree, threshold=degree)
    server.refused(0, server.announcement(view, 0), RefusalReason.WEAK_PARAMETERS)
    assert server.tried(0, server.announcement(server.roster(), 0)) is None


UNUSABLE = {
    "zero": 0,
    "one": 1,
    "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "minus one": 2**255 - 20,
    "not canonical": 2**255 - 19 + 9,
    "above 2^255": 2**255 + 9,
}


@GRAPHS
@pytest.mark.parametrize("field", ["agreement_key", "mask_key"])
@pytest.mark.parametrize("key", UNUSABLE)
def test_an_unusable_key_that_the_server_let_pass_ends_the_victims_round(
    graph: str, field: str, key: str
) -> None:
    """A colluder signed it; an honest server would have refused it, so nobody but the server is to blame."""
    server = advertised(graph)
    lied = substituted(server, lambda i: i, **{field: UNUSABLE[key].to_bytes(32, "little")})
    aborted(server, 0, lied, AbortReason.BAD_NEIGHBOR_KEY)
    server.refused(0, server.announcement(server.roster(), 0), RefusalReason.WRONG_PHASE)


# --- 13. A round id used before


@RESTARTS
def test_a_round_id_in_which_a_roster_was_accepted_is_refused_for_ever(restarts: bool) -> None:
    """The caller keeps what RosterAccepted names, and hears it again when it restores the session."""
    cohort = Cohort(6).advance(Phase.SHARE_KEYS)
    effects = cohort.restart_client(0) if restarts else []
    assert not [effect for effect in effects if isinstance(effect, RosterAccepted)]
    effects = cohort.ask(0)
    if restarts:
        effects = cohort.restart_client(0)
    seen = {effect.round_id for effect in effects if isinstance(effect, RosterAccepted)}
    assert seen == {cohort.parameters.round_id}
    cohort.clients[0] = cohort.fresh_client(0, seen=seen)
    refused_by_client(cohort, 0, cohort.parameters_frame(), RefusalReason.ROUND_REUSED)
    other = replace(cohort.parameters, round_id=bytes(16))
    (effect,) = cohort.clients[0].receive(encode_frame(bytes(16), parameters_to_wire(other)).buffer())
    assert isinstance(effect, Send)


# --- 14. Asked again with other parameters


@PHASES
@RESTARTS
def test_other_parameters_never_get_a_second_vector(phase: Phase, restarts: bool) -> None:
    """Of the same round or of another, in any phase; what was uploaded is only repeated."""
    cohort = Cohort(6).advance(phase)
    cohort.ask(0)
    if restarts:
        cohort.restart_client(0)
    for other in (
        replace(cohort.parameters, minimum_survivors=4),
        replace(cohort.parameters, vector_length=5),
        replace(cohort.parameters, ring_bits=15),
    ):
        refused_by_client(cohort, 0, cohort.frame(parameters_to_wire(other)), RefusalReason.EQUIVOCATION)
    for round_id in (bytes(16), cohort.parameters.round_id):
        elsewhere = replace(cohort.parameters, round_id=bytes(16))
        frame = bytes(encode_frame(round_id, parameters_to_wire(elsewhere)))
        wanted = RefusalReason.WRONG_ROUND if round_id == bytes(16) else RefusalReason.EQUIVOCATION
        refused_by_client(cohort, 0, frame, wanted)
    if phase >= Phase.MASKED_INPUT_COLLECTION:
        with pytest.raises(LocalProtocolError, match="one vector per round"):
            cohort.clients[0].submit(cohort.vector(1))
    assert cohort.total() == [1] * 6


@RESTARTS
@pytest.mark.parametrize("phase", list(Phase)[:2], ids=lambda phase: phase.name)
def test_a_vector_given_early_is_the_only_one(phase: Phase, restarts: bool) -> None:
    cohort = Cohort(6).advance(phase)
    cohort.ask(0)
    cohort.clients[0].submit(cohort.vector(0))
    cohort.submitted.add(0)
    if restarts:
        cohort.restart_client(0)
    with pytest.raises(LocalProtocolError, match="one vector per round"):
        cohort.clients[0].submit(cohort.vector(1))
    assert cohort.total() == [1] * 6


def test_a_session_restored_twice_masks_one_vector_for_one_u1() -> None:
    """Every restart continues from the newest snapshot; the server shows each another U1."""
    server = accepted("complete")
    client = server.cohort.clients[0]
    client.submit(server.cohort.vector(0))
    server.cohort.submitted.add(0)
    first = server.ask(MaskedInput, 0, server.delivery(0, range(8)))
    for finished in ({*range(7)}, {0, *range(2, 8)}, {*range(6)}):
        effects = server.cohort.restart_client(0)
        (again,) = [effect for effect in effects if isinstance(effect, Send)]
        assert opened(MaskedInput, again.frame.buffer()) == first
        message = server.delivery(0, finished)
        server.refused(0, message, RefusalReason.EQUIVOCATION)
        with pytest.raises(LocalProtocolError, match="one vector per round"):
            server.cohort.clients[0].submit(server.cohort.vector(1))


def test_parameters_of_another_round_than_their_frame_are_refused() -> None:
    cohort = Cohort(6).start()
    other = replace(parameters_to_wire(cohort.parameters), round_id=bytes(16))
    refused_by_client(cohort, 0, cohort.frame(other), RefusalReason.WRONG_ROUND)
    assert cohort.total() == [1] * 6


@pytest.mark.parametrize("phase", list(Phase)[1:], ids=lambda phase: phase.name)
def test_a_request_of_another_round_is_refused(phase: Phase) -> None:
    """Bitmaps alone say nothing of the round; frames do."""
    cohort = Cohort(6).advance(phase)
    message = opened(object, cohort.request(0))
    frame = bytes(encode_frame(bytes(16), cast("Message", message)))
    refused_by_client(cohort, 0, frame, RefusalReason.WRONG_ROUND)
    assert cohort.total() == [1] * 6


# --- 15. Requests out of phase


KINDS_DOWN = (RoundParametersMessage, RosterAnnouncement, ShareDelivery, SurvivorSet, UnmaskingRequest)
KINDS_UP = (Advertisement, SharedKeys, MaskedInput, SurvivorSignature, UnmaskingResponse)
# What client 0 has answered, and what it waits for.
MOMENTS: dict[str, tuple[int, frozenset[type]]] = {
    "idle": (0, frozenset({RoundParametersMessage})),
    "advertised": (1, frozenset({RosterAnnouncement})),
    "shared keys": (2, frozenset({ShareDelivery})),
    "waits for its vector": (3, frozenset()),
    "uploaded": (3, frozenset({SurvivorSet, UnmaskingRequest})),
    "signed": (4, frozenset({UnmaskingRequest})),
    "answered": (5, frozenset()),
    "gave up": (2, frozenset()),
}


@cache
def _recorded() -> tuple[dict[type, bytes], dict[type, bytes], dict[type, bytes]]:
    """Of one honest round, by kind: requests to client 0, other right ones, and answers of client 1."""
    cohort = Cohort(6).start()
    right, other, up = {}, {}, {}
    for down, answer in zip(KINDS_DOWN, KINDS_UP, strict=True):
        right[down], other[down] = cohort.request(0), cohort.request(1)
        cohort.ask_all()
        up[answer] = cohort.answer(1)
        cohort.tell_all().close()
    other[RoundParametersMessage] = cohort.frame(
        replace(opened(RoundParametersMessage, right[RoundParametersMessage]), minimum_survivors=4)
    )
    other[SurvivorSet] = cohort.frame(SurvivorSet(b"\x1f"))
    return right, other, up


def at(moment: str) -> Cohort:
    right, _, _ = _recorded()
    cohort, client = Cohort(6), 0
    for kind in KINDS_DOWN[: MOMENTS[moment][0]]:
        if kind is ShareDelivery and moment == "waits for its vector":
            cohort.clients[client].receive(right[kind])
        else:
            cohort.ask(client, right[kind])
    if moment == "gave up":
        without_us = changed(cohort, ShareDelivery, right[ShareDelivery], finished=b"\x3e")
        cohort.ask(client, without_us)
        assert cohort.client_aborts == {0: AbortReason.NOT_FINISHED}
    return cohort


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", [*KINDS_DOWN, *KINDS_UP], ids=lambda kind: kind.__name__)
def test_a_message_out_of_phase_is_refused(moment: str, kind: type) -> None:
    """All these frames are right in this round, at another moment or for the server."""
    right, other, up = _recorded()
    cohort = at(moment)
    answered, wanted = KINDS_DOWN[: MOMENTS[moment][0]], MOMENTS[moment][1]
    if kind in KINDS_UP:
        refused_by_client(cohort, 0, up[kind], RefusalReason.WRONG_PHASE)
    elif kind in answered:
        if kind is answered[-1] and moment != "gave up":
            (effect,) = cohort.clients[0].receive(right[kind])
            if moment == "waits for its vector":
                assert isinstance(effect, InputWanted)
            else:
                assert isinstance(effect, Send)
                assert bytes(effect.frame) == cohort.answer(0)
        else:
            refused_by_client(cohort, 0, right[kind], RefusalReason.WRONG_PHASE)
        refused_by_client(cohort, 0, other[kind], RefusalReason.EQUIVOCATION)
    elif kind in wanted:
        assert not [e for e in cohort.ask(0, right[kind]) if isinstance(e, Refused | Aborted)]
    else:
        refused_by_client(cohort, 0, right[kind], RefusalReason.WRONG_PHASE)


# --- 16. Passive requests in active rounds, and the other way round


@GRAPHS
def test_a_request_without_signatures_opens_nothing_in_an_active_round(graph: str) -> None:
    saved = scene(graph)
    saved.server.refused(0, saved.request(signatures=()), RefusalReason.NO_QUORUM)
    assert saved.server.tried(0, saved.request()) is None


@GRAPHS
def test_a_passive_round_has_no_survivor_signatures(graph: str) -> None:
    saved = scene(graph, "passive")
    server = saved.server
    server.refused(0, server.survivor_set(0, saved.survivors), RefusalReason.WRONG_PHASE)
    signed = server.forged(saved.survivors, server.views[0], saved.finished, saved.survivors)
    server.refused(0, saved.request(signatures=signed), RefusalReason.MALFORMED)
    assert server.tried(0, saved.request()) is None
