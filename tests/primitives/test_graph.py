import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.primitives.graph import NeighborGraph

ROSTER = bytes(range(32))


def identities_of(n: int) -> list[bytes]:
    return [i.to_bytes(32, "big") for i in range(n)]


@st.composite
def graphs(draw: st.DrawFn) -> NeighborGraph:
    """A Harary graph of even degree below n - 1, or the complete graph; places by the roster digest."""
    n = draw(st.integers(2, 40))
    degree = draw(st.sampled_from([*range(2, n - 1, 2), n - 1]))
    digest = draw(st.binary(min_size=32, max_size=32))
    return NeighborGraph.build(digest, identities_of(n), degree)


def test_places_are_the_digests_of_roster_and_identity() -> None:
    identities = identities_of(50)
    four = (32).to_bytes(4, "big")
    places = [
        hashlib.sha256(b"secagg/v1/place\x00" + four + ROSTER + four + identity).digest()
        for identity in identities
    ]
    circle = NeighborGraph.build(ROSTER, identities, 4).circle
    assert [places[index] for index in circle] == sorted(places)
    assert sorted(circle) == list(range(50))


@given(graph=graphs())
def test_everybody_has_as_many_neighbors_as_the_degree(graph: NeighborGraph) -> None:
    neighbors = graph.neighbors().tolist()
    assert len(neighbors) == len(graph.circle)
    for index, around in enumerate(neighbors):
        assert len(set(around)) == len(around) == graph.degree
        assert list(around) == sorted(around)
        assert index not in around
        assert list(graph.neighbors_of(index)) == around


@given(graph=graphs())
def test_neighborhood_is_mutual(graph: NeighborGraph) -> None:
    neighbors = graph.neighbors().tolist()
    for index, around in enumerate(neighbors):
        assert all(index in neighbors[other] for other in around)


@given(graph=graphs())
def test_a_position_is_the_place_among_the_neighbors_neighbors(graph: NeighborGraph) -> None:
    neighbors, positions = graph.neighbors(), graph.positions()
    assert positions.shape == neighbors.shape
    for index, (around, places) in enumerate(zip(neighbors, positions, strict=True)):
        assert [neighbors[other, place] for other, place in zip(around, places, strict=True)] == [
            index
        ] * graph.degree


@given(graph=graphs())
def test_neighbors_are_those_within_half_the_degree_on_the_circle(graph: NeighborGraph) -> None:
    n = len(graph.circle)
    place = {index: at for at, index in enumerate(graph.circle)}
    half = n if graph.complete else graph.degree // 2
    for index, around in enumerate(graph.neighbors().tolist()):
        distances = {other: (place[other] - place[index]) % n for other in place if other != index}
        assert set(around) == {other for other, d in distances.items() if min(d, n - d) <= half}


@given(n=st.integers(1, 20))
def test_the_complete_graph_joins_everybody(n: int) -> None:
    graph = NeighborGraph.build(ROSTER, identities_of(n), n - 1)
    assert graph.complete
    assert graph.neighbors().tolist() == [[j for j in range(n) if j != i] for i in range(n)]


@pytest.mark.parametrize(("n", "degree"), [(6, 4), (7, 4), (100, 98)])
def test_a_degree_below_that_of_the_complete_graph_is_not_complete(n: int, degree: int) -> None:
    graph = NeighborGraph.build(ROSTER, identities_of(n), degree)
    assert not graph.complete
    assert {len(around) for around in graph.neighbors().tolist()} == {degree}


@given(graph=graphs(), data=st.data())
def test_the_fewest_survivors_of_a_window_equal_brute_force(
    graph: NeighborGraph, data: st.DataObject
) -> None:
    n, half = len(graph.circle), graph.degree // 2
    survivors = data.draw(st.frozensets(st.integers(0, n - 1)))
    windows = [[graph.circle[(at + step) % n] for step in range(half)] for at in range(n)]
    expected = min(sum(index in survivors for index in window) for window in windows)
    assert graph.widest_gap_holds(survivors) == expected


def test_a_gap_across_the_start_of_the_circle_is_seen() -> None:
    graph = NeighborGraph(4, tuple(range(10)))
    assert graph.widest_gap_holds(set(range(10)) - {9, 0}) == 0
    assert graph.widest_gap_holds(set(range(10)) - {0}) == 1
    assert graph.widest_gap_holds(set(range(10))) == 2


def test_the_roster_digest_moves_the_places() -> None:
    one, other = (NeighborGraph.build(digest, identities_of(30), 4) for digest in (ROSTER, bytes(32)))
    assert one.circle != other.circle
