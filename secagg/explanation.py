"""The knowledge that each party gains in a planned round; each statement names the test that backs it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from secagg.params import HYBRID, require
from secagg.planning import Plan, exact_upper_tail, log2_of

_SERVER = "tests/attacks/test_lying_server.py::"
_CLIENTS = "tests/attacks/test_lying_clients.py::"
_NETWORK = "tests/attacks/test_network.py::"
_HIDING = "tests/attacks/test_hiding.py::"
_SCHEDULES = "tests/attacks/test_schedules.py::"
_HYBRID = "tests/attacks/test_hybrid.py::"
_SHAMIR = "tests/primitives/test_shamir.py::"
_TRANSCRIPT = "tests/transcript/test_transcript.py::"
_HERE = "tests/test_explanation.py::"


@dataclass(frozen=True, slots=True)
class Statement:
    """Something a party learns or cannot do, and the test (a pytest node) that fails if this is wrong."""

    party: str
    learns: str
    test: str


def explain(
    planned: Plan, *, colluding: int | None = None, keep_inputs: bool = False, encrypted: bool = True
) -> tuple[Statement, ...]:
    """Say what each party of a round learns.

    colluding    clients that put together what they know; default: as many as the plan holds against
    keep_inputs  transcripts hold the masked vectors
    encrypted    the links are (TLS, as in the service)
    raises       ParameterError
    """
    k = planned.colluders if colluding is None else colluding
    require(0 <= k <= planned.clients, "colluding", f"in 0..{planned.clients}", k)
    return (
        *_server(planned),
        *_together(planned, k),
        *_clients(planned, k),
        _network(planned, encrypted=encrypted),
        _later(planned),
        _reader(keep_inputs=keep_inputs),
        Statement(
            "whoever sees the sum",
            f"one sum over {planned.fewest_survivors} to {planned.clients} clients; what it tells about "
            "their data is the business of differential privacy",
            "tests/test_local.py::"
            "test_who_drops_before_the_upload_is_not_in_the_sum_and_who_drops_after_it_is",
        ),
    )


def _later(planned: Plan) -> Statement:
    party = "whoever records it and breaks X25519 later"
    if planned.suite == HYBRID:
        learns = "no vector that the server could not open at the time: ML-KEM-768 has to be broken, too"
        return Statement(party, learns, _HYBRID + "test_who_breaks_x25519_later_opens_no_recorded_upload")
    learns = "EVERY SINGLE VECTOR, of the server's frames; the suite x25519-mlkem768 is against that"
    return Statement(party, learns, _HYBRID + "test_in_the_other_suite_every_recorded_upload_opens")


def _server(planned: Plan) -> list[Statement]:
    lines = [
        Statement(
            "server",
            f"the identities of up to {planned.clients} clients, when each answers, who drops out; "
            f"{planned.vector_length} entries of {planned.ring_bits} bits per client that are uniform noise "
            "to it; the one sum over the survivors",
            _HIDING + "test_the_server_sees_a_uniform_view_of_the_honest_inputs_with_this_sum",
        ),
        Statement(
            "server",
            "nothing of a client that it declared dropped and whose upload arrives afterwards",
            _HIDING + "test_a_late_upload_of_one_declared_dropped_stays_hidden_by_its_self_mask",
        ),
    ]
    if not planned.threat_model.active:
        lines.append(
            Statement(
                "server that lies",
                "POSSIBLY EVERYTHING: this plan is against a server that follows the protocol; one that "
                "shows clients different survivors can open a single vector",
                _HERE + "test_in_a_passive_round_a_server_that_lies_opens_a_single_vector",
            )
        )
        return lines
    return [
        *lines,
        Statement(
            "server that lies",
            "about models, parameters or rosters: noise, for masks of different views do not cancel",
            _SERVER + "test_masks_of_clients_that_were_shown_different_things_do_not_cancel",
        ),
        Statement(
            "server that lies",
            f"about who shared keys or survived: nothing; only one pair of sets gets the {planned.quorum} "
            "signatures without which nobody opens anything",
            _SERVER + "test_two_sets_u1_never_both_find_a_quorum",
        ),
        Statement(
            "server that lies",
            "with two rosters in one round, or survivors that never uploaded: nothing",
            _SERVER + "test_dropouts_of_one_roster_are_no_phantom_survivors_of_another",
        ),
        Statement(
            "server that lies",
            "in any of these and other ways, in any order: no sum but the one over all honest survivors",
            _SCHEDULES + "test_no_schedule_of_a_lying_server_tells_it_more_than_one_sum",
        ),
    ]


def _together(planned: Plan, k: int) -> list[Statement]:
    party = f"server and {k} colluding clients"
    if k <= planned.colluders:
        return [
            Statement(
                party,
                f"the sum over the honest survivors, at least {planned.fewest_survivors - k} of them: they "
                "can subtract their own vectors",
                _SERVER
                + "test_the_smallest_set_holds_two_honest_clients_by_the_rounding_of_the_complete_graph",
            )
        ]
    beyond = f"they are more than the {planned.colluders} of the plan; "
    n, graph = planned.clients, planned.graph
    if planned.quorum and 2 * planned.quorum - n <= k:
        return [
            Statement(
                party,
                f"EVERY SINGLE VECTOR, when the server lies: {beyond}with their signatures two different "
                "sets of survivors find a quorum, and both secrets of a client open",
                _HERE + "test_more_colluders_than_planned_open_a_single_vector",
            )
        ]
    shamir = _SHAMIR + "test_any_threshold_of_shares_recovers_both_secrets"
    if planned.complete and k < graph.threshold:
        fewest = max(planned.fewest_survivors - k, 1)
        return [
            Statement(
                party,
                f"the sum over the honest survivors, POSSIBLY only {fewest} of them: {beyond}"
                f"{graph.threshold} shares open a secret",
                _SHAMIR + "test_fewer_shares_are_consistent_with_every_secret",
            )
        ]
    tries = planned.threat_model.grinding_bits if planned.threat_model.active else 0
    neighbors = n * exact_upper_tail(n, k, graph.degree, graph.threshold - 1)
    tail = log2_of(min(neighbors * 2**tries, Fraction(1)))
    return [
        Statement(
            party,
            f"POSSIBLY single vectors: {beyond}with a probability of up to 2^{tail:.1f} a threshold of "
            f"{graph.threshold} of them are neighbors of somebody, and open its secrets",
            shamir,
        )
    ]


def _clients(planned: Plan, k: int) -> list[Statement]:
    return [
        Statement(
            "client",
            f"the identities in the roster, the round keys of its {planned.graph.degree} neighbors, who "
            "shared keys and who survived; of the vectors of others only digests of masked ones",
            _HERE + "test_a_client_sees_of_other_vectors_only_digests_of_masked_ones",
        ),
        Statement(
            f"{k} colluding clients",
            f"without the server and the sum nothing: {planned.graph.threshold} shares rebuild a secret, "
            "fewer say nothing about it",
            _SHAMIR + "test_fewer_shares_are_consistent_with_every_secret",
        ),
        Statement(
            f"{k} colluding clients",
            "can end a round, or make its sum wrong by uploading what they like; they cannot make anybody "
            "else guilty" + ("" if k <= planned.colluders else ", as long as they are as few as planned"),
            _CLIENTS + "test_whatever_colluders_do_nobody_innocent_is_guilty_and_no_sum_is_wrong",
        ),
    ]


def _network(planned: Plan, *, encrypted: bool) -> Statement:
    if encrypted:
        up = sum(planned.up.values())
        return Statement(
            "network",
            f"who talks to the server, when, and how much (about {up:,} bytes up per client); what it drops, "
            "repeats, reorders or changes costs at most the round",
            _NETWORK + "test_a_storm_of_old_and_repeated_frames_in_any_order_changes_nothing",
        )
    return Statement(
        "network",
        "ALL that a curious server learns, the sum included: masked vectors and the shares that open their "
        "sum travel in the clear",
        _HIDING + "test_the_server_sees_a_uniform_view_of_the_honest_inputs_with_this_sum",
    )


def _reader(*, keep_inputs: bool) -> Statement:
    if keep_inputs:
        return Statement(
            "reader of a transcript",
            "all that a curious server learns: the sum, who took part, who was blamed",
            _TRANSCRIPT + "test_everything_public_is_recomputed_and_the_sum_bit_for_bit",
        )
    return Statement(
        "reader of a transcript",
        "who took part, who was blamed, and a digest of the sum: enough to confirm a guess of the whole sum",
        _TRANSCRIPT + "test_without_inputs_the_record_is_small_and_all_but_the_sum_is_recomputed",
    )
