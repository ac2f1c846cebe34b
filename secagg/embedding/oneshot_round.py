"""The server of a round of the one-upload protocol inside another stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from secagg.effects import (
    Aborted,
    AbortReason,
    CommitteeFormed,
    Completed,
    Dropped,
    Effect,
    OneShotAggregate,
    RefusalReason,
    Refused,
    Send,
    UploadTaken,
)
from secagg.embedding.any_round import AnyRound, Loss, Observer
from secagg.embedding.ask import Ask, Node
from secagg.embedding.committee import Committee, colluding_in
from secagg.embedding.keeping import Question
from secagg.embedding.participant import QuestionOf, context_is_subject
from secagg.embedding.patience import AnyPhase, Patience
from secagg.embedding.replies import LossReason, Reason, bundled, declined
from secagg.errors import InfeasibleParameters, LocalProtocolError, RemoteProtocolError
from secagg.messages.oneshot import ONESHOT_FRAMES, CommitteeKey, Upload, decode_oneshot
from secagg.params import MILLION, Buffer, Identity, RoundParameters, require
from secagg.params_oneshot import EpochPhase, OneShotParameters, OneShotPhase
from secagg.primitives.kem import require_kem
from secagg.protocol.oneshot import CommitteeSession, OneShotServer
from secagg.registry import Registry
from secagg.store import LedgerError, ParticipationLedger

_Signed = TypeVar("_Signed", CommitteeKey, Upload)


class OneShotRound(AnyRound[Node]):
    """A round of the one-upload protocol; see `AnyRound`. Each node is asked once, for its vector.

    Then the decryptors among the nodes are asked three times: for what they have seen, for their signature
    under the sum, for their part of its opening. Where there is no committee yet, it is formed first.

    parameters  id, length, ring_bits, context and minimum_survivors of the round, and minimum_cohort: of so
                many a share is taken for colluding, and so many should come; the rest is the committee's
    committee   of this round and others
    nodes       to ask, by the host's own ids; which identity a node has it signs
    registry    who is enrolled
    ledger      what was summed before, as of `Round`. Nodes have their own, and upload about one subject once
    the rest    as of `Round`
    raises      ParameterError: no such round with so many nodes, no room for the noise in the ring, too few
                decryptors; RegistryError: one of them is not enrolled
    """

    def __init__(
        self,
        parameters: RoundParameters,
        *,
        committee: Committee,
        nodes: Collection[Node],
        registry: Registry,
        patience: Patience | None = None,
        excluded: Collection[Identity] = (),
        ledger: ParticipationLedger | None = None,
        question_of: QuestionOf = context_is_subject,
        observer: Observer[Node] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        threads: int = 1,
    ) -> None:
        super().__init__(
            parameters,
            nodes=nodes,
            registry=registry,
            patience=patience,
            excluded=excluded,
            ledger=ledger,
            observer=observer,
            clock=clock,
            wall=wall,
            threads=threads,
        )
        self._committee = committee
        if committee.post_quantum:
            require_kem()
        self._candidates = committee.candidates(registry) & self._admitted
        require(
            len(self._candidates) >= committee.minimum,
            "Committee.decryptors",
            f"at least Committee.minimum = {committee.minimum} beside those who are excluded",
            len(self._candidates),
        )
        least = self._parameters_of(bytes(32)).effective_minimum
        require(
            len(self._nodes) >= least, "nodes", f"at least {least}, the fewest in a sum", len(self._nodes)
        )
        self._question: Question = question_of(parameters)
        self._forming: CommitteeSession | None = None
        self._answered: set[Node] = set()  # in the phase that goes on
        self._asked: dict[Node, Identity] = {}  # which members are asked, and where
        self._server: OneShotServer | None = None
        self._after: AnyPhase = EpochPhase.KEYS

    def _parameters_of(self, committee_digest: bytes) -> OneShotParameters:
        wanted = self.parameters
        least = max(wanted.minimum_survivors, self._colluding + 2)
        return OneShotParameters(
            round_id=wanted.round_id,
            committee_digest=committee_digest,
            vector_length=wanted.vector_length,
            ring_bits=wanted.ring_bits,
            contexts=(wanted.context,),
            maximum_uploads=max(min(len(self._nodes), len(self._admitted)), least),
            minimum_survivors=wanted.minimum_survivors,
            colluding=self._colluding,
        )

    @property
    def _colluding(self) -> int:
        """How many clients are taken for colluding."""
        model = self._committee.threat_model
        return self._committee.colluding or colluding_in(self.parameters.minimum_cohort, model.corrupt)

    def _enough(self) -> bool:
        """Whether so many uploads came that those who are missing have the grace, and no more."""
        model, cohort = self._committee.threat_model, self.parameters.minimum_cohort
        expected = cohort - -(-model.dropout_ppm * cohort // MILLION)
        return len(self._live.uploads) >= max(expected, self._live.parameters.effective_minimum)

    @property
    def result(self) -> OneShotAggregate:
        """The sum, as of `AnyRound`."""
        found = super().result
        if not isinstance(found, OneShotAggregate):
            raise LocalProtocolError("result: of the one-upload protocol")
        return found

    @property
    def _phase(self) -> AnyPhase:
        for session in (self._server, self._forming):
            if session is not None and session.phase is not None:
                self._after = session.phase
                break
        return self._after

    def _trips(self) -> Iterator[Ask[Node]]:
        committee = self._committee
        if not committee.serves(self._nodes, self._admitted):
            yield from self._form()
        if self._outcome is not None or committee.view is None:
            return
        parameters = self._parameters_of(committee.view.committee_digest)
        self._answered.clear()
        self._server = server = OneShotServer(
            parameters, committee.view, known=self._admitted, threads=self._threads
        )
        server.start()
        request = bundled(parameters.round_id, [committee.certificate, server.parameters_frame.buffer()])
        ask = self._ask(
            dict.fromkeys(self._nodes, request), self._take_upload, self._enough, wants_vector=True
        )
        yield ask
        ask.close()
        self._close(server)
        while self._outcome is None:
            ask = self._ask(self._requests(server), self._answer, self._ready(server), wants_vector=False)
            if ask.frames:
                yield ask
            ask.close()
            self._close(server)

    # --- the committee

    def _form(self) -> Iterator[Ask[Node]]:
        """Form a committee of those among the nodes who may be in it, and are there."""
        committee = self._committee
        committee.renew()
        self._identities, self._named = {}, {}
        self._forming = session = CommitteeSession(committee.parameters(), candidates=self._candidates)
        try:
            frame = next(effect.frame for effect in session.start() if isinstance(effect, Send))
        except InfeasibleParameters as error:
            self._abort(Aborted(AbortReason.INFEASIBLE_PARAMETERS, (), str(error)))
            return
        epoch_id = ONESHOT_FRAMES.open(frame.buffer()).round_id
        requests = dict.fromkeys(self._nodes, bundled(epoch_id, [frame.buffer()]))
        while True:
            ask = self._ask(requests, self._take_candidate, self._ready(session), wants_vector=False)
            if requests:
                yield ask
            ask.close()
            requests = {}
            # A passive committee stands as it is announced: there is one more trip, and no phase.
            for effect in [] if session.phase is None else session.close_phase():
                match effect:
                    case Send(to=to, frame=frame) if to in self._named:
                        requests[self._named[to]] = bundled(epoch_id, [frame.buffer()])
                    case CommitteeFormed(certificate=certificate) if session.view is not None:
                        committee.formed(bytes(certificate), session.view, self._named)
                    case Aborted():
                        self._abort(effect)
                    case _:
                        pass
            if session.phase is None and not requests:
                self._forming = None
                return
            self._after = EpochPhase.ACCEPTANCE
            self._answered.clear()

    def _take_candidate(self, node: Node, reply: bytes) -> bool:
        """Take a candidate's key, or a member's acceptance."""
        session = self._forming
        if session is None or node in self._answered:
            return True  # the first stands
        if (reason := declined(reply)) in {LossReason.NO_MEMBER, LossReason.NOTED}:
            return True
        if reason is not None:
            return self._lose(node, reason, "")
        if session.view is None:
            try:
                identity = _signer(CommitteeKey, reply)
            except RemoteProtocolError as error:
                return self._lose(node, LossReason.MALFORMED, str(error))
            if identity in self._admitted and identity not in self._candidates:
                why = f"{self._registry.name_of(identity)} is not in Committee.decryptors"
                return self._lose(node, LossReason.NO_MEMBER, why)
            if not self._may_be(node, identity) or not self._fed(session.receive(identity, reply), node):
                return True
            self._name(node, identity)
            self._answered.add(node)
            return True
        return self._fed(session.receive(self._identities[node], reply), node)

    # --- uploads

    def _take_upload(self, node: Node, reply: bytes) -> bool:
        """Take an upload: it names its node. Of two of one node the first stands."""
        if (reason := declined(reply)) is not None:
            return self._lose(node, reason, "")
        server, subject = self._live, self._question.subject
        if node in self._answered:
            return True  # the first stands
        try:
            identity = _signer(Upload, reply)
        except RemoteProtocolError as error:
            return self._lose(node, LossReason.MALFORMED, str(error))
        if identity not in server.uploads:
            self._named.pop(identity, None)  # a node that was started again may have another id
        if not self._may_be(node, identity):
            return True
        known = self._ledger is not None and self._ledger.told(subject, identity)
        if known and identity not in server.uploads:
            return self._lose(node, LossReason.LEDGER, "uploaded about this before")
        if not self._fed(effects := server.receive(identity, reply), node):
            return True
        self._name(node, identity)
        self._answered.add(node)
        if self._ledger is not None and any(
            isinstance(one, UploadTaken) and not one.again for one in effects
        ):
            round_id = self.parameters.round_id
            self._ledger.spend(subject, round_id, identity, self._wall(), again=True)
        return True

    @property
    def _live(self) -> OneShotServer:
        if self._server is None:
            raise LocalProtocolError("the round has not begun")
        return self._server

    # --- the sum

    def _requests(self, server: OneShotServer) -> dict[Node, bytes]:
        """Return what each member is asked, with everything again that it must know for its answer."""
        asked: dict[Identity, Node] = {}
        for member in sorted(server.progress.missing):
            node = self._named.get(member, self._committee.nodes.get(member))
            if node in self._nodes:
                asked[member] = node
                self._identities.setdefault(node, member)
                self._asked[node] = member  # its upload may have been another's
            else:
                server.drop(member)
                self._committee.lost(member)
        frames: dict[Identity, list[Buffer]] = {member: [] for member in asked}
        for effect in server.resend(*asked):
            if isinstance(effect, Send) and effect.to is not None:
                frames[effect.to].append(effect.frame.buffer())
        round_id = self.parameters.round_id
        return {node: bundled(round_id, frames[member]) for member, node in asked.items()}

    def _answer(self, node: Node, reply: bytes) -> bool:
        """Take a member's answer."""
        if (reason := declined(reply)) is not None:
            return self._lose(node, reason, "")
        member, server = self._asked[node], self._live
        if not self._fed(server.receive(member, reply), node):
            return True
        if member in server.progress.missing:  # its review; it was sent everything
            return self._lose(node, RefusalReason.NOT_INCLUDED, "it has reviewed other uploads")
        return True

    def _close(self, server: OneShotServer) -> None:
        """Leave a phase: the ledger is asked before anybody signs, and told before anybody sees the sum."""
        reviewing = server.phase is OneShotPhase.REVIEW
        for effect in server.close_phase():
            match effect:
                case Send():
                    continue
                case Dropped(client=member):
                    self._committee.lost(member)
                case Aborted(reason=reason):
                    if reason is not AbortReason.TOO_FEW_SURVIVORS:
                        self._committee.renew()
                    self._abort(effect)
                    return
                case Completed(result=OneShotAggregate() as result):
                    self._finish(result)
                case _:
                    pass
            self._tell(effect)
        if reviewing:
            self._ask_ledger(server.proposed)

    def _ask_ledger(self, members: Collection[Identity]) -> None:
        if self._ledger is None:
            return
        floor = self._question.floor or self._colluding + 2
        try:
            concerns = self._ledger.sign(
                self._question.subject, self.parameters.round_id, members, floor=floor
            )
        except LedgerError as error:
            self._outcome = error
            return
        for concern in concerns:
            self._tell(concern)

    def _finish(self, result: OneShotAggregate) -> None:
        if self._ledger is not None:
            self._ledger.released(self._question.subject, self.parameters.round_id, result.survivors)
        for client in result.left_out:
            self._note(Loss(self._named[client], OneShotPhase.REVIEW, LossReason.LEFT_OUT))
        self._outcome = result

    # --- losses

    def _fed(self, effects: list[Effect], node: Node) -> bool:
        """Tell what followed from a frame; false, and the node is lost, if it was refused."""
        for effect in effects:
            self._tell(effect)
            if isinstance(effect, Refused):
                return not self._lose(node, effect.reason, effect.detail)
        return True

    def _lose(self, node: Node, reason: Reason, detail: str) -> bool:
        self._note(Loss(node, self._phase, reason, detail))
        identity, view = self._asked.get(node, self._identities.get(node)), self._committee.view
        # That it makes no vector says nothing of the decryptor that it may be.
        if identity is None or self._phase is OneShotPhase.UPLOAD:
            return True
        for session in (self._forming, self._server):
            if session is not None:
                session.drop(identity)
        refuses = reason in {LossReason.LEDGER, LossReason.CONSENT}  # this sum, and not the next
        if view is not None and identity in view.index and not refuses:
            self._committee.lost(identity)
        return True

    @staticmethod
    def _ready(session: CommitteeSession | OneShotServer) -> Callable[[], bool]:
        return lambda: session.progress.ready


def _signer(kind: type[_Signed], reply: Buffer) -> Identity:
    """Return who says that it made a frame. Raises RemoteProtocolError: it is no such frame."""
    message = decode_oneshot(ONESHOT_FRAMES.open(reply))
    if not isinstance(message, kind):
        raise RemoteProtocolError("malformed", f"{type(message).__name__} in place of {kind.__name__}")
    return Identity(message.identity)
