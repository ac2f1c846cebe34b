"""Drop-outs by training round: drawn from the seed, the same for every mode."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore.experiments.tables import DropoutTable
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.stream import choose, derive
from secagg import ThreatModel

_DEFAULT = ThreatModel()
_FEWEST = 4  # sites of a sum that can do without one


def absences(dropout: DropoutTable, plan: TrainingPlan, names: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return who vanishes, by the name of the round's task. Names ascend."""
    out = {}
    for number in range(dropout.every, plan.rounds + 1, dropout.every):
        cohort = plan.cohort_of(names, number)
        seed = plan.round_seed(number, "dropout")
        count = _count(dropout, len(cohort), derive(seed, "fraction"))
        if count:
            gone = choose(derive(seed, "sites"), len(cohort), count)
            out[f"{TaskKind.TRAIN} {number}"] = frozenset(cohort[i] for i in gone)
    return out


def _count(dropout: DropoutTable, sites: int, seed: bytes) -> int:
    """Sites that vanish: the share in whole sites, and one more with the probability of the rest."""
    if dropout.per_round:
        return min(dropout.per_round, sites)
    whole, rest = divmod(dropout.rate * sites + 1e-9, 1.0)
    return int(whole) + (int.from_bytes(seed[:8], "big") < rest * 2**64 and rest > 1e-8)


def threat_model(dropout: DropoutTable, sites: int) -> ThreatModel:
    """Return a threat model under which rounds with these dropouts have a result."""
    if sites < _FEWEST:
        return ThreatModel(dropout=0.0)
    ppm = dropout.most(sites) * 1_000_000 // sites  # rates are rounded up: a third of six is two
    return ThreatModel(dropout=max(_DEFAULT.dropout, ppm / 1_000_000))
