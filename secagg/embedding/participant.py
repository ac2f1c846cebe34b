"""A node of another stack in its rounds: one request in, one reply out."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from threading import Lock, get_ident
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias
from weakref import WeakValueDictionary

from secagg.effects import (
    Aborted,
    AbortReason,
    Completed,
    Effect,
    InputWanted,
    RefusalReason,
    Refused,
    Send,
    SignWanted,
)
from secagg.embedding.committee import colluding_in
from secagg.embedding.given import Consent, Context, Given, MakeVector, told
from secagg.embedding.keeping import KeptRound, Means, Question, RoundForgottenError
from secagg.embedding.oneshot import OneShotNode, is_for_decryptors
from secagg.embedding.replies import (
    NO_ROUND,
    Declining,
    LossReason,
    decline,
    is_bundle,
    unbundled,
)
from secagg.errors import (
    ConsentError,
    ParameterError,
    RegistryError,
    RemoteProtocolError,
    StaleSnapshotError,
)
from secagg.key_files import read_identity, store_key
from secagg.messages import KINDS, RoundParametersMessage, open_frame
from secagg.messages.frames import Envelope
from secagg.params import Entropy, Identity, Policy, RoundParameters, Signer, require
from secagg.params_oneshot import OneShotPolicy
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession
from secagg.registry import Registry
from secagg.store import (
    Counter,
    LedgerError,
    ParticipationLedger,
    SealedStore,
    SqliteStore,
    Store,
    StoredCounter,
    StoreError,
    floor_for,
)

QuestionOf: TypeAlias = Callable[[RoundParameters], Question]

_log = logging.getLogger("secagg.embedding")
_ROUNDS = "embedding/"
_TIME_BYTES = 8
_FIRST = KINDS.index(RoundParametersMessage)
_DECRYPTORS = b"decryptors"  # whose requests wait for each other, of whatever round
_warned = False


def context_is_subject(parameters: RoundParameters) -> Question:
    """Take every context for a subject of its own: there is one sum about it, or the same members again."""
    return Question(parameters.context)


class Participant:
    """Takes part in rounds whose requests a host carries; each end of a round is a call of `answer`.

    signer       the node's identity
    policy       what it demands of a round; `known` comes from its own registry
    store        keeps the secrets of rounds between requests, sealed here: a file of ours (`SqliteStore`,
                 `FolderStore`), or the host's state (`MappingStore`)
    counter      counts what was released, where nothing sets it back together with `store`. Hosts do set
                 state back: some send a reply before they save what belongs to it. Default: in `store`, with
                 a warning
    ledger       what this node uploaded and signed before, where nothing sets it back, either: a sum over one
                 member less would tell that member's vector. Default: in `store`, with a warning
    key          32 bytes that seal the store; default: from the signer, where it is an `IdentityKey`
    question_of  what a round asks, for the ledger; default: its context is its subject
    consent      called with (parameters, U1, S) before a sum over S is signed: raises ConsentError to refuse.
                 The ledger is asked in any case
    rounds       so many are kept at once; of more, the oldest are forgotten
    threads      for masking
    oneshot      what it demands of committees and rounds of the one-upload protocol: to upload there, and to
                 open sums where it is a decryptor. Default: it takes no such request
    again        upload in that protocol although a vector about the subject was uploaded before: two sums
                 that differ in one node show its vector
    epoch_s      seconds after which a decryptor forgets its part in a committee, when it is next asked
                 anything, opened, or told to (`forget_old`)

    May be used from several threads: requests of one round wait for each other.
    """

    def __init__(
        self,
        signer: Signer,
        policy: Policy,
        *,
        store: Store,
        counter: Counter | None = None,
        ledger: ParticipationLedger | None = None,
        key: bytes | None = None,
        question_of: QuestionOf = context_is_subject,
        consent: Consent | None = None,
        entropy: Entropy = os.urandom,
        wall: Callable[[], float] = time.time,
        rounds: int = 4,
        threads: int = 1,
        oneshot: OneShotPolicy | None = None,
        again: bool = False,
        epoch_s: float = 86_400.0,
    ) -> None:
        require(rounds >= 1, "rounds", "at least 1", rounds)
        if counter is None or ledger is None:
            _warn_once()
        sealed = store if isinstance(store, SealedStore) else SealedStore(store, _key(signer, key))
        self._means = Means(
            signer=signer,
            policy=policy,
            entropy=entropy,
            store=sealed,
            counter=counter or StoredCounter(sealed),
            ledger=ledger or ParticipationLedger(sealed),
            wall=wall,
            resumes=True,
            threads=threads,
        )
        self._question_of, self._consent, self._rounds = question_of, consent, rounds
        self._turns: WeakValueDictionary[bytes, _Turn] = WeakValueDictionary()
        self._lock = Lock()
        self._owned: list[SqliteStore] = []
        self._oneshot: OneShotNode | None = None
        if oneshot is not None:
            self._oneshot = OneShotNode(
                self._means,
                oneshot,
                question_of=question_of,
                again=again,
                consent=consent,
                epoch_s=epoch_s,
                rounds=rounds,
            )

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        minimum_cohort: int,
        decryptors: Collection[str] | Literal["all"] = (),
        signer: Signer | None = None,
        store: Store | None = None,
        demands: Mapping[str, Any] = MappingProxyType({}),
        **others: Any,  # noqa: ANN401 - of the constructor
    ) -> Participant:
        """Return the participant of a node's own folder, which only its owner reads; close it at the end.

        folder          has `registry.toml` and, unless a signer is given, `party.key`; gets `counter.sqlite`,
                        `ledger.sqlite` and, where no other store is given, `rounds.sqlite`. One process at a
                        time
        minimum_cohort  fewest clients with which a round may begin
        decryptors      who may open sums of the one-upload protocol, by their names in the registry; nobody:
                        it takes no request of that protocol
        store           where rounds are kept instead, as the state of a host
        demands         further ones of the policies, by the names of `Policy` and `OneShotPolicy`

        raises  KeyFileError, RegistryError, StoreError (StoreBusyError: another process has the folder)
        """
        folder = Path(folder)
        signer = signer or read_identity(folder / "party.key")
        registry = Registry.load(folder / "registry.toml")
        if signer.identity not in registry.identities:
            raise RegistryError(
                f"{folder / 'registry.toml'}: must have this node, its identity is {signer.identity.hex()}: "
                "enrol it at the server and at every node (python -m secagg.embedding FOLDER prints its line)"
            )
        policies = _policies(registry, minimum_cohort, decryptors, demands)
        owned: list[SqliteStore] = []
        try:
            names = ["counter", "ledger", *(["rounds"] if store is None else [])]
            owned.extend(SqliteStore(folder / f"{name}.sqlite") for name in names)
            one = cls(
                signer,
                policies[0],
                store=owned[-1] if store is None else store,
                counter=StoredCounter(owned[0]),
                ledger=ParticipationLedger(owned[1]),
                oneshot=policies[1],
                **others,
            )
        except BaseException:
            for opened in owned:
                opened.close()
            raise
        one._owned = owned
        try:
            one.forget_old()
        except BaseException:
            one.close()
            raise
        return one

    @property
    def identity(self) -> Identity:
        """The node's identity."""
        return self._means.signer.identity

    def close(self) -> None:
        """Close the stores that `open` opened; may be called again."""
        if self._oneshot is not None:
            self._oneshot.close()
        for store in self._owned:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(
        self, request: object, vector: MakeVector, *, context: Context, subject: Context | None = None
    ) -> bytes:
        """Answer a request of the server. The reply is to be sent as it is, whatever it says.

        vector   called with the round's parameters once, when the vector is wanted: returns (d,) unsigned
                 integers below 2^ring_bits, or a VectorSource
        context  what this node's vector is about, 32 bytes, computed from what it was given; or a function
                 that computes it, called when the vector is wanted: where the model comes with that request
                 only. A round about something else is left
        subject  what the ledger is to know the question by, 32 bytes, or a function, called as `context`: the
                 same for all rounds whose vectors are nearly the same. None: as `question_of` says
        returns  the reply. Nothing that the server sends, and nothing that goes wrong here, raises: a reply
                 without a frame has a reason of an enumeration; what was raised is logged here, by
                 "secagg.embedding", with its words
        """
        if not isinstance(request, bytes | bytearray | memoryview):
            _log.warning("a request was refused: it is %s", type(request).__name__)
            return decline(NO_ROUND, RefusalReason.MALFORMED)
        frame, given = bytes(request), Given(vector, context, subject)
        bundle = is_bundle(frame)
        try:
            envelope = bundle or open_frame(frame)
        except RemoteProtocolError as error:
            _log.warning("a request was refused: %s", error)
            return decline(NO_ROUND, RefusalReason(str(error.reason)))
        round_id = envelope.round_id
        try:
            self.forget_old()
            if bundle is not None:
                return self._in_oneshot(bundle, given)
            with self._of_round(round_id):
                return self._in_pairs(round_id, frame, given, first=envelope.kind == _FIRST)
        except Declining as declining:
            level = logging.DEBUG if declining.reason is LossReason.NO_MEMBER else logging.WARNING
            why = f"{declining.reason}: {declining.detail}" if declining.detail else declining.reason
            _log.log(level, "%s: %s", self._about(round_id), why)
            return decline(round_id, declining.reason)
        except StoreError:
            _log.exception("%s: the store takes nothing", self._about(round_id))
            return decline(round_id, LossReason.STORE)
        except Exception:  # noqa: BLE001 - of our caller: logged with its traceback, for its eyes only
            _log.exception("%s: no vector", self._about(round_id))
            return decline(round_id, LossReason.FAILED)

    def forget_old(self) -> None:
        """Forget the parts in committees whose time is over. Every answer does; call it where none is asked.

        raises  StoreError
        """
        if self._oneshot is not None and not self._is_mine(_DECRYPTORS):
            with self._of_round(_DECRYPTORS):
                self._oneshot.forget_old()

    # --- one request

    def _in_pairs(self, round_id: bytes, frame: bytes, given: Given, *, first: bool) -> bytes:
        kept = KeptRound(self._means, f"{_ROUNDS}{round_id.hex()}")
        try:
            return self._answered(kept, frame, given, first=first)
        except Declining as declining:
            if declining.forget:
                self._forget_quietly(kept, round_id)
            raise
        except StoreError:
            raise
        except Exception:
            self._forget_quietly(kept, round_id)
            raise
        finally:
            kept.leave()

    def _in_oneshot(self, bundle: Envelope, given: Given) -> bytes:
        if self._oneshot is None:
            raise Declining(
                RefusalReason.POLICY,
                "the one-upload protocol: this node has no policy for it (decryptors= of Participant.open)",
            )
        try:
            frames = unbundled(bundle)
            if is_for_decryptors(frames[-1]):
                with self._of_round(_DECRYPTORS):
                    return self._oneshot.help_to_open(frames)
            with self._of_round(bundle.round_id):
                return self._oneshot.upload(frames, given)
        except RemoteProtocolError as error:
            raise Declining(RefusalReason(str(error.reason)), error.detail) from error

    def _answered(self, kept: KeptRound, request: bytes, given: Given, *, first: bool) -> bytes:
        session = self._session(kept, given, first=first)
        effects = session.receive(request)
        self._check_begun(kept)
        while True:
            self._keep(kept, effects)  # first; then the answer
            match _next(effects):
                case InputWanted() if session.parameters is not None:
                    effects = self._submit(kept, session, session.parameters, given)
                case SignWanted(finished=finished, survivors=survivors) if session.parameters is not None:
                    self._consents(kept, session, finished, survivors)
                    effects = session.sign()
                case Send(frame=frame):
                    self._settle(kept, effects)
                    return bytes(frame)
                case Refused(reason=reason, detail=detail):
                    raise Declining(reason, detail)
                case Aborted(reason=reason, detail=detail):
                    raise Declining(reason, detail, forget=True)
                case _:
                    raise Declining(RefusalReason.WRONG_PHASE)

    def _session(self, kept: KeptRound, given: Given, *, first: bool) -> ClientSession:
        """Take the round up where it was, or begin it."""
        try:
            effects = kept.restore()
        except StaleSnapshotError as error:  # or another process is about to keep a newer one
            raise Declining(LossReason.SET_BACK, str(error)) from error
        except ParameterError as error:
            raise Declining(LossReason.SET_BACK, str(error), forget=True) from error
        if effects is not None and kept.session is not None:
            return kept.session
        if not first:
            raise Declining(LossReason.FORGOTTEN)
        return kept.begin(given.context if isinstance(given.context, bytes) else None)

    def _check_begun(self, kept: KeptRound) -> None:
        if kept.parameters is None or kept.admitted:
            return
        try:
            kept.check_begun()
        except RoundForgottenError as error:
            raise Declining(LossReason.FORGOTTEN, str(error)) from error
        self._make_room()

    def _submit(
        self, kept: KeptRound, session: ClientSession, parameters: RoundParameters, given: Given
    ) -> list[Effect]:
        """Compare what the vector is about, ask the ledger, and only then make it."""
        about = told(given.context)
        if about != parameters.context:
            raise Declining(
                AbortReason.CONTEXT_MISMATCH,
                "its model, mean or configuration is not what we were given",
                forget=True,
            )
        question = self._question_of(parameters)
        if given.subject is not None:
            question = replace(question, subject=told(given.subject))
        try:
            for concern in kept.ask_ledger(question):
                _log.warning("our ledger warns: %s: %s", concern.kind, concern.detail)
        except LedgerError as error:
            raise Declining(LossReason.LEDGER, str(error), forget=True) from error
        return session.submit(given.vector(parameters), context=about)

    def _keep(self, kept: KeptRound, effects: list[Effect]) -> None:
        began = int(self._means.wall() * 1000).to_bytes(_TIME_BYTES, "big")
        try:
            # With every step, so that a round that was forgotten meanwhile is counted again.
            kept.keep(effects, {f"{kept.name}/began": began})
        except LedgerError as error:
            raise Declining(LossReason.LEDGER, str(error), forget=True) from error
        except ParameterError as error:  # the counter: another process made this step
            raise Declining(LossReason.SET_BACK, str(error)) from error

    def _consents(
        self,
        kept: KeptRound,
        session: ClientSession,
        finished: frozenset[Identity],
        survivors: frozenset[Identity],
    ) -> None:
        parameters = session.parameters
        if parameters is None:
            return
        try:
            if self._consent is not None:
                self._consent(parameters, finished, survivors)
            floor = floor_for(parameters.threat_model, session.roster)
            self._means.ledger.sign(kept.subject, parameters.round_id, survivors, floor=floor)
        except LedgerError as error:
            raise Declining(LossReason.LEDGER, str(error), forget=True) from error
        except ConsentError as error:
            raise Declining(LossReason.CONSENT, str(error), forget=True) from error

    def _settle(self, kept: KeptRound, effects: Iterable[Effect]) -> None:
        """Note the sum that our vector is in, and forget a round that we leave."""
        for effect in effects:
            match effect:
                case Completed(survivors=survivors):
                    kept.summed(survivors)
                case Aborted():
                    self._forget(kept)
                case _:
                    pass

    # --- rounds that are kept

    def _forget_quietly(self, kept: KeptRound, round_id: bytes) -> None:
        try:
            self._forget(kept)
        except Exception:  # noqa: BLE001 - of the host's state
            _log.exception("%s: cannot be forgotten", self._about(round_id))

    def _forget(self, kept: KeptRound) -> None:
        kept.leave()
        kept.unkeep(f"{kept.name}/began")

    def _make_room(self) -> None:
        """Forget the oldest rounds: another one begins."""
        store = self._means.store
        began = {
            name.split("/")[1]: store.get(name) or b""
            for name in store.names(_ROUNDS)
            if name.endswith("/began")
        }
        for name in sorted(began, key=lambda one: (began[one], one))[: max(len(began) - self._rounds + 1, 0)]:
            KeptRound(self._means, f"{_ROUNDS}{name}").unkeep(f"{_ROUNDS}{name}/began")

    def _is_mine(self, round_id: bytes) -> bool:
        """Whether this thread is within an answer of the round."""
        turn = self._turns.get(round_id)
        return turn is not None and turn.owner == get_ident()

    @contextmanager
    def _of_round(self, round_id: bytes) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(round_id, _Turn())
        if turn.owner == get_ident():  # or it would wait for itself
            raise Declining(RefusalReason.WRONG_PHASE, "answered from within an answer of the same round")
        with turn.lock:
            turn.owner = get_ident()
            try:
                yield
            finally:
                turn.owner = None

    def _about(self, round_id: bytes) -> str:
        return f"node {self.identity.hex()[:8]}, round {round_id.hex()[:8]}"

    def __repr__(self) -> str:
        return f"Participant({self.identity.hex()[:12]})"


class _Turn:
    """The lock of a round, as long as somebody has it or waits for it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.owner: int | None = None  # the thread that has it


def _next(effects: list[Effect]) -> Effect | None:
    """Return the effect to act upon: a question, else a frame, else why there is none."""
    for kinds in ((InputWanted, SignWanted), (Send,), (Refused, Aborted)):
        for effect in effects:
            if isinstance(effect, kinds):
                return effect
    return None


def _policies(
    registry: Registry,
    minimum_cohort: int,
    decryptors: Collection[str] | Literal["all"],
    demands: Mapping[str, Any],
) -> tuple[Policy, OneShotPolicy | None]:
    """Return what a node demands in either protocol. Raises RegistryError: no such party; ParameterError."""
    known = registry.identities
    if isinstance(decryptors, str) and decryptors != "all":
        raise ParameterError(f"decryptors: must be names, or 'all', is {decryptors!r}")
    try:
        opening = known if decryptors == "all" else registry.named(decryptors)
    except RegistryError as error:
        raise RegistryError(f"decryptors: {error}") from error
    fields = [{one.name for one in dataclass_fields(kind)} for kind in (Policy, OneShotPolicy)]
    if unknown := set(demands) - fields[0] - fields[1]:
        raise ParameterError(f"demands: {min(unknown)} is of neither Policy nor OneShotPolicy")
    of_pairs, of_uploads = ({k: v for k, v in demands.items() if k in names} for names in fields)
    policy = Policy(known=known, minimum_cohort=minimum_cohort, **of_pairs)
    if not opening:
        return policy, None
    least = max(min(minimum_cohort, len(opening)), 4)
    committee = {
        "minimum_candidates": least,
        "minimum_committee": least,
        # As many clients collude as are taken for corrupt in the pairwise protocol.
        "minimum_colluding": colluding_in(minimum_cohort, policy.minimum_corrupt),
        "maximum_uploads": max(len(known), 3),
    }
    return policy, OneShotPolicy(known=known, decryptors=opening, **(committee | of_uploads))


def _key(signer: Signer, key: bytes | None) -> bytes:
    if key is not None:
        return key
    if not isinstance(signer, IdentityKey):
        raise ParameterError("key: must be given, the signer has no seed to derive it from")
    return store_key(signer)


def _warn_once() -> None:
    global _warned  # noqa: PLW0603 - once for each process
    if not _warned:
        _warned = True
        warnings.warn(
            "Participant: has no counter, or no ledger, outside of its store: a host that sets its state "
            "back can make it mask two vectors of one round, or sign two sums that differ by one member, "
            "and read the difference. Give it both, in files that the host does not restore: "
            'counter=StoredCounter(SqliteStore("counter.sqlite")), '
            'ledger=ParticipationLedger(SqliteStore("ledger.sqlite"))',
            stacklevel=3,
        )
