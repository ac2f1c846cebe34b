"""The service's folder of transcripts: one file per round, named by the round's id."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from secagg.effects import Effect
from secagg.errors import ParameterError
from secagg.key_files import create_private
from secagg.params import Identity, RoundParameters, Signer
from secagg.params_oneshot import OneShotParameters
from secagg.protocol import ServerSession
from secagg.protocol.oneshot import CommitteeView, OneShotServer, PackedStore
from secagg.store import move_into_place, sync_file
from secagg.transcript import RecordedOneShotServer, RecordedServerSession

Recorded: TypeAlias = RecordedServerSession | RecordedOneShotServer
_DONE, _RUNNING, _COPY = ".transcript", ".partial", ".copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcripts:
    """Record every round.

    folder       exists; gets <round id>.transcript when a round is over, <round id>.<epoch>.partial while it
                 runs; both 0600. Of several servers it is the same folder
    signer       the server's own identity, not a client's
    keep_inputs  keep masked vectors, too: large, and all that a curious server sees
    """

    folder: Path
    signer: Signer = field(repr=False)
    keep_inputs: bool = False

    def session(
        self, parameters: RoundParameters, admitted: Collection[Identity], threads: int, epoch: int = 1
    ) -> RecordedServerSession:
        """Begin a round; epoch: of the lease. Raises OSError; ParameterError when too few are admitted."""
        with self._begun(parameters.round_id, epoch) as file:
            return RecordedServerSession(
                parameters,
                admitted=admitted,
                file=file,
                signer=self.signer,
                keep_inputs=self.keep_inputs,
                threads=threads,
            )

    def oneshot(
        self,
        parameters: OneShotParameters,
        committee: CommitteeView,
        certificate: bytes,
        *,
        known: Collection[Identity],
        edges: Collection[Identity],
        packed: PackedStore,
        threads: int,
        epoch: int = 1,
    ) -> RecordedOneShotServer:
        """Begin a round of the one-upload protocol, or its record once more. Raises OSError."""
        with self._begun(parameters.round_id, epoch) as file:
            return RecordedOneShotServer(
                parameters,
                committee,
                certificate=certificate,
                file=file,
                signer=self.signer,
                keep_inputs=self.keep_inputs,
                known=known,
                edges=edges,
                packed=packed,
                threads=threads,
            )

    @contextmanager
    def _begun(self, round_id: bytes, epoch: int) -> Iterator[BinaryIO]:
        """Begin a record; where it cannot be, nothing is left of it. Raises OSError."""
        partial = self._partial(round_id, epoch)
        self.discard(round_id)  # of a server that ended before the store had the round
        file = create_private(partial)
        try:
            yield file
        except BaseException:
            file.close()
            partial.unlink()
            raise

    def resume(
        self, round_id: bytes, snapshot: bytes, length: int, threads: int, epoch: int = 1
    ) -> tuple[RecordedServerSession, list[Effect]]:
        """Go on with the record of a round whose server ended, from what it was at the snapshot.

        length  bytes of the record at that time: what was written later is written again
        epoch   of our lease: the record goes on in a file of its own, so that a server that only seemed to be
                gone writes into none of ours

        raises  OSError, ParameterError: there is no such record any more, or not all of it
        """
        before = self._newest(round_id, length)
        partial = self._partial(round_id, epoch)
        beside = partial.with_suffix(_COPY)
        beside.unlink(missing_ok=True)
        with before.open("rb") as old, create_private(beside) as new:
            copied = old.read(length)
            new.write(copied)
            sync_file(new)
        move_into_place(beside, partial)
        self.discard(round_id, but=partial)
        file = partial.open("r+b")
        try:
            return RecordedServerSession.resume(
                snapshot, file=file, signer=self.signer, keep_inputs=self.keep_inputs, threads=threads
            )
        except BaseException:
            file.close()
            raise

    def _newest(self, round_id: bytes, length: int) -> Path:
        """Return the record that was written last, complete or not. Raises ParameterError."""
        partials = sorted(self._partials(round_id), key=_epoch_of, reverse=True)
        done = self.folder / f"{round_id.hex()}{_DONE}"  # and its server ended before it could say so
        found = [path for path in (*partials, done) if path.exists() and path.stat().st_size >= length]
        if not found:
            raise ParameterError(f"transcript: the {length} bytes that were recorded are not there any more")
        return found[0]

    def finish(self, session: Recorded) -> Path | None:
        """Make the file of a round durable; None, and no file, when the round did not come to its end.

        raises  OSError when it could not be written: there is no file then
        """
        partial = Path(session.file.name)
        path = self.folder / f"{session.parameters.round_id.hex()}{_DONE}"
        try:
            with session.file as file:
                if session.failure is not None:
                    raise session.failure
                sync_file(file)
            if not session.sealed:
                partial.unlink()
                return None
            move_into_place(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        return path

    def discard(self, round_id: bytes, but: Path | None = None) -> None:
        """Remove what was recorded of a round that did not come to its end. Raises OSError."""
        for path in self._partials(round_id, _COPY) + self._partials(round_id):
            if path != but:
                path.unlink(missing_ok=True)

    def _partials(self, round_id: bytes, suffix: str = _RUNNING) -> list[Path]:
        return list(self.folder.glob(f"{round_id.hex()}.*{suffix}"))

    def _partial(self, round_id: bytes, epoch: int) -> Path:
        return self.folder / f"{round_id.hex()}.{epoch}{_RUNNING}"


class Recording:
    """The transcript of one round while it runs; of a session without one it does nothing."""

    def __init__(self, transcripts: Transcripts | None, session: ServerSession | OneShotServer) -> None:
        self._transcripts = transcripts
        self._session = session if isinstance(session, Recorded) else None

    def length(self) -> int:
        """Make what was recorded so far durable; returns its bytes. 0: the round has no record any more."""
        session = self._session
        if session is None or session.failure is not None:
            return 0
        try:
            sync_file(session.file)
            return session.file.tell()
        except OSError as error:
            session.failure = error  # told when it is to be sealed
            return 0

    def end(self, reason: str) -> None:
        """Write down that a round of the pairwise protocol is not gone on with."""
        if isinstance(self._session, RecordedServerSession):
            self._session.end(reason)

    def seal(self) -> tuple[str, bytes] | None:
        """Complete the record; returns its file's name and its address, once they are there to stay.

        raises  OSError: there is none
        """
        if self._session is None or self._transcripts is None:
            return None
        path = self._transcripts.finish(self._session)
        return None if path is None else (path.name, self._session.transcript)

    def close(self) -> None:
        """Let go of the file; what the store vouches for is in it."""
        if self._session is not None:
            self._session.file.close()


def _epoch_of(partial: Path) -> int:
    return int(partial.suffixes[0].removeprefix("."))
