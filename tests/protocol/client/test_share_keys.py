from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from secagg.effects import AbortReason, RefusalReason, Refused, RosterAccepted, Send
from secagg.kernels import PRIME
from secagg.kernels.reference import lagrange
from secagg.messages import Advertisement, Roster, RosterAnnouncement, RosterEntry, SharedKeys
from secagg.params import Identity, Phase
from secagg.primitives.masks import seed_commitment
from secagg.primitives.shamir import share_words
from secagg.primitives.signatures import IdentityKey, verify
from secagg.protocol.round import RoundView, advertisement_digest, advertisement_text, parameters_digest
from tests.protocol.network import (
    Cohort,
    CounterEntropy,
    aborted_by_client,
    changed,
    flipped,
    opened,
    refused_by_client,
    sparse,
)


def announced(clients: int = 6) -> Cohort:
    return Cohort(clients, minimum_cohort=5).advance(Phase.SHARE_KEYS)


def announcement(cohort: Cohort) -> RosterAnnouncement:
    return opened(RosterAnnouncement, cohort.request(0))


def with_roster(cohort: Cohort, **fields: object) -> bytes:
    message = announcement(cohort)
    roster = replace(message.roster, **fields)  # type: ignore[arg-type]
    return cohort.frame(replace(message, roster=roster))


def with_entry(cohort: Cohort, place: int, **fields: bytes) -> bytes:
    entries = list(announcement(cohort).roster.entries)
    entries[place] = replace(entries[place], **fields)
    return with_roster(cohort, entries=tuple(sorted(entries, key=lambda entry: entry.identity)))


def with_neighbor(cohort: Cohort, place: int, **fields: bytes) -> bytes:
    neighbors = list(announcement(cohort).neighbors)
    neighbors[place] = replace(neighbors[place], **fields)
    return changed(cohort, RosterAnnouncement, cohort.request(0), neighbors=tuple(neighbors))


def stranger() -> IdentityKey:
    return IdentityKey.generate(CounterEntropy("stranger"))


def smaller(cohort: Cohort, size: int) -> bytes:
    """A consistent announcement to the first `size` clients only."""
    message = announcement(cohort)
    return cohort.frame(
        RosterAnnouncement(Roster(size - 1, 3, message.roster.entries[:size]), message.neighbors[: size - 1])
    )


def self_signed(cohort: Cohort) -> bytes:
    """A neighbor's advertisement signed by another identity, with a roster that agrees."""
    neighbor = announcement(cohort).neighbors[0]
    text = advertisement_text(parameters_digest(cohort.parameters), neighbor)
    return with_neighbor(cohort, 0, signature=cohort.signers[2].sign(text))


def replaced_key(cohort: Cohort) -> bytes:
    """A neighbor's mask key replaced in its advertisement and in the roster; its signature cannot follow."""
    message = announcement(cohort)
    neighbor = replace(message.neighbors[0], mask_key=message.neighbors[1].mask_key)
    entries = list(message.roster.entries)
    entries[1] = RosterEntry(neighbor.identity, advertisement_digest(neighbor))
    return cohort.frame(
        RosterAnnouncement(
            replace(message.roster, entries=tuple(entries)), (neighbor, *message.neighbors[1:])
        )
    )


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "without us": (
        lambda c: with_roster(c, entries=announcement(c).roster.entries[1:]),
        RefusalReason.NOT_INCLUDED,
    ),
    "our advertisement changed": (
        lambda c: with_entry(c, 0, advertisement_digest=bytes(32)),
        RefusalReason.NOT_INCLUDED,
    ),
    "fewer than the minimum cohort": (lambda c: smaller(c, 4), RefusalReason.POLICY),
    "an identity that is not enrolled": (
        lambda c: with_entry(c, 3, identity=stranger().identity),
        RefusalReason.UNKNOWN_IDENTITY,
    ),
    "a threshold of the colluders": (lambda c: with_roster(c, threshold=1), RefusalReason.WEAK_PARAMETERS),
    "no threshold": (lambda c: with_roster(c, threshold=0), RefusalReason.WEAK_PARAMETERS),
    "a threshold above the degree": (
        lambda c: with_roster(c, threshold=6),
        RefusalReason.WEAK_PARAMETERS,
    ),
    "a sparse graph of few": (lambda c: with_roster(c, degree=4), RefusalReason.WEAK_PARAMETERS),
    "a degree above all others": (lambda c: with_roster(c, degree=6), RefusalReason.WEAK_PARAMETERS),
    "no degree": (lambda c: with_roster(c, degree=0), RefusalReason.WEAK_PARAMETERS),
    "a neighbor is missing": (
        lambda c: changed(c, RosterAnnouncement, c.request(0), neighbors=announcement(c).neighbors[1:]),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "no neighbors": (
        lambda c: changed(c, RosterAnnouncement, c.request(0), neighbors=()),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "we as our neighbor": (
        lambda c: changed(
            c,
            RosterAnnouncement,
            c.request(0),
            neighbors=(opened(Advertisement, c.answer(0)), *announcement(c).neighbors),
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "the neighbors of another": (
        lambda c: changed(
            c,
            RosterAnnouncement,
            c.request(0),
            neighbors=opened(RosterAnnouncement, c.request(1)).neighbors,
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a neighbor's key is not the roster's": (
        lambda c: with_neighbor(c, 0, mask_key=announcement(c).neighbors[1].mask_key),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "the roster's digest of a neighbor changed": (
        lambda c: with_entry(c, 2, advertisement_digest=bytes(32)),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a neighbor's key replaced everywhere": (replaced_key, RefusalReason.BAD_SIGNATURE),
    "a neighbor's signature flipped": (
        lambda c: with_neighbor(c, 0, signature=flipped(announcement(c).neighbors[0].signature, 11)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "a neighbor's signature by another": (self_signed, RefusalReason.BAD_SIGNATURE),
    "entries out of order": (
        lambda c: with_roster(c, entries=announcement(c).roster.entries[::-1]),
        RefusalReason.MALFORMED,
    ),
    "an entry twice": (
        lambda c: with_roster(
            c, entries=(*announcement(c).roster.entries, announcement(c).roster.entries[5])
        ),
        RefusalReason.MALFORMED,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_tampered_roster_is_refused_and_the_right_one_may_follow(case: str) -> None:
    cohort = announced()
    frame, reason = REFUSED[case]
    refused_by_client(cohort, 0, frame(cohort), reason)
    assert cohort.total() == [1] * 6


def test_a_client_with_another_registry_refuses_the_roster() -> None:
    cohort = announced()
    known = frozenset(cohort.identities[:5])
    client = cohort.fresh_client(0, policy=replace(cohort.policy, known=known))
    cohort.clients[0] = client
    client.receive(cohort.parameters_frame())
    refused_by_client(cohort, 0, cohort.request(0), RefusalReason.UNKNOWN_IDENTITY)


def test_a_client_that_says_it_has_no_registry_believes_the_roster() -> None:
    cohort = announced()
    client = cohort.fresh_client(0, policy=replace(cohort.policy, known=None))
    cohort.clients[0] = client
    client.receive(cohort.parameters_frame())
    assert [type(effect) for effect in client.receive(cohort.request(0))] == [RosterAccepted, Send]


@pytest.mark.parametrize("field", ["agreement_key", "mask_key"])
@pytest.mark.parametrize("u", [0, 1, 2**255 - 19 + 9])
def test_an_unusable_key_that_the_server_let_pass_ends_the_clients_round(field: str, u: int) -> None:
    cohort = announced()
    message = announcement(cohort)
    bad = replace(message.neighbors[0], **{field: u.to_bytes(32, "little")})
    text = advertisement_text(parameters_digest(cohort.parameters), bad)
    bad = replace(bad, signature=cohort.signers[1].sign(text))
    entries = list(message.roster.entries)
    entries[1] = RosterEntry(bad.identity, advertisement_digest(bad))
    frame = cohort.frame(
        RosterAnnouncement(replace(message.roster, entries=tuple(entries)), (bad, *message.neighbors[1:]))
    )
    aborted_by_client(cohort, 0, frame, AbortReason.BAD_NEIGHBOR_KEY)


def test_the_round_id_is_to_be_kept_before_the_shares_leave() -> None:
    cohort = announced()
    first, second = cohort.ask(0)
    assert first == RosterAccepted(cohort.parameters.round_id)
    assert isinstance(second, Send)


def test_the_same_roster_again_gets_the_same_shares() -> None:
    cohort = announced()
    cohort.ask(0)
    before = cohort.clients[0].snapshot()
    (again,) = cohort.clients[0].receive(cohort.request(0))
    assert isinstance(again, Send)
    assert bytes(again.frame) == cohort.answer(0)
    assert cohort.clients[0].snapshot() == before


def test_a_second_roster_in_one_round_is_refused() -> None:
    """Even one that would stand every check."""
    cohort = announced()
    refused = smaller(cohort, 5)
    fresh = cohort.fresh_client(0)
    fresh.receive(cohort.parameters_frame())
    assert [type(effect) for effect in fresh.receive(refused)] == [RosterAccepted, Send]
    cohort.ask(0)
    refused_by_client(cohort, 0, refused, RefusalReason.EQUIVOCATION)
    refused_by_client(cohort, 0, with_roster(cohort, threshold=5), RefusalReason.EQUIVOCATION)


def test_shares_rebuild_the_secrets_and_the_message_binds_them_to_the_roster() -> None:
    cohort = announced().ask_all()
    view, secrets = cohort.view(), cohort.secrets(0)
    message = opened(SharedKeys, cohort.answer(0))
    assert message.seed_commitment == seed_commitment(
        view.roster_digest, cohort.identities[0], secrets.self_seed
    )
    assert verify(cohort.identities[0], view.acceptance_text(), message.acceptance)
    threshold = view.roster.threshold
    shares = list(cohort.share_plaintexts(0).values())
    for first in range(6 - threshold):
        points = list(range(1 + first, 1 + first + threshold))
        for half, secret in ((0, secrets.mask), (40, secrets.self_seed)):
            rows = share_words([shares[p - 1][half : half + 40] for p in points])
            limbs = [
                sum(w * int(rows[j][i]) for j, w in enumerate(lagrange(points, 0))) % PRIME for i in range(5)
            ]
            assert sum(limb << 52 * i for i, limb in enumerate(limbs)) == int.from_bytes(secret, "little")
    assert cohort.frame(message) == cohort.dealt(0, cohort.share_plaintexts(0))


def test_every_ciphertext_differs_and_shows_no_share() -> None:
    cohort = announced().ask_all()
    message = opened(SharedKeys, cohort.answer(0))
    plaintexts = cohort.share_plaintexts(0)
    assert len({share.ciphertext for share in message.shares}) == len(plaintexts) == 5
    assert all(share.acceptance == b"" for share in message.shares)
    for share in message.shares:
        plaintext = plaintexts[cohort.index[Identity(share.peer)]]
        assert plaintext[:8] not in share.ciphertext


def test_neighbors_on_a_sparse_graph_are_those_of_the_circle() -> None:
    cohort = sparse(70, "active").advance(Phase.SHARE_KEYS)
    view = cohort.view()
    message = opened(RosterAnnouncement, cohort.request(0))
    wanted = [cohort.identities[i] for i in view.graph.neighbors_of(0)]
    assert [neighbor.identity for neighbor in message.neighbors] == wanted
    stranger_index = next(i for i in range(1, 70) if cohort.identities[i] not in wanted)
    other = opened(RosterAnnouncement, cohort.request(view.graph.neighbors_of(stranger_index)[0]))
    extra = next(n for n in other.neighbors if n.identity == cohort.identities[stranger_index])
    neighbors = tuple(sorted((*message.neighbors[1:], extra), key=lambda n: n.identity))
    refused_by_client(
        cohort, 0, cohort.frame(replace(message, neighbors=neighbors)), RefusalReason.WRONG_NEIGHBORS
    )
    assert len(cohort.ask(0)) == 2


@pytest.mark.parametrize(("degree", "threshold"), [(6, 2), (8, 2), (9, 3), (70, 40), (68, 1), (69, 2)])
def test_a_sparse_graph_weaker_than_the_threat_model_is_refused(degree: int, threshold: int) -> None:
    cohort = sparse(70, "active").advance(Phase.SHARE_KEYS)
    message = opened(RosterAnnouncement, cohort.request(0))
    roster = replace(message.roster, degree=degree, threshold=threshold)
    view = RoundView.build(cohort.parameters, roster)
    advertisements = {
        n.identity: n for i in range(70) for n in opened(RosterAnnouncement, cohort.request(i)).neighbors
    }
    places = view.graph.neighbors_of(0) if degree < 70 else ()
    neighbors = tuple(advertisements[cohort.identities[i]] for i in places)
    frame = cohort.frame(RosterAnnouncement(roster, neighbors))
    refused_by_client(cohort, 0, frame, RefusalReason.WEAK_PARAMETERS)


def test_of_two_sessions_of_one_identity_only_one_accepts_a_roster() -> None:
    cohort = Cohort(4).advance(Phase.SHARE_KEYS)
    seen: set[bytes] = set()
    one, two = (cohort.fresh_client(0, seen=seen) for _ in range(2))
    for session in (one, two):
        session.receive(cohort.parameters_frame())
    effects = one.receive(cohort.request(0))
    seen |= {effect.round_id for effect in effects if isinstance(effect, RosterAccepted)}
    (refused,) = two.receive(cohort.request(0))
    assert isinstance(refused, Refused)
    assert refused.reason is RefusalReason.ROUND_REUSED
