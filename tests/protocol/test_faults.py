"""One test per message of a recorded round and fault. A lost request and a lost reply are two faults."""

from __future__ import annotations

import pytest

from secagg.effects import Aborted, Aggregate
from secagg.params import SUITES, Adversary, Phase, Suite
from tests.protocol.network import Cohort, Fault, Link, total_of

pytestmark = pytest.mark.slow

PHASES: dict[Adversary, list[Phase]] = {
    "active": list(Phase),
    "passive": [phase for phase in Phase if phase is not Phase.CONSISTENCY_CHECK],
}
CASES = [
    (adversary, phase, up, fault)
    for adversary, phases in PHASES.items()
    for phase in phases
    for up in (False, True)
    for fault in Fault
]
NAMES = [
    f"{adversary}-{phase.name}-{'answer' if up else 'request'}-{fault.name}"
    for adversary, phase, up, fault in CASES
]


def play(
    adversary: Adversary,
    at: Phase,
    fault: Fault,
    choice: int,
    *,
    up: bool,
    again: bool,
    suite: Suite = "x25519",
) -> Aggregate | Aborted:
    """A round of eight in which one frame to or of client 2 suffers a fault.

    again  who hears nothing sends once more
    """
    cohort = Cohort(8, adversary=adversary, minimum_cohort=4, suite=suite)
    link = Link(cohort)
    link.start()
    while cohort.server.phase is not None:
        if cohort.server.phase is at:
            if up:
                for _ in range(len(link.in_flight)):
                    link.deliver(0)
            place = next(k for k, e in enumerate(link.in_flight) if e.client == 2 and e.up == up)
            link.deliver(place, fault, choice)
        link.settle()
        if again:
            for client in range(8):
                link.resend(client, up=False)
                link.resend(client, up=True)
            link.settle()
        link.close()
    assert cohort.outcome is not None
    return cohort.outcome


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("adversary", "phase", "up", "fault"), CASES, ids=NAMES)
def test_a_fault_that_is_repaired_loses_nobody(
    adversary: Adversary, phase: Phase, up: bool, fault: Fault, suite: Suite
) -> None:
    # Cut frames are refused, and so is one with a bit of the round id turned.
    choice = {Fault.FLIP: 8 * 5, Fault.TRUNCATE: 30}.get(fault, 3)
    outcome = play(adversary, phase, fault, choice, up=up, again=True, suite=suite)
    assert total_of(outcome) == [1] * 8


@pytest.mark.parametrize(("adversary", "phase", "up", "fault"), CASES, ids=NAMES)
def test_a_fault_that_is_not_repaired_loses_at_most_one_client(
    adversary: Adversary, phase: Phase, up: bool, fault: Fault
) -> None:
    # Of what a choice does not change, once.
    chosen = fault in {Fault.FLIP, Fault.TRUNCATE, Fault.REPLAY}
    for choice in (5, 8 * 5, 1001, 77_777) if chosen else (5,):
        outcome = play(adversary, phase, fault, choice, up=up, again=False)
        if isinstance(outcome, Aborted):
            # A bit of the commitment or of a share turned: only then can the round end.
            assert fault is Fault.FLIP
            assert up
            assert outcome.guilty == () or phase is Phase.SHARE_KEYS
            continue
        total = total_of(outcome)
        assert total[:2] + total[3:] == [1] * 7
        assert total[2] in {0, 1}
        lossy = fault in {Fault.LOSE, Fault.TRUNCATE} or (fault is Fault.LOSE_REPLY and not up)
        if lossy:
            assert total[2] == (1 if phase > Phase.MASKED_INPUT_COLLECTION else 0)
        elif fault is not Fault.FLIP:
            assert total[2] == 1
