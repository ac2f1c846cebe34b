"""Runs whose rounds are offered to clients that upload: at a server, and at an edge."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TypeVar

from secagg.service.led import LedRun
from secagg.service.oneshot.driver import UploadDriver

_Driver = TypeVar("_Driver", bound=UploadDriver)


class OfferedRun(LedRun[_Driver]):
    """A run that tells those who are connected of a round once the store has it.

    What is uploaded for a round is uploaded for no other: nobody must hear of one that may not come about.
    """

    @abstractmethod
    def _offer(self, driver: _Driver) -> None:
        """Tell those who are connected of a round that the store has."""

    async def start(self) -> None:
        """Go on with every round that the store has. Raises StoreError; ParameterError, see `LedRun`."""
        await super().start()
        for driver in self._rounds.values():  # clients that come while they are restored hear of them then
            self._attach(driver)

    def _attach(self, driver: _Driver) -> None:
        offering = asyncio.create_task(self._offer_settled(driver))
        self._offers.add(offering)
        offering.add_done_callback(self._offers.discard)

    async def _offer_settled(self, driver: _Driver) -> None:
        await driver.settled.wait()
        self._offer(driver)
