"""A store that lives as long as its process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import RLock


class MemoryStore:
    """Keeps values in a dictionary. Its repr shows no value."""

    durable = False

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = RLock()
        self._depth = 0  # of transactions

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values; None removes a name."""
        copies = {name: None if value is None else bytes(value) for name, value in values.items()}
        with self._lock:
            for name, value in copies.items():
                if value is None:
                    self._values.pop(name, None)
                else:
                    self._values[name] = value

    def get(self, name: str) -> bytes | None:
        """Return the value, or None."""
        with self._lock:
            return self._values.get(name)

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""
        with self._lock:
            return sorted(name for name in self._values if name.startswith(prefix))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let nobody else in until the end; keep everything that was put, or nothing if it raises."""
        with self._lock:
            before = dict(self._values) if self._depth == 0 else None
            self._depth += 1
            try:
                yield
            except BaseException:
                if before is not None:
                    self._values = before
                raise
            finally:
                self._depth -= 1

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._values)} values)"
