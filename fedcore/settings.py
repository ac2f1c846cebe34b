"""Settings: each is declared once, as a field of a frozen dataclass, and read from TOML, JSON or Python.

`read` makes the value of a table, `to_json` the table of a value. What a constructor refuses, and what is
unknown, missing or of another type, is one error, whose message starts with the path of the key.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from fedcore.errors import SettingError

T = TypeVar("T")
_SHOWN = 60  # characters of a value in a message
_WORDS = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "object": "a table",
    "array": "a list",
}


def read(kind: type[T], table: Any, where: str = "", known: Mapping[str, Any] = {}) -> T:  # noqa: ANN401
    """Make a dataclass of a table, such as one of a TOML or JSON file.

    where   path of the table; "": the whole file
    known   fields that the caller gives; the table must not
    raises  SettingError
    """
    if not isinstance(table, Mapping):
        raise SettingError(f"{where}: must be a table, is {shown(table)}")
    free = {field.name: field for field in fields(kind) if field.init and field.name not in known}  # type: ignore[arg-type]
    refuse_unknown(table, free, where)
    for name, field in free.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise SettingError(f"{path(where, name)}: is missing")
    hints = get_type_hints(kind)
    values = {name: convert(value, hints[name], path(where, name)) for name, value in table.items()}
    try:
        return kind(**known, **values)
    except SettingError as error:
        raise SettingError(path(where, str(error))) from error


def convert(value: Any, kind: Any, where: str) -> Any:  # noqa: ANN401 - whatever a file has, and any type
    """Return a value as its type says: no text for a number, and no number that is not finite.

    raises  SettingError
    """
    import msgspec  # of the extra: constructors do without it

    tables = [one for one in _alternatives(kind) if isinstance(one, type) and is_dataclass(one)]
    if tables and isinstance(value, Mapping):
        return read(tables[0], value, where)
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _refused(value, kind, where, str(error)) from None
    for number in made if isinstance(made, tuple) else (made,):
        require(not isinstance(number, float) or math.isfinite(number), where, "finite", number)
    return made


def _refused(value: Any, kind: Any, where: str, said: str) -> SettingError:  # noqa: ANN401
    """Say in our words what msgspec found, and where."""
    for index in re.findall(r"\[(\d+)\]", said.partition(" - at ")[2]):
        value, where = value[int(index)], f"{where}[{index}]"
    expected = re.search(r"Expected `([^`]*)`", said)
    words = [] if expected is None else expected[1].split(" | ")
    choices = next((one for one in _alternatives(kind) if _is_enum(one)), None)
    if choices is not None:
        rule = f"one of {', '.join(choices)}"
    else:
        rule = " or ".join(_WORDS.get(word, word) for word in words if word != "null") or "finite"
    return SettingError(f"{where}: must be {rule}, is {shown(value)}")


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _alternatives(kind: Any) -> list[Any]:  # noqa: ANN401 - a type
    if get_origin(kind) in {Union, UnionType}:
        return [one for one in get_args(kind) if one is not NoneType]
    return [kind]


def refuse_unknown(table: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """Raise SettingError for a key of the table that is none of these names."""
    for name in table:
        if name not in names:
            raise SettingError(
                f"{path(where, name)}: is not known, {where or 'the file'} has {', '.join(names)}"
            )


def load(file: Path, what: str) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file, and what it says. Raises SettingError: it is not `what`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return text, tomllib.loads(text)
    except OSError as error:
        raise SettingError(f"{file}: not {what}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{file}: not {what}: {error}") from error


def to_json(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass of settings
    """Return all fields as JSON values, by name in order; `read` makes an equal value of them.

    Equal values give equal bytes, also where one was made with 1 and the other with 1.0.
    """
    hints = get_type_hints(type(value))
    named = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    return {name: _plain(named[name], hints[name]) for name in sorted(named)}


def _plain(value: Any, kind: Any) -> Any:  # noqa: ANN401
    import msgspec

    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple | list):
        inner = get_args(kind)[0] if get_args(kind) else Any
        return [_plain(one, inner) for one in value]
    if type(value) is int and float in _alternatives(kind):
        return float(value)
    return msgspec.to_builtins(value, order="sorted")


def differences(before: Any, now: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON values
    """Say what differs between two trees of JSON values, by path; lists of named things go by their names."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*before, *now)):
            inside = path(where, str(name))
            if name not in now:
                yield f"{inside}: was {shown(before[name])}, is missing"
            elif name not in before:
                yield f"{inside}: was missing, is {shown(now[name])}"
            else:
                yield from differences(before[name], now[name], inside)
    elif isinstance(before, list) and isinstance(now, list):
        yield from _of_lists(before, now, where)
    elif before != now:
        yield f"{where}: was {shown(before)}, is {shown(now)}"


def _of_lists(before: list[Any], now: list[Any], where: str) -> Iterator[str]:
    old, new = _by_name(before), _by_name(now)
    if old is None or new is None:
        if before != now:
            yield f"{where}: was {shown(before)}, is {shown(now)}"
        return
    if any(isinstance(one, Mapping) for one in (*old.values(), *new.values())):
        yield from differences(old, new, where)
    else:
        yield from (f"{where}: {shown(name)} is new" for name in new if name not in old)
        yield from (f"{where}: {shown(name)} is missing" for name in old if name not in new)
    if list(old) != list(new) and old.keys() == new.keys():
        yield f"{where}: are in another order"


def _by_name(values: list[Any]) -> dict[str, Any] | None:
    """Return named tables by their names, and texts by themselves; None: it is a list of something else."""
    if all(isinstance(one, str) for one in values):
        return {one: one for one in values}
    named = all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in values)
    return {one["name"]: one for one in values} if named else None


def defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the defaults by name, for whoever offers settings in another way, such as a command line."""
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def path(where: str, name: str) -> str:
    """Return the path of a key in a table."""
    return f"{where}.{name}" if where else name


def shown(value: object) -> str:
    """Return a value for a message, cut to a line."""
    text = repr(str(value)) if isinstance(value, StrEnum) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def require(fine: bool, name: str, rule: str, value: object) -> None:
    """Raise SettingError unless fine: "name: must be RULE, is VALUE"."""
    if not fine:
        raise SettingError(f"{name}: must be {rule}, is {shown(value)}")


def settle(owner: Any) -> None:  # noqa: ANN401 - any dataclass of settings
    """Make Python's numbers of numpy's in a frozen dataclass: the first thing in its constructor.

    raises  SettingError: a field that must be a number of some kind, and is another or none at all
    """
    kind: Any = type(owner)
    for name, kinds, several, others in _numbers(kind):
        value = getattr(owner, name)
        if several and isinstance(value, tuple | list):
            plain: Any = tuple(_plain_number(one, kinds, f"{name}[{i}]") for i, one in enumerate(value))
        elif isinstance(value, others):
            continue
        else:
            plain = _plain_number(value, kinds, name)
        object.__setattr__(owner, name, plain)


def _plain_number(value: Any, kinds: frozenset[type], name: str) -> Any:  # noqa: ANN401
    plain = value.item() if isinstance(value, np.generic) else value
    fine = type(plain) in kinds or (type(plain) is int and float in kinds)
    fine = fine and plain == plain  # noqa: PLR0124 - which NaN is not
    word = "a number" if float in kinds else "an integer" if int in kinds else "true or false"
    require(fine, name, word, value)
    return plain


@cache
def _numbers(kind: type[Any]) -> tuple[tuple[str, frozenset[type], bool, tuple[type, ...]], ...]:
    """Return the fields that are numbers: name, types, whether there are several, other types."""
    try:
        hints, out = get_type_hints(kind), []
    except NameError:  # of foreign code, whose names are there for a type checker alone
        return ()
    for one in fields(kind):
        hint = hints[one.name]
        several = get_origin(hint) is tuple
        found = [get_args(hint)[0]] if several and get_args(hint) else _alternatives(hint)
        kinds = frozenset(found) & {bool, int, float}
        if kinds and one.init:
            others = [NoneType] if NoneType in get_args(hint) else []
            others += [get_origin(other) or other for other in found if other not in kinds]
            out.append((one.name, kinds, several, tuple(others)))
    return tuple(out)


def positive(owner: object, *names: str) -> None:
    """Require fields that are positive and finite, where they are given."""
    for name in names:
        value = getattr(owner, name)
        require(value is None or 0 < value < math.inf, name, "positive and finite", value)


def at_least(owner: object, least: int, *names: str) -> None:
    """Require fields that are at least so much and finite, where they are given."""
    for name in names:
        value = getattr(owner, name)
        rule = f"finite and at least {least}" if isinstance(value, float) else f"at least {least}"
        require(value is None or least <= value < math.inf, name, rule, value)
