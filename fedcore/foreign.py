"""Code that a file names by "module:name": learners and strategies of its user's own.

Whoever loads such a file runs that code: a module beside the file, or an installed one. Of installed ones
only what was written for this is called: a module that uses fedcore, and a name that is defined there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
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
    sys.path.insert(0, str(folder.resolve()))  # it may import others that lie beside it
    try:
        found.loader.exec_module(made)
    except Exception as error:
        del sys.modules[root]
        raise SettingError(f"{key}: {found.origin} cannot be imported: {_said(error)}") from error
    finally:
        sys.path.remove(str(folder.resolve()))


_MARK = "__beside_a_file__"
_OURS = ("fedcore.examples.", "fedcore.learners.", "fedcore.strategies.")


def load_named(named: str, key: str) -> Any:  # noqa: ANN401 - whatever it is
    """Return what "module:name" is. Raises SettingError, with what the import said."""
    module, _, name = named.partition(":")
    try:
        home = importlib.import_module(module)
        found = getattr(home, name)
    except Exception as error:
        raise SettingError(f"{key}: there is no {named}: {_said(error)}") from error
    root = sys.modules[module.partition(".")[0]]
    if not getattr(root, _MARK, False) and not (_made_for_this(home) and found.__module__ == module):
        rule = "defined in a module that uses fedcore, beside the file or installed"
        raise SettingError(f"{key}: {named} must be {rule}")
    return found


def _made_for_this(home: ModuleType) -> bool:
    """Tell whether a module was written to be named in a file: nobody's tool that a file could misuse."""
    if home.__name__.startswith(("fedcore.", "secagg.")):
        return home.__name__.startswith(_OURS)
    used = (getattr(one, "__module__", None) or getattr(one, "__name__", "") for one in vars(home).values())
    return any(isinstance(one, str) and one.partition(".")[0] == "fedcore" for one in used)


def call_named(
    named: str,
    key: str,
    arguments: Mapping[str, Any],
    offered: Mapping[str, Any] = {},
) -> Any:  # noqa: ANN401
    """Call what "module:name" is.

    offered  further arguments, of which it gets those that it takes
    raises   SettingError, with what it said
    """
    function = load_named(named, key)
    try:
        takes = inspect.signature(function).parameters.values()
        everything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes)
        names = {one.name for one in takes}
        taken = {name: value for name, value in offered.items() if everything or name in names}
        return function(**arguments, **taken)
    except Exception as error:
        raise SettingError(f"{key}: {named} cannot be made: {_said(error)}") from error


def code_digest(named: str, key: str) -> str:
    """Return SHA-256 of the file that "module:name" is in, in hex: parties agree on code, too.

    raises  SettingError: it is in no file
    """
    load_named(named, key)
    path = getattr(sys.modules[named.partition(":")[0]], "__file__", None)
    try:
        return hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
    except OSError as error:
        raise SettingError(f"{key}: the code of {named} cannot be read: {error}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
