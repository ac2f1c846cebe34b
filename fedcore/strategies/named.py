"""Strategies by name, as [strategy] of a file chooses them; their options are the fields of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcore.errors import SettingError
from fedcore.foreign import call_named
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.settings import convert, read, refuse_unknown, require, to_json
from fedcore.strategies import STRATEGIES, Scaffold, Strategy

USUAL = "FedAvg"
_ASKED = ("weighting", "update", "shared", "personal")


def read_strategy(table: Mapping[str, Any], *, clients: int, private: bool) -> Strategy:
    """Make the strategy for so many sites; with noise, sites count uniformly.

    table   [strategy]: `name`, one of STRATEGIES, and its own options beside it; or "module:name" of a
            Strategy, beside the file or installed, which is called with `ask` and the options in
            [strategy.options]. With either: `weighting`, `update`, and patterns of the parameters that are
            `shared` or `personal`
    raises  SettingError
    """
    name = convert(table.get("name", USUAL), str, "strategy.name")
    foreign = ":" in name
    fine = foreign or name in STRATEGIES
    require(fine, "strategy.name", f"one of {', '.join(STRATEGIES)}, module:name", name)
    asked = {key: table[key] for key in _ASKED if key in table}
    own = {key: value for key, value in table.items() if key not in {"name", *_ASKED}}
    if foreign:
        refuse_unknown(own, ("options",), "strategy")
    elif STRATEGIES[name] is Scaffold:
        own.setdefault("sites", clients)
    usual = {"weighting": Weighting.UNIFORM} if private else {}
    ask = read(Asks, usual | asked, "strategy")
    if private:
        require(
            ask.weighting is Weighting.UNIFORM, "strategy.weighting", "uniform with [privacy]", ask.weighting
        )
    if foreign:
        options = convert(own.get("options", {}), dict[str, Any], "strategy.options")
        if "ask" in options:
            raise SettingError("strategy.options.ask: is said by weighting, update, shared and personal")
        made = _own(name, {"ask": ask, **options})
    else:
        made = read(STRATEGIES[name], own, "strategy", {"ask": ask})
    used = made.asks().weighting
    fine = "weighting" not in asked or used is ask.weighting
    require(fine, "strategy.weighting", f"{used} with {name}", ask.weighting)
    return made


def strategy_json(strategy: Strategy) -> dict[str, Any]:
    """Return a strategy's name and fields, defaults included, as JSON values.

    Of foreign code this may not be all: an agreement also has its options and its digest.
    raises  SettingError: a field of foreign code that is no setting
    """
    kind = type(strategy)
    name = kind.__name__ if kind in STRATEGIES.values() else f"{kind.__module__}:{kind.__qualname__}"
    try:
        return {"name": name, **to_json(strategy)}
    except TypeError as error:
        raise SettingError(f"strategy.name: {name} must have settings only as its fields: {error}") from error


def _own(name: str, arguments: dict[str, Any]) -> Strategy:
    made = call_named(name, "strategy.name", arguments)
    if not isinstance(made, Strategy) or type(made).step is Strategy.step:
        fault = "has no step" if isinstance(made, Strategy) else "is no fedcore.Strategy"
        raise SettingError(f"strategy.name: {name} makes a {type(made).__name__}, which {fault}")
    return made
