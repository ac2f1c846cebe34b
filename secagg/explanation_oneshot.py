"""The knowledge that each party gains in a planned round of the one-upload protocol (SECURITY.md, 11)."""

from __future__ import annotations

from secagg.explanation import Statement
from secagg.params import require
from secagg.planning_oneshot import OneShotPlan

_SERVER = "tests/attacks/oneshot/test_lying_server.py::"
_CLIENTS = "tests/attacks/oneshot/test_lying_clients.py::"
_MEMBERS = "tests/attacks/oneshot/test_lying_members.py::"
_EDGES = "tests/attacks/oneshot/test_edges.py::"
_SCHEDULES = "tests/attacks/oneshot/test_schedules.py::"
_SHARING = "tests/primitives/test_packed_sharing.py::"
_ROUND = "tests/protocol/oneshot/test_round.py::"
_TRANSCRIPT = "tests/transcript/test_oneshot.py::"


def explain_oneshot(
    planned: OneShotPlan,
    *,
    colluding: int | None = None,
    keep_inputs: bool = False,
    encrypted: bool = True,
    edges: bool = False,
) -> tuple[Statement, ...]:
    """Say what each party of a round learns.

    colluding    members of the committee that put together what they know; default: as many as the plan
                 holds against
    keep_inputs  transcripts hold the masked vectors
    encrypted    the links are (TLS)
    edges        uploads come through edges, too
    raises       ParameterError
    """
    members, threshold = planned.numbers.members, planned.numbers.privacy_threshold
    k = threshold if colluding is None else colluding
    require(0 <= k <= members, "colluding", f"in 0..{members}", k)
    lines = [*_server(planned), _together(planned, k), *_members(planned), *_clients()]
    if edges:
        lines.append(
            Statement(
                "edge",
                "masked vectors of its clients, nothing else; it can shift the sum by any vector unnoticed",
                _EDGES + "test_a_shifted_total_is_a_wrong_sum_that_nobody_notices",
            )
        )
    return (
        *lines,
        _network(planned, encrypted=encrypted),
        _reader(keep_inputs=keep_inputs),
        Statement(
            "whoever sees the sum",
            f"one sum over {planned.fewest_survivors} to {planned.clients} clients; what it tells about "
            "their data is the business of differential privacy",
            _ROUND + "test_a_sum_of_those_that_spoke",
        ),
    )


def _server(planned: OneShotPlan) -> list[Statement]:
    numbers = planned.numbers
    masks = (
        "masked by a one-time pad"
        if planned.lattice_bits is None
        else f"that are noise to it if ring LWE holds (2^{min(planned.lattice_bits)} of work)"
    )
    lines = [
        Statement(
            "server",
            f"the identities of up to {planned.clients} clients, when each speaks; {planned.vector_length} "
            f"entries of {planned.upload_bits} bits per client {masks}; the one sum over the set that it "
            "proposed",
            _SHARING + "test_t_shares_are_those_of_any_secret",
        ),
    ]
    if not planned.threat_model.active:
        return [
            *lines,
            Statement(
                "server that lies",
                f"POSSIBLY EVERYTHING, with {max(2 * numbers.base - numbers.members, 0)} colluding "
                "decryptors: this plan is against a server that follows the protocol; no signatures keep "
                "one from opening a second set",
                _MEMBERS
                + "test_in_a_passive_round_a_server_that_lies_reads_a_vector_with_members_that_collude",
            ),
        ]
    return [
        *lines,
        Statement(
            "server that lies",
            f"with two sets of uploads: nothing; only one gets the {numbers.quorum} signatures "
            "without which no member opens anything",
            _SERVER + "test_two_sums_for_two_halves_of_the_committee_get_no_quorum_even_with_colluders",
        ),
        Statement(
            "server that lies",
            "with invented clients beside one victim: nothing, where members know who is enrolled",
            _SERVER + "test_a_sum_with_a_stranger_is_signed_by_nobody_who_does_not_know_it",
        ),
        Statement(
            "server that lies",
            "by asking for the same vectors again: nothing; a client gives a vector for a context once",
            _SERVER + "test_the_same_vector_is_not_given_to_the_next_round",
        ),
        Statement(
            "server that lies",
            "in any of these and other ways, in any order: no sum but the one that a quorum signed",
            _SCHEDULES + "test_no_schedule_of_a_lying_server_opens_a_second_sum_or_one_that_does_not_hide",
        ),
    ]


def _together(planned: OneShotPlan, k: int) -> Statement:
    numbers = planned.numbers
    party = f"server and {k} colluding decryptors"
    if k <= numbers.privacy_threshold:
        return Statement(
            party,
            f"the sum over at least {planned.fewest_survivors} uploads, two of them of clients that do not "
            "collude: their shares fit any secret",
            _MEMBERS + "test_shares_of_t_members_say_nothing_and_those_of_t_and_rho_say_everything",
        )
    beyond = f"they are more than the {numbers.privacy_threshold} of the plan"
    if k < numbers.privacy_threshold + numbers.packing:
        equations = k - numbers.privacy_threshold
        return Statement(
            party,
            f"POSSIBLY SINGLE VECTORS: {beyond}, and know {equations} equations about every "
            f"{numbers.packing} secrets of a client; the lattice that is left is not to be counted on",
            _MEMBERS + "test_one_member_more_than_t_gives_one_equation_about_the_secrets_of_a_row",
        )
    return Statement(
        party,
        f"EVERY SINGLE VECTOR of the epoch, now or from records: {beyond}, and "
        f"{numbers.privacy_threshold + numbers.packing} rebuild every secret",
        _MEMBERS + "test_more_than_t_members_read_an_upload_that_nobody_opened",
    )


def _members(planned: OneShotPlan) -> list[Statement]:
    numbers = planned.numbers
    return [
        Statement(
            "decryptor",
            "who uploaded, when it is told, and which uploads are in the sum; of the vectors only digests of "
            "masked ones; not the sum",
            _MEMBERS + "test_shares_of_t_members_say_nothing_and_those_of_t_and_rho_say_everything",
        ),
        Statement(
            f"{numbers.liars} decryptors that lie",
            f"nothing more; up to {numbers.corrected} wrong openings are corrected and named, and "
            f"{numbers.dropouts} may vanish",
            _ROUND + "test_wrong_openings_are_corrected_and_named",
        ),
    ]


def _clients() -> list[Statement]:
    return [
        Statement(
            "client",
            "the committee's identities and keys, and the parameters of the round; of other clients nothing",
            _SERVER + "test_a_client_takes_one_set_of_parameters_and_only_of_a_committee_that_it_checked",
        ),
        Statement(
            "clients that lie",
            "nothing; whoever deals wrong shares loses its own upload, but one vector of nonsense ends a "
            "round, or spoils the sum, and nobody can say whose it was",
            _CLIENTS + "test_a_vector_of_nonsense_fails_the_checks",
        ),
    ]


def _network(planned: OneShotPlan, *, encrypted: bool) -> Statement:
    if encrypted:
        return Statement(
            "network",
            f"who talks to the server, when, and how much (about {planned.client_up:,} bytes up per client); "
            "what it drops or changes costs at most an upload, or the round",
            _SERVER + "test_a_dealing_changed_in_any_field_counts_as_not_sent",
        )
    return Statement(
        "network",
        "ALL that a curious server learns, the sum included: masked vectors and the openings of their sum "
        "travel in the clear",
        _TRANSCRIPT + "test_the_sum_is_recomputed_from_signed_data",
    )


def _reader(*, keep_inputs: bool) -> Statement:
    if keep_inputs:
        return Statement(
            "reader of a transcript",
            "all that a curious server learns: the sum, who took part, who was blamed",
            _TRANSCRIPT + "test_the_sum_is_recomputed_from_signed_data",
        )
    return Statement(
        "reader of a transcript",
        "who took part, who was blamed, the sum of the secrets behind the masks, and a digest of the sum: "
        "enough to confirm a guess of the whole sum",
        _TRANSCRIPT + "test_without_vectors_the_record_is_small_and_all_but_the_sum_is_checked",
    )
