"""Sites that attack: `fedcore.adversaries.sites.ATTACKS` makes them of honest ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcore.adversaries.sites import ATTACKS
from fedcore.errors import SettingError
from fedcore.experiments.tables import AttackTable
from fedcore.rounds.site import Site
from fedcore.settings import require
from fedcore.stream import choose, derive
from secagg import ParameterError


def attackers(table: AttackTable | None, names: list[str], seed: int) -> frozenset[str]:
    """Return the sites that attack: the share of them, at least one, drawn from the seed."""
    if table is None:
        return frozenset()
    count = min(len(names), max(1, round(table.share * len(names))))
    drawn = choose(derive(seed.to_bytes(32, "big"), "attackers"), len(names), count)
    return frozenset(names[i] for i in drawn)


def with_attack(sites: Mapping[str, Site], table: AttackTable | None, seed: int) -> dict[str, Site]:
    """Replace the attackers. Raises SettingError: a kind or an option that is not known."""
    out = dict(sites)
    if table is None:
        return out
    make = attack_of(table)
    for name in sorted(attackers(table, sorted(sites), seed)):
        try:
            out[name] = make(sites[name], **table.options)
        except ParameterError as error:
            raise SettingError(f"attack.options.{error}") from error
        except (TypeError, ValueError) as error:
            raise SettingError(f"attack.options: {table.kind} cannot be made: {error}") from error
    return out


def attack_of(table: AttackTable) -> Any:  # noqa: ANN401 - a callable that makes something like a Site
    """Return what makes an attacker of a site. Raises SettingError."""
    require(table.kind in ATTACKS, "attack.kind", f"one of {', '.join(ATTACKS)}", table.kind)
    return ATTACKS[table.kind]
