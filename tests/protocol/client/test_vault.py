import pickle

import pytest

from secagg.errors import LocalProtocolError
from secagg.params import Identity, Phase
from secagg.protocol.client.vault import ShareKind, Vault
from tests.protocol.network import Cohort

A, B = Identity(b"a" * 32), Identity(b"b" * 32)
KEY, SEED = b"k" * 40, b"s" * 40


@pytest.mark.parametrize(("kind", "share"), [(ShareKind.MASK_KEY, KEY), (ShareKind.SELF_SEED, SEED)])
def test_releasing_one_kind_erases_the_other(kind: ShareKind, share: bytes) -> None:
    vault = Vault({B: SEED + KEY, A: KEY + SEED})
    inside = vault._pairs[A]
    assert vault.release(A, kind) == share
    assert inside == bytes(80)  # overwritten, not only forgotten
    assert A not in vault
    assert dict(vault.saved()) == {B: SEED + KEY}
    for again in ShareKind:
        with pytest.raises(LocalProtocolError, match="nothing of 616161616161 may be released"):
            vault.release(A, again)


def test_a_wiped_vault_is_empty_and_its_memory_is_zero() -> None:
    vault = Vault({A: KEY + SEED, B: KEY + SEED})
    pairs = list(vault._pairs.values())
    vault.wipe()
    assert len(vault) == 0
    assert pairs == [bytes(80)] * 2


def test_a_vault_shows_nothing_and_is_not_pickled() -> None:
    vault = Vault({A: KEY + SEED})
    assert repr(vault) == "Vault(dealers=1)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(vault)


def test_after_the_answer_no_share_of_the_other_kind_is_left_in_the_snapshot() -> None:
    cohort = Cohort(6).advance(Phase.UNMASKING, {5: Phase.MASKED_INPUT_COLLECTION})
    plaintexts = {dealer: cohort.share_plaintexts(dealer)[0] for dealer in range(1, 6)}
    before = cohort.clients[0].snapshot()
    cohort.ask(0)
    after = cohort.clients[0].snapshot()
    for dealer, pair in plaintexts.items():
        key, seed = pair[:40], pair[40:]
        assert key in before
        assert seed in before
        dropped = dealer == 5
        assert (key in after, seed in after) == (dropped, not dropped)  # in the answer, to be sent again
    cohort.clients[0].close()
    closed = cohort.clients[0].snapshot()
    assert not any(part in closed for pair in plaintexts.values() for part in (pair[:40], pair[40:]))
