from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import RefusalReason
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import decode, encode
from secagg.params import Phase
from secagg.protocol import ServerSession
from secagg.protocol.server.snapshot import _Snapshot
from secagg.protocol.snapshot import checked_body, with_digest
from tests.protocol.network import Cohort, flipped, refused_by_server

PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.name)
LOST = {5: Phase.MASKED_INPUT_COLLECTION}


def halfway(phase: Phase) -> Cohort:
    """Half of the answers of the phase have come."""
    cohort = Cohort(6).advance(phase, LOST).ask_all(LOST)
    for i in range(3):
        cohort.tell(i)
    return cohort


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_snapshot_raise_a_parameter_error(data: bytes) -> None:
    with pytest.raises(ParameterError):
        ServerSession.restore(data)


@PHASES
def test_a_snapshot_of_another_version_or_phase_raises_a_parameter_error(phase: Phase) -> None:
    data = halfway(phase).server.snapshot()
    body = checked_body(data)
    assert data[:2] == b"\x08\x01"
    for version in (b"", b"\x08\x02"):
        with pytest.raises(ParameterError, match="snapshot"):
            ServerSession.restore(with_digest(version + body[2:]))
    saved = decode(_Snapshot, body)
    for number in (0, len(Phase) + 1):
        with pytest.raises(ParameterError, match="snapshot"):
            ServerSession.restore(with_digest(encode(replace(saved, phase=number))))


@PHASES
def test_a_clients_snapshot_is_not_a_servers(phase: Phase) -> None:
    cohort = halfway(phase)
    with pytest.raises(ParameterError):
        ServerSession.restore(cohort.clients[0].snapshot())


@PHASES
def test_a_damaged_snapshot_is_not_restored(phase: Phase) -> None:
    data = halfway(phase).server.snapshot()
    for bit in range(0, 8 * len(data), 37):
        with pytest.raises(ParameterError, match="cut or changed"):
            ServerSession.restore(flipped(data, bit))


@PHASES
def test_a_snapshot_cut_short_is_not_restored(phase: Phase) -> None:
    data = halfway(phase).server.snapshot()
    for size in range(len(data)):
        with pytest.raises(ParameterError):
            ServerSession.restore(data[:size])


@PHASES
def test_a_restored_server_remembers_whom_it_heard_and_whom_it_gave_up(phase: Phase) -> None:
    cohort = halfway(phase)
    cohort.server.drop(cohort.identities[4])
    refused_by_server(cohort, 3, b"", RefusalReason.MALFORMED)
    cohort.restart_server()
    assert cohort.server.phase is phase
    assert cohort.server.progress.received == 3
    assert cohort.tell(0) == []
    assert cohort.server.progress.received == 3
    refused_by_server(cohort, 4, cohort.answer(3), RefusalReason.UNKNOWN_SENDER)
    with pytest.raises(LocalProtocolError, match="started"):
        cohort.server.start()


@PHASES
def test_a_server_snapshot_holds_no_secret_but_revealed_shares(phase: Phase) -> None:
    cohort = halfway(phase)
    data = cohort.server.snapshot()
    for i in range(6):
        secrets = cohort.secrets(i)
        for secret in (secrets.mask, secrets.agreement, secrets.self_seed, secrets.share_seed):
            assert secret not in data
        assert cohort.signers[i].seed not in data
    if phase > Phase.ADVERTISE_KEYS:
        shares = cohort.share_plaintexts(0)
        for holder, plaintext in shares.items():
            assert plaintext[:40] not in data  # client 0 survives: its key stays closed
            revealed = phase is Phase.UNMASKING and holder < 3
            assert (plaintext[40:] in data) == revealed
