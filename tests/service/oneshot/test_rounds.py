"""Rounds of the one-upload protocol over the service: clients that vanish, decryptors that are lost."""

from __future__ import annotations

import asyncio

from secagg.service import Contribution
from tests.service.oneshot.cohort import PAYLOAD, oneshot_cohort


def test_clients_upload_once_and_go_and_the_sum_is_exact() -> None:
    async def run() -> None:
        async with oneshot_cohort() as c:
            c.decrypt()
            running = c.round()
            said = await asyncio.gather(*(c.contribute(i) for i in range(5)))
            assert said == [Contribution(True, False, PAYLOAD, one.round_id) for one in said]
            c.exact(await running, range(5))
            assert len(c.committees) == 1
            assert c.committees[0].members == tuple(f"decryptor-{i}" for i in range(5))

    asyncio.run(run())
