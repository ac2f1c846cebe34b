"""A store that lives as long as its process."""

from __future__ import annotations

from secagg.store.mapping import MappingStore


class MemoryStore(MappingStore):
    """Keeps values in a dictionary. Its repr shows no value."""

    def __init__(self) -> None:
        super().__init__({})
