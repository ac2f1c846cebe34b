"""A server that lies: it says to each real client what it likes, and learns what it can.

Everything is by the client's index in the cohort; a roster of some of the cohort has indices of its own.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from secagg.effects import Aborted, AbortReason, Effect, RefusalReason, Refused, Send
from secagg.kernels import UIntArray, field_lagrange, field_weighted_sums, lane_dtype, mask_apply, unpack_add
from secagg.messages import (
    Advertisement,
    MaskedInput,
    Message,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Identity, RoundParameters
from secagg.primitives.bounds import choose_for
from secagg.primitives.masks import mask_sign, pairwise_seed
from secagg.primitives.shamir import SHARE_BYTES, from_limbs, share_pairs, share_words
from secagg.primitives.signatures import verify
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.round import RoundView, advertisement_digest
from tests.protocol.network import Cohort, aborted_by_client, opened, refused_by_client

M = TypeVar("M")
_verified = lru_cache(maxsize=None)(verify)
KEY, SEED = slice(0, SHARE_BYTES), slice(SHARE_BYTES, 2 * SHARE_BYTES)  # halves of what a dealer seals


class LyingServer:
    """What it was sent by real clients, to whom it said what, and frames made of it by hand.

    corrupt  clients whose keys and shares the server has, and who sign whatever it likes
    """

    def __init__(self, cohort: Cohort, corrupt: Collection[int] = ()) -> None:
        self.cohort = cohort
        self.corrupt = frozenset(corrupt)
        self.everybody = range(len(cohort.clients))
        self.advertisements: dict[int, Advertisement] = {}
        self.views: dict[int, RoundView] = {}  # the roster that a client accepted
        self.shared: dict[int, SharedKeys] = {}
        self.finished: dict[int, frozenset[int]] = {}  # the U1 that a client was told
        self.uploads: dict[int, MaskedInput] = {}
        self.signed: dict[int, frozenset[int]] = {}  # the S that a client signed
        self.signatures: dict[int, SurvivorSignature] = {}
        self.answers: dict[int, UnmaskingResponse] = {}
        self.granted_seeds: dict[int, bytes] = {}  # self-mask seeds known for the sake of the argument

    def fork(self, clients: Iterable[int] | None = None) -> LyingServer:
        """The same moment once more; `clients` (default: all) go their own way from here."""
        out = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict):
                setattr(out, name, dict(value))
        out.cohort = forked(self.cohort, clients)
        return out

    # --- talking to clients

    def frame(self, message: Message, parameters: RoundParameters | None = None) -> bytes:
        return bytes(encode_frame((parameters or self.cohort.parameters).round_id, message))

    def say(self, i: int, message: Message, parameters: RoundParameters | None = None) -> list[Effect]:
        return self.cohort.ask(i, self.frame(message, parameters))

    def ask(self, kind: type[M], i: int, message: Message, parameters: RoundParameters | None = None) -> M:
        """Client i's answer, which must be of this kind."""
        effects = self.say(i, message, parameters)
        frames = [bytes(effect.frame) for effect in effects if isinstance(effect, Send)]
        assert len(frames) == 1, effects
        return opened(kind, frames[0])

    def refused(self, i: int, message: Message, reason: RefusalReason) -> None:
        """Client i refuses the message for this reason, and nothing changes."""
        refused_by_client(self.cohort, i, self.frame(message), reason)

    def aborted(self, i: int, message: Message, reason: AbortReason) -> None:
        """Client i gives the round up for this reason, and takes nothing more."""
        self.cohort.requests[i] = self.frame(message)
        aborted_by_client(self.cohort, i, self.frame(message), reason)

    def tried(self, i: int, message: Message) -> RefusalReason | AbortReason | None:
        """Why client i does not take the message; None when it does."""
        for effect in self.say(i, message):
            if isinstance(effect, Refused | Aborted):
                return effect.reason
        return None

    # --- phases 0 and 1

    def advertise(self, clients: Iterable[int] | None = None) -> LyingServer:
        for i in self.everybody if clients is None else clients:
            message = parameters_to_wire(self.cohort.parameters)
            self.advertisements[i] = self.ask(Advertisement, i, message)
        return self

    def roster(
        self,
        members: Iterable[int] | None = None,
        parameters: RoundParameters | None = None,
        **fields: object,
    ) -> RoundView:
        """The view of a roster of these clients, with other fields where given."""
        parameters = parameters or self.cohort.parameters
        chosen = sorted(self.everybody if members is None else members)
        if not {"degree", "threshold"} <= fields.keys():
            graph = choose_for(len(chosen), parameters.threat_model)
            fields = {"degree": graph.degree, "threshold": graph.threshold} | fields
        roster = Roster(**{"entries": tuple(self.entry(i) for i in chosen), **fields})  # type: ignore[arg-type]
        return RoundView.build(parameters, roster)

    def entry(self, i: int) -> RosterEntry:
        return RosterEntry(self.cohort.identities[i], advertisement_digest(self.advertisements[i]))

    def neighbors(self, view: RoundView, i: int) -> list[int]:
        around = view.graph.neighbors_of(view.index[self.cohort.identities[i]])
        return [self.cohort.index[view.identities[j]] for j in around]

    def announcement(self, view: RoundView, i: int) -> RosterAnnouncement:
        around = tuple(self.advertisements[j] for j in self.neighbors(view, i))
        return RosterAnnouncement(view.roster, around)

    def announce(self, view: RoundView, clients: Iterable[int] | None = None) -> LyingServer:
        members = [self.cohort.index[identity] for identity in view.identities]
        for i in members if clients is None else clients:
            self.shared[i] = self.ask(SharedKeys, i, self.announcement(view, i))
            self.views[i] = view
        return self

    # --- phase 2

    def bitmap(self, view: RoundView, members: Iterable[int]) -> bytes:
        return view.bitmap([view.index[self.cohort.identities[i]] for i in members])

    def delivery(self, i: int, finished: Collection[int]) -> ShareDelivery:
        """U1 for client i, with the best shares and acceptance signatures that there are."""
        view = self.views[i]
        around = [j for j in self.neighbors(view, i) if j in finished]
        return ShareDelivery(self.bitmap(view, finished), tuple(self._sealed(view, j, i) for j in around))

    def _sealed(self, view: RoundView, dealer: int, holder: int) -> SealedShare:
        acceptance, ciphertext = bytes(64), bytes(96)
        if dealer in self.shared:
            acceptance = self.shared[dealer].acceptance
            for share in self.shared[dealer].shares:
                if share.peer == self.cohort.identities[holder]:
                    ciphertext = share.ciphertext
        if dealer in self.corrupt:
            acceptance = self.cohort.signers[dealer].sign(view.acceptance_text())
        return SealedShare(self.cohort.identities[dealer], ciphertext, acceptance)

    def deliver(self, finished: Collection[int], clients: Iterable[int] | None = None) -> LyingServer:
        for i in finished if clients is None else clients:
            self.finished[i] = frozenset(finished)
            self.uploads[i] = self.ask(MaskedInput, i, self.delivery(i, finished))
        return self

    # --- phases 3 and 4

    def survivor_set(self, i: int, survivors: Iterable[int]) -> SurvivorSet:
        return SurvivorSet(self.bitmap(self.views[i], survivors))

    def sign(self, survivors: Collection[int], clients: Iterable[int] | None = None) -> LyingServer:
        """Real clients sign S, each with the U1 that it was told."""
        for i in survivors if clients is None else clients:
            message = self.survivor_set(i, survivors)
            self.signatures[i] = self.ask(SurvivorSignature, i, message)
            self.signed[i] = frozenset(survivors)
        return self

    def forged(
        self, signers: Iterable[int], view: RoundView, finished: Iterable[int], survivors: Iterable[int]
    ) -> tuple[SurvivorSignature, ...]:
        """Signatures over U1 and S made with the signers' own keys."""
        text = view.survivors_text(self.bitmap(view, finished), self.bitmap(view, survivors))
        keys = sorted((view.index[self.cohort.identities[i]], self.cohort.signers[i]) for i in signers)
        return tuple(SurvivorSignature(index, signer.sign(text)) for index, signer in keys)

    def quorum(
        self, view: RoundView, finished: Collection[int], survivors: Collection[int]
    ) -> tuple[SurvivorSignature, ...]:
        """All right signatures over U1 and S that there are: of real clients, and of the corrupt."""
        text = view.survivors_text(self.bitmap(view, finished), self.bitmap(view, survivors))
        right = [
            signature
            for i, signature in self.signatures.items()
            if i not in self.corrupt and _verified(self.cohort.identities[i], text, signature.signature)
        ]
        members = {self.cohort.index[identity] for identity in view.identities}
        right += self.forged(self.corrupt & members, view, finished, survivors)
        return tuple(sorted(right, key=lambda signature: signature.index))

    def proof(self, i: int) -> UploadProof:
        upload = self.uploads[i]
        digest = _packed_digest(upload)
        return UploadProof(self.cohort.identities[i], digest, upload.signature)

    def request(self, i: int, survivors: Collection[int], **fields: object) -> UnmaskingRequest:
        """The request for S to client i with the proofs and signatures that there are."""
        view = self.views[i]
        present = [j for j in self.neighbors(view, i) if j in survivors and j in self.uploads]
        message = UnmaskingRequest(
            self.bitmap(view, survivors),
            tuple(self.proof(j) for j in present),
            self.quorum(view, self.finished[i], survivors) if view.active else (),
        )
        return replace(message, **fields)  # type: ignore[arg-type]

    def unmask(self, survivors: Collection[int], clients: Iterable[int] | None = None) -> LyingServer:
        for i in survivors if clients is None else clients:
            self.answers[i] = self.ask(UnmaskingResponse, i, self.request(i, survivors))
        return self

    def finish(self, survivors: Collection[int]) -> None:
        """Let the round end as it should: the sum over S comes out, and nothing else."""
        silent = sorted(set(survivors) - set(self.signed))
        if self.views[min(survivors)].active:
            self.sign(survivors, silent)
        self.unmask(survivors, sorted(set(survivors) - set(self.answers)))
        if len(self.uploads) <= 10:
            assert self.sums() == {frozenset(survivors)}
        else:
            assert self.comes_out(survivors)

    # --- what the server has learned

    def plaintexts(self, dealer: int) -> dict[int, bytes]:
        """What the dealer sealed under the roster that it accepted, by holder."""
        view, secrets = self.views[dealer], self.cohort.secrets(dealer)
        holders = self.neighbors(view, dealer)
        shares = share_pairs(
            secrets.mask,
            secrets.self_seed,
            share_seed=secrets.share_seed,
            roster_digest=view.roster_digest,
            threshold=view.roster.threshold,
            holders=len(holders),
        )
        return dict(zip(holders, shares, strict=True))

    def shares(self, dealer: int, half: slice) -> dict[int, bytes]:
        """The shares of one secret that the server has, by holder: revealed ones and those of the corrupt."""
        me = self.cohort.identities[dealer]
        spies = self.corrupt & {*self.neighbors(self.views[dealer], dealer)}
        sealed = self.plaintexts(dealer) if spies else {}
        out = {holder: sealed[holder][half] for holder in spies}
        for holder, answer in self.answers.items():
            for share in answer.mask_key_shares if half == KEY else answer.self_seed_shares:
                if share.dealer == me:
                    out[holder] = share.share
        return out

    def counts(self, dealer: int) -> tuple[int, int]:
        """How many shares of the dealer's seed, and how many of its mask key, the server has."""
        return len(self.shares(dealer, SEED)), len(self.shares(dealer, KEY))

    def rebuilt(self, dealer: int, shares: dict[int, bytes]) -> bytes | None:
        """The secret that these shares give; None when there are fewer than the threshold."""
        threshold, holders = self.views[dealer].roster.threshold, self.neighbors(self.views[dealer], dealer)
        chosen = sorted(shares.items())[:threshold]
        if len(chosen) < threshold:
            return None
        points = np.array([1 + holders.index(holder) for holder, _ in chosen], np.uint64)
        weights = field_lagrange(points, np.zeros(1, np.uint64))
        return from_limbs(field_weighted_sums(weights, share_words([share for _, share in chosen]))[0])

    def seeds(self) -> dict[int, bytes]:
        """Self-mask seeds that the server knows."""
        return self._known(SEED, lambda i: bytes(self.cohort.secrets(i).self_seed)) | self.granted_seeds

    def mask_keys(self) -> dict[int, bytes]:
        """Mask private keys that the server knows."""
        return self._known(KEY, lambda i: bytes(self.cohort.secrets(i).mask))

    def _known(self, half: slice, own: Callable[[int], bytes]) -> dict[int, bytes]:
        out = {i: own(i) for i in self.corrupt}
        for dealer in self.views:
            secret = self.rebuilt(dealer, self.shares(dealer, half))
            if dealer not in self.corrupt and secret is not None:
                assert secret == own(dealer)
                out[dealer] = secret
        return out

    def residues(self, clients: Iterable[int]) -> dict[int, UIntArray]:
        """Of each upload what is left without its vector and all the masks that the server can compute."""
        seeds, keys = self.seeds(), self.mask_keys()
        return {i: self._residue(i, seeds, keys) for i in sorted(clients)}

    def _residue(self, i: int, seeds: dict[int, bytes], keys: dict[int, bytes]) -> UIntArray:
        bits, view, me = self.cohort.parameters.ring_bits, self.views[i], self.cohort.identities[i]
        masks = [(seeds[i], -1)] if i in seeds else []
        for j in self.neighbors(view, i):
            if j not in self.finished[i] or not {i, j} & keys.keys():
                continue
            knows, other = (i, j) if i in keys else (j, i)
            public = self.advertisements[other].mask_key
            name = self.cohort.identities[j]
            seed = pairwise_seed(keys[knows], public, view.roster_digest, me, name)
            masks.append((seed, -mask_sign(me, name)))
        left = np.zeros(self.cohort.parameters.vector_length, lane_dtype(bits))
        unpack_add(left, self.uploads[i].packed, bits)
        left -= self.cohort.vector(i)
        mask_apply(left, b"".join(seed for seed, _ in masks), np.array([s for _, s in masks], np.int8))
        left &= left.dtype.type(2**bits - 1)
        return left

    def comes_out(self, members: Iterable[int]) -> bool:
        """Whether the server can compute the sum of the vectors of these clients."""
        return self._vanishes(list(self.residues(members).values()))

    def sums(self) -> set[frozenset[int]]:
        """All sets of uploads whose sum the server can compute (every one of them is tried)."""
        residues = self.residues(self.uploads)
        assert len(residues) <= 10
        return {
            frozenset(members)
            for size in range(1, len(residues) + 1)
            for members in combinations(residues, size)
            if self._vanishes([residues[i] for i in members])
        }

    def _vanishes(self, residues: list[UIntArray]) -> bool:
        bits = self.cohort.parameters.ring_bits
        return not (sum(r.astype(np.uint64) for r in residues) % np.uint64(2**bits)).any()


def _packed_digest(upload: MaskedInput) -> bytes:
    return hashlib.sha256(upload.packed).digest()


# --- cohorts over again


def forked(cohort: Cohort, clients: Iterable[int] | None = None) -> Cohort:
    """The same moment once more; `clients` (default: all) are restored from their snapshots."""
    out = copy.copy(cohort)
    out.clients = list(cohort.clients)
    for i in range(len(cohort.clients)) if clients is None else clients:
        if cohort.clients[i].parameters is None:
            out.clients[i] = out.fresh_client(i)
        else:
            kept = cohort.clients[i].upload
            out.clients[i], _ = ClientSession.restore(
                cohort.clients[i].snapshot(),
                signer=cohort.signers[i],
                policy=cohort.policy,
                upload=None if kept is None else bytes(kept),
            )
    if cohort.server.phase is not None:
        out.server, _ = ServerSession.restore(cohort.server.snapshot())
    out.requests, out.answers = list(cohort.requests), list(cohort.answers)
    out.submitted, out.client_aborts = set(cohort.submitted), dict(cohort.client_aborts)
    out.released = {i: (set(seeds), set(keys)) for i, (seeds, keys) in cohort.released.items()}
    return out


def twin(cohort: Cohort, *, seed: str | None = None, **changes: Any) -> Cohort:
    """The same identities in a round with other parameters; they draw the same unless `seed` is another."""
    out = copy.copy(cohort)
    out.parameters = replace(cohort.parameters, **changes)
    out.seed = seed or cohort.seed
    out.clients = [out.fresh_client(i, context=out.parameters.context) for i in range(len(cohort.clients))]
    out.requests, out.answers = [None] * len(out.clients), [None] * len(out.clients)
    out.submitted, out.client_aborts = set(), {}
    out.released = {i: (set(), set()) for i in range(len(out.clients))}
    return out


def by_identity(items: Iterable[M]) -> tuple[M, ...]:
    """In the order of their identities, as lists travel."""
    return tuple(sorted(items, key=lambda item: Identity(getattr(item, "identity", b""))))
