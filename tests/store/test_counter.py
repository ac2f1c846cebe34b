import pytest

from secagg.errors import ParameterError, StaleSnapshotError
from secagg.protocol import ClientSession
from secagg.store import MemoryStore, StoredCounter
from tests.protocol.network import Cohort


def test_a_counter_begins_at_zero_and_keeps_what_it_was_raised_to() -> None:
    store = MemoryStore()
    counter = StoredCounter(store)
    assert counter.value("a") == 0
    counter.raise_to("a", 2)
    counter.raise_to("a", 2)
    counter.raise_to("b", 2**40)
    assert (StoredCounter(store).value("a"), counter.value("b")) == (2, 2**40)


def test_a_counter_never_falls() -> None:
    counter = StoredCounter(MemoryStore())
    counter.raise_to("a", 2)
    with pytest.raises(ParameterError, match="counter a: never falls, was 2, is 1"):
        counter.raise_to("a", 1)
    assert counter.value("a") == 2


def test_a_session_set_back_behind_its_counter_is_not_restored() -> None:
    cohort = Cohort(4).start()
    counter, snapshots = StoredCounter(MemoryStore()), []
    while cohort.outcome is None:
        for i in cohort.waiting():
            cohort.ask(i)
        counter.raise_to("round", cohort.clients[0].releases)
        snapshots.append(cohort.clients[0].snapshot())
        cohort.tell_all().close()
    assert counter.value("round") == 5  # advertisement, shares, upload, signature, answer
    arguments = {"signer": cohort.signers[0], "policy": cohort.policy, "releases": counter.value("round")}
    for stale in snapshots[:-1]:
        with pytest.raises(StaleSnapshotError, match="must be the newest, after 5 released frames"):
            ClientSession.restore(stale, **arguments)  # type: ignore[arg-type]
    session, _ = ClientSession.restore(snapshots[-1], **arguments)  # type: ignore[arg-type]
    assert session.releases == 5
