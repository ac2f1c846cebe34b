"""The service's folder of transcripts: one file per round, named by the round's id."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from secagg.errors import ParameterError
from secagg.params import Identity, RoundParameters, Signer
from secagg.service.keys import create_private
from secagg.transcript import RecordedServerSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcripts:
    """Record every round.

    folder       exists; gets <round id>.transcript when a round is over, .partial while it runs; both 0600
    signer       the server's own identity, not a client's
    keep_inputs  keep masked vectors, too: large, and all that a curious server sees
    """

    folder: Path
    signer: Signer = field(repr=False)
    keep_inputs: bool = False

    def session(
        self, parameters: RoundParameters, admitted: Collection[Identity], threads: int
    ) -> RecordedServerSession:
        """Begin a round. Raises OSError; ParameterError when too few are admitted."""
        partial = self._partial(parameters)
        file = create_private(partial)
        try:
            return RecordedServerSession(
                parameters,
                admitted=admitted,
                file=file,
                signer=self.signer,
                keep_inputs=self.keep_inputs,
                threads=threads,
            )
        except ParameterError:
            file.close()
            partial.unlink()
            raise

    def finish(self, session: RecordedServerSession) -> Path | None:
        """Make the file of a round durable; None, and no file, when the round did not come to its end.

        raises  OSError when it could not be written
        """
        partial = self._partial(session.parameters)
        with session.file as file:
            if session.failure is not None:
                partial.unlink()
                raise session.failure
            file.flush()
            os.fsync(file.fileno())
        if not session.sealed:
            partial.unlink()
            return None
        path = partial.rename(partial.with_suffix(".transcript"))
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return path

    def _partial(self, parameters: RoundParameters) -> Path:
        return self.folder / f"{parameters.round_id.hex()}.partial"
