"""Whole rounds under loss, lost replies, duplication, reordering, corruption, replay and restarts.

Client i contributes e_i: a lost input shows as 0, a double count as 2. First come the outcomes that must
not happen, then a search for them.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from secagg.effects import Aborted, AbortReason, Aggregate
from secagg.params import Adversary, Phase
from tests.protocol.network import Cohort, Fault, Link, total_of

pytestmark = pytest.mark.slow

FAULTS = [*[Fault.NONE] * 4, *Fault, Fault.FLIP]


class Round(RuleBasedStateMachine):
    """Loss, lost replies, duplication, reordering and corruption, in any order."""

    adversary: ClassVar[Adversary] = "active"
    completed: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.cohort: Cohort | None = None

    @initialize(clients=st.integers(4, 7), minimum=st.integers(2, 4), early=st.booleans())
    def begin(self, clients: int, minimum: int, early: bool) -> None:
        self.cohort = Cohort(
            clients,
            adversary=self.adversary,
            ring_bits=5,
            minimum_cohort=4,
            minimum_survivors=minimum,
        )
        self.link = Link(self.cohort)
        self.link.start()
        self.u1: set[int] = set()
        self.survivors: set[int] = set()
        if early:  # a quiet start, so that the later phases see faults, too
            for _ in range(2):
                self.link.settle()
                self.link.close()
                self._look()

    @precondition(lambda self: self.link.in_flight)
    @rule(index=st.integers(0, 99), fault=st.sampled_from(FAULTS), choice=st.integers(0, 2**20))
    def deliver(self, index: int, fault: Fault, choice: int) -> None:
        self.link.deliver(index, fault, choice)

    @precondition(lambda self: len(self.link.in_flight) > 3)
    @rule()
    def deliver_everything(self) -> None:
        self.link.settle()

    @precondition(lambda self: self.running and self.cohort.server.progress.ready)
    @rule()
    def close_when_ready(self) -> None:
        self.link.close()

    @precondition(lambda self: self.running)
    @rule(sure=st.integers(0, 19))
    def close_at_a_deadline(self, sure: int) -> None:
        if sure == 0:
            self.link.close()

    @precondition(lambda self: self.running)
    @rule(client=st.integers(0, 6), up=st.booleans())
    def resend(self, client: int, up: bool) -> None:
        self.link.resend(client % self.size, up=up)

    @precondition(lambda self: self.running)
    @rule(client=st.integers(0, 6), sure=st.integers(0, 9))
    def give_up(self, client: int, sure: int) -> None:
        assert self.cohort is not None
        if sure == 0:
            self.cohort.server.drop(self.cohort.identities[client % self.size])

    @rule(client=st.integers(0, 6))
    def restart_client(self, client: int) -> None:
        self.link.restart_client(client % self.size)

    @precondition(lambda self: self.running)
    @rule()
    def restart_server(self) -> None:
        self.link.restart_server()

    # --- what must not happen

    @invariant()
    def the_server_never_holds_what_opens_both_secrets_of_a_client(self) -> None:
        if self.cohort is None:
            return
        threshold = self._threshold()
        for seeds, keys in self.cohort.released.values():
            assert not seeds & keys  # no holder ever reveals both
            assert min(len(seeds), len(keys)) < threshold

    @invariant()
    def the_server_never_holds_what_opens_a_sum_over_fewer_than_all_survivors(self) -> None:
        if self.cohort is None or not self.u1:
            return
        threshold = self._threshold()
        seeds = {i for i, kinds in self.cohort.released.items() if len(kinds[0]) >= threshold}
        keys = {i for i, kinds in self.cohort.released.items() if len(kinds[1]) >= threshold}
        assert not keys & self.survivors
        assert seeds <= self.survivors
        if seeds and seeds | keys >= self.u1:  # complete graph: a mask shared with anybody else closes all
            assert seeds == self.survivors
            minimum = 3 if self.size <= 10 else 4  # one colluder and two honest clients
            assert len(seeds) >= minimum

    @invariant()
    def phases_of_the_server_are_seen(self) -> None:
        if self.cohort is not None:
            self._look()

    def teardown(self) -> None:
        """Drive the round to its end, without faults: an exact sum, or a typed end."""
        if self.cohort is None:
            return
        for _ in range(len(Phase) + 1):
            if self.cohort.server.phase is None:
                break
            self.link.settle()
            for client in range(self.size):
                self.link.resend(client, up=False)
                self.link.resend(client, up=True)
            self.link.settle()
            self._look()
            self.link.close()
            self._look()
        outcome = self.cohort.outcome
        assert self.cohort.server.phase is None
        if isinstance(outcome, Aborted):
            assert isinstance(outcome.reason, AbortReason)
            # Turned bits speak against dealers, as a server that turns them would have it.
            assert outcome.guilty == () or self.link.flipped
        else:
            assert isinstance(outcome, Aggregate)
            members = {self.cohort.index[identity] for identity in outcome.survivors}
            assert total_of(outcome) == self.cohort.sum_over(members)
            assert members <= self.cohort.submitted
            assert len(members) >= 3
            assert members == self.survivors
            assert outcome.blamed == () or self.link.flipped
            type(self).completed += 1
        self.the_server_never_holds_what_opens_both_secrets_of_a_client()
        self.the_server_never_holds_what_opens_a_sum_over_fewer_than_all_survivors()

    # --- helpers

    @property
    def running(self) -> bool:
        return self.cohort is not None and self.cohort.server.phase is not None

    @property
    def size(self) -> int:
        assert self.cohort is not None
        return len(self.cohort.signers)

    def _threshold(self) -> int:
        """Of the roster; before there is one, nothing was dealt."""
        assert self.cohort is not None
        if self.cohort.server.phase not in {None, Phase.ADVERTISE_KEYS}:
            self.known_threshold = self.cohort.view().roster.threshold
        return getattr(self, "known_threshold", 1)

    def _look(self) -> None:
        """Remember U1 and S as the server fixed them, as cohort indices."""
        assert self.cohort is not None
        phase = self.cohort.server._phase
        for name, kept in (("finished", "u1"), ("masked", "survivors")):
            value = getattr(phase, name, None)
            if value is None:
                continue
            view = self.cohort.view()
            if name == "masked":
                indices = value.survivors
                self.u1 = {self.cohort.index[view.identities[i]] for i in value.finished}
            else:
                indices = value
            setattr(self, kept, {self.cohort.index[view.identities[i]] for i in indices})
        if self.cohort.server.phase not in {None, Phase.ADVERTISE_KEYS}:
            self._threshold()


class PassiveRound(Round):
    """The same against a server that follows the protocol: no consistency check."""

    adversary = "passive"
    completed = 0


NORMAL = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("machine", [Round, PassiveRound])
def test_a_round_ends_in_the_exact_sum_or_in_a_typed_end(machine: type[Round]) -> None:
    before = machine.completed
    run_state_machine_as_test(machine, settings=NORMAL)
    assert machine.completed > before  # the search also sees rounds that end well


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("machine", [Round, PassiveRound])
def test_a_round_ends_in_the_exact_sum_or_in_a_typed_end_long(machine: type[Round]) -> None:
    long = settings(NORMAL, max_examples=5000, stateful_step_count=120)
    run_state_machine_as_test(machine, settings=long)
