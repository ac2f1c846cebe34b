"""A store in somebody else's mapping: the state that a host keeps for us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from threading import RLock


class MappingStore:
    """Keeps values in a mapping of names to bytes, such as the state of a host; its repr shows no value.

    mapping  durable as far as its owner makes it, and set back when its owner does: what counts is counted
             elsewhere
    """

    durable = False

    def __init__(self, mapping: MutableMapping[str, bytes]) -> None:
        self._values = mapping
        self._lock = RLock()
        self._before: dict[str, bytes] | None = None  # of the transaction that is open

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values; None removes a name."""
        copies = {name: None if value is None else bytes(value) for name, value in values.items()}
        with self.transaction():
            for name, value in copies.items():
                if value is not None:
                    self._values[name] = value
                elif name in self._values:
                    del self._values[name]

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
            outermost = self._before is None
            if outermost:
                self._before = dict(self._values)
            try:
                yield
            except BaseException:
                if outermost and self._before is not None:
                    self._restore(self._before)
                raise
            finally:
                if outermost:
                    self._before = None

    def _restore(self, before: Mapping[str, bytes]) -> None:
        for name in set(self._values) - set(before):
            del self._values[name]
        for name, value in before.items():
            self._values[name] = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._values)} values)"
