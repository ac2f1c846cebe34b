"""Sites that attack: for research, and for tests of what bounds them.

Secure aggregation stops none of these: a wrong vector under a mask is a wrong vector, and the sum is then
wrong without a sign of it. It also hides who sent it. What is left is to bound the damage:

- the codec clips every coordinate at the site, so one that runs the real software moves a coordinate of
  the mean by at most its share of the weight times the clip. Rows that are wrong (label flips, backdoors)
  pass: their updates look like others.
- the norm of `Shaping` does the same for the length of the whole vector, which is less by up to sqrt(d).
  Sites apply it themselves: `ignores_norm` is an attacker that does not, and only the codec is left.
- both bind only who uses the codec. `OutOfRange` writes ring elements of its own; then the bound is what
  the ring can hold, as if every site of the plan had sent the clip. Proofs of range are not part of this
  library.
- weights are claimed, not proven: with `boasts` a site counts as much as the cap allows. Uniform weights
  take that from it, but for the geometric median, whose weights by distance are the sites' own word.
- FedMedian and FedTrimmedMean bear any vector, also one that is out of range, as long as the groups with
  a bad site are a minority (or at most `trim`). They do little against a small push that hides in the
  spread of the honest groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np

from fedcore.adversaries.attacks import (
    Attack,
    Backdoor,
    Constant,
    Gaussian,
    LabelFlip,
    OutOfRange,
    Scaling,
    SignFlip,
    Vector,
)
from fedcore.learner import flatten
from fedcore.rounds.instructions import UpdateKind, sent
from fedcore.rounds.local_training import SiteState, Update, starting_point
from fedcore.rounds.questions import TaskKind, Train
from fedcore.rounds.site import Contribution, Site, whole
from fedcore.rounds.task import Task
from secagg import ParameterError
from secagg.kernels import UIntArray

__all__ = [
    "ATTACKS",
    "Attack",
    "Attacker",
    "Backdoor",
    "Constant",
    "Gaussian",
    "LabelFlip",
    "OutOfRange",
    "Scaling",
    "SignFlip",
    "corrupt",
    "corrupt_some",
]


@dataclass(slots=True)
class Attacker(Site):
    """A site under an attack. It keeps to the protocol's messages, and to honest statistics and metrics.

    Make one by `corrupt` or `ATTACKS`: its table is the poisoned one.
    """

    attack: Attack = field(default_factory=Attack)

    def answer(self, task: Task) -> UIntArray:
        """Return the attack's vector, (task.encoding.length,). Raises TaskError, CodecError."""
        if task.kind is not TaskKind.TRAIN:
            return whole(super(Attacker, self).answer(task), task)
        if self.attack.ignores_norm:
            real = self.compute(task)
            seed = self._randomness(task, "rounding")
            encoded = task.encoding.codec.encode(real.coordinates, real.weight, seed, real.precise)
        else:
            encoded = whole(super(Attacker, self).answer(task), task)
        return self.attack.on_the_wire(encoded, task)

    def accept(self, task: Task) -> Callable[[], Contribution]:
        """Return what computes the vector before anything on the wire. Raises TaskError."""
        if task.kind is not TaskKind.TRAIN:
            return super(Attacker, self).accept(task)
        if self.attack.ignores_norm:
            free = replace(task.encoding, shaping=replace(task.encoding.shaping, norm=None))
            task = replace(task, encoding=free)
        compute, cap = super(Attacker, self).accept(task), task.encoding.codec.weight_cap
        return lambda: replace(compute(), weight=cap) if self.attack.boasts else compute()

    def _update(self, task: Task, train: Callable[[Any, int, str], Update], state: SiteState) -> Update:
        """Train on what the table has become, then change the vector; later passes send the same."""
        update = super(Attacker, self)._update(task, train, state)
        if task.question.passes or not isinstance(task.question, Train):
            return update
        rng = np.random.default_rng(np.frombuffer(self._randomness(task, "attack"), np.uint32))
        start: Vector | float = 0.0
        asks = task.encoding.asks
        if asks.update is UpdateKind.WEIGHTS:
            start = flatten(sent(starting_point(self.learner, task.question.model, asks, state), asks))
        honest = update.values.astype(np.float64, copy=False)  # attacks know no other type
        changed = replace(update, values=start + self.attack.vector(honest - start, rng))
        if asks.smoothing:
            state.update = (task.name, changed)
        return changed


def corrupt(site: Site, attack: Attack) -> Attacker:
    """Return the site under an attack: same name, learner and seed; metrics come from its honest rows.

    It starts with no state, and keeps no account of its privacy.

    raises  ParameterError
    """
    classes = None if site.schema is None else len(site.schema.classes)
    seed = None if site.seed is None else [abs(site.seed), *site.name.encode()]
    rows = attack.poisoned(site.table, classes, np.random.default_rng(seed))
    held_out = site.table if site.held_out is None else site.held_out
    return Attacker(
        site.name, rows, site.schema, site.learner, seed=site.seed, held_out=held_out, attack=attack
    )


def corrupt_some(sites: Mapping[str, Site], names: Iterable[str], attack: Attack) -> dict[str, Site]:
    """Return all sites, those of these names under the attack. Raises ParameterError."""
    bad = set(names)
    if unknown := bad - sites.keys():
        raise ParameterError(f"names: {min(unknown)} is not a site")
    return {name: corrupt(site, attack) if name in bad else site for name, site in sites.items()}


def _make(name: str, kind: type[Attack], site: Site, **options: Any) -> Attacker:  # noqa: ANN401
    """Return the site under an attack of this kind. Raises ParameterError."""
    known = {one.name: one for one in fields(kind)}
    if unknown := options.keys() - known.keys():
        raise ParameterError(f"{min(unknown)}: no option of {name}, which has {', '.join(sorted(known))}")
    for option, one in known.items():
        if option not in options and one.default is MISSING and one.default_factory is MISSING:
            raise ParameterError(f"{option}: {name} needs it")
    return corrupt(site, kind(**options))


ATTACKS: dict[str, Callable[..., Attacker]] = {
    "label_flip": partial(_make, "label_flip", LabelFlip),
    "sign_flip": partial(_make, "sign_flip", SignFlip),
    "scaling": partial(_make, "scaling", Scaling),
    "gaussian": partial(_make, "gaussian", Gaussian),
    "backdoor": partial(_make, "backdoor", Backdoor),
    "constant": partial(_make, "constant", Constant),
    "out_of_range": partial(_make, "out_of_range", OutOfRange),
}
"""Attacks by name: called with a site and the options of the attack, each gives an `Attacker`."""
