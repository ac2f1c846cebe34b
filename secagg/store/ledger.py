"""A record of who was summed with whom, against differencing, repeated vectors and too many rounds.

A client's ledger protects it and its peers: it is asked before a vector leaves, and records what is signed
before the signature leaves; a signed set must be presumed summed. A server's is of the same kind, and says
what the clients would refuse. The rule for several sums about one subject, with its argument, is in
`secagg.store.rule`. What the ledger cannot know is whether vectors of two subjects are alike: the caller
derives subjects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from secagg.params import DIGEST_BYTES, require
from secagg.store.advice import Advice, advise
from secagg.store.concerns import Concern, ConcernKind, LedgerError, Reaction
from secagg.store.deal import Members
from secagg.store.rule import Cohort, Past, objections
from secagg.store.store import Store

DAY_S = 86_400
_COHORTS, _SUMS, _OPEN, _TIMES = (f"ledger/{name}/" for name in ("cohorts", "sums", "open", "times"))
_NAME_BYTES, _TIME_BYTES, _FLOOR_BYTES = 32, 8, 4
_OPENED, _SPENT = b"\1", b"\2"  # of an upload: summed if its client signs; without it


@dataclass(frozen=True, slots=True)
class Participation:
    """A sum that a client is in."""

    round_id: bytes
    subject: bytes
    members: frozenset[bytes]


class ParticipationLedger:
    """Keeps who joined about what, what was signed, and what came out.

    floor           fewest members that may be told apart, whatever a call asks for; see `floor_for`
    differencing    what to do about sums that could be put together to show fewer, and
    repeats         about vectors that may have been summed before: "refuse" (raise) or "warn" (return)
    rounds_per_day  most rounds of a client in 24 hours; None: any number

    A subject names a kind of question about the same data, 32 bytes, the same for everybody who is asked;
    by default it is the context of a round. Clients are identities, 32 bytes. Times are seconds since 1970,
    given by the caller. Durable as far as its store is; may be used from several threads.
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

    def join(self, subject: bytes, *, cohort: Collection[bytes] | None, floor: int) -> tuple[Concern, ...]:
        """Settle, for good, among whom a subject is summed; before every upload about it.

        cohort  everybody who may be in a sum, the same for all whose vectors are; None: there is one sum, or
                the same members every time
        floor   fewest members of a cell, the same for all: `floor_for` the cohort

        raises  LedgerError when something else was settled, or the cells are too small for us
        """
        with self._store.transaction():
            settled = self._store.get(_COHORTS + _subject(subject))
            wanted = b"" if cohort is None else _pack(Cohort(frozenset(cohort), floor))
            if cohort is not None and not self._floor <= floor <= len(set(cohort)):
                detail = f"cells of {floor} of {len(set(cohort))} members: at least {self._floor} are needed"
            elif settled is not None and settled != wanted:
                detail = f"{_words(settled)} was settled before the first upload, now it is {_words(wanted)}"
            else:
                if settled is None:
                    self._store.put({_COHORTS + subject.hex(): wanted})
                return ()
            return self._react(self._differencing, Concern(ConcernKind.COHORT, (), detail))

    def cohort(self, subject: bytes) -> Members | None:
        """Return among whom a subject is summed in whole cells; None: nothing was settled, or no cohort."""
        settled = self._store.get(_COHORTS + _subject(subject))
        return _unpack(settled).members if settled else None

    def cells(self, subject: bytes) -> tuple[Members, ...]:
        """Return the cells that a subject is summed in; nothing where it has no cohort."""
        return self._past(subject).cells()

    def check_clients(self, subject: bytes, clients: Collection[bytes]) -> tuple[Concern, ...]:
        """Object to clients whose vector about this subject went into a round without result; LedgerError.

        One that was spent is refused whatever `repeats` says: the sum that it may be in nobody here signed.
        """
        open_: dict[str, set[bytes | None]] = {}
        for name in self._store.names(f"{_OPEN}{subject.hex()}/"):
            open_.setdefault(name.split("/")[-2], set()).add(self._store.get(name))
        found = sorted(client for client in clients if client.hex() in open_)
        if not found:
            return ()
        spent = [client for client in found if _SPENT in open_[client.hex()]]
        if spent:
            detail = f"{len(spent)} clients uploaded about this subject, once for all"
            raise LedgerError([Concern(ConcernKind.REPEATED, tuple(spent), detail)])
        detail = f"{len(found)} clients uploaded about this subject before, and no sum came out"
        return self._react(self._repeats, Concern(ConcernKind.REPEATED, tuple(found), detail))

    def told(self, subject: bytes, client: bytes) -> bool:
        """Return whether a client's vector about this subject went into any round, summed or not."""
        if any(self._store.names(f"{_OPEN}{_subject(subject)}/{client.hex()}/")):
            return True
        return any(client in members for _, members in self._sums(subject))

    def too_often(self, clients: Iterable[bytes], now_s: float) -> tuple[Concern, ...]:
        """Object to clients that took part in as many rounds of the last 24 hours as are allowed."""
        if self._rounds_per_day is None:
            return ()
        found = sorted(c for c in clients if len(self._times(c, now_s)) >= self._rounds_per_day)
        if not found:
            return ()
        detail = f"{len(found)} clients were in {self._rounds_per_day} rounds in the last 24 hours"
        return (Concern(ConcernKind.TOO_OFTEN, tuple(found), detail),)

    def advice(self, subject: bytes, candidates: Collection[bytes], *, floor: int) -> Advice:
        """Return the largest set of these over which a sum is allowed, or that one must wait."""
        return advise(self._past(subject), frozenset(candidates), max(floor, self._floor))

    # --- during a round

    def uploaded(self, subject: bytes, round_id: bytes, client: bytes, now_s: float) -> None:
        """Keep that a vector is on its way into a sum; until `released` it must be presumed summed."""
        self._put_upload(subject, round_id, client, now_s, _OPENED)

    def submit(self, subject: bytes, round_id: bytes, client: bytes, now_s: float) -> None:
        """Keep that our own vector is on its way into a sum, as `uploaded`, unless it was spent meanwhile.

        raises  LedgerError: it was, and is in a sum that we did not sign; nothing is kept
        """
        with self._store.transaction():
            names = self._store.names(f"{_OPEN}{_subject(subject)}/{client.hex()}/")
            if any(self._store.get(name) == _SPENT for name in list(names)):
                detail = "a vector about this subject was uploaded once for all while this one was made"
                raise LedgerError([Concern(ConcernKind.REPEATED, (client,), detail)])
            self._put_upload(subject, round_id, client, now_s, _OPENED)

    def spend(
        self, subject: bytes, round_id: bytes, client: bytes, now_s: float, *, again: bool = False
    ) -> None:
        """Keep that a vector leaves in the one-upload protocol: summed with whom, its client never learns.

        again   although it, or another one about the subject, was in a round before
        raises  LedgerError: it was, and must be presumed summed; nothing is kept
        """
        with self._store.transaction():
            if not again and self.told(subject, client):
                detail = "a vector about this subject was uploaded before, and must be presumed summed"
                raise LedgerError([Concern(ConcernKind.REPEATED, (client,), detail)])
            self._put_upload(subject, round_id, client, now_s, _SPENT)

    def _put_upload(self, subject: bytes, round_id: bytes, client: bytes, now_s: float, kind: bytes) -> None:
        with self._store.transaction():
            times = [*self._times(client, now_s), int(now_s)]
            packed = b"".join(t.to_bytes(_TIME_BYTES, "big") for t in times)
            self._settle(subject)
            self._store.put({_open(subject, client, round_id): kind, _TIMES + client.hex(): packed})

    def check_sum(
        self, subject: bytes, members: Collection[bytes], *, floor: int, same: bool = False
    ) -> tuple[Concern, ...]:
        """Object to a sum over these members where it may not come out beside the earlier ones.

        floor   A + 2 of the round's roster
        same    whether only the members of the earlier sums are right: passes over one update

        raises  LedgerError
        """
        found = objections(self._past(subject), frozenset(members), max(floor, self._floor), same=same)
        return self._react(self._differencing, *found)

    def signed(self, subject: bytes, round_id: bytes, members: Collection[bytes]) -> None:
        """Keep a set whose signature is about to leave: the sum over it must be presumed opened."""
        with self._store.transaction():
            self._settle(subject)
            packed = b"".join(sorted(set(members)))
            self._store.put({_sum(subject, round_id, packed): packed})

    def sign(
        self, subject: bytes, round_id: bytes, members: Collection[bytes], *, floor: int, same: bool = False
    ) -> tuple[Concern, ...]:
        """`check_sum` and `signed` in one step: of two rounds at once, the second sees the first.

        raises  LedgerError, and nothing is kept; StoreError
        """
        with self._store.transaction():
            concerns = self.check_sum(subject, members, floor=floor, same=same)
            self.signed(subject, round_id, members)
            return concerns

    # --- after a round

    def released(self, subject: bytes, round_id: bytes, members: Collection[bytes]) -> None:
        """Keep a sum that came out, before anybody sees it; its vectors are no longer open."""
        with self._store.transaction():
            self.signed(subject, round_id, members)
            self._store.put({_open(subject, client, round_id): None for client in members})

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

    def _settle(self, subject: bytes) -> None:
        """Note that a vector or a signature leaves: without a cohort by now, the subject has none."""
        if self._store.get(_COHORTS + _subject(subject)) is None:
            self._store.put({_COHORTS + subject.hex(): b""})

    def _past(self, subject: bytes) -> Past:
        settled = self._store.get(_COHORTS + _subject(subject))
        return Past(subject, _unpack(settled) if settled else None, tuple(self._sums(subject)))

    def _sums(self, subject: bytes) -> Iterable[tuple[bytes, Members]]:
        for name in self._store.names(f"{_SUMS}{subject.hex()}/"):
            yield bytes.fromhex(name.split("/")[3]), _split(self._store.get(name) or b"")

    def _times(self, client: bytes, now_s: float) -> list[int]:
        packed = self._store.get(_TIMES + client.hex()) or b""
        times = (packed[at : at + _TIME_BYTES] for at in range(0, len(packed), _TIME_BYTES))
        return [t for t in (int.from_bytes(raw, "big") for raw in times) if t > now_s - DAY_S]


def _subject(subject: bytes) -> str:
    require(len(subject) == DIGEST_BYTES, "subject", f"{DIGEST_BYTES} bytes", len(subject))
    return subject.hex()


def _open(subject: bytes, client: bytes, round_id: bytes) -> str:
    return f"{_OPEN}{subject.hex()}/{client.hex()}/{round_id.hex()}"


def _sum(subject: bytes, round_id: bytes, packed: bytes) -> str:
    """Name the sum of a round by its members, too: a client told a wrong set keeps both."""
    return f"{_SUMS}{subject.hex()}/{round_id.hex()}/{hashlib.sha256(packed).hexdigest()[:16]}"


def _split(packed: bytes) -> Members:
    return frozenset(packed[at : at + _NAME_BYTES] for at in range(0, len(packed), _NAME_BYTES))


def _pack(cohort: Cohort) -> bytes:
    return cohort.floor.to_bytes(_FLOOR_BYTES, "big") + b"".join(sorted(cohort.members))


def _unpack(packed: bytes) -> Cohort:
    return Cohort(_split(packed[_FLOOR_BYTES:]), int.from_bytes(packed[:_FLOOR_BYTES], "big"))


def _words(settled: bytes) -> str:
    if not settled:
        return "no cohort"
    cohort = _unpack(settled)
    return f"a cohort of {len(cohort.members)} in cells of {cohort.floor}"
