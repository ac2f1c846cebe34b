"""The heartbeat of a lease: as long as it beats, this server leads a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from secagg.service.tasks import end_tasks, on_thread
from secagg.store import LeaseLostError, StoreError
from secagg.store.sql import Lease, Leases

_RENEWALS = 3  # of a lease, in its time


class Heart:
    """Renews a lease; when it is lost, or was not renewed for its whole time, says so once.

    executor  that nothing else holds up
    shared    whether others can take the lease: a store that fails us may serve them
    on_lost   awaited with the reason
    """

    def __init__(
        self,
        leases: Leases,
        lease: Lease,
        *,
        executor: Executor,
        shared: bool,
        on_lost: Callable[[LeaseLostError], Awaitable[None]],
    ) -> None:
        self._leases, self._lease = leases, lease
        self._executor, self._shared, self._on_lost = executor, shared, on_lost
        self.lost: LeaseLostError | None = None
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Beat no more, and let the next one in; where that fails the lease runs out by itself."""
        await end_tasks(self._task)
        if self.lost is None:
            try:
                await on_thread(self._executor, self._leases.give_back, self._lease)
            except StoreError:
                return

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        held = loop.time()
        while self.lost is None:
            await asyncio.sleep(self._leases.lease_s / _RENEWALS)
            began = loop.time()
            renewing = loop.run_in_executor(self._executor, self._leases.renew, self._lease)
            try:
                # A database that does not answer may answer another server, which then leads.
                left_s = held + self._leases.lease_s - loop.time() if self._shared else None
                async with asyncio.timeout(left_s):
                    await renewing
                held = began
            except LeaseLostError as error:
                self.lost = error
            except (StoreError, TimeoutError) as error:
                if self._shared and loop.time() - held >= self._leases.lease_s:
                    why = str(error) or "the database does not answer"
                    self.lost = LeaseLostError(f"{self._lease.place}: the lease could not be renewed: {why}")
        await self._on_lost(self.lost)
