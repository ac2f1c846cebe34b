"""Advice to a server: the largest set among those present that the rule allows to sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from secagg.store.deal import Members, whole_cells
from secagg.store.rule import Past


@dataclass(frozen=True, slots=True)
class Advice:
    """The clients to sum over now; none: wait.

    members   the largest set that is allowed
    left_out  who is here and must not be in it, ascending
    missing   who is not here; as they come back, more is allowed, ascending
    """

    members: Members
    left_out: tuple[bytes, ...]
    missing: tuple[bytes, ...]

    @property
    def wait(self) -> bool:
        """Nothing may be summed now."""
        return not self.members

    def sentence(self, name_of: Callable[[bytes], str] = lambda client: client.hex()[:8]) -> str:
        """Say it, with names."""

        def listed(clients: Iterable[bytes]) -> str:
            return ", ".join(sorted(map(name_of, clients)))

        away = f"; not here: {listed(self.missing)}" if self.missing else ""
        if self.wait:
            return f"wait: no sum about this subject is allowed with those who are here{away}"
        without = f", without {listed(self.left_out)}" if self.left_out else ""
        return f"sum over {len(self.members)} members{without}{away}"


def advise(past: Past, candidates: Members, floor: int) -> Advice:
    """Return the largest set of candidates over which a sum about the subject is allowed."""
    if past.cohort is not None:
        fits = floor <= past.cohort.floor
        best = whole_cells(past.cells(), candidates) if fits else frozenset()
        return _advice(best, candidates, past.cohort.members - candidates)
    earlier = {others for _, others in past.sums}
    fresh = candidates.difference(*earlier)  # shares nobody with an earlier sum
    best = max(
        (one for one in (fresh, *sorted(earlier, key=sorted)) if one <= candidates and len(one) >= floor),
        key=len,
        default=frozenset(),
    )
    wanted = max(earlier, key=lambda one: (len(one & candidates), sorted(one)), default=frozenset())
    return _advice(best, candidates, frozenset() if best else wanted - candidates)


def _advice(members: Members, candidates: Members, missing: Members) -> Advice:
    return Advice(members, tuple(sorted(candidates - members)), tuple(sorted(missing)))
