"""Counters that only rise: they tell a store that was set back from one that was not."""

from __future__ import annotations

from typing import Protocol

from secagg.errors import ParameterError
from secagg.store.store import Store

_PREFIX = "counters/"
_BYTES = 8


class Counter(Protocol):
    """Counts of releases, by name.

    It protects as far as it survives what sets the store back: a counter in the same database notices a
    snapshot that was put back alone; one in another place (a TPM, another machine) a whole disk.
    """

    def value(self, name: str) -> int:
        """Return the last value; 0 for a new name."""

    def advance(self, name: str, value: int) -> None:
        """Keep a value, durably, before returning. Raises ParameterError unless it is above the last."""


class StoredCounter:
    """A counter in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def value(self, name: str) -> int:
        """Return the last value; 0 for a new name."""
        return int.from_bytes(self._store.get(_PREFIX + name) or b"", "big")

    def advance(self, name: str, value: int) -> None:
        """Keep a value. Raises ParameterError unless it is above the last."""
        with self._store.transaction():
            if value <= (last := self.value(name)):
                raise ParameterError(f"counter {name}: must be above {last}, is {value}")
            self._store.put({_PREFIX + name: value.to_bytes(_BYTES, "big")})
