"""All defences, each as the smallest change of the source that removes it."""

from __future__ import annotations

from tests.attacks import defences_client, defences_masks, defences_server, defences_state, defences_training
from tests.attacks.defence import Defence

DEFENCES: tuple[Defence, ...] = (
    *defences_client.DEFENCES,
    *defences_server.DEFENCES,
    *defences_masks.DEFENCES,
    *defences_state.DEFENCES,
    *defences_training.DEFENCES,
)
