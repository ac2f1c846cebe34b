"""A server that lies: what each attack gains it, and who notices."""

import hashlib

from secagg.effects import RefusalReason
from tests.protocol.network import Cohort, refused_by_client


def test_another_context_is_refused() -> None:
    cohort = Cohort(4)
    cohort.clients[0] = cohort.fresh_client(0, context=hashlib.sha256(b"another model").digest())
    refused_by_client(cohort, 0, cohort.parameters_frame(), RefusalReason.CONTEXT_MISMATCH)
