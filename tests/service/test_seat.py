"""A client's place in a round, fed by hand: what is kept, and when."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from secagg import Frame, IdentityKey, Phase, Policy, RoundParameters, Send, ServerSession, context_digest
from secagg.service import Question
from secagg.service.seat import QuestionOf, Seat, Settings, context_is_subject
from secagg.store import LedgerError, MemoryStore, ParticipationLedger, StoredCounter

PAYLOAD = b"what the round is about"
KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(4)]


class Outlet:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, frame: Frame) -> None:
        self.sent.append(bytes(frame))


class Round:
    """A server session, and four seats with a store each."""

    def __init__(self) -> None:
        identities = [key.identity for key in KEYS]
        parameters = RoundParameters(
            round_id=bytes(16), vector_length=3, ring_bits=20, context=context_digest(PAYLOAD)
        )
        self.server = ServerSession(parameters, admitted=identities)
        self.stores = [MemoryStore() for _ in KEYS]
        self.ledgers = [ParticipationLedger(store, repeats="refuse") for store in self.stores]
        self.phases: list[Phase] = []
        self.seats = [self.seat(i) for i in range(4)]
        self.outlets = [Outlet() for _ in KEYS]
        self.index = {identity: i for i, identity in enumerate(identities)}
        self.frames: dict[int, bytes] = {}

    def seat(self, i: int, question_of: QuestionOf = context_is_subject) -> Seat:
        async def note(phase: Phase, _payload: bytes) -> None:
            if i == 0:
                self.phases.append(phase)

        settings = Settings(
            signer=KEYS[i],
            policy=Policy(known=frozenset(key.identity for key in KEYS), minimum_cohort=4),
            entropy=os.urandom,
            store=self.stores[i],
            counter=StoredCounter(self.stores[i]),
            ledger=self.ledgers[i],
            wall=lambda: 0.0,
            before_answer=note,
            on_refusal=lambda _text: None,
            question_of=question_of,
        )
        return Seat(settings, lambda _payload, _parameters: np.array([1, 2, 3], np.uint32))

    def ask(self, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.to is not None:
                self.frames[self.index[effect.to]] = bytes(effect.frame)

    async def answer(self, i: int) -> None:
        """Give a seat its request, and the server what comes of it."""
        before = len(self.outlets[i].sent)
        await self.seats[i].take_frame(self.frames[i], self.outlets[i])
        for frame in self.outlets[i].sent[before:]:
            self.server.receive(KEYS[i].identity, frame)


def _asking(question: Question) -> QuestionOf:
    return lambda _payload, _parameters: question


async def opened() -> Round:
    """Everybody has advertised keys, and was sent the roster."""
    one = Round()
    one.ask(list(one.server.start()))
    for i in range(4):
        one.seats[i].take_payload(PAYLOAD)
        await one.answer(i)
    one.ask(list(one.server.close_phase()))
    return one


def test_a_roster_that_is_sent_again_is_no_upload() -> None:
    async def run() -> None:
        one = await opened()
        await one.answer(0)
        await one.seats[0].take_frame(one.frames[0], one.outlets[0])  # after the stream broke
        assert one.outlets[0].sent[1] == one.outlets[0].sent[2]
        assert one.phases == [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.SHARE_KEYS]
        assert one.ledgers[0].check_clients(context_digest(PAYLOAD), [KEYS[0].identity]) == ()
        one.seats[0].leave()

    asyncio.run(run())


def test_a_client_that_lost_its_session_stays_out_of_the_rest_of_the_round() -> None:
    async def run() -> None:
        one = await opened()
        fresh, outlet = one.seat(0), Outlet()  # the process died, its store did not
        fresh.take_payload(PAYLOAD)
        again = ServerSession(one.server.parameters, admitted=one.server.admitted).start()
        (frame,) = (bytes(e.frame) for e in again if isinstance(e, Send) and e.to == KEYS[0].identity)
        await fresh.take_frame(frame, outlet)
        assert outlet.sent == []
        assert fresh.outcome is not None
        assert fresh.outcome.reason == "we were in this round before, and have forgotten its secrets"

    asyncio.run(run())


def test_nothing_secret_is_in_the_store_of_a_client() -> None:
    async def run() -> None:
        one = await opened()
        await one.answer(0)
        assert one.stores[0].names("") == [
            f"accepted/{bytes(16).hex()}",
            f"counters/rounds/{bytes(16).hex()}",
            f"ledger/cohorts/{context_digest(PAYLOAD).hex()}",
        ]
        one.seats[0].leave()

    asyncio.run(run())


def test_a_client_answers_no_round_about_a_subject_that_it_joined_with_another_cohort() -> None:
    async def run() -> None:
        one, subject = Round(), b"q" * 32
        identities = frozenset(key.identity for key in KEYS)
        one.ask(list(one.server.start()))
        for cohort, answers in ((identities, 1), (None, 0), (identities - {KEYS[3].identity}, 0)):
            question = Question(subject, cohort)
            seat, outlet = one.seat(0, _asking(question)), Outlet()
            seat.take_payload(PAYLOAD)
            await seat.take_frame(one.frames[0], outlet)
            assert len(outlet.sent) == answers
            if not answers:
                assert seat.outcome is not None
                assert "another cohort was agreed on" in seat.outcome.reason
            seat.leave()
            one.stores[0].put(dict.fromkeys(one.stores[0].names("counters/")))  # as in the next round
            one.stores[0].put(dict.fromkeys(one.stores[0].names("accepted/")))

    asyncio.run(run())


def test_an_upload_is_kept_under_the_subject_of_its_question() -> None:
    async def run() -> None:
        one, subject = Round(), b"q" * 32
        one.seats = [one.seat(i, _asking(Question(subject))) for i in range(4)]
        one.ask(list(one.server.start()))
        for i in range(4):
            one.seats[i].take_payload(PAYLOAD)
            submitting = asyncio.create_task(one.seats[i].submit_when_wanted(one.outlets[i]))
            await one.answer(i)
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)
        for _ in range(2):
            one.ask(list(one.server.close_phase()))
            for i in range(4):
                await one.answer(i)
        session = one.seats[0]._session
        assert session is not None
        await one.seats[0]._carry_out(session, session.submit(np.array([1, 2, 3], np.uint32)), one.outlets[0])
        with pytest.raises(LedgerError, match="1 clients uploaded"):
            one.ledgers[0].check_clients(subject, [KEYS[0].identity])
        for seat in one.seats:
            seat.leave()

    asyncio.run(run())
