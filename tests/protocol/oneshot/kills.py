"""Parties of a round as processes that are killed: `python -m tests.protocol.oneshot.kills FOLDER PARTY`.

A party keeps what it must ahead of every answer. It kills itself (SIGKILL) ahead of keeping something or
right after it, once; it is started again, and asked again. The round must come to the sum of those that
spoke, whichever step it was. Prints how many steps there were.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from secagg.effects import Aborted, Effect, Frame, RefusalReason, Refused, RosterAccepted, Send, SignWanted
from secagg.params import Identity
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import Contributor, DecryptorSession, OneShotServer
from secagg.store import SqliteStore, StoredCounter, replace_file
from secagg.store.sql import FolderSpool, SpooledPacked
from tests.protocol.network import CONTEXT
from tests.protocol.oneshot.network import ROUND_ID, Round, reasons

CLIENTS, MEMBERS, ME = 5, 8, 0
KILLED = -signal.SIGKILL


class Party(ABC):
    """A party that lives in this process; `step` is called around everything that it keeps."""

    def __init__(self, one: Round, folder: Path, step: Callable[[], None]) -> None:
        self.one, self.folder, self.step = one, folder, step

    def keep(self, name: str, content: bytes) -> None:
        self.step()
        replace_file(self.folder / name, content)
        self.step()

    def kept(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None

    @abstractmethod
    def begin(self) -> list[Effect]:
        """Start, or go on; returns what must be sent, perhaps again."""

    @abstractmethod
    def call(self, name: str, *arguments: Any) -> tuple[list[Effect], Any]:
        """Return the effects of a call, and what else a caller must know."""


class ServerParty(Party):
    session: OneShotServer

    def begin(self) -> list[Effect]:
        packed = SpooledPacked(FolderSpool(self.folder / "spool"), ROUND_ID)
        if (snapshot := self.kept("server")) is not None:
            self.session, effects = OneShotServer.restore(snapshot, packed=packed)
            return effects
        self.session = OneShotServer(
            self.one.parameters,
            self.one.committee,
            known=[signer.identity for signer in self.one.signers],
            packed=packed,
        )
        return self.session.start()

    def call(self, name: str, *arguments: Any) -> tuple[list[Effect], Any]:
        effects = getattr(self.session, name)(*arguments)
        if self.session.phase is not None:
            self.keep("server", self.session.snapshot())
        return effects, self.session.phase


class MemberParty(Party):
    session: DecryptorSession

    def begin(self) -> list[Effect]:
        member = self.one.epoch.members[ME]
        signer = next(one for one in self.one.epoch.signers if one.identity == member)
        self.counter = StoredCounter(SqliteStore(self.folder / "counter"))
        snapshot = self.kept("member") or self.one.epoch.decryptors[member].snapshot()
        self.session, _ = DecryptorSession.restore(
            snapshot,
            signer=signer,
            policy=self.one.epoch.policy,
            releases=self.counter.value("member") or self.one.epoch.decryptors[member].releases,
        )
        return []

    def call(self, name: str, *arguments: Any) -> tuple[list[Effect], Any]:
        effects = list(getattr(self.session, name)(*arguments))
        for effect in tuple(effects):
            if isinstance(effect, SignWanted):
                effects += self.session.sign(effect.round_id)
        self.keep("member", self.session.snapshot())
        if self.session.releases > self.counter.value("member"):
            self.counter.advance("member", self.session.releases)
            self.step()
        return effects, None


class ClientParty(Party):
    session: Contributor

    def begin(self) -> list[Effect]:
        signer, policy = self.one.signers[ME], self.one.epoch.policy
        if (snapshot := self.kept("upload")) is not None:
            self.session, effects = Contributor.restore(snapshot, signer=signer, policy=policy)
            return effects
        uploaded = self.kept("uploaded") or b""
        self.session = Contributor(
            signer=signer,
            context=CONTEXT,
            policy=policy,
            entropy=os.urandom,
            seen={uploaded[:16]},
            told={uploaded[16:]},
        )
        return []

    def call(self, name: str, *arguments: Any) -> tuple[list[Effect], Any]:
        effects: list[Effect] = []
        if not self.session.uploaded:
            for frame in arguments:
                effects = self.session.receive(frame)
            if any(isinstance(effect, Refused) for effect in effects):
                return effects, None
            effects = self.session.submit(self.one.vector(ME))
            (accepted,) = (one for one in effects if isinstance(one, RosterAccepted))
            self.keep("uploaded", accepted.round_id + CONTEXT)
            self.keep("upload", self.session.snapshot())
        return effects, None


class Process:
    """A party in a process of its own, killed at one step of all its lives."""

    def __init__(self, kind: type[Party], one: Round, folder: Path, deadly: int) -> None:
        self.kind, self.one, self.folder, self.deadly = kind, one, folder, deadly
        self.died = False
        self.begun: list[Effect] = []
        self.start()

    def start(self) -> None:
        here, there = Pipe()
        self.pid = os.fork()
        if not self.pid:
            here.close()
            _live(self.kind, self.one, self.folder, there, -1 if self.died else self.deadly)
        there.close()
        self.pipe = here
        self.begun = here.recv()

    def call(self, name: str, *arguments: Any) -> tuple[list[Effect], Any] | None:
        """Return what a call returned; None when the process was killed by it, and is started again."""
        self.pipe.send((name, *arguments))
        try:
            return self.pipe.recv()  # type: ignore[no-any-return]
        except EOFError:
            assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == KILLED
            assert not self.died
            self.died = True
            self.start()
            return None

    def end(self) -> None:
        self.pipe.close()
        os.waitpid(self.pid, 0)


def _live(kind: type[Party], one: Round, folder: Path, pipe: Connection, deadly: int) -> None:
    steps = count()

    def step() -> None:
        if next(steps) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        party = kind(one, folder, step)
        pipe.send(_plain(party.begin()))
        while True:
            effects, more = party.call(*pipe.recv())
            pipe.send((_plain(effects), more))
    except EOFError:
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)


def _plain(effects: list[Effect]) -> list[Any]:
    """The effects with frames that travel between processes."""
    return [
        replace(one, frame=cast("Frame", bytes(one.frame))) if isinstance(one, Send) else one
        for one in effects
    ]


class KilledServer(Round):
    """A round whose server is such a process."""

    process: Process

    def killed_at(self, folder: Path, deadly: int) -> None:
        self.process = Process(ServerParty, self, folder, deadly)
        self.now: OneShotPhase | None = OneShotPhase.UPLOAD
        self.server = self  # type: ignore[assignment]
        self.carry(self.process.begun)
        for client, signer in enumerate(self.signers[:-1]):
            self.carry(self.receive(signer.identity, self.upload(client)))
        while self.outcome is None:
            self.carry(self.close_phase())

    @property
    def phase(self) -> OneShotPhase | None:
        return self.now

    @property
    def parameters_frame(self) -> bytes:
        return bytes(OneShotServer(self.parameters, self.committee, known=None).parameters_frame)

    def asked(self, name: str, *arguments: Any) -> list[Effect]:
        before = self.now
        if (got := self.process.call(name, *arguments)) is not None:
            effects, self.now = got
            return effects
        again = self.process.begun  # what the restored server asks once more
        effects, self.now = self._standing()
        if name == "close_phase" and self.now is not before:
            return again
        return again + self.asked(name, *arguments)

    def _standing(self) -> tuple[list[Effect], OneShotPhase | None]:
        got = self.process.call("deal")
        assert got is not None
        return got

    def receive(self, sender: Identity, frame: Any) -> list[Effect]:
        return self.asked("receive", sender, bytes(frame))

    def close_phase(self) -> list[Effect]:
        return self.asked("close_phase")


class KilledMember(Round):
    """A round of which one member is such a process."""

    def killed_at(self, folder: Path, deadly: int) -> None:
        self.process = Process(MemberParty, self, folder, deadly)
        self.play(range(CLIENTS - 1))

    def answers(self, member: Identity, frame: bytes) -> list[bytes]:
        if member != self.epoch.members[ME]:
            return super().answers(member, frame)
        got = self.process.call("receive", frame)
        if got is None:  # it gets everything again, with what it was asked last
            return [
                answer
                for effect in self.server.resend(member)
                if isinstance(effect, Send)
                for answer in self.answers(member, bytes(effect.frame))
            ]
        self.refused += [effect for effect in got[0] if isinstance(effect, Refused)]
        return [bytes(effect.frame) for effect in got[0] if isinstance(effect, Send)]


class KilledClient(Round):
    """A round of which one client is such a process."""

    def killed_at(self, folder: Path, deadly: int) -> None:
        self.process = Process(ClientParty, self, folder, deadly)
        self.start(range(1, CLIENTS - 1))
        frames = (self.epoch.certificate, bytes(self.server.parameters_frame))
        if (got := self.process.call("upload", *frames)) is None:
            again = self.process.begun
            got = (again, None) if again else self.process.call("upload", *frames)
        assert got is not None
        self.refused += [effect for effect in got[0] if isinstance(effect, Refused)]
        for effect in got[0]:
            if isinstance(effect, Send):
                self.carry(self.server.receive(self.signers[ME].identity, bytes(effect.frame)))
        self.close()


ROUNDS: dict[str, type[KilledServer | KilledMember | KilledClient]] = {
    "server": KilledServer,
    "member": KilledMember,
    "client": KilledClient,
}


def killed(party: str, folder: Path) -> Iterator[tuple[KilledServer | KilledMember | KilledClient, bool]]:
    """Yield the round for every step at which the party is killed, and whether it was."""
    for deadly in count():
        place = folder / str(deadly)
        place.mkdir()
        one = ROUNDS[party](CLIENTS, MEMBERS, seed="kills")
        one.killed_at(place, deadly)
        one.process.end()
        yield one, one.process.died
        if not one.process.died:
            return


def main() -> None:
    folder, party = Path(sys.argv[1]), sys.argv[2]
    out = 0
    for step, (one, died) in enumerate(killed(party, folder)):
        inside = range(CLIENTS - 1)
        if party == "client" and one.refused:  # killed between the two: cleanly out
            assert reasons(one.refused) == [RefusalReason.ROUND_REUSED], one.refused
            inside, out = range(1, CLIENTS - 1), out + 1
        else:  # a member that was asked for its opening says first, once more, what it signed
            assert set(reasons(one.refused)) <= {RefusalReason.WRONG_PHASE}, (step, one.refused)
            assert not one.refused or (party == "member" and died), (step, one.refused)
        one.exact(inside)
        assert not isinstance(one.outcome, Aborted)
        if party == "server":
            left = list((folder / str(step) / "spool").iterdir())
            assert not left, left
    sys.stdout.write(f"{step} steps, out of the round after {out}\n")
    assert died is False


if __name__ == "__main__":
    main()
