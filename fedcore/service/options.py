"""Options of a server of a training run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from fedcore.rounds.agreement import Run
from secagg import ParameterError, RoundParameters, Signer
from secagg.service import Deadlines, Registry, ServerCredentials
from secagg.store.sql import Database, Spool

Show: TypeAlias = Callable[[dict[str, Any]], None]


def show_nothing(_event: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What `serve` is to do.

    registry_file  where the registry came from: who is revoked there while the run goes on has no more part
               in it; None: the registry stays as it is
    authority  certificate of the operator's authority: strangers end in the handshake; None: they do not
    start_s  how long the first round waits for the rest, once enough are there
    show     gets every event of the history as it is written
    signer   the server's own identity: it signs the audit log, and a transcript of every pairwise round, in
             out/transcripts
    keep_inputs  with the masked vectors in it
    run      what all parties agreed on
    decryptors  who may be in the committees of the one-upload protocol
    edges       its edges (`secagg edge`), whose partial sums are taken; None: there are none
    epoch_s  after which another committee is formed
    database keeps rounds, uploads on their way and who was summed with whom; None: in memory
    spool    where uploads wait; None: `secagg.store.sql.spool_of` the database
    keep     models and sums that stay in `out`, the newest; None: all
    resume    a run's folder is gone on with from its checkpoint instead of being refused
    """

    address: str
    credentials: ServerCredentials = field(repr=False)
    registry: Registry
    registry_file: Path | None = None
    run: Run
    decryptors: Registry | None = None
    edges: Registry | None = None
    epoch_s: float = 86_400.0
    out: Path
    authority: bytes | None = field(default=None, repr=False)
    start_s: float = 60.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    show: Show = show_nothing
    signer: Signer | None = None
    keep_inputs: bool = False
    keep: int | None = None
    resume: bool = False
    database: Database | None = field(default=None, repr=False)
    spool: Spool | None = None

    def __post_init__(self) -> None:
        """Refuse before anybody waits what every round would refuse."""
        if self.keep is not None and self.keep < 1:
            raise ParameterError(f"keep: must be at least 1, is {self.keep}")
        run, enrolled = self.run, len(self.registry.identities)
        if run.minimum_cohort > enrolled:
            raise ParameterError(
                f"minimum_cohort: must be at most the {enrolled} enrolled, is {run.minimum_cohort}"
            )
        replace(self.deadlines, advertise_s=self.start_s)
        if run.one_shot:
            if self.decryptors is None or self.decryptors.identities != run.decryptors:
                raise ParameterError("decryptors: must be those that were agreed on")
            return
        if self.edges is not None:
            raise ParameterError("edges: are of the one-upload protocol")
        self.parameters(vector_length=1, ring_bits=1, context=bytes(32))

    def parameters(
        self, *, vector_length: int, ring_bits: int, context: bytes, sites: int | None = None
    ) -> RoundParameters:
        """Return the parameters of a new round; sites: among whom it is, None: everybody."""
        run = self.run
        cohort = run.minimum_cohort if sites is None else min(run.minimum_cohort, sites)
        return RoundParameters(
            round_id=os.urandom(16),
            vector_length=vector_length,
            ring_bits=ring_bits,
            context=context,
            threat_model=run.threat_model(cohort),
            minimum_cohort=cohort,
            minimum_survivors=min(run.minimum_survivors, cohort),
            suite=run.suite,
        )
