"""A server made of malice: it keeps what leaves honest clients, combines it as it likes, and counts what
it knows. There is no ServerSession: every frame that an honest client sees is made here.

What it knows is computed from frames only (PROTOCOL.md, 3.5):

* of an honest client's self seed or mask key it has the shares that corrupt neighbors were dealt and
  those that honest holders revealed; with t of them it has the secret. A mask key opened under one
  roster is open under all of them.
* an upload of y is x_y + PRG(seed_y) +- one mask per neighbor of y in the U1 that y was told. The mask of
  y and z is known when z is corrupt or the mask key of y or of z is open. Any other is uniform, and
  independent of the rest; it is in two uploads at most, with opposite signs, because it depends on the
  roster digest and the two identities.
* so what can be learned of the vectors are exactly the combinations in which no unknown mask is left:
  link two uploads when an unknown mask is in both; sums over whole connected components, none of whose
  members has an unknown seed or an unknown mask that no other upload cancels. Such a component is `open`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, cast

import numpy as np

from secagg.effects import Effect, InputWanted, Refused, RosterAccepted, Send, SignWanted
from secagg.kernels import UIntArray, lane_dtype, mask_apply, ring_mask, unpack_add
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
    decode_frame,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Identity, Phase, Policy, RoundParameters
from secagg.primitives.agreement import public_key
from secagg.primitives.bounds import choose_for, colluders, neighbor_collusion, quorum
from secagg.primitives.masks import mask_sign, pairwise_seed, sealing_keys, seed_commitment, share_label
from secagg.primitives.sealing import unseal
from secagg.primitives.shamir import SHARE_BYTES, correct_shares, from_limbs, share_words
from secagg.primitives.signatures import IdentityKey, verify
from secagg.protocol import ClientSession
from secagg.protocol.client.advertise_keys import Secrets, advertise
from secagg.protocol.client.share_keys import share_keys
from secagg.protocol.round import RoundView, advertisement_digest, parameters_digest
from tests.protocol.network import Cohort, CounterEntropy, flipped

SEED, KEY = 0, 1  # kinds of secrets
STAGES = (Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT_COLLECTION)
OVER = 6


class Violation(AssertionError):  # noqa: N818 - what it says is the name
    """The server learned what it must not."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An honest upload: what it is bound to, and its bytes."""

    view: RoundView
    finished: frozenset[int]
    packed: bytes
    proof: UploadProof


@dataclass(slots=True, eq=False)
class Keys:
    """One advertisement of an honest client, and what it was used for."""

    client: int
    advertisement: Advertisement
    dealt: dict[bytes, RoundView] = field(default_factory=dict)  # by roster digest
    uploads: list[Upload] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a set is made: which rule, and a mask over the clients that some rules use."""

    kind: str
    mask: int = 0

    def __contains__(self, client: int) -> bool:
        return bool(self.mask >> client & 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """Two variants of everything: what they are, and which clients are shown the second one.

    sides       masks over the clients, for rosters, U1, S to sign, S of the request
    parameters  of the second world: "same", "round", "field", "weak"
    rosters     "all", "minus", "own", "forged", "stranger"
    thresholds  "chosen", "lowest", "highest", "below"
    finished    "dealt", "minus", "claimed", "small", "own"
    survivors   "uploaded", "minus", "claimed", "others"
    """

    sides: tuple[int, int, int, int] = (0, 0, 0, 0)
    parameters: str = "same"
    rosters: tuple[Shape, Shape] = (Shape("all"), Shape("all"))
    thresholds: tuple[str, str] = ("chosen", "chosen")
    finished: tuple[Shape, Shape] = (Shape("dealt"), Shape("dealt"))
    survivors: tuple[Shape, Shape] = (Shape("uploaded"), Shape("uploaded"))

    @classmethod
    def drawn(cls, random: Random, clients: int) -> Plan:
        """A plan that is split at few levels, so that it gets deep, and often where it hurts."""
        return cls(
            sides=cast(
                "Any", tuple(_mask(random, clients) if random.random() < 0.4 else 0 for _ in range(4))
            ),
            parameters=random.choice(["same"] * 12 + ["round", "field", "weak"]),
            rosters=(
                _shape(random, clients, ["all"] * 5 + ["minus", "own"]),
                _shape(random, clients, ["all", "minus", "own", "own", "forged", "stranger"]),
            ),
            thresholds=(
                random.choice(["chosen", "lowest", "lowest", "highest"]),
                random.choice(["chosen", "lowest", "lowest", "below"]),
            ),
            finished=(
                _shape(random, clients, ["dealt"] * 4 + ["minus", "claimed", "own"]),
                _shape(random, clients, ["dealt", "minus", "small", "small", "own"]),
            ),
            survivors=(
                _shape(random, clients, ["uploaded", "uploaded", "claimed", "others", "others", "minus"]),
                _shape(random, clients, ["claimed", "minus", "minus"]),
            ),
        )

    def shown(self, client: int) -> tuple[int, int, int, int]:
        """Which variants the client is shown."""
        first, second, third, fourth = (side >> client & 1 for side in self.sides)
        return first, second, third, fourth


def _mask(random: Random, clients: int) -> int:
    """One client, few, or half of them."""
    bits = random.getrandbits(clients)
    return random.choice([1 << random.randrange(clients), bits & random.getrandbits(clients), bits])


def _shape(random: Random, clients: int, kinds: list[str]) -> Shape:
    return Shape(random.choice(kinds), _mask(random, clients))


def outline(effects: Iterable[Effect]) -> list[tuple[object, ...]]:
    """Effects as values that two sessions can be compared by."""
    return [
        (
            type(effect).__name__,
            getattr(effect, "reason", None),
            bytes(effect.frame) if isinstance(effect, Send) else b"",
        )
        for effect in effects
    ]


def saved(session: ClientSession) -> bytes | None:
    """The snapshot, from the parameters on."""
    return None if session.parameters is None else session.snapshot()


class Liar:
    """The server of a cohort in which `corrupt` clients are its own.

    honest clients contribute e_i. submit: "early", "wanted" or "later", by client.
    """

    def __init__(
        self,
        cohort: Cohort,
        corrupt: Collection[int],
        plan: Plan | None = None,
        submit: Mapping[int, str] | None = None,
    ) -> None:
        self.cohort = cohort
        self.plan = plan or Plan()
        self.corrupt = frozenset(corrupt)
        self.honest = tuple(i for i in range(len(cohort.signers)) if i not in self.corrupt)
        self.policy: Policy = replace(cohort.policy, minimum_cohort=max(3, cohort.parameters.minimum_cohort))
        self.submit_when = dict(submit or {})
        self.lives = dict.fromkeys(self.honest, 0)
        self.seen: dict[int, set[bytes]] = {i: set() for i in self.honest}
        self.sessions = {i: self._born(i) for i in self.honest}
        self.keys: dict[int, Keys] = {}  # the newest of each client
        self.at: dict[int, RoundView] = {}  # the roster that the newest keys were dealt under
        self.told: dict[int, frozenset[int]] = {}  # U1
        self.stuck: set[int] = set()  # what they were shown by the plan was refused

        self.advertisements: dict[bytes, Advertisement] = {}  # by digest
        self.owners: dict[bytes, Keys] = {}  # honest ones, by digest of the advertisement
        self.own: dict[bytes, Secrets] = {}  # ours, by digest of the advertisement
        self.advertised: dict[tuple[bytes, int], bytes] = {}  # (parameters digest, client) -> digest
        self.sealed: dict[tuple[bytes, bytes, bytes], bytes] = {}  # (roster, dealer, holder)
        self.commitments: dict[tuple[bytes, bytes], bytes] = {}
        self.acceptances: dict[tuple[bytes, bytes], bytes] = {}
        self.signed: dict[tuple[bytes, bytes, bytes], dict[int, bytes]] = {}  # (roster, U1, S)
        self.revealed: dict[tuple[bytes, bytes], tuple[dict[int, bytes], dict[int, bytes]]] = {}
        self.views: dict[bytes, RoundView] = {}
        self.taken: set[tuple[int, bytes]] = set()
        self.frames: list[bytes] = []  # all that it ever sent

        self.worlds: dict[int, RoundView] = {}
        self.sets: dict[tuple[Any, ...], frozenset[int]] = {}
        self.depth: Counter[str] = Counter()
        self.opened: dict[bytes, list[list[Keys]]] = {}  # open components, by roster digest
        self.violated = False  # until a check has passed
        self._news = False

    # --- honest clients

    def _born(self, i: int) -> ClientSession:
        entropy = CounterEntropy(f"{self.cohort.seed}/{i}/{self.lives[i]}")
        return self.cohort.fresh_client(i, entropy=entropy, seen=self.seen[i], policy=self.policy)

    def forget(self, i: int) -> None:
        """The client loses its process and its snapshot; of the round ids it keeps a record."""
        self.lives[i] += 1
        self.sessions[i] = self._born(i)
        self.stuck.discard(i)

    def restart(self, i: int) -> None:
        """The client's process dies and comes back with its newest snapshot."""
        data = saved(self.sessions[i])
        if data is None:
            return
        self.sessions[i], effects = self._restored(i, data)
        # The record of round ids is a set: it has nothing new to tell.
        self._take(i, None, [effect for effect in effects if not isinstance(effect, InputWanted)])

    def _restored(self, i: int, data: bytes) -> tuple[ClientSession, list[Effect]]:
        kept = self.sessions[i].upload
        return ClientSession.restore(
            data,
            signer=self.cohort.signers[i],
            policy=self.policy,
            upload=None if kept is None else bytes(kept),
        )

    def stage(self, i: int) -> int:
        """0 idle, 1 advertised, 2 shared, 3 delivered, 4 uploaded, 5 signed, 6 over."""
        session = self.sessions[i]
        if session.parameters is None:
            return 0
        return OVER if session.phase is None else 1 + int(session.phase)

    def vector(self, i: int) -> UIntArray:
        """e_i, as long as the parameters that the client accepted want it."""
        parameters = self.sessions[i].parameters
        assert parameters is not None
        out = np.zeros(parameters.vector_length, lane_dtype(parameters.ring_bits))
        out[i % out.size] = 1
        return out

    def submit(self, i: int) -> None:
        """The client's caller gives the vector; so it does in a twin from the snapshot."""
        session = self.sessions[i]
        data = saved(session)
        assert data is not None
        twin = self._restored(i, data)[0]
        vector = self.vector(i)
        effects = session.submit(vector)
        assert outline(twin.submit(vector)) == outline(effects)
        assert twin.snapshot() == session.snapshot()
        self._take(i, None, effects)

    def consent(self, i: int) -> list[Effect]:
        """The client's caller lets it sign; so it does in a twin from the snapshot."""
        session = self.sessions[i]
        data = saved(session)
        assert data is not None
        twin = self._restored(i, data)[0]
        effects = session.sign()
        assert outline(twin.sign()) == outline(effects)
        assert twin.snapshot() == session.snapshot()
        return effects

    def feed(self, i: int, frame: bytes) -> list[Effect]:
        """Hand the client a frame. What it refuses must change nothing, and a restored twin must agree."""
        session = self.sessions[i]
        before = saved(session)
        twin = None if before is None else self._restored(i, before)[0]
        self.frames.append(frame)
        effects = session.receive(frame)
        if twin is not None:
            assert outline(twin.receive(frame)) == outline(effects)
            assert (twin.phase, saved(twin)) == (session.phase, saved(session))
        if any(isinstance(effect, Refused) for effect in effects):
            assert len(effects) == 1
            assert saved(session) == before
            return effects
        self.stuck.discard(i)
        if any(isinstance(effect, SignWanted) for effect in effects):
            if any(isinstance(effect, Send) for effect in effects):
                raise Violation("something was sent for survivors before the caller consented")
            effects = [*effects, *self.consent(i)]
        self._take(i, frame, effects)
        if before is None and self.submit_when.get(i) == "early":
            self.submit(i)
        return effects

    # --- what leaves them

    def _take(self, i: int, frame: bytes | None, effects: Iterable[Effect]) -> None:
        wanted = False
        for effect in effects:
            if isinstance(effect, RosterAccepted):
                self.seen[i].add(effect.round_id)
            elif isinstance(effect, InputWanted):
                wanted = True
                assert frame is not None
                self._deliver(i, frame)
            elif isinstance(effect, Send):
                sent = bytes(effect.frame)
                if (i, sent) not in self.taken:
                    self.taken.add((i, sent))
                    self._keep(i, frame, decode_frame(sent)[1])
        if wanted and self.submit_when.get(i) != "later" and self.stage(i) == 3:
            self.submit(i)

    def _deliver(self, i: int, frame: bytes) -> None:
        message = decode_frame(frame)[1]
        assert isinstance(message, ShareDelivery)
        self.told[i] = self.at[i].members("U1", bytes(message.finished))

    def _keep(self, i: int, frame: bytes | None, message: Message) -> None:
        """Note what the client sent, and check that it is bound to what it was shown."""
        shown = None if frame is None else decode_frame(frame)[1]
        name = self.cohort.identities[i]
        match message:
            case Advertisement():
                digest = advertisement_digest(message)
                self.keys[i] = self.owners[digest] = Keys(i, message)
                self.advertisements[digest] = message
                parameters = self.sessions[i].parameters
                assert parameters is not None
                self.advertised[parameters_digest(parameters), i] = digest
                self.depth["advertised"] = 1
            case SharedKeys():
                assert isinstance(shown, RosterAnnouncement)
                parameters = self.sessions[i].parameters
                assert parameters is not None
                view = RoundView.build(parameters, shown.roster)
                assert verify(name, view.acceptance_text(), message.acceptance)
                if self.keys[i].dealt:
                    raise Violation("one advertisement was dealt under two rosters")
                self.at[i] = self.keys[i].dealt[view.roster_digest] = view
                self.views[view.roster_digest] = view
                self.acceptances[view.roster_digest, name] = message.acceptance
                self.commitments[view.roster_digest, name] = message.seed_commitment
                for share in message.shares:
                    self.sealed[view.roster_digest, name, share.peer] = share.ciphertext
                self.depth["shared"] = 1
                self.depth["two rosters"] |= len({v.roster_digest for v in self.at.values()}) > 1
            case MaskedInput():
                if isinstance(shown, ShareDelivery) and frame is not None:
                    self._deliver(i, frame)
                view, finished = self.at[i], self.told[i]
                packed = bytes(message.packed)
                digest = hashlib.sha256(packed).digest()
                assert verify(name, view.upload_text(view.bitmap(finished), digest), message.signature)
                proof = UploadProof(name, digest, message.signature)
                if self.keys[i].uploads:
                    raise Violation("two uploads with the same keys")
                self.keys[i].uploads.append(Upload(view, finished, packed, proof))
                self.depth["uploaded"] = 1
                told = {(self.at[j].roster_digest, u1) for j, u1 in self.told.items()}
                self.depth["two U1"] |= len(told) > len({digest for digest, _ in told})
            case SurvivorSignature():
                assert isinstance(shown, SurvivorSet)
                view, u1 = self.at[i], self.at[i].bitmap(self.told[i])
                survivors = bytes(shown.survivors)
                assert verify(name, view.survivors_text(u1, survivors), message.signature)
                self.signed.setdefault((view.roster_digest, u1, survivors), {})[message.index] = (
                    message.signature
                )
                self.depth["signed"] = 1
                pairs = [digest for digest, _, _ in self.signed]
                self.depth["two S signed"] |= len(pairs) > len(set(pairs))
            case UnmaskingResponse():
                view = self.at[i]
                for kind, opened in enumerate((message.self_seed_shares, message.mask_key_shares)):
                    for one in opened:
                        kinds = self.revealed.setdefault((view.roster_digest, one.dealer), ({}, {}))
                        kinds[kind][view.index[name]] = one.share
                self.depth["answered"] = 1
            case _:
                raise AssertionError(f"{type(message).__name__} does not come from clients")
        self._news = True

    # --- what it sends

    def frame(self, parameters: RoundParameters, message: object) -> bytes:
        return bytes(encode_frame(parameters.round_id, cast("Message", message)))

    def parameters(self, world: int) -> RoundParameters:
        """Of a world: the right ones, or those that the plan puts in their place."""
        right = self.cohort.parameters
        match self.plan.parameters if world else "same":
            case "round":
                return replace(right, round_id=hashlib.sha256(right.round_id).digest()[:16])
            case "field":
                return replace(right, minimum_survivors=right.minimum_survivors + 1)
            case "weak":
                return replace(right, threat_model=replace(right.threat_model, security_bits=0))
            case _:
                return right

    def parameters_frame(self, world: int) -> bytes:
        parameters = self.parameters(world)
        return self.frame(parameters, parameters_to_wire(parameters))

    def _advertise(self, parameters: RoundParameters, signer: IdentityKey, seed: str) -> bytes:
        """Make an advertisement of our own; its digest."""
        secrets = Secrets.draw(CounterEntropy(seed))
        advertisement = advertise(parameters, signer, secrets)
        digest = advertisement_digest(advertisement)
        self.advertisements[digest] = advertisement
        self.own[digest] = secrets
        return digest

    def world(self, world: int) -> RoundView | None:
        """The roster of a world, made when it is first asked for; None when too few have advertised."""
        if world in self.worlds:
            return self.worlds[world]
        parameters, shape = self.parameters(world), self.plan.rosters[world]
        under = parameters_digest(parameters)
        model = parameters.threat_model
        chosen = {i: self.advertised[under, i] for i in self.honest if (under, i) in self.advertised}
        if shape.kind == "minus":
            chosen = {
                i: digest for i, digest in chosen.items() if i not in shape or self._side(0, i) == world
            }
        elif shape.kind == "own":
            chosen = {i: digest for i, digest in chosen.items() if self._side(0, i) == world}
        names = {self.cohort.identities[i]: digest for i, digest in chosen.items()}
        for i in self.corrupt:  # as many as the threat model grants
            size = len(names) + 1
            among = sum(digest in self.own for digest in names.values())
            if among < colluders(size, size - 1, model):
                seed = f"{self.cohort.seed}/{i}"
                names[self.cohort.identities[i]] = self._advertise(parameters, self.cohort.signers[i], seed)
        if shape.kind == "forged" and chosen:
            victim = self.cohort.identities[sorted(chosen)[shape.mask % len(chosen)]]
            names[victim] = self._forged(parameters, victim)
        if shape.kind == "stranger":
            stranger = IdentityKey.generate(CounterEntropy("stranger"))
            names[stranger.identity] = self._advertise(parameters, stranger, "stranger")
        if len(names) < 3:
            return None
        graph = choose_for(max(len(names), parameters.minimum_cohort), model)
        degree = min(graph.degree, len(names) - 1)
        lowest = max(2, neighbor_collusion(len(names), degree, model) + 1)
        threshold = {
            "chosen": min(graph.threshold, degree),
            "lowest": lowest,
            "highest": degree,
            "below": lowest - 1,
        }[self.plan.thresholds[world]]
        entries = tuple(RosterEntry(name, digest) for name, digest in sorted(names.items()))
        view = RoundView.build(parameters, Roster(degree, threshold, entries))
        self.worlds[world] = self.views[view.roster_digest] = view
        return view

    def _forged(self, parameters: RoundParameters, victim: Identity) -> bytes:
        """Keys of our own under an honest name; the signature is that of the right keys."""
        signer = IdentityKey.generate(CounterEntropy("forger"))
        made = self.advertisements[self._advertise(parameters, signer, "forged")]
        secrets = self.own[advertisement_digest(made)]
        forged = replace(made, identity=victim)
        digest = advertisement_digest(forged)
        self.advertisements[digest], self.own[digest] = forged, secrets
        return digest

    def entry(self, view: RoundView, index: int) -> bytes:
        """Digest of the advertisement of a roster index."""
        return bytes(view.roster.entries[index].advertisement_digest)

    def mine(self, view: RoundView) -> frozenset[int]:
        """Roster indices whose secrets are known from the start."""
        return frozenset(i for i in range(view.clients) if self.entry(view, i) in self.own)

    def roster_frame(self, i: int, view: RoundView) -> bytes | None:
        """None when the client is not in it."""
        me = view.index.get(self.cohort.identities[i])
        if me is None:
            return None
        around = view.graph.neighbors_of(me)
        neighbors = tuple(self.advertisements[self.entry(view, j)] for j in around)
        return self.frame(view.parameters, RosterAnnouncement(view.roster, neighbors))

    def clients(self, view: RoundView, indices: Iterable[int]) -> set[int]:
        """Roster indices as cohort indices."""
        return {self.cohort.index[view.identities[j]] for j in indices if j not in self.mine(view)}

    def indices(self, view: RoundView, clients: Iterable[int]) -> set[int]:
        """Cohort indices as roster indices, as far as they are in it."""
        names = (self.cohort.identities[i] for i in clients)
        return {view.index[name] for name in names if name in view.index}

    def finished(self, view: RoundView, variant: int) -> frozenset[int]:
        """U1 of a variant, fixed when it is first asked for."""
        key = view.roster_digest, variant
        if key not in self.sets:
            shape, mine = self.plan.finished[variant], self.mine(view)
            dealt = {i for i, keys in self.keys.items() if view.roster_digest in keys.dealt}
            side = {i for i in dealt if self._side(1, i) == variant}
            everybody = self.clients(view, range(view.clients))
            kept = {
                "dealt": dealt,
                "minus": side | {i for i in dealt if i not in shape},
                "claimed": everybody,
                # A few clients that will hardly mask with anybody.
                "small": side | set(sorted(dealt - side)[shape.mask % 3 :][:1]),
                # Those who accepted this roster, and some who accepted the other one.
                "own": dealt | {i for i in everybody if i in shape},
            }[shape.kind]
            self.sets[key] = frozenset(self.indices(view, kept)) | mine
        return self.sets[key]

    def survivors(self, view: RoundView, finished: frozenset[int], variant: int) -> frozenset[int]:
        """S of a variant, fixed when it is first asked for."""
        key = view.roster_digest, finished, variant
        if key not in self.sets:
            shape, mine = self.plan.survivors[variant], self.mine(view) & finished
            uploaded = {i for i, keys in self.keys.items() if self._uploaded(keys, view) == finished}
            everybody = self.clients(view, finished)
            other = self.sets.get((view.roster_digest, 1), frozenset())
            targets = {i for i in everybody if self._side(1, i)}
            side = {i for i in uploaded if variant in (self._side(2, i), self._side(3, i))}
            kept = {
                "uploaded": uploaded,
                "minus": side | {i for i in everybody if i not in shape},
                "claimed": everybody,
                # Without those with whom the clients of the other U1 share masks.
                "others": everybody - (self.clients(view, other) - targets),
            }[shape.kind]
            self.sets[key] = frozenset(self.indices(view, kept) & finished) | mine
        return self.sets[key]

    def _side(self, level: int, client: int) -> int:
        return self.plan.sides[level] >> client & 1

    def _uploaded(self, keys: Keys, view: RoundView) -> frozenset[int] | None:
        for upload in keys.uploads:
            if upload.view.roster_digest == view.roster_digest:
                return upload.finished
        return None

    def delivery_frame(self, i: int, view: RoundView, finished: Collection[int]) -> bytes:
        """The best that it has: right shares and acceptances, or those of other rosters, or noise."""
        name, digest = self.cohort.identities[i], view.roster_digest
        shares = []
        for j in view.graph.neighbors_of(view.index[name]):
            if j not in finished:
                continue
            dealer = view.identities[j]
            if j in self.mine(view) and (digest, dealer, name) not in self.sealed:
                self._deal(view, j)
            other = next((a for (_, who), a in self.acceptances.items() if who == dealer), bytes(64))
            shares.append(
                SealedShare(
                    dealer,
                    self.sealed.get((digest, dealer, name), bytes(96)),
                    self.acceptances.get((digest, dealer), other),
                )
            )
        return self.frame(view.parameters, ShareDelivery(view.bitmap(finished), tuple(shares)))

    def _deal(self, view: RoundView, index: int) -> None:
        """Deal as an honest client would, for a client of our own."""
        name, digest = view.identities[index], view.roster_digest
        signer = next((s for s in self.cohort.signers if s.identity == name), self.cohort.signers[0])
        around = [self.advertisements[self.entry(view, j)] for j in view.graph.neighbors_of(index)]
        secrets = self.own[self.entry(view, index)]
        signer = signer if self.cohort.index.get(name) in self.corrupt else IdentityKey.from_seed(bytes(32))
        message = share_keys(view, around, secrets, signer, 1)[0]
        for share in message.shares:
            self.sealed[digest, name, share.peer] = share.ciphertext
        self.acceptances[digest, name] = message.acceptance

    def survivors_frame(self, view: RoundView, survivors: Collection[int]) -> bytes:
        return self.frame(view.parameters, SurvivorSet(view.bitmap(survivors)))

    def request_frame(
        self, i: int, view: RoundView, finished: frozenset[int], survivors: frozenset[int]
    ) -> bytes:
        """With every signature that it has, and those that its own clients can make."""
        u1, s = view.bitmap(finished), view.bitmap(survivors)
        signatures = dict(self.signed.get((view.roster_digest, u1, s), {}))
        for j in self.mine(view):
            client = self.cohort.index.get(view.identities[j])
            if client in self.corrupt:
                signatures[j] = self.cohort.signers[client].sign(view.survivors_text(u1, s))
        for (digest, _, _), others in self.signed.items():  # of another set: must not count
            if digest == view.roster_digest:
                signatures = others | signatures
        proofs = []
        for j in view.graph.neighbors_of(view.index[self.cohort.identities[i]]):
            proof = self._proof(view, j) if j in survivors else None
            if proof is not None:
                proofs.append(proof)
        ordered = tuple(SurvivorSignature(j, signature) for j, signature in sorted(signatures.items()))
        return self.frame(view.parameters, UnmaskingRequest(s, tuple(proofs), ordered))

    def _proof(self, view: RoundView, index: int) -> UploadProof | None:
        name = view.identities[index]
        if index in self.mine(view):
            return None
        keys = self.owners[self.entry(view, index)]
        uploads = keys.uploads or [u for other in self.keys.values() for u in other.uploads]
        if not uploads:
            return None
        return replace(uploads[0].proof, identity=name)

    def next_frame(self, i: int, shown: tuple[int, int, int, int] | None = None) -> bytes | None:
        """The honest-looking next message for a client, as the plan (or `shown`) has it."""
        world, u1, s, request = shown or self.plan.shown(i)
        stage = self.stage(i)
        if stage == 0:
            return self.parameters_frame(world)
        if stage == 1:
            view = self.world(world)
            return None if view is None else self.roster_frame(i, view)
        if stage >= OVER:
            return None
        view = self.at[i]
        me = view.index[self.cohort.identities[i]]
        if stage == 2:
            finished = self.finished(view, u1)
            return self.delivery_frame(i, view, finished) if me in finished else None
        if stage == 4:
            survivors = self.survivors(view, self.told[i], s)
            return self.survivors_frame(view, survivors) if me in survivors else None
        if stage == 5:
            survivors = self.survivors(view, self.told[i], request)
            return self.request_frame(i, view, self.told[i], survivors)
        return None

    def step(self, i: int, shown: tuple[int, int, int, int] | None = None) -> None:
        """One honest-looking step for a client."""
        if self.stage(i) == 3:
            self.submit(i)
            return
        frame = self.next_frame(i, shown)
        if frame is None or any(isinstance(effect, Refused) for effect in self.feed(i, frame)):
            self.stuck.add(i)

    def behind(self) -> list[int]:
        """The clients that are least advanced, of those that can go on."""
        able = [i for i in self.honest if self.stage(i) < OVER and i not in self.stuck]
        least = min((self.stage(i) for i in able), default=0)
        return [i for i in able if self.stage(i) == least]

    def advance(self) -> None:
        """All who are least advanced take a step."""
        for i in self.behind():
            self.step(i)

    def run(self) -> None:
        """Go on as planned until nobody can."""
        while self.behind():
            self.advance()

    # --- tampering

    def tampered(self, i: int, frame: bytes, how: int, choice: int) -> bytes:
        """The frame with something changed."""
        if how == 0:
            return flipped(frame, choice)
        if how == 1:
            return frame[: choice % len(frame)]
        round_id, message = decode_frame(frame)
        if how == 2:
            return bytes(encode_frame(hashlib.sha256(round_id).digest()[:16], message))
        return bytes(encode_frame(round_id, cast("Message", self._changed(i, message, choice))))

    def _changed(self, i: int, message: Message, choice: int) -> object:
        wire: Any = message
        match message:
            case RosterAnnouncement(roster=roster, neighbors=neighbors):
                entries = list(roster.entries)
                at = choice // 8 % len(entries)
                switched = [replace(n, identity=neighbors[at - 1].identity) for n in neighbors[:1]]
                variants = (
                    replace(message, roster=replace(roster, threshold=max(1, roster.threshold - 1))),
                    replace(message, roster=replace(roster, threshold=1)),
                    replace(message, roster=replace(roster, degree=max(2, roster.degree - 1))),
                    replace(message, roster=replace(roster, entries=tuple(entries[:at] + entries[at + 1 :]))),
                    replace(message, roster=replace(roster, entries=tuple(entries[::-1]))),
                    replace(message, neighbors=tuple(neighbors)[1:]),
                    replace(message, neighbors=(*switched, *neighbors[1:])),
                    replace(message, neighbors=tuple(replace(n, signature=bytes(64)) for n in neighbors)),
                )
                return variants[choice % 8]
            case ShareDelivery(finished=finished, shares=shares):
                first = shares[0].ciphertext if shares else b""
                moved = [replace(share, ciphertext=first) for share in shares]
                variants_of_delivery = (
                    replace(message, finished=flipped(bytes(finished), choice // 4)),
                    replace(message, shares=tuple(moved)),  # complaints, and the round goes on
                    replace(message, shares=tuple(replace(s, acceptance=bytes(64)) for s in shares)),
                    replace(message, shares=tuple(shares)[1:]),
                )
                return variants_of_delivery[choice % 4]
            case SurvivorSet(survivors=survivors):
                return SurvivorSet(flipped(bytes(survivors), choice))
            case UnmaskingRequest(survivors=survivors, uploads=uploads, signatures=signatures):
                variants_of_request = (
                    replace(message, survivors=flipped(bytes(survivors), choice // 4)),
                    replace(message, uploads=tuple(uploads)[1:]),
                    replace(message, signatures=tuple(signatures)[1:]),
                    replace(message, signatures=tuple(replace(s, index=0) for s in signatures)),
                )
                return variants_of_request[choice % 4]
            case _:
                name = ("minimum_cohort", "minimum_survivors", "vector_length", "ring_bits")[choice % 4]
                return replace(wire, **{name: max(1, getattr(wire, name) - 1 + choice // 4 % 3)})

    # --- what it knows

    def holders(self, view: RoundView, dealer: int, kind: int) -> set[int]:
        """Roster indices from which it has the share of an honest dealer: its own, and who revealed it."""
        around = view.graph.neighbors_of(dealer)
        own = self.mine(view) & set(around)
        kinds = self.revealed.get((view.roster_digest, view.identities[dealer]), ({}, {}))
        return {*own, *kinds[kind]}

    def knows(self, keys: Keys, kind: int) -> bool:
        """Whether it has t shares of a secret, under any roster that it was dealt under."""
        return any(
            len(self.holders(view, view.index[self.cohort.identities[keys.client]], kind))
            >= view.roster.threshold
            for view in keys.dealt.values()
        )

    def open_components(self) -> list[list[Keys]]:
        """The sets of honest uploads whose sum it can compute (see the top of the file)."""
        uploads = {
            advertisement_digest(keys.advertisement): (keys, upload)
            for keys in self.owners.values()
            for upload in keys.uploads
        }
        parent = {digest: digest for digest in uploads}

        def root(digest: bytes) -> bytes:
            while parent[digest] != digest:
                digest = parent[digest]
            return digest

        closed = set()
        for digest, (keys, upload) in uploads.items():
            view = upload.view
            me = view.index[self.cohort.identities[keys.client]]
            if not self.knows(keys, SEED):
                closed.add(digest)
            for j in view.graph.neighbors_of(me):
                other = self.entry(view, j)
                if j not in upload.finished or other in self.own:
                    continue
                if self.knows(keys, KEY) or self.knows(self.owners[other], KEY):
                    continue
                theirs = uploads.get(other)
                same = theirs is not None and theirs[1].view.roster_digest == view.roster_digest
                if theirs is not None and same and me in theirs[1].finished:
                    parent[root(digest)] = root(other)
                else:
                    closed.add(digest)  # nothing cancels this mask
        components: dict[bytes, list[Keys]] = {}
        for digest, (keys, _) in uploads.items():
            components.setdefault(root(digest), []).append(keys)
        shut = {root(digest) for digest in closed}
        return [members for top, members in components.items() if top not in shut]

    def check(self) -> None:
        """Raise Violation when it knows what it must not."""
        if not self._news:
            return
        self._news, self.violated = False, True
        self._check()
        self.violated = False

    def _check(self) -> None:
        for keys in self.owners.values():
            if self.knows(keys, SEED) and self.knows(keys, KEY):
                raise Violation(f"both secrets of client {keys.client} can be rebuilt")
        agreed = self._agreed()
        self.opened = {}
        for members in self.open_components():
            view = members[0].uploads[0].view
            self.opened.setdefault(view.roster_digest, []).append(members)
            if len(members) < 2:
                raise Violation(f"the vector of client {members[0].client} can be computed")
            if view.roster_digest not in agreed:
                raise Violation("a sum is open, and no quorum signed")
            model, declared = view.parameters.threat_model, view.parameters.minimum_survivors
            least = max(declared, colluders(view.clients, view.roster.degree, model) + 2)
            if len(agreed[view.roster_digest]) < least:
                raise Violation("a sum is open over fewer than the declared minimum")
            survivors = agreed[view.roster_digest] - self.mine(view)
            if {keys.client for keys in members} != self.clients(view, survivors):
                raise Violation("a sum is open over others than the survivors that a quorum signed")
            self.depth["opened"] = 1
        for components in self.opened.values():
            if len(components) > 1:
                raise Violation("two sums are open under one roster")
        # An honest client accepts one roster of a round and signs one set: the honest signers of two sums are
        # others. Where the minimum cohort leaves no room for two such groups there is one sum.
        rounds = Counter(self.views[digest].parameters.round_id for digest in self.opened)
        if rounds and max(rounds.values()) > 1:
            enrolled, model = len(self.honest) + len(self.corrupt), self.cohort.parameters.threat_model
            cohorts = range(self.policy.minimum_cohort, enrolled + 1)
            signers = min(quorum(n, n - 1, model) for n in cohorts) - len(self.corrupt)
            if 2 * signers > len(self.honest):
                raise Violation("two sums are open in one round")
            self.depth["two sums of disjoint cohorts"] = 1

    def _agreed(self) -> dict[bytes, frozenset[int]]:
        """S by roster digest, where a quorum can be made of honest signatures and our own."""
        agreed: dict[bytes, frozenset[int]] = {}
        for (digest, _, survivors), signatures in self.signed.items():
            view = self.views[digest]
            if len({*signatures} - self.mine(view)) + len(self.mine(view)) >= view.quorum:
                if digest in agreed:
                    raise Violation("a quorum signed two pairs of U1 and S under one roster")
                agreed[digest] = view.members("S", survivors)
        return agreed

    # --- and that it really does

    def rebuild(self, keys: Keys, kind: int) -> bytes:
        """A secret from the bytes of t shares; it passes its check."""
        view = next(iter(keys.dealt.values()))
        name = self.cohort.identities[keys.client]
        me = view.index[name]
        around = view.graph.neighbors_of(me)
        shares = dict(self.revealed.get((view.roster_digest, name), ({}, {}))[kind])
        for j in self.mine(view) & set(around):
            secret = self.own[self.entry(view, j)].agreement
            theirs = keys.advertisement.agreement_key
            holder = view.identities[j]
            opening = sealing_keys(secret, theirs, view.roster_digest, holder, name)[1]
            sealed = self.sealed[view.roster_digest, name, holder]
            both = unseal(opening, sealed, share_label(view.roster_digest, name, holder))
            assert both is not None
            shares[j] = both[SHARE_BYTES:] if kind == SEED else both[:SHARE_BYTES]
        points = np.array([1 + around.index(j) for j in shares], np.uint64)
        correction = correct_shares(points, share_words(list(shares.values())), view.roster.threshold)
        assert correction is not None
        secret_bytes = from_limbs(correction.secret)
        assert secret_bytes is not None
        if kind == SEED:
            commitment = seed_commitment(view.roster_digest, name, secret_bytes)
            assert commitment == self.commitments[view.roster_digest, name]
        else:
            assert public_key(secret_bytes) == keys.advertisement.mask_key
        return secret_bytes

    def total(self, members: Iterable[Keys]) -> list[int]:
        """The sum of an open component, from uploads and shares."""
        members = list(members)
        view = members[0].uploads[0].view
        bits, length = view.parameters.ring_bits, view.parameters.vector_length
        total = np.zeros(length, lane_dtype(bits))
        seeds, signs = [], []
        for keys in members:
            upload, name = keys.uploads[0], self.cohort.identities[keys.client]
            unpack_add(total, upload.packed, bits)
            seeds.append(self.rebuild(keys, SEED))
            signs.append(-1)
            for j in view.graph.neighbors_of(view.index[name]):
                entry = self.entry(view, j)
                secret: bytes | None = None
                if j in upload.finished and entry in self.own:
                    secret = bytes(self.own[entry].mask)
                elif j in upload.finished and self.knows(self.owners[entry], KEY):
                    secret = self.rebuild(self.owners[entry], KEY)
                if secret is not None:
                    other = view.identities[j]
                    mine = keys.advertisement.mask_key
                    seeds.append(pairwise_seed(secret, mine, view.roster_digest, name, other))
                    signs.append(-mask_sign(name, other))
        mask_apply(total, b"".join(seeds), np.array(signs, np.int8))
        return [int(value) & ring_mask(bits) for value in total]
