"""A server session that writes its round down while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO, Self

from secagg.effects import Aborted, Completed, Effect
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import encode, parameters_to_wire
from secagg.params import Buffer, Identity, RoundParameters, Signer
from secagg.protocol import ServerSession
from secagg.protocol.server import snapshot as snapshots
from secagg.protocol.server.masked_input_collection import MaskedInputCollection
from secagg.protocol.snapshot import parts_must_fit
from secagg.transcript.entries import (
    LENGTH_BYTES,
    MAGIC,
    VERSION,
    EntryKind,
    Header,
    Outcome,
    Seal,
    WithheldUpload,
    address,
    framed,
    outcome_of,
    seal_text,
    transcript_digest,
)


class RecordedServerSession(ServerSession):
    """A ServerSession whose transcript goes to `file` as the round runs, sealed when it ends.

    file         open for writing bytes; the caller makes it durable and closes it. When writing fails, see
                 `failure`, the round goes on without a record
    signer       the server's own Ed25519 identity
    keep_inputs  also keep the masked vectors: then anybody can recompute the sum, bit for bit. A transcript
                 with them is all that the server saw: whoever reads it learns what a curious server learns
    """

    def __init__(
        self,
        parameters: RoundParameters,
        *,
        admitted: Collection[Identity],
        file: BinaryIO,
        signer: Signer,
        keep_inputs: bool = False,
        threads: int = 1,
    ) -> None:
        super().__init__(parameters, admitted=admitted, threads=threads)
        self.file = file
        self.sealed = False
        self.failure: OSError | None = None  # of the file: nothing is written after it, nor sealed
        self._transcript_signer = signer
        self._keep_inputs = keep_inputs
        self._addresses: list[bytes] = []
        file.write(MAGIC)
        header = Header(VERSION, signer.identity, parameters_to_wire(parameters), tuple(sorted(admitted)))
        self._write(EntryKind.HEADER, content=encode(header))

    @property
    def transcript(self) -> bytes:
        """Address of the transcript so far, 32 bytes; final once the round is over."""
        return transcript_digest(self._addresses)

    def receive(self, sender: Identity, frame: Buffer) -> list[Effect]:
        """Feed one frame; one that is taken is written down."""
        taken = self.taken
        effects = super().receive(sender, frame)
        if self.taken == taken:
            return effects
        phase, upload = self._phase, None
        if isinstance(phase, MaskedInputCollection) and not self._keep_inputs:
            upload = phase.uploads.get(phase.view.index[sender])
        if isinstance(phase, MaskedInputCollection) and upload is not None:
            complaints = tuple(sorted(phase.view.named(upload.complaints)))
            withheld = WithheldUpload(upload.packed_digest, complaints, upload.signature)
            self._write(EntryKind.UPLOAD, sender, encode(withheld))
        else:
            self._write(EntryKind.TAKEN, sender, frame)
        return effects

    def drop(self, client: Identity) -> list[Effect]:
        """Give a client up, and write it down."""
        effects = super().drop(client)
        if effects:
            self._write(EntryKind.GIVEN_UP, client)
        return effects

    def close_phase(self) -> list[Effect]:
        """Leave the current phase; when the round ends, its outcome is written down and everything sealed."""
        effects = super().close_phase()
        self._write(EntryKind.CLOSED)
        if isinstance(end := effects[-1], Completed | Aborted):
            self._seal(outcome_of(end))
        return effects

    def end(self, reason: str) -> None:
        """End the record of a round that its caller does not go on with. The session is not used any more."""
        if not self.sealed:
            self._seal(Outcome(b"", reason.encode(), (), ()))

    @classmethod
    def resume(
        cls,
        data: bytes,
        *,
        file: BinaryIO,
        signer: Signer,
        keep_inputs: bool = False,
        threads: int = 1,
    ) -> tuple[Self, list[Effect]]:
        """Continue from a snapshot, as `ServerSession.restore`, and go on with its record.

        file    open for reading and writing: holds what was written up to the snapshot, and nothing else
        raises  ParameterError: no snapshot, or no record of this round; OSError
        """
        with parts_must_fit():
            state = snapshots.load(data)
            session = cls.__new__(cls)
            ServerSession.__init__(session, state.parameters, admitted=state.admitted, threads=threads)
            effects = session._adopt(state)  # noqa: SLF001 - of this class
        session.file = file
        session.sealed = False
        session.failure = None
        session._transcript_signer = signer  # noqa: SLF001
        session._keep_inputs = keep_inputs  # noqa: SLF001
        session._addresses = list(_addresses(file, state.parameters.round_id))  # noqa: SLF001
        return session, effects

    @classmethod
    def restore(cls, data: bytes, *, threads: int = 1) -> tuple[Self, list[Effect]]:  # noqa: ARG003
        """Refuse: the record of what came before the snapshot is elsewhere. Raises LocalProtocolError."""
        raise LocalProtocolError(
            "a RecordedServerSession is not restored: restore a ServerSession, or resume"
        )

    def _seal(self, outcome: Outcome) -> None:
        self._write(EntryKind.OUTCOME, content=encode(outcome))
        signature = self._transcript_signer.sign(seal_text(self.transcript))
        self._write(EntryKind.SEAL, content=encode(Seal(b"".join(self._addresses), signature)))
        self.sealed = self.failure is None

    def _write(self, kind: EntryKind, party: bytes = b"", content: Buffer = b"") -> None:
        if self.failure is not None:
            return
        length, entry = framed(kind, party, content)
        try:
            self.file.write(length)
            self.file.write(entry)
        except OSError as error:  # the round goes on without its record
            self.failure = error
        if kind is not EntryKind.SEAL:
            self._addresses.append(address(entry))


def _addresses(file: BinaryIO, round_id: bytes) -> Iterator[bytes]:
    """Read what was recorded so far. Raises ParameterError where it is not a record of the round."""
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise ParameterError("transcript: not the beginning of one")
    first = True
    while length := file.read(LENGTH_BYTES):
        wanted = int.from_bytes(length, "big")
        entry = file.read(wanted)
        if len(length) < LENGTH_BYTES or len(entry) < wanted:
            raise ParameterError("transcript: is cut short")
        if first and round_id not in entry:
            raise ParameterError("transcript: of another round")
        first = False
        yield address(entry)
