"""Ids that must not be taken again, as a container over a store."""

from __future__ import annotations

from secagg.store.store import Store


class StoredIds:
    """Round or epoch ids that were kept under a kind: `kind/<hexadecimal digits>`."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store, self._kind = store, kind

    def name(self, one: bytes) -> str:
        """Return the name under which an id is kept."""
        return f"{self._kind}/{one.hex()}"

    def __contains__(self, one: object) -> bool:
        return isinstance(one, bytes) and self._store.get(self.name(one)) is not None
