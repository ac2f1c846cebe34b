"""Tables of a TOML file as dataclasses: unknown keys, missing keys and wrong types are named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fedcore.errors import DataError

T = TypeVar("T")
_SHOWN = 60  # characters of a value in a message
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", dict: "a table"}


def read(kind: type[T], table: Mapping[str, Any], where: str, without: frozenset[str] = frozenset()) -> T:
    """Make a dataclass of a table; `where` is the table's name. Raises DataError, naming table.key."""
    return kind(**read_values(kind, table, where, without))


def read_values(
    kind: type[Any], table: Mapping[str, Any], where: str, without: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the checked values of a table by field; fields in `without` are not the file's to set."""
    known = {field.name: field for field in fields(kind) if field.name not in without}
    for name in table:
        if name not in known:
            raise DataError(f"{where}.{name}: is not known, {where} has {', '.join(known)}")
    for name, field in known.items():
        if name not in table and _required(field):
            raise DataError(f"{where}.{name}: is missing")
    hints = get_type_hints(kind)
    return {name: typed(value, hints[name], f"{where}.{name}") for name, value in table.items()}


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def typed(value: Any, kind: Any, where: str) -> Any:  # noqa: ANN401 - TOML in, fields out
    """Return a value as its type says. Raises DataError."""
    chosen = next((one for one in _alternatives(kind) if _fits(value, one)), None)
    if chosen is None:
        wanted = " or ".join(_words(one) for one in _alternatives(kind))
        raise DataError(f"{where}: must be {wanted}, is {shown(value)}")
    if chosen is float:
        return _finite(value, where)
    if get_origin(chosen) is tuple:
        return tuple(typed(one, get_args(chosen)[0], f"{where}[{i}]") for i, one in enumerate(value))
    if isinstance(chosen, type) and issubclass(chosen, StrEnum):
        if value not in list(chosen):
            raise DataError(f"{where}: must be one of {', '.join(chosen)}, is {shown(value)}")
        return chosen(value)
    if isinstance(chosen, type) and is_dataclass(chosen):
        return read(chosen, value, where)
    return value


def _finite(value: float, where: str) -> float:
    """Return a number that a float can hold. TOML has infinities, NaN, and integers of any size."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{where}: must be finite, is {shown(value)}")
    return number


def shown(value: object) -> str:
    """Return a value for a message, cut to a line."""
    text = repr(str(value)) if isinstance(value, StrEnum) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _alternatives(kind: Any) -> list[Any]:  # noqa: ANN401 - a type
    if get_origin(kind) in {Union, UnionType}:
        return [one for one in get_args(kind) if one is not NoneType]
    return [kind]


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - a type
    if kind is Any:
        return True
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple)
    if get_origin(kind) is dict or is_dataclass(kind):
        return isinstance(value, dict)
    return isinstance(value, str) if issubclass(kind, StrEnum) else isinstance(value, kind)


def _words(kind: Any) -> str:  # noqa: ANN401 - a type
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict or is_dataclass(kind):
        return "a table"
    return _WORDS.get(kind, f"one of {', '.join(kind)}" if issubclass(kind, StrEnum) else kind.__name__)
