"""A round goes on from snapshots, at every step and on both sides, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from secagg.effects import Aggregate, Completed, Effect, InputWanted, RosterAccepted, Send
from secagg.params import Adversary, Phase
from secagg.protocol import ClientSession, ServerSession
from tests.protocol.network import Cohort

pytestmark = pytest.mark.slow

LOST = {
    1: Phase.SHARE_KEYS,
    3: Phase.MASKED_INPUT_COLLECTION,
    5: Phase.CONSISTENCY_CHECK,
    7: Phase.UNMASKING,
}
Hook = Callable[[Cohort, int], None]


def nothing(_cohort: Cohort, _step: int) -> None:
    pass


def play(adversary: Adversary, hook: Hook) -> tuple[list[bytes], Aggregate]:
    """Every frame of a round of ten, in order, and its result; `hook` runs before each step."""
    cohort = Cohort(10, adversary=adversary, dropout=0.4, ring_bits=11).start()
    log: list[bytes] = []
    step = 0

    def frames(effects: list[Effect]) -> list[bytes]:
        return [bytes(effect.frame) for effect in effects if isinstance(effect, Send)]

    log += [cohort.request(i) for i in range(10)]
    while (phase := cohort.server.phase) is not None:
        for i in cohort.waiting():
            if LOST.get(i, len(Phase)) > phase:
                hook(cohort, step)
                step += 1
                log += frames(cohort.ask(i))
                hook(cohort, step)
                step += 1
                log += frames(cohort.tell(i))
        hook(cohort, step)
        step += 1
        log += frames(cohort.close())
    assert isinstance(cohort.outcome, Aggregate)
    return log, cohort.outcome


@cache
def uninterrupted(adversary: Adversary) -> tuple[list[bytes], Aggregate]:
    return play(adversary, nothing)


def same(adversary: Adversary, hook: Hook) -> None:
    """The round with the hook has the frames and the sum of the round without."""
    log, result = play(adversary, hook)
    wanted_log, wanted = uninterrupted(adversary)
    assert log == wanted_log
    assert (result.total == wanted.total).all()
    assert result.survivors == wanted.survivors
    assert result.blamed == wanted.blamed


def restart_server(cohort: Cohort, _step: int) -> None:
    before = cohort.server.snapshot()
    progress = cohort.server.progress
    cohort.server, effects = ServerSession.restore(before)
    assert cohort.server.snapshot() == before
    assert cohort.server.progress == progress
    # It asks again whom it waits for, with the same bytes.
    assert [effect.to for effect in effects if isinstance(effect, Send)] == sorted(progress.missing)
    for effect in effects:
        assert isinstance(effect, Send)
        assert effect.to is not None
        assert bytes(effect.frame) == cohort.request(cohort.index[effect.to])


def restart_clients(cohort: Cohort, _step: int) -> None:
    for i, client in enumerate(cohort.clients):
        if client.parameters is None:
            continue
        before = client.snapshot()
        upload = None if client.upload is None else bytes(client.upload)
        cohort.clients[i], effects = ClientSession.restore(
            before, signer=cohort.signers[i], policy=cohort.policy, upload=upload
        )
        assert cohort.clients[i].snapshot() == before
        assert cohort.clients[i].phase == client.phase
        # It sends its last frame again.
        assert [bytes(e.frame) for e in effects if isinstance(e, Send)] == [cohort.answer(i)]
        assert all(isinstance(e, Send | InputWanted | RosterAccepted | Completed) for e in effects)


def restart_all(cohort: Cohort, step: int) -> None:
    restart_server(cohort, step)
    restart_clients(cohort, step)


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("hook", [restart_server, restart_clients, restart_all])
def test_a_restart_before_every_step_changes_no_byte(hook: Hook, adversary: Adversary) -> None:
    same(adversary, hook)


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_one_restart_at_any_step_changes_no_byte(adversary: Adversary) -> None:
    steps: list[int] = []
    play(adversary, lambda _cohort, step: steps.append(step))
    for at in steps:

        def once(cohort: Cohort, step: int, at: int = at) -> None:
            if step == at:
                restart_all(cohort, step)

        same(adversary, once)


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_restarted_server_counts_the_same_bytes(adversary: Adversary) -> None:
    _, result = play(adversary, restart_server)
    assert result.traffic == uninterrupted(adversary)[1].traffic


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_replaying_what_it_accepted_rebuilds_the_server(adversary: Adversary) -> None:
    cohort = Cohort(6, adversary=adversary).start()
    rebuilt = ServerSession(cohort.parameters, admitted=cohort.identities)
    rebuilt.start()
    while cohort.server.phase is not None:
        cohort.ask_all()
        for i in cohort.waiting():
            cohort.tell(i, b"refused before it sends the right message")
            cohort.tell(i)
            cohort.tell(i)
            assert rebuilt.receive(cohort.identities[i], cohort.answer(i)) == []
        before = rebuilt.close_phase()
        after = cohort.close()
        assert [e for e in before if isinstance(e, Send)] == [e for e in after if isinstance(e, Send)]
    assert rebuilt.phase is None
