"""All defences, each as the smallest change of the source that removes it."""

from __future__ import annotations

from tests.attacks import (
    defences_agreement,
    defences_client,
    defences_committee,
    defences_embedding,
    defences_hybrid,
    defences_masks,
    defences_oneshot,
    defences_privacy,
    defences_runs,
    defences_server,
    defences_service,
    defences_sites,
    defences_state,
    defences_tables,
    defences_training,
    defences_ways,
)
from tests.attacks.defence import Defence

DEFENCES: tuple[Defence, ...] = (
    *defences_client.DEFENCES,
    *defences_server.DEFENCES,
    *defences_masks.DEFENCES,
    *defences_hybrid.DEFENCES,
    *defences_oneshot.DEFENCES,
    *defences_committee.DEFENCES,
    *defences_embedding.DEFENCES,
    *defences_state.DEFENCES,
    *defences_training.DEFENCES,
    *defences_agreement.DEFENCES,
    *defences_privacy.DEFENCES,
    *defences_sites.DEFENCES,
    *defences_runs.DEFENCES,
    *defences_service.DEFENCES,
    *defences_tables.DEFENCES,
    *defences_ways.DEFENCES,
)
