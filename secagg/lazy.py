"""Names of a package that are loaded when they are asked for: a command that prints its help needs none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["attributes"]


def attributes(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562), which finds names in its modules, and these.

    The package also lists the names, so that they are completed.
    """
    there = sys.modules[package]

    def load(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
        if name in names:
            value = getattr(import_module(f"{package}.{names[name]}"), name)
        else:
            value = None if name.startswith("_") else _submodule(package, name)
            if value is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(there, name, value)
        return value

    there.__dir__ = lambda: sorted({*vars(there), *names})  # type: ignore[method-assign]
    return load


def _submodule(package: str, name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{name}":
            raise
        return None
