"""The client: a certificate, a round's parameters and a vector become one frame (part 2, section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import NoReturn, Self, cast

import numpy as np

from secagg.effects import (
    Breach,
    Effect,
    Frame,
    InputWanted,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
)
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.kernels import UIntArray, VectorSource, check_entries, lane_dtype, pack
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    OneShotParametersMessage,
    decode_oneshot,
    oneshot_from_wire,
)
from secagg.params import Buffer, Entropy, Signer, require
from secagg.params_oneshot import OneShotParameters, OneShotPolicy
from secagg.protocol.client.masked_input_collection import checked_source
from secagg.protocol.oneshot import snapshot as snapshots
from secagg.protocol.oneshot.certificate import read_certificate
from secagg.protocol.oneshot.dealing import make_upload
from secagg.protocol.oneshot.policy import check_round_policy
from secagg.protocol.oneshot.view import CommitteeView, OneShotView
from secagg.protocol.round import no_entropy, refuse

_CHUNK = 1 << 16


class Contributor:
    """One upload of one client. Owns no socket, clock, thread, file or randomness. Not thread-safe.

    signer   the client's identity
    context  32 bytes, computed by the client from what it was given: what its vector is about
    policy   what it demands of committee and round
    entropy  called twice for 32 bytes when the vector is submitted
    seen     round ids under which this identity has uploaded (the caller keeps them)
    told     contexts for which it has uploaded in any round, of either protocol: such a vector must be
             presumed summed, and two sums that differ in one client show its vector
    again    upload for such a context nevertheless
    threads  for masking
    """

    def __init__(
        self,
        *,
        signer: Signer,
        context: bytes,
        policy: OneShotPolicy,
        entropy: Entropy,
        seen: Container[bytes] = (),
        told: Container[bytes] = (),
        again: bool = False,
        threads: int = 1,
    ) -> None:
        require(len(context) == 32, "context", "32 bytes", len(context))
        require(threads >= 1, "threads", "at least 1", threads)
        self._signer = signer
        self._context = context
        self._policy = policy
        self._entropy: Entropy | None = entropy
        self._seen, self._told, self._again = seen, told, again
        self._threads = threads
        self._committees: dict[bytes, CommitteeView] = {}
        self._view: OneShotView | None = None
        self._frame: Frame | None = None
        self._round_id = b""

    @property
    def parameters(self) -> OneShotParameters | None:
        """The round's parameters, once accepted."""
        return None if self._view is None else self._view.parameters

    @property
    def uploaded(self) -> bool:
        """Return whether the upload was made."""
        return self._frame is not None

    def receive(self, frame: Buffer) -> list[Effect]:
        """Feed a frame of the server: certificates, then the parameters of a round.

        returns  InputWanted for right parameters; Refused for a frame that fails its checks, which changes
                 nothing
        """
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            message = decode_oneshot(envelope)
            if not isinstance(message, OneShotParametersMessage):
                view = read_certificate(frame, self._policy)
                self._committees[view.committee_digest] = view
                return []
            return self._on_parameters(envelope.round_id, message)
        except RemoteProtocolError as error:
            breaches = cast("tuple[Breach, ...]", error.breaches)
            return [Refused(None, RefusalReason(str(error.reason)), error.detail, breaches)]

    def submit(self, vector: UIntArray | VectorSource) -> list[Effect]:
        """Give the vector to be summed, once.

        vector   (d,), unsigned integers, every value below 2^ring_bits, or a VectorSource: it is read twice
        returns  RosterAccepted, to keep round id and context by before the next is released, and the upload
        raises   LocalProtocolError (no round, a second vector), ParameterError (shape, type, range), what
                 source and signer raise; nothing has changed then
        """
        view = self._view
        if view is None or self._frame is not None or self._entropy is None:
            raise LocalProtocolError("submit: takes one vector, after the parameters of a round")
        parameters = view.parameters
        try:
            self._check_unseen(parameters.round_id)  # another session of ours may have uploaded meanwhile
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"submit: {error.detail}") from error
        source = checked_source(vector, parameters.vector_length, parameters.ring_bits)
        plain = _plain_digest(source, parameters.ring_bits)
        ephemeral, seed = bytearray(), bytearray()
        try:
            ephemeral += self._entropy(32)
            seed += self._entropy(32)
            upload = make_upload(
                view,
                source,
                self._context,
                plain,
                ephemeral=ephemeral,
                seed=seed,
                signer=self._signer,
                threads=self._threads,
            )
        finally:
            ephemeral[:], seed[:] = bytes(len(ephemeral)), bytes(len(seed))
        self._frame = ONESHOT_FRAMES.encode(parameters.round_id, upload)
        self._round_id, self._entropy = parameters.round_id, None
        return [RosterAccepted(parameters.round_id), Send(None, self._frame)]

    def snapshot(self) -> bytes:
        """Return the upload as bytes: the frame cannot be made again. It holds no secret.

        raises  LocalProtocolError before the upload
        """
        if self._frame is None:
            raise LocalProtocolError("snapshot: there is no upload to keep")
        return snapshots.save_upload(self._signer.identity, self._context, self._round_id, bytes(self._frame))

    @classmethod
    def restore(cls, data: bytes, *, signer: Signer, policy: OneShotPolicy) -> tuple[Self, list[Effect]]:
        """Continue after the upload: the session, and the same frame to send again. Raises ParameterError."""
        kept = snapshots.load_upload(data)
        require(kept.identity == signer.identity, "signer", "the snapshot's identity", signer.identity.hex())
        session = cls(signer=signer, context=kept.context, policy=policy, entropy=no_entropy)
        session._entropy = None
        session._round_id = kept.round_id
        session._frame = Frame(kept.frame)
        return session, [RosterAccepted(kept.round_id), Send(None, session._frame)]

    def _on_parameters(self, round_id: bytes, message: OneShotParametersMessage) -> list[Effect]:
        parameters = oneshot_from_wire(message)
        if parameters.round_id != round_id:
            raise refuse(RefusalReason.WRONG_ROUND, "OneShotParameters.round_id is not the frame's")
        if self._frame is not None or self._entropy is None:
            raise refuse(RefusalReason.WRONG_PHASE, "OneShotParameters after the upload")
        if self._view is not None and self._view.parameters != parameters:
            raise refuse(RefusalReason.EQUIVOCATION, "other OneShotParameters were accepted before")
        committee = self._committees.get(parameters.committee_digest)
        if committee is None:
            raise refuse(
                RefusalReason.WEAK_PARAMETERS,
                "committee_digest: of no certificate that came before",
            )
        if self._context not in parameters.contexts:
            raise refuse(RefusalReason.CONTEXT_MISMATCH, "OneShotParameters.contexts: ours is not among them")
        self._check_unseen(round_id)
        check_round_policy(parameters, self._policy)
        self._view = OneShotView.build(parameters, committee)
        return [InputWanted(parameters.vector_length, parameters.ring_bits)]

    def _check_unseen(self, round_id: bytes) -> None:
        if round_id in self._seen:
            raise refuse(RefusalReason.ROUND_REUSED, f"uploaded in round {round_id.hex()} before")
        if self._context in self._told and not self._again:
            raise refuse(
                RefusalReason.CONTEXT_REPEATED,
                "Contributor.context: what was uploaded for it must be presumed summed",
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Contributor is not pickled; see snapshot()")

    def __repr__(self) -> str:
        return f"Contributor(uploaded={self.uploaded})"


def _plain_digest(source: VectorSource, ring_bits: int) -> bytes:
    """SHA-256 of the vector packed to ring_bits. Raises ParameterError for an entry out of the ring."""
    state = hashlib.sha256()
    scratch = np.empty(min(_CHUNK, source.length), lane_dtype(ring_bits))
    try:
        for at in range(0, source.length, _CHUNK):
            chunk = scratch[: min(_CHUNK, source.length - at)]
            source.read(at, chunk)
            check_entries(chunk, ring_bits, at)
            state.update(pack(chunk, ring_bits))
    finally:
        scratch[:] = 0
    return state.digest()
