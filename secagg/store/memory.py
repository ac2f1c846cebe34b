"""A store that lives as long as its process."""

from __future__ import annotations

from collections.abc import Mapping


class MemoryStore:
    """Keeps values in a dictionary. Its repr shows no value."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values; None removes a name."""
        for name, value in values.items():
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = bytes(value)

    def get(self, name: str) -> bytes | None:
        """Return the value, or None."""
        return self._values.get(name)

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""
        return sorted(name for name in self._values if name.startswith(prefix))

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._values)} values)"
