"""The client side of the service: takes part in rounds, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence

from secagg.errors import LocalProtocolError
from secagg.params import Entropy, Policy, Signer
from secagg.service.authority import PartyCredentials
from secagg.service.clock import Clock, SystemClock
from secagg.service.errors import ServiceError
from secagg.service.hello import DEFAULT_PLACE
from secagg.service.keys import ServerCredentials
from secagg.service.line import RECORD_LIMIT, Line, print_nothing
from secagg.service.seat import (
    BeforeAnswer,
    BeforeSign,
    Compute,
    QuestionOf,
    RoundOutcome,
    Seat,
    Settings,
    context_is_subject,
)
from secagg.store import (
    Counter,
    MemoryStore,
    ParticipationLedger,
    SealedStore,
    Store,
    StoredCounter,
    StoreError,
)


class AggregationClient:
    """Takes part in rounds of one server.

    address        host:port, or several: of the servers of one database, tried in turn
    credentials    the server's pinned certificate; or, where an operator's authority lets parties in, our own
                   certificate and key, and the authority's
    policy         what the client demands of a round; `known` comes from its own registry file
    entropy        for the secrets of each round
    store          keeps the ids of accepted rounds. Of a `SealedStore` also the round that the client is in,
                   with its secrets: a client that was killed goes on with it, without it is out of it
    counter        counts what was released; default: in the store, which does not notice that it was set back
    ledger         what this client uploaded before, and how often; default: in the store, it warns only
    agreement      digest of what was agreed on before: in the context of every round, so that nobody takes
                   part who agreed to something else
    place          FEDERATION/RUN, as the server calls it
    tags           what the client says of itself, for servers that select by it
    question_of    what (payload, parameters) ask, for the ledger; default: the context is the subject
    before_answer  awaited with (phase, payload) before an answer is released; for drills and tests
    before_sign    called in a thread with (parameters, payload, finished, survivors) before the client signs
                   a set S of survivors (passive: before it answers), again when the server asks again. A
                   LedgerError or ConsentError that it raises ends this client's round, and is its reason;
                   S gets no signature. What else it raises ends the round, and is raised by `take_part`
    on_refusal     told why the server's message, or ours, counts as not sent
    patience_s     how long to try to reach the server, without a word of it; math.inf: for ever. Until it was
                   reached once, what waiting does not mend ends this at once: another certificate, no such
                   host, something else that listens there
    most_bytes     of one record of the server, such as a round's payload: more ends the stream
    """

    def __init__(
        self,
        *,
        address: str | Sequence[str],
        credentials: ServerCredentials | PartyCredentials,
        signer: Signer,
        policy: Policy,
        entropy: Entropy = os.urandom,
        store: Store | None = None,
        counter: Counter | None = None,
        ledger: ParticipationLedger | None = None,
        question_of: QuestionOf = context_is_subject,
        agreement: bytes = b"",
        place: str = DEFAULT_PLACE,
        tags: Collection[str] = (),
        clock: Clock | None = None,
        before_answer: BeforeAnswer | None = None,
        before_sign: BeforeSign | None = None,
        on_refusal: Callable[[str], None] = print_nothing,
        patience_s: float = 60.0,
        most_bytes: int = RECORD_LIMIT,
    ) -> None:
        clock = clock or SystemClock()
        self._line = Line(
            address=address,
            credentials=credentials,
            signer=signer,
            place=place,
            tags=tags,
            clock=clock,
            on_refusal=on_refusal,
            patience_s=patience_s,
            most_bytes=most_bytes,
        )
        store = store or MemoryStore()
        self._settings = Settings(
            signer=signer,
            policy=policy,
            entropy=entropy,
            store=store,
            counter=counter or StoredCounter(store),
            ledger=ledger or ParticipationLedger(store),
            wall=clock.wall,
            before_answer=before_answer,
            before_sign=before_sign,
            on_refusal=on_refusal,
            question_of=question_of,
            agreement=agreement,
            place=place,
            resumes=isinstance(store, SealedStore),
        )

    @property
    def trouble(self) -> str | None:
        """Why there is no stream at the moment; "": not known yet; None: there is one."""
        return self._line.trouble

    async def take_part(self, compute: Compute) -> RoundOutcome:
        """Take part in the next round.

        compute  (payload, parameters) -> vector (d,) below 2^ring_bits, or a VectorSource of it; called in a
                 thread, once the parameters are accepted. What it raises, or the source when it is read,
                 ends this client's round and is raised here.
        raises   ConnectionLostError: with the cause; HelloError, StreamError; StoreError: a later call goes
                 on with the round
        """
        self._line.check()
        seat = Seat(self._settings, compute)
        seat.restore()
        try:
            await self._line.hold(seat)
        except (ServiceError, StoreError):
            raise
        except Exception:
            seat.forget()  # what our caller could not do once it would not do again
            raise
        finally:
            seat.leave()
        if seat.outcome is None:
            raise LocalProtocolError("the line is held until the round is over")
        return seat.outcome
