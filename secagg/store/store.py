"""The interface that every store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class Store(Protocol):
    """Named byte strings. What `put` returned from is kept, all of it or, after a crash before, nothing.

    Names are paths such as "rounds/<id>/client"; values may be secret, so a store is private. A store may
    be used from several threads.
    """

    @property
    def durable(self) -> bool:
        """Whether values outlive the process."""

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values in one transaction; None removes a name."""

    def get(self, name: str) -> bytes | None:
        """Return the value, or None."""

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""

    def transaction(self) -> AbstractContextManager[None]:
        """Let nobody else in until the end; keep everything that was put, or nothing if it raises."""
