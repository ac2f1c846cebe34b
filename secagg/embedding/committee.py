"""Who opens the sums of the one-upload protocol, over the rounds of an epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from secagg.errors import RegistryError
from secagg.params import MILLION, Entropy, Identity, ThreatModel, require, to_ppm
from secagg.params_oneshot import CommitteeParameters
from secagg.protocol.oneshot import CommitteeView
from secagg.registry import Registry


def colluding_in(cohort: int, corrupt: float) -> int:
    """Return how many of so many clients are taken for colluding, at least 1: each knows its own part."""
    return max(1, -(-to_ppm(corrupt) * cohort // MILLION))


@dataclass(slots=True, kw_only=True)
class Committee:
    """A committee of decryptors, of the nodes that a round asks. One for several rounds, one after the other.

    It is formed by the first round that needs it, in two trips, and anew when it is too old, has lost too
    many members, or a round failed for their sake.

    decryptors    who may be in it, by their names in the registry. Some 8 to 16 that are always there are
                  better than everybody, where there are many nodes: an upload has a part for each
    threat_model  of the committee
    minimum       fewest members
    size          most members
    post_quantum  whether shares are sealed under ML-KEM-768 as well: needs cryptography >= 48 everywhere
    epoch_s       seconds after which another one is formed
    colluding     clients that collude with the server, at most; 0: as many of a round's `minimum_cohort` as
                  the threat model takes for corrupt
    raises        ParameterError
    """

    decryptors: Collection[str] | Literal["all"] = "all"
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    minimum: int = 4
    size: int = 256
    post_quantum: bool = True
    epoch_s: float = 86_400.0
    colluding: int = 0
    entropy: Entropy = field(default=os.urandom, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    certificate: bytes = field(default=b"", init=False, repr=False)
    view: CommitteeView | None = field(default=None, init=False, repr=False)
    nodes: dict[Identity, Any] = field(default_factory=dict, init=False, repr=False)  # of the members
    _formed: float = field(default=0.0, init=False, repr=False)
    _lost: set[Identity] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        require(self.epoch_s > 0, "epoch_s", "above 0", self.epoch_s)
        names = self.decryptors == "all" or not isinstance(self.decryptors, str)
        require(names, "decryptors", "names, or 'all'", self.decryptors)
        self.parameters()

    def parameters(self) -> CommitteeParameters:
        """Return the parameters of a fresh epoch."""
        return CommitteeParameters(
            epoch_id=self.entropy(16),
            threat_model=self.threat_model,
            minimum_candidates=self.minimum,
            minimum_committee=self.minimum,
            committee_size=self.size,
            post_quantum=self.post_quantum,
        )

    def candidates(self, registry: Registry) -> frozenset[Identity]:
        """Return who may be a member. Raises RegistryError: one is not enrolled; ParameterError: too few."""
        try:
            found = registry.identities if self.decryptors == "all" else registry.named(self.decryptors)
        except RegistryError as error:
            raise RegistryError(f"Committee.decryptors: {error}") from error
        require(
            len(found) >= self.minimum,
            "Committee.decryptors",
            f"at least Committee.minimum = {self.minimum} of the registry",
            len(found),
        )
        return found

    def formed(self, certificate: bytes, view: CommitteeView, nodes: Mapping[Identity, Any]) -> None:
        """Begin an epoch. nodes: of the members, by the host's ids."""
        self.certificate, self.view = certificate, view
        self.nodes = {one: nodes[one] for one in view.members if one in nodes}
        self._formed, self._lost = self.clock(), set()

    def serves(self, nodes: Collection[Any], admitted: Collection[Identity] | None = None) -> bool:
        """Whether it can open the sum of a round over these nodes, and may lose some of them.

        admitted  who has a part; None: everybody
        """
        if self.view is None or self.clock() - self._formed >= self.epoch_s:
            return False
        asked, members = frozenset(nodes), self.view.members
        away = {one for one in members if self.nodes.get(one) not in asked}
        away |= set() if admitted is None else set(members) - set(admitted)
        return len(away | self._lost) <= self.view.numbers.dropouts // 2

    def lost(self, member: Identity) -> None:
        """Note that a member did not answer: what it may lose it may lose over the whole epoch."""
        self._lost.add(member)

    def renew(self) -> None:
        """Form another one in the next round."""
        self.view = None
