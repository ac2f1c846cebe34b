import threading
import time

import pytest

from secagg.errors import ParameterError, StaleSnapshotError
from secagg.params import Phase
from secagg.protocol import ClientSession
from secagg.store import MemoryStore, StoredCounter
from tests.protocol.network import Cohort


def test_a_counter_begins_at_zero_and_keeps_its_last_value() -> None:
    store = MemoryStore()
    counter = StoredCounter(store)
    assert counter.value("a") == 0
    counter.advance("a", 2)
    counter.advance("b", 2**40)
    assert (StoredCounter(store).value("a"), counter.value("b")) == (2, 2**40)


@pytest.mark.parametrize("value", [1, 2])
def test_a_counter_only_rises(value: int) -> None:
    counter = StoredCounter(MemoryStore())
    counter.advance("a", 2)
    with pytest.raises(ParameterError, match=f"counter a: must be above 2, is {value}"):
        counter.advance("a", value)
    assert counter.value("a") == 2


def test_a_session_set_back_behind_its_counter_is_not_restored() -> None:
    cohort = Cohort(4).start()
    counter, snapshots = StoredCounter(MemoryStore()), []
    while cohort.outcome is None:
        for i in cohort.waiting():
            cohort.ask(i)
        counter.advance("round", cohort.clients[0].releases)
        snapshots.append(cohort.clients[0].snapshot())
        cohort.tell_all().close()
    # Advertisement, shares, a question and the upload, a question and the signature, answer.
    assert counter.value("round") == 7
    arguments = {"signer": cohort.signers[0], "policy": cohort.policy, "releases": counter.value("round")}
    for stale in snapshots[:-1]:
        with pytest.raises(StaleSnapshotError, match="must be the newest, after 7 releases"):
            ClientSession.restore(stale, **arguments)  # type: ignore[arg-type]
    session, _ = ClientSession.restore(snapshots[-1], **arguments)  # type: ignore[arg-type]
    assert session.releases == 7


def test_of_two_sessions_from_one_snapshot_only_one_masks_a_vector() -> None:
    cohort = Cohort(4).advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.clients[0].receive(cohort.request(0))  # now it wants its input
    snapshot, counter = cohort.clients[0].snapshot(), StoredCounter(MemoryStore())
    counter.advance("round", cohort.clients[0].releases)
    twins = [
        ClientSession.restore(
            snapshot, signer=cohort.signers[0], policy=cohort.policy, releases=counter.value("round")
        )[0]
        for _ in range(2)
    ]
    twins[0].submit(cohort.vector(0))
    counter.advance("round", twins[0].releases)  # before the effects are released
    twins[1].submit(cohort.vector(1))
    with pytest.raises(ParameterError, match="must be above 4, is 4"):
        counter.advance("round", twins[1].releases)


class Slow(MemoryStore):
    """Answers so late that another thread would look meanwhile, too."""

    def get(self, name: str) -> bytes | None:
        found = super().get(name)
        time.sleep(0.05)
        return found


def test_of_two_that_advance_at_once_only_one_does() -> None:
    counter, refused = StoredCounter(Slow()), []

    def advance() -> None:
        try:
            counter.advance("rounds/1", 1)
        except ParameterError as error:
            refused.append(error)

    threads = [threading.Thread(target=advance) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert counter.value("rounds/1") == 1
