"""Heavy packages are imported when a test first uses them, so that collecting the tests stays quick."""

from importlib import import_module
from typing import Any


class Lazy:
    """Stands for a module until one of its names is asked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # the collector looks for marks
            raise AttributeError(name)
        return getattr(import_module(self._module), name)
