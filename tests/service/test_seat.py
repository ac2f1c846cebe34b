"""A client's place in a round, fed by hand: what is kept, and when."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from secagg import (
    ConsentError,
    Frame,
    Identity,
    IdentityKey,
    Phase,
    Policy,
    RoundParameters,
    SecAggError,
    Send,
    ServerSession,
    ThreatModel,
    context_digest,
)
from secagg.audit import Round as AuditedRound
from secagg.audit import dump_receipt
from secagg.embedding.keeping import Question
from secagg.kernels import UIntArray
from secagg.params import Adversary
from secagg.service import BeforeSign
from secagg.service.seat import QuestionOf, Seat, Settings, context_is_subject
from secagg.store import (
    LedgerError,
    MemoryStore,
    ParticipationLedger,
    SealedStore,
    StoreBusyError,
    StoredCounter,
)
from secagg.store.sql import AuditLog, Database

PAYLOAD = b"what the round is about"
KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(4)]


class Outlet:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, frame: Frame) -> None:
        self.sent.append(bytes(frame))


class Round:
    """A server session, and four seats with a store each."""

    def __init__(self, adversary: Adversary = "active", before_sign: BeforeSign | None = None) -> None:
        identities = [key.identity for key in KEYS]
        parameters = RoundParameters(
            round_id=bytes(16),
            vector_length=3,
            ring_bits=20,
            context=context_digest(PAYLOAD),
            threat_model=ThreatModel(adversary=adversary),
        )
        self.before_sign = before_sign
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
            policy=Policy(
                known=frozenset(key.identity for key in KEYS),
                minimum_cohort=4,
                adversary=self.server.parameters.threat_model.adversary,
            ),
            entropy=os.urandom,
            store=self.stores[i],
            counter=StoredCounter(self.stores[i]),
            ledger=self.ledgers[i],
            wall=lambda: 0.0,
            before_answer=note,
            before_sign=self.before_sign if i == 0 else None,
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


async def opened(one: Round | None = None) -> Round:
    """Everybody has advertised keys, and was sent the roster."""
    one = one or Round()
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


@pytest.mark.parametrize(("asked", "floor"), [(0, 3), (4, 4)])
def test_a_client_joins_in_cells_as_large_as_its_question_says_or_else_the_threat_model(
    asked: int, floor: int
) -> None:
    async def run() -> None:
        one, subject = Round(), b"q" * 32
        identities = frozenset(key.identity for key in KEYS)
        one.ask(list(one.server.start()))
        seat, outlet = one.seat(0, _asking(Question(subject, identities, asked))), Outlet()
        seat.take_payload(PAYLOAD)
        await seat.take_frame(one.frames[0], outlet)
        assert len(outlet.sent) == 1
        seat.leave()
        one.ledgers[0].join(subject, cohort=identities, floor=floor)
        for other in {1, 2, 3, 4} - {floor}:
            with pytest.raises(LedgerError, match="another cohort was agreed on"):
                one.ledgers[0].join(subject, cohort=identities, floor=other)

    asyncio.run(run())


def test_a_client_that_was_in_as_many_rounds_as_it_allows_answers_nothing() -> None:
    async def run() -> None:
        one = Round()
        one.ledgers[0] = ParticipationLedger(one.stores[0], rounds_per_day=1)
        one.ledgers[0].uploaded(b"q" * 32, b"1" * 16, KEYS[0].identity, 0.0)
        one.ask(list(one.server.start()))
        seat, outlet = one.seat(0), Outlet()
        seat.take_payload(PAYLOAD)
        await seat.take_frame(one.frames[0], outlet)
        assert outlet.sent == []
        assert seat.outcome is not None
        assert seat.outcome.reason.startswith("our ledger refuses: too many rounds in a day")

    asyncio.run(run())


def test_a_client_that_agreed_to_something_else_answers_nothing() -> None:
    async def run() -> None:
        one = Round()
        one.ask(list(one.server.start()))
        for agreement, answers in ((b"", 1), (b"a" * 32, 0)):
            settings = replace(one.seats[1]._settings, agreement=agreement)
            seat = Seat(settings, lambda _payload, _parameters: np.zeros(3, np.uint32))
            outlet = Outlet()
            seat.take_payload(PAYLOAD)
            await seat.take_frame(one.frames[1], outlet)
            assert len(outlet.sent) == answers
            seat.leave()
            one.stores[1].put(dict.fromkeys(one.stores[1].names("")))

    asyncio.run(run())


def test_an_upload_is_kept_under_the_subject_of_its_question() -> None:
    async def run() -> None:
        one, subject = Round(), b"q" * 32
        one.seats = [one.seat(i, _asking(Question(subject))) for i in range(4)]
        one.ask(list(one.server.start()))
        for i in range(4):
            one.seats[i].take_payload(PAYLOAD)
            submitting = asyncio.create_task(one.seats[i].speak(one.outlets[i]))
            await one.answer(i)
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)
        for _ in range(2):
            one.ask(list(one.server.close_phase()))
            for i in range(4):
                await one.answer(i)
        session = one.seats[0]._round.session
        assert session is not None
        await one.seats[0]._carry_out(session, session.submit(np.array([1, 2, 3], np.uint32)), one.outlets[0])
        with pytest.raises(LedgerError, match="1 clients uploaded"):
            one.ledgers[0].check_clients(subject, [KEYS[0].identity])
        for seat in one.seats:
            seat.leave()

    asyncio.run(run())


async def played(one: Round, until: Phase | None = None) -> Round:
    """The round up to the requests of a phase, or to its end."""
    await opened(one)
    waiting = [asyncio.create_task(seat.speak(one.outlets[i])) for i, seat in enumerate(one.seats)]
    while one.server.phase not in {None, until}:
        for i in range(4):
            if KEYS[i].identity in one.server.progress.missing and one.seats[i].outcome is None:
                await one.answer(i)
                while one.server.phase is Phase.MASKED_INPUT_COLLECTION and len(one.outlets[i].sent) < 3:
                    await asyncio.sleep(0)
                one.server.receive(KEYS[i].identity, one.outlets[i].sent[-1])
        one.ask(list(one.server.close_phase()))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return one


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_a_client_is_asked_before_it_signs_and_names_those_whom_its_own_session_proved(
    adversary: Adversary,
) -> None:
    asked: list[tuple[RoundParameters, bytes, frozenset[Identity], frozenset[Identity]]] = []
    threads = set()
    one = Round(adversary)

    def consent(
        parameters: RoundParameters,
        payload: bytes,
        finished: frozenset[Identity],
        survivors: frozenset[Identity],
    ) -> None:
        asked.append((parameters, payload, finished, survivors))
        threads.add(threading.get_ident())
        assert len(one.outlets[0].sent) == 3  # keys, shares, upload: no signature yet, and no answer

    one.before_sign = consent
    one.seats[0] = one.seat(0)
    everybody = frozenset(key.identity for key in KEYS)
    asyncio.run(played(one))
    assert asked == [(one.server.parameters, PAYLOAD, everybody, everybody)]
    assert threading.get_ident() not in threads
    for seat in one.seats:
        seat.end(completed=True, reason="")
        assert seat.outcome is not None
        assert seat.outcome.survivors == everybody


def test_a_vector_whose_sum_its_own_session_proved_is_none_without_result() -> None:
    one = Round("active")
    asyncio.run(played(one))
    for ledger, key in zip(one.ledgers, KEYS, strict=False):
        assert ledger.check_clients(one.server.parameters.context, [key.identity]) == ()
        assert len(ledger.participations(key.identity)) == 1


def test_a_server_s_word_that_a_round_was_completed_names_no_survivors() -> None:
    async def run() -> None:
        one = await played(Round(), Phase.UNMASKING)  # S is signed, but no quorum was shown
        seat = one.seats[0]
        seat.end(completed=True, reason="")
        assert seat.outcome is not None
        assert (seat.outcome.completed, seat.outcome.survivors) == (True, frozenset())
        await one.answer(0)
        seat.take_payload(PAYLOAD)  # and those of one round are not those of the next
        seat.end(completed=True, reason="")
        assert seat.outcome.survivors == frozenset()

    asyncio.run(run())


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("refusal", [LedgerError(()), ConsentError("not over these")])
def test_a_client_that_does_not_consent_leaves_without_a_signature(
    refusal: SecAggError, adversary: Adversary
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    one = Round(adversary, refuse)
    before = Phase.CONSISTENCY_CHECK if adversary == "active" else Phase.UNMASKING

    async def run() -> None:
        await played(one, before)
        sent = list(one.outlets[0].sent)
        await one.seats[0].take_frame(one.frames[0], one.outlets[0])
        assert one.outlets[0].sent == sent
        outcome = one.seats[0].outcome
        assert outcome is not None
        assert (outcome.completed, outcome.finished, outcome.reason) == (False, False, str(refusal))
        assert outcome.survivors == frozenset()
        assert one.seats[0].round_id == b""  # it does not resume

    asyncio.run(run())


def test_what_else_goes_wrong_before_a_signature_is_the_caller_s_to_see() -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    one = Round(before_sign=fail)

    async def run() -> None:
        await played(one, Phase.CONSISTENCY_CHECK)
        sent = list(one.outlets[0].sent)
        with pytest.raises(ZeroDivisionError):
            await one.seats[0].take_frame(one.frames[0], one.outlets[0])
        assert one.outlets[0].sent == sent

    asyncio.run(run())


def test_a_client_that_is_asked_again_asks_its_caller_again_and_signs_once() -> None:
    asked = []
    interrupted = [True]

    def consent(*question: object) -> None:
        asked.append(question)
        if interrupted:
            raise asyncio.CancelledError  # the stream broke meanwhile

    one = Round(before_sign=consent)

    async def run() -> None:
        await played(one, Phase.CONSISTENCY_CHECK)
        with pytest.raises(asyncio.CancelledError):
            await one.seats[0].take_frame(one.frames[0], one.outlets[0])
        interrupted.clear()
        for _ in range(2):
            await one.seats[0].take_frame(one.frames[0], one.outlets[0])
        assert len(asked) == 2
        *_, first, second = one.outlets[0].sent
        assert first == second  # the signature, and the same once more
        assert len(one.outlets[0].sent) == 5

    asyncio.run(run())


def receipt_of(round_id: bytes) -> bytes:
    with Database("sqlite://") as database:
        log = AuditLog(database, IdentityKey.from_seed(b"a" * 32), lambda: 1.0)
        return dump_receipt(log.append(AuditedRound.aborted("default/default", round_id, reason="x")))


def test_a_receipt_of_another_round_is_not_this_ones() -> None:
    """A server could let it take the place of one that was kept."""

    async def run() -> None:
        one = await opened()
        for wrong in (b"", b"nonsense", receipt_of(b"x" * 16)):
            one.seats[0].take_receipt(wrong)
            assert one.seats[0].receipt == b""
        right = receipt_of(bytes(16))
        one.seats[0].take_receipt(right)
        assert one.seats[0].receipt == right
        Round().seats[0].take_receipt(right)  # of no round

    asyncio.run(run())


def test_a_store_that_is_busy_for_a_moment_costs_no_round() -> None:
    class Busy(SealedStore):
        failures: int = 0

        def get(self, name: str) -> bytes | None:
            if name.endswith("/session") and self.failures:
                self.failures -= 1
                raise StoreBusyError("the store: is busy")
            return super().get(name)

    async def run() -> None:
        one = await opened()
        store = Busy(MemoryStore(), b"k" * 32)
        settings = replace(one.seats[0]._settings, store=store, counter=StoredCounter(store), resumes=True)

        def compute(_payload: bytes, _parameters: RoundParameters) -> UIntArray:
            return np.array([1, 2, 3], np.uint32)

        seat = Seat(settings, compute)
        other = Round()
        other.ask(list(other.server.start()))
        seat.take_payload(PAYLOAD)
        await seat.take_frame(other.frames[0], other.outlets[0])
        seat.leave()
        store.failures = 1
        again = Seat(settings, compute)
        with pytest.raises(StoreBusyError):
            again.restore()
        again.restore()
        assert again.round_id == bytes(16)
        again.leave()
        store._store.put({"seat/default/default/session": b"changed"})  # but what is damaged is forgotten
        once_more = Seat(settings, compute)
        once_more.restore()
        assert once_more.round_id == b""

    asyncio.run(run())
