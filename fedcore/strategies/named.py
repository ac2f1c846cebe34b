"""Strategies by name, as [strategy] of a file chooses them; their options are the fields of their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcore.rounds.instructions import Asks, Weighting
from fedcore.settings import convert, read, require, to_json
from fedcore.strategies import STRATEGIES, Scaffold, Strategy

USUAL = "FedAvg"


def read_strategy(table: Mapping[str, Any], *, clients: int, private: bool) -> Strategy:
    """Make the strategy for so many sites; with noise, sites count uniformly.

    table   [strategy]: `name`, one of STRATEGIES, `weighting`, `update`, and its own options beside them
    raises  SettingError
    """
    name = convert(table.get("name", USUAL), str, "strategy.name")
    require(name in STRATEGIES, "strategy.name", f"one of {', '.join(STRATEGIES)}", name)
    asked = {key: table[key] for key in ("weighting", "update") if key in table}
    own = {key: value for key, value in table.items() if key not in {"name", "weighting", "update"}}
    if STRATEGIES[name] is Scaffold:
        own.setdefault("sites", clients)
    usual = {"weighting": Weighting.UNIFORM} if private else {}
    ask = read(Asks, usual | asked, "strategy")
    if private:
        require(
            ask.weighting is Weighting.UNIFORM, "strategy.weighting", "uniform with [privacy]", ask.weighting
        )
    made = read(STRATEGIES[name], own, "strategy", {"ask": ask})
    used = made.asks().weighting
    fine = "weighting" not in asked or used is ask.weighting
    require(fine, "strategy.weighting", f"{used} with {name}", ask.weighting)
    return made


def strategy_json(strategy: Strategy) -> dict[str, Any]:
    """Return a strategy's name and fields, defaults included, as JSON values; of foreign code its name."""
    kind = type(strategy)
    if kind not in STRATEGIES.values():
        return {"name": f"{kind.__module__}:{kind.__qualname__}"}
    return {"name": kind.__name__, **to_json(strategy)}
