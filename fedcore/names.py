"""Parts of the parameters by their names: what is sent, stays at a site, is adapted or trained on."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from fedcore.errors import SettingError


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name fits a pattern of the shell, such as "head.*"; case counts."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def select(names: Iterable[str], patterns: Iterable[str], setting: str) -> frozenset[str]:
    """Return the names that fit one of the patterns of a setting.

    Raises SettingError where a pattern fits no name, for that is a slip of the pen.
    """
    names, chosen = list(names), set[str]()
    for pattern in patterns:
        found = [name for name in names if matches(name, (pattern,))]
        if not found:
            raise SettingError(f"{setting}: {pattern!r} fits none of {sorted(names)}")
        chosen.update(found)
    return frozenset(chosen)
