"""What the driver of a round makes of the session's effects."""

import pytest

from secagg import Aborted, AbortReason, IdentityKey, RoundAbortedError, RoundParameters
from secagg.service import Event, ManualClock, Registry, RoundFailed
from secagg.service.driver import RoundDriver
from secagg.store import MemoryStore, ParticipationLedger

KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(4)]


def test_an_abort_tells_the_caller_who_is_suspected_and_who_is_guilty() -> None:
    events: list[Event] = []
    driver = RoundDriver(
        RoundParameters(round_id=bytes(16), vector_length=1, ring_bits=8, context=bytes(32)),
        registry=Registry.of((f"party-{i}", key.identity) for i, key in enumerate(KEYS)),
        clock=ManualClock(),
        store=MemoryStore(),
        ledger=ParticipationLedger(MemoryStore()),
        observer=events.append,
        deliver=lambda _client, _item: None,
    )
    suspects = (KEYS[1].identity, KEYS[3].identity)
    effect = Aborted(AbortReason.COMPLAINTS, suspects, "why", guilty=suspects[:1])
    with pytest.raises(RoundAbortedError, match="too many complaints: why") as caught:
        driver._carry_out([effect])
    assert (caught.value.blamed, caught.value.guilty) == (suspects, suspects[:1])
    assert events == [RoundFailed(bytes(16), "too many complaints", "why", ("party-1", "party-3"))]
