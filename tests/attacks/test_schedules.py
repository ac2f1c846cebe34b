"""Schedules of malice, searched: a server that lies in any order, and clients that lie to an honest server.

First comes a server that is nothing but the adversary (`liar.Liar`), then an honest server among liars. The
search is Hypothesis's, with fixed seeds. That it can find something is shown with defences taken away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import Phase as SearchPhase
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from secagg.effects import Aborted, AbortReason, Aggregate, BlameReason, Completed, Effect, Refused
from secagg.kernels import lane_dtype, pack, ring_mask, unpack_add
from secagg.messages import (
    Advertisement,
    MaskedInput,
    SealedContribution,
    ShareDelivery,
    SharedKeys,
    SurvivorSignature,
    UnmaskingResponse,
    decode_frame,
)
from secagg.params import HYBRID, Phase, Suite
from secagg.primitives.bounds import choose_for, colluders
from secagg.primitives.shamir import SHARE_BYTES
from secagg.primitives.signatures import verify
from secagg.protocol import ServerSession
from secagg.protocol.client import masked_input_collection, share_keys, unmasking
from secagg.protocol.round import RoundView, advertisement_text, parameters_digest
from tests.attacks.liar import OVER, Keys, Liar, Plan, Shape, Violation, outline
from tests.protocol.network import Cohort, Envelope, Fault, Link, flipped, opened, server_state

# --- a lying server


class LyingServer(RuleBasedStateMachine):
    """A server that shows anything to anybody, on the complete graph."""

    reached: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.liar: Liar | None = None

    @initialize(
        clients=st.sampled_from([4, 5, 6, 6, 7, 7, 8, 8]),
        corrupt=st.sampled_from([0.1, 0.25, 1 / 7]),
        least=st.sampled_from([4, 4, 6, 8]),
        minimum=st.integers(2, 6),
        drawn=st.integers(0, 2**62),
    )
    def begin(self, clients: int, corrupt: float, least: int, minimum: int, drawn: int) -> None:
        cohort = Cohort(
            clients,
            corrupt=corrupt,
            ring_bits=5,
            minimum_cohort=min(least, clients),
            minimum_survivors=minimum,
        )
        # The plan is drawn by a generator of its own: Hypothesis would try simple ones again and again.
        self.liar = liar(cohort, Random(drawn))

    @rule()
    def advance(self) -> None:
        self.server.advance()

    @rule()
    def advance_again(self) -> None:
        self.server.advance()

    @rule(client=st.integers(0, 7))
    def step(self, client: int) -> None:
        self.server.step(self._able(client))

    @rule(client=st.integers(0, 7), shown=st.tuples(*[st.integers(0, 1)] * 4), sure=st.integers(0, 2))
    def step_of_another_plan(self, client: int, shown: tuple[int, int, int, int], sure: int) -> None:
        if sure == 0:
            self.server.step(self._able(client), shown)

    @rule(
        client=st.integers(0, 7),
        shown=st.tuples(*[st.integers(0, 1)] * 4),
        how=st.integers(0, 9),
        choice=st.integers(0, 2**16),
    )
    def tamper(self, client: int, shown: tuple[int, int, int, int], how: int, choice: int) -> None:
        i = self._able(client)
        frame = self.server.next_frame(i, shown)
        if frame is not None:
            self.server.feed(i, self.server.tampered(i, frame, how, choice))

    @precondition(lambda self: self.liar is not None and self.liar.frames)
    @rule(client=st.integers(0, 7), choice=st.integers(0, 2**10))
    def replay(self, client: int, choice: int) -> None:
        frames = self.server.frames
        self.server.feed(self._honest(client), frames[choice % len(frames)])

    @rule(client=st.integers(0, 7))
    def restart(self, client: int) -> None:
        self.server.restart(self._honest(client))

    @rule(client=st.integers(0, 7), sure=st.integers(0, 9))
    def forget(self, client: int, sure: int) -> None:
        if sure == 0:
            self.server.forget(self._honest(client))

    @invariant()
    def the_server_knows_one_sum_over_those_whom_a_quorum_signed(self) -> None:
        if self.liar is not None:
            self.liar.check()

    def teardown(self) -> None:
        """Go on as planned to the end; what is open then is the exact sum, and is really computed."""
        if self.liar is None or self.liar.violated:
            return
        self.liar.run()
        self.liar.check()
        for components in self.liar.opened.values():
            for members in components:
                check_total(self.liar, members)
        reached = type(self).reached
        reached["schedules"] += 1
        reached.update(name for name, value in self.liar.depth.items() if value)
        reached["all answered"] += all(self.liar.stage(i) == OVER for i in self.liar.honest)

    @property
    def server(self) -> Liar:
        assert self.liar is not None
        return self.liar

    def _honest(self, client: int) -> int:
        return self.server.honest[client % len(self.server.honest)]

    def _able(self, client: int) -> int:
        """A client, with preference for those that are not at their end."""
        able = [i for i in self.server.honest if self.server.stage(i) < OVER] or self.server.honest
        return able[client % len(able)]


RATES = [(70, 66, 0.03), (66, 66, 1 / 3), (70, 70, 1 / 7), (66, 66, 2 / 33)]  # clients, least, corrupt


class SparseLyingServer(LyingServer):
    """The same on a sparse graph, where no number of colluders can be unlucky: t1 = w = C.

    Of the odd rates exactly the declared share colludes, and the roster is all of them or one less.
    """

    reached: ClassVar[Counter[str]] = Counter()
    rates: ClassVar[list[tuple[int, int, float]]] = RATES

    @initialize(drawn=st.integers(0, 2**62))
    def begin(self, drawn: int) -> None:
        clients, least, corrupt = self.rates[drawn % len(self.rates)]
        cohort = Cohort(
            clients,
            corrupt=corrupt,
            dropout=0.05,
            correctness_bits=1,
            ring_bits=5,
            vector_length=7,
            minimum_cohort=least,
        )
        self.liar = liar(cohort, Random(drawn))
        assert corrupt == 0.03 or len(self.liar.corrupt) == round(corrupt * clients)


def liar(cohort: Cohort, random: Random) -> Liar:
    """An adversary with as many clients of its own as every roster that it may make grants it."""
    size, least = len(cohort.signers), cohort.parameters.minimum_cohort
    model = cohort.parameters.threat_model
    graphs = {n: choose_for(n, model) for n in range(least, size + 1)}
    mine = min(colluders(n, graph.degree, model) for n, graph in graphs.items())
    submit = {i: random.choice(["early", "wanted", "wanted", "later"]) for i in range(size)}
    return Liar(cohort, random.sample(range(size), mine), Plan.drawn(random, size), submit)


def check_total(liar: Liar, members: list[Keys]) -> None:
    """What the adversary computes from bytes is the sum that the model says it knows, and nothing else."""
    parameters = members[0].uploads[0].view.parameters
    expected = [0] * parameters.vector_length
    for keys in members:
        expected[keys.client % len(expected)] += 1
    assert liar.total(members) == [value & ring_mask(parameters.ring_bits) for value in expected]


NORMAL = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _every_schedule_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis would change each schedule a little, five times, and so try a fifth of the plans."""
    monkeypatch.setattr(ConjectureRunner, "generate_mutations_from", lambda *_: None, raising=False)


# Without shrinking: for searches that are to find something.
SEARCH = settings(NORMAL, max_examples=400, derandomize=False, phases=[SearchPhase.generate])


def test_no_schedule_of_a_lying_server_tells_it_more_than_one_sum() -> None:
    LyingServer.reached.clear()
    run_state_machine_as_test(LyingServer, settings=NORMAL)
    reached = LyingServer.reached
    # It must not rot into being refused everything.
    assert reached["opened"] > reached["schedules"] / 5, reached
    assert reached["answered"] > reached["schedules"] / 4, reached
    for name in ("two rosters", "two U1", "two S signed", "all answered"):
        assert reached[name], reached


@pytest.mark.parametrize(
    "rate",
    [pytest.param(rate, marks=pytest.mark.exhaustive) for rate in RATES[1:]],
    ids=lambda rate: f"{rate[2]:.3f} of {rate[0]}",
)
def test_no_schedule_on_a_sparse_graph_or_at_an_odd_rate_tells_more_than_one_sum(
    rate: tuple[int, int, float],
) -> None:
    """Few, for each takes seconds; a long run does a thousand."""
    machine: Any = type("SparseAtThisRate", (SparseLyingServer,), {"rates": [rate], "reached": Counter()})
    few = settings(NORMAL, max_examples=4, stateful_step_count=6)
    run_state_machine_as_test(seed(2)(machine), settings=settings(few, derandomize=False))
    assert machine.reached["opened"], machine.reached
    assert machine.reached["signed"], machine.reached


def test_two_rosters_that_share_a_name_sum_honest_clients_once_each() -> None:
    """Found by a long run: six clients, a minimum cohort of four. Nobody honest is in both sums."""
    machine = LyingServer()
    machine.begin(clients=6, corrupt=0.1, least=4, minimum=2, drawn=1332991)
    machine.teardown()
    assert machine.liar is not None
    assert machine.liar.depth["two sums of disjoint cohorts"]
    members = [keys.client for groups in machine.liar.opened.values() for group in groups for keys in group]
    assert len(members) == len(set(members)) >= 4


# --- it can find something

Patch = Callable[[pytest.MonkeyPatch], None]


def without_quorum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unmasking, "_check_quorum", lambda *_: None)


def without_upload_proofs(patch: pytest.MonkeyPatch) -> None:
    def believing(identity: bytes, text: bytes, signature: bytes) -> bool:
        return text.startswith(b"secagg/v1/upload\0") or verify(identity, text, signature)

    patch.setattr(unmasking, "verify", believing)


def without_acceptances(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(masked_input_collection, "verify", lambda *_: True)


def without_advertisement_signatures(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(share_keys, "verify", lambda *_: True)


def without_threshold_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(share_keys, "check_parameters", lambda *_: None)


def without_minimum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RoundView, "effective_minimum", property(lambda _: 1))


@pytest.mark.parametrize(
    ("removed", "first"),
    [
        (without_quorum, 0),
        (without_threshold_check, 1),
        (without_minimum, 0),
    ],
)
def test_the_search_finds_what_is_open_without_a_defence(
    removed: Patch, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed(monkeypatch)
    with pytest.raises(Violation):
        run_state_machine_as_test(seed(first)(type("Search", (LyingServer,), {})), settings=SEARCH)


# Each attack, step by step: clients, corrupt ones, what is shown to whom, the defence against it.
SPLIT_SURVIVORS = Plan(
    # Client 0 is told that 1 dropped out and opens its mask key, client 2 opens its seed.
    sides=(0, 0, 0b1, 0b1),
    survivors=(Shape("uploaded"), Shape("minus", 0b10)),
)
SMALL_U1 = Plan(
    # Client 4 is told that only 0 and a corrupt client shared keys with it; for all others 0 drops out.
    sides=(0, 1 << 4, 0, 0),
    thresholds=("lowest", "chosen"),
    finished=(Shape("dealt"), Shape("small")),
    survivors=(Shape("others"), Shape("claimed")),
)
SPLIT_ROSTERS = Plan(
    # 4, 5 and 6 have a roster of their own in which 4 drops out; the others are told that it is with them.
    sides=(0b1110000, 0, 0b1100000, 0b1100000),
    rosters=(Shape("all"), Shape("own")),
    thresholds=("lowest", "lowest"),
    finished=(Shape("own", 1 << 4), Shape("dealt")),
    survivors=(Shape("claimed"), Shape("minus", 1 << 4)),
)
FORGED = Plan(  # Of client 1 everybody is shown keys of the server's own.
    sides=(0b111, 0, 0, 0), rosters=(Shape("all"), Shape("forged", 1)), thresholds=("chosen", "lowest")
)
DIRECTED = [
    (4, {3}, FORGED, without_advertisement_signatures, "both secrets of client 0"),
    (4, {3}, SPLIT_SURVIVORS, without_quorum, "both secrets of client 1"),
    (6, {5}, SMALL_U1, without_upload_proofs, "the vector of client 4 can be computed"),
    (8, {7}, SPLIT_ROSTERS, without_acceptances, "over others than the survivors that a quorum signed"),
]


def directed(clients: int, corrupt: set[int], plan: Plan) -> Liar:
    liar = Liar(Cohort(clients, ring_bits=5, minimum_cohort=4), corrupt, plan)
    liar.run()
    return liar


@pytest.mark.parametrize(("clients", "corrupt", "plan", "removed", "gained"), DIRECTED)
def test_an_attack_step_by_step_gains_nothing_but_what_its_one_defence_keeps(
    clients: int,
    corrupt: set[int],
    plan: Plan,
    removed: Patch,
    gained: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directed(clients, corrupt, plan).check()
    removed(monkeypatch)
    with pytest.raises(Violation, match=gained):
        directed(clients, corrupt, plan).check()


# --- lying clients


class Watched(Cohort):
    """A cohort whose server is compared with one restored from its snapshot, at every fourth message."""

    heard = 0

    def tell(self, i: int, frame: bytes | None = None) -> list[Effect]:
        frame = self.answer(i) if frame is None else frame
        self.heard += 1
        if self.server.phase is None or self.heard % 4:
            return super().tell(i, frame)
        before = server_state(self.server)
        twin = ServerSession.restore(self.server.snapshot())[0]
        effects = super().tell(i, frame)
        assert outline(twin.receive(self.identities[i], frame)) == outline(effects)
        assert server_state(twin) == server_state(self.server)
        if any(isinstance(effect, Refused) for effect in effects):
            assert server_state(self.server) == before
        return effects

    def close(self) -> list[Effect]:
        twin = ServerSession.restore(self.server.snapshot())[0]
        effects = super().close()
        again = twin.close_phase()
        assert outline(again) == outline(effects)
        assert results(again) == results(effects)
        assert twin.phase == self.server.phase
        return effects


def results(effects: list[Effect]) -> list[object]:
    return [
        (effect.result.total.tolist(), effect.result.survivors, effect.result.blamed)
        for effect in effects
        if isinstance(effect, Completed) and effect.result is not None
    ]


class Liars:
    """Corrupt clients: each has a real session, and says something else in its place."""

    def __init__(self, cohort: Cohort, corrupt: set[int], random: Random) -> None:
        self.cohort, self.corrupt, self.random = cohort, corrupt, random
        # How often they lie in which kind of message: with a lie in each, rounds end early.
        kinds = (Advertisement, SharedKeys, MaskedInput, SurvivorSignature, UnmaskingResponse)
        self.habit: dict[type, float] = {kind: random.choice([0.0, 0.0, 0.5, 1.0]) for kind in kinds}
        self.habit[MaskedInput] = 1.0  # it adds something known, at least
        self.added: dict[int, list[int]] = {}  # by sender, of uploads made
        self.told: Counter[str] = Counter()

    def instead(self, i: int, frame: bytes) -> bytes:
        """What the client sends in place of this frame."""
        message = decode_frame(frame)[1]
        if self.random.random() >= self.habit[type(message)]:
            return frame
        self.told[type(message).__name__] += 1
        if self.random.random() < 0.15 and not isinstance(message, MaskedInput):
            return self._noise(i, frame)
        made = self._lie(i, message)
        return frame if made is None else self.cohort.frame(made)

    def _noise(self, i: int, frame: bytes) -> bytes:
        other = self.cohort.answers[self.random.randrange(len(self.cohort.answers))]
        return self.random.choice(
            [
                flipped(frame, self.random.getrandbits(20)),
                frame[: len(frame) // 2],
                other or b"",
                b"\xff" * 99,
            ]
        )

    def _lie(self, i: int, message: object) -> Any:
        random, cohort = self.random, self.cohort
        wire: Any = message
        match message:
            case Advertisement():
                if random.random() < 0.5:
                    return replace(wire, identity=random.choice(cohort.identities))
                made = replace(wire, **{random.choice(["agreement_key", "mask_key"]): bytes(32)})
                text = advertisement_text(parameters_digest(cohort.parameters), made)
                return replace(made, signature=cohort.signers[i].sign(text))
            case SharedKeys():
                return self._dealt(i, message)
            case MaskedInput():
                return self._upload(i, message)
            case SurvivorSignature():
                if random.random() < 0.5:
                    return replace(wire, index=random.randrange(len(cohort.signers)))
                return replace(wire, signature=random.randbytes(64))
            case UnmaskingResponse():
                name = random.choice(["self_seed_shares", "mask_key_shares"])
                shares = list(getattr(wire, name))
                if random.random() < 0.2:
                    return replace(wire, **{name: tuple(shares[1:])})
                return replace(
                    wire,
                    **{
                        name: tuple(
                            replace(s, share=self._share()) if random.random() < 0.6 else s for s in shares
                        )
                    },
                )
            case _:
                return None

    def _share(self, size: int = SHARE_BYTES) -> bytes:
        """Of the field, or not."""
        words = [self.random.getrandbits(64 if self.random.random() < 0.05 else 60) for _ in range(size // 8)]
        return b"".join(word.to_bytes(8, "little") for word in words)

    def _dealt(self, i: int, message: SharedKeys) -> Any:
        random, cohort = self.random, self.cohort
        wire: Any = message
        lie = random.randrange(6 if cohort.parameters.hybrid else 4)
        if lie > 3 and message.contributions:
            self.told["contributions"] += 1
            return replace(wire, contributions=tuple(map(self._contribution, message.contributions)))
        if lie == 0 or cohort.server.phase in {None, Phase.ADVERTISE_KEYS}:
            return replace(wire, seed_commitment=random.randbytes(32))
        if lie == 1:
            return replace(wire, shares=tuple(message.shares)[1:])
        if lie == 2:
            garbled = [
                replace(s, ciphertext=random.randbytes(96)) if random.random() < 0.4 else s
                for s in message.shares
            ]
            return replace(wire, shares=tuple(garbled))
        wrong = {
            holder: self._share(2 * SHARE_BYTES)
            for holder in cohort.view().graph.neighbors_of(cohort.view().index[cohort.identities[i]])
            if random.random() < 0.4
        }
        by_cohort = {cohort.index[cohort.view().identities[holder]]: plain for holder, plain in wrong.items()}
        return opened(SharedKeys, cohort.dealt(i, by_cohort))

    def _contribution(self, one: SealedContribution) -> SealedContribution:
        """Sometimes nonsense: in its ciphertext, or in its sealed text."""
        random = self.random
        if random.random() < 0.6:
            return one
        if random.random() < 0.5:
            return replace(one, kem=flipped(one.kem, random.getrandbits(13)))
        return replace(one, ciphertext=random.randbytes(48))

    def _departure(self, i: int, delivery: ShareDelivery) -> MaskedInput:
        """Leave because of somebody, rightly or not."""
        got = delivery.contributions
        places = sorted(self.random.sample(range(len(got)), self.random.randint(1, len(got))))
        accused = [got[place] for place in places]
        text = self.cohort.view().departure_text(bytes(delivery.finished), accused)
        self.told["departures"] += 1
        names = tuple(one.peer for one in accused)
        return MaskedInput(b"", (), self.cohort.signers[i].sign(text), names)

    def _upload(self, i: int, message: MaskedInput) -> object:
        """Something known is added to the vector, and shares that were right are complained about."""
        random, cohort = self.random, self.cohort
        delivery = opened(ShareDelivery, cohort.request(i))
        if delivery.contributions and random.random() < 0.3:
            return self._departure(i, delivery)
        if message.unopened:
            return message
        bits, length = cohort.parameters.ring_bits, cohort.parameters.vector_length
        added = [random.randrange(2**bits) for _ in range(length)]
        total = np.array(added, lane_dtype(bits))
        unpack_add(total, bytes(message.packed), bits)
        total &= total.dtype.type(ring_mask(bits))
        packed = bytes(pack(total, bits))
        complaints = {*message.complaints}
        if random.random() < 0.5:
            complaints |= {share.peer for share in delivery.shares if random.random() < 0.4}
        text = cohort.view().upload_text(bytes(delivery.finished), hashlib.sha256(packed).digest())
        signature = cohort.signers[i].sign(text)
        match random.randrange(8):
            case 0:
                signature = random.randbytes(64)
            case 1:
                packed = packed[1:]
            case 2:
                complaints |= {cohort.identities[i]}
            case _:
                self.added[i] = added
        return MaskedInput(packed, tuple(sorted(complaints)), signature)


class LiarsLink(Link):
    """The link, with liars at some of its ends. It turns no bits: blame presumes that."""

    def __init__(self, cohort: Cohort, liars: Liars) -> None:
        super().__init__(cohort)
        self.liars = liars
        self.said: dict[tuple[int, bytes], bytes] = {}  # by sender and honest frame

    def _arrive(self, envelope: Envelope, *, honest: bool = True) -> None:
        if envelope.up and envelope.client in self.liars.corrupt and self.cohort.server.phase is not None:
            key = envelope.client, envelope.frame
            if honest and key not in self.said:
                try:
                    self.said[key] = self.liars.instead(*key)
                except AssertionError:  # too late for this lie
                    self.said[key] = envelope.frame
            said = self.said.get(key, envelope.frame)
            effects = self.cohort.tell(envelope.client, said)
            self._send_down(effects)
            if said != envelope.frame and self.liars.random.random() < 0.5:
                self._send_down(self.cohort.tell(envelope.client, envelope.frame))  # the truth after the lie
            return
        super()._arrive(envelope, honest=honest)


FAULTS = [*[Fault.NONE] * 6, *[fault for fault in Fault if fault is not Fault.FLIP]]


class LyingClients(RuleBasedStateMachine):
    """An honest server, an unreliable network, and as many liars as were declared."""

    reached: ClassVar[Counter[str]] = Counter()
    suite: ClassVar[Suite] = "x25519"

    def __init__(self) -> None:
        super().__init__()
        self.cohort: Watched | None = None

    @initialize(
        clients=st.integers(4, 8),
        corrupt=st.sampled_from([0.1, 0.25, 1 / 7]),
        minimum=st.integers(2, 4),
        drawn=st.integers(0, 2**62),
        quiet=st.integers(0, 4),
    )
    def begin(self, clients: int, corrupt: float, minimum: int, drawn: int, quiet: int) -> None:
        random = Random(drawn)
        self.cohort = Watched(
            clients,
            corrupt=corrupt,
            ring_bits=5,
            minimum_cohort=4,
            minimum_survivors=minimum,
            suite=self.suite,
        )
        most = colluders(clients, clients - 1, self.cohort.parameters.threat_model)
        self.liars = Liars(self.cohort, set(random.sample(range(clients), most)), random)
        self.link = LiarsLink(self.cohort, self.liars)
        self.link.start()
        for _ in range(quiet):  # so that the later phases see faults, too
            self.settle_and_close()

    @precondition(lambda self: self.running and self.link.in_flight)
    @rule(index=st.integers(0, 99), fault=st.sampled_from(FAULTS), choice=st.integers(0, 2**20))
    def deliver(self, index: int, fault: Fault, choice: int) -> None:
        self.link.deliver(index, fault, choice)

    @precondition(lambda self: self.running)
    @rule(sure=st.integers(0, 2))
    def settle_and_close(self, sure: int = 0) -> None:
        if sure == 0:
            self.link.settle()
            self.close_when_ready()

    @rule()
    def close_when_ready(self) -> None:
        if self.running and self.server.server.progress.ready:
            self.link.close()

    @precondition(lambda self: self.running)
    @rule(client=st.integers(0, 7), up=st.booleans())
    def resend(self, client: int, up: bool) -> None:
        self.link.resend(client % len(self.server.signers), up=up)

    @rule(client=st.integers(0, 7))
    def restart_client(self, client: int) -> None:
        self.link.restart_client(client % len(self.server.signers))

    @precondition(lambda self: self.running)
    @rule()
    def restart_server(self) -> None:
        self.link.restart_server()

    @precondition(lambda self: self.running)
    @rule(client=st.integers(0, 7), sure=st.integers(0, 9))
    def give_up(self, client: int, sure: int) -> None:
        if sure == 0:
            self.server.server.drop(self.server.identities[client % len(self.server.signers)])

    @invariant()
    def no_honest_client_reveals_both_secrets_or_gives_the_round_up(self) -> None:
        if self.cohort is None:
            return
        for seeds, keys in self.cohort.released.values():
            assert not seeds & keys
        for client, reason in self.cohort.client_aborts.items():  # of nonsense of a liar
            assert client in self.liars.corrupt or reason is AbortReason.BAD_CONTRIBUTION

    def teardown(self) -> None:
        """Drive the round to its end: the exact sum, or a typed end, and nobody honest is guilty."""
        if self.cohort is None:
            return
        last = self.cohort.server.phase
        for _ in range(len(Phase) + 1):
            if not self.running:
                break
            last = self.cohort.server.phase
            self.link.settle()
            for client in self.cohort.waiting():
                self.link.resend(client, up=False)
            self.link.settle()
            for client in self.cohort.waiting():
                self.link.resend(client, up=True)
            self.link.settle()
            self.link.close()
        reached, outcome = type(self).reached, self.cohort.outcome
        honest = {*self.cohort.identities} - {self.cohort.identities[i] for i in self.liars.corrupt}
        if isinstance(outcome, Aborted):
            assert isinstance(outcome.reason, AbortReason)
            assert not honest & {*outcome.guilty}
            reached[f"ended: {outcome.reason}"] += 1
        else:
            assert isinstance(outcome, Aggregate)
            assert not honest & {entry.client for entry in outcome.blamed if entry.guilty}
            survivors = [self.cohort.index[identity] for identity in outcome.survivors]
            expected = np.array(self.cohort.sum_over(survivors))
            for i in survivors:
                if i in self.liars.corrupt and i in self.liars.added:
                    expected = expected + np.array(self.liars.added[i])
            bits = self.cohort.parameters.ring_bits
            assert [int(v) for v in outcome.total] == [int(v) & ring_mask(bits) for v in expected]
            reached["completed"] += 1
            reached["completed with blame"] += bool(outcome.blamed)
            reached["completed with guilt"] += any(entry.guilty for entry in outcome.blamed)
            reasons = {entry.reason for entry in outcome.blamed if entry.guilty}
            reached["completed with proof"] += BlameReason.BAD_CONTRIBUTION in reasons
        reached["schedules"] += 1
        reached[f"last phase {None if last is None else last.name}"] += 1
        reached.update(f"lied in {name}" for name in self.liars.told)

    @property
    def server(self) -> Watched:
        assert self.cohort is not None
        return self.cohort

    @property
    def running(self) -> bool:
        return self.cohort is not None and self.cohort.server.phase is not None


def test_no_schedule_of_lying_clients_spoils_the_sum_or_makes_an_honest_client_guilty() -> None:
    LyingClients.reached.clear()
    run_state_machine_as_test(LyingClients, settings=settings(NORMAL, max_examples=60))
    reached = LyingClients.reached
    assert reached["completed"] > reached["schedules"] / 3, reached
    assert reached["completed with blame"], reached
    for kind in ("Advertisement", "SharedKeys", "MaskedInput", "SurvivorSignature", "UnmaskingResponse"):
        assert reached[f"lied in {kind}"], reached


class HybridLyingClients(LyingClients):
    """The same in the hybrid suite: liars also lie about contributions, and leave when they like."""

    reached: ClassVar[Counter[str]] = Counter()
    suite: ClassVar[Suite] = HYBRID


def test_no_schedule_of_lying_clients_does_so_in_the_hybrid_suite() -> None:
    HybridLyingClients.reached.clear()
    run_state_machine_as_test(HybridLyingClients, settings=settings(NORMAL, max_examples=60))
    reached = HybridLyingClients.reached
    assert reached["completed"] > reached["schedules"] / 4, reached
    assert reached["lied in departures"], reached
    assert reached["lied in contributions"], reached


# --- the same for long

BATCH = 1000  # schedules with one seed: what Hypothesis remembers of them grows


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize(
    ("machine", "batches"), [(LyingServer, 70), (SparseLyingServer, 1), (LyingClients, 29)]
)
def test_a_hundred_thousand_schedules(machine: type[LyingServer | LyingClients], batches: int) -> None:
    machine.reached.clear()
    for first in range(batches):
        fresh = seed(first)(type(machine.__name__, (machine,), {}))
        run_state_machine_as_test(fresh, settings=settings(NORMAL, max_examples=BATCH, derandomize=False))
    counts = [f"  {name}: {count}" for name, count in sorted(machine.reached.items())]
    print("\n".join(["", machine.__name__, *counts]))  # noqa: T201 - a long run says what it saw
    assert machine.reached["schedules"] >= batches * BATCH
