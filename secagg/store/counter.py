"""Counters that never fall: they tell a store that was set back from one that was not."""

from __future__ import annotations

from typing import Protocol

from secagg.errors import ParameterError
from secagg.store.store import Store

_PREFIX = "counters/"
_BYTES = 8


class Counter(Protocol):
    """How often something was released, by name.

    It protects as far as it survives what sets the store back: a counter in the same database notices a
    snapshot that was put back alone; one in another place (a TPM, another machine) a whole disk.
    """

    def value(self, name: str) -> int:
        """Return the highest value ever raised to; 0 for a new name."""

    def raise_to(self, name: str, value: int) -> None:
        """Keep a value, durably, before returning. Raises ParameterError when it is below the last."""


class StoredCounter:
    """A counter in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def value(self, name: str) -> int:
        """Return the highest value ever raised to; 0 for a new name."""
        return int.from_bytes(self._store.get(_PREFIX + name) or b"", "big")

    def raise_to(self, name: str, value: int) -> None:
        """Keep a value. Raises ParameterError when it is below the last."""
        if value < (last := self.value(name)):
            raise ParameterError(f"counter {name}: never falls, was {last}, is {value}")
        self._store.put({_PREFIX + name: value.to_bytes(_BYTES, "big")})
