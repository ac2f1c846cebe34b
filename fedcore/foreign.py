"""Code that a file names by "module:name": learners and strategies of its user's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from fedcore.errors import SettingError


def import_beside(named: object, folder: Path, key: str) -> None:
    """Import the module of "module:name" from a file's folder, where it lies there; else nothing happens.

    key     of the file that names it
    raises  SettingError: a module of that name was imported from elsewhere, or its import fails
    """
    if not isinstance(named, str) or ":" not in named:
        return
    module = named.partition(":")[0]
    root = module.partition(".")[0]
    found = PathFinder.find_spec(root, [str(folder.resolve())])
    if found is None or found.loader is None or found.origin is None:
        return  # it may be installed
    known = sys.modules.get(root)
    if known is not None and getattr(known, "__file__", None) == found.origin:
        return
    if known is not None and not getattr(known, _MARK, False):
        raise SettingError(
            f"{key}: {found.origin} has the name of a module that is in use, {root}: rename the file"
        )
    made = importlib.util.module_from_spec(found)
    setattr(made, _MARK, True)
    for name in [name for name in sys.modules if name == root or name.startswith(f"{root}.")]:
        del sys.modules[name]  # of another file's folder
    sys.modules[root] = made
    try:
        found.loader.exec_module(made)
    except Exception as error:
        del sys.modules[root]
        raise SettingError(f"{key}: {found.origin} cannot be imported: {_said(error)}") from error


_MARK = "__beside_a_file__"


def load_named(named: str, key: str) -> Any:  # noqa: ANN401 - whatever it is
    """Return what "module:name" is. Raises SettingError, with what the import said."""
    module, _, name = named.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        raise SettingError(f"{key}: there is no {named}: {_said(error)}") from error


def call_named(named: str, key: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
    """Call what "module:name" is. Raises SettingError, with what it said."""
    function = load_named(named, key)
    try:
        return function(**arguments)
    except Exception as error:
        raise SettingError(f"{key}: {named} cannot be made: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
