"""Who was summed with whom: against differencing, repeated vectors and too many rounds.

Two sums over nearly the same members give away the difference; a vector that went into a round without
result must be presumed summed, so that submitting it again is a second sum over it. The ledger compares
pairs of sums about one subject. It does not know whether vectors of different subjects are alike, nor what
combinations of three sums or more reveal: that is the business of differential privacy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from secagg.errors import SecAggError
from secagg.params import require
from secagg.store.store import Store

Reaction: TypeAlias = Literal["refuse", "warn"]

DAY_S = 86_400
_SUMS, _OPEN, _TIMES = (f"ledger/{name}/" for name in ("sums", "open", "times"))
_NAME_BYTES, _TIME_BYTES = 32, 8


class ConcernKind(StrEnum):
    """What the ledger watches for."""

    DIFFERENCING = "two sums differ by too few members"
    REPEATED = "a vector of a round without result is submitted again"
    TOO_OFTEN = "too many rounds in a day"


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that should not be summed."""

    kind: ConcernKind
    clients: tuple[bytes, ...]  # in whose interest it is, ascending
    detail: str


class LedgerError(SecAggError):
    """The ledger refuses; `concerns` say why."""

    def __init__(self, concerns: Collection[Concern]) -> None:
        self.concerns = tuple(concerns)
        super().__init__("; ".join(f"{concern.kind}: {concern.detail}" for concern in self.concerns))


@dataclass(frozen=True, slots=True)
class Participation:
    """A sum that a client is in."""

    round_id: bytes
    subject: bytes
    members: frozenset[bytes]


class ParticipationLedger:
    """Keeps, per client, the cohorts that it was summed in.

    floor           fewest members by which two different sums about one subject may differ; 1: any
    differencing    what to do about sums that differ by fewer, and
    repeats         about vectors that may have been summed before: "refuse" (raise) or "warn" (return)
    rounds_per_day  most rounds of a client in 24 hours; None: any number

    A subject is what the vectors are about, 32 bytes: as a rule the context of the rounds. Clients are
    identities, 32 bytes. Times are seconds since 1970, given by the caller.
    """

    def __init__(
        self,
        store: Store,
        *,
        floor: int = 2,
        differencing: Reaction = "refuse",
        repeats: Reaction = "warn",
        rounds_per_day: int | None = None,
    ) -> None:
        require(floor >= 1, "floor", "at least 1", floor)
        for name, reaction in (("differencing", differencing), ("repeats", repeats)):
            require(reaction in {"refuse", "warn"}, name, "'refuse' or 'warn'", reaction)
        if rounds_per_day is not None:
            require(rounds_per_day >= 1, "rounds_per_day", "at least 1", rounds_per_day)
        self._store = store
        self._floor = floor
        self._differencing = differencing
        self._repeats = repeats
        self._rounds_per_day = rounds_per_day

    # --- before a round

    def check_clients(self, subject: bytes, clients: Collection[bytes]) -> tuple[Concern, ...]:
        """Whose vector about this subject went into a round without result. Raises LedgerError."""
        known = {name.split("/")[-2] for name in self._store.names(f"{_OPEN}{subject.hex()}/")}
        found = sorted(client for client in clients if client.hex() in known)
        if not found:
            return ()
        detail = f"{len(found)} clients uploaded about this subject before, and no sum came out"
        return self._react(self._repeats, Concern(ConcernKind.REPEATED, tuple(found), detail))

    def too_often(self, clients: Iterable[bytes], now_s: float) -> tuple[Concern, ...]:
        """Who has taken part in as many rounds of the last 24 hours as are allowed."""
        if self._rounds_per_day is None:
            return ()
        found = sorted(c for c in clients if len(self._times(c, now_s)) >= self._rounds_per_day)
        if not found:
            return ()
        detail = f"{len(found)} clients were in {self._rounds_per_day} rounds in the last 24 hours"
        return (Concern(ConcernKind.TOO_OFTEN, tuple(found), detail),)

    # --- during a round

    def uploaded(self, subject: bytes, round_id: bytes, client: bytes, now_s: float) -> None:
        """Keep that a vector is on its way into a sum; until `released` it must be presumed summed."""
        times = [*self._times(client, now_s), int(now_s)]
        self._store.put(
            {
                _open(subject, client, round_id): b"\1",
                _TIMES + client.hex(): b"".join(t.to_bytes(_TIME_BYTES, "big") for t in times),
            }
        )

    def check_sum(self, subject: bytes, members: Collection[bytes]) -> tuple[Concern, ...]:
        """Whether a sum over these members, with another one that was released, shows too few of them.

        raises  LedgerError
        """
        concerns = []
        for round_id, others in self._sums(subject):
            apart = others.symmetric_difference(members)
            if 0 < len(apart) < self._floor:
                detail = (
                    f"differs from the sum of round {round_id.hex()} by {len(apart)} members, "
                    f"at least {self._floor} are needed"
                )
                concerns.append(Concern(ConcernKind.DIFFERENCING, tuple(sorted(apart)), detail))
        return self._react(self._differencing, *concerns)

    # --- after a round

    def released(self, subject: bytes, round_id: bytes, members: Collection[bytes]) -> None:
        """Keep a sum that came out, before anybody sees it."""
        values: dict[str, bytes | None] = {
            f"{_SUMS}{subject.hex()}/{round_id.hex()}": b"".join(sorted(members))
        }
        values |= {_open(subject, client, round_id): None for client in members}
        self._store.put(values)

    def participations(self, client: bytes) -> tuple[Participation, ...]:
        """Return the sums that a client is in, by round id; looks at every sum that was kept."""
        out = []
        for subject in sorted({name.split("/")[2] for name in self._store.names(_SUMS)}):
            for round_id, members in self._sums(bytes.fromhex(subject)):
                if client in members:
                    out.append(Participation(round_id, bytes.fromhex(subject), members))
        return tuple(sorted(out, key=lambda one: one.round_id))

    def _react(self, reaction: Reaction, *concerns: Concern) -> tuple[Concern, ...]:
        if concerns and reaction == "refuse":
            raise LedgerError(concerns)
        return concerns

    def _sums(self, subject: bytes) -> Iterable[tuple[bytes, frozenset[bytes]]]:
        for name in self._store.names(f"{_SUMS}{subject.hex()}/"):
            packed = self._store.get(name) or b""
            members = (packed[at : at + _NAME_BYTES] for at in range(0, len(packed), _NAME_BYTES))
            yield bytes.fromhex(name.rsplit("/", 1)[1]), frozenset(members)

    def _times(self, client: bytes, now_s: float) -> list[int]:
        packed = self._store.get(_TIMES + client.hex()) or b""
        times = (packed[at : at + _TIME_BYTES] for at in range(0, len(packed), _TIME_BYTES))
        return [t for t in (int.from_bytes(raw, "big") for raw in times) if t > now_s - DAY_S]


def _open(subject: bytes, client: bytes, round_id: bytes) -> str:
    return f"{_OPEN}{subject.hex()}/{client.hex()}/{round_id.hex()}"
