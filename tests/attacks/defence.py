"""What a defence is: the smallest change of the source that removes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Defence:
    """What `old`, found exactly once in `module`, protects; with `new` in its place the defence is gone."""

    name: str
    module: str
    old: str
    new: str
    about: str

    @property
    def path(self) -> Path:
        path = ROOT.joinpath(*self.module.split("."))
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def removed(self) -> str:
        """Return the module's source without the defence."""
        source = self.path.read_text(encoding="utf-8")
        if source.count(self.old) != 1:
            raise LookupError(f"{self.name}: {self.old!r} must be in {self.module} exactly once")
        return source.replace(self.old, self.new)
