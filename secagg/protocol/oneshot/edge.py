"""An edge: it takes uploads near the clients and sends one partial sum on (part 2, section 7)."""

from __future__ import annotations

from collections.abc import Collection

from secagg.effects import Effect, RefusalReason, Refused, Send, UploadTaken
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Packed,
    PackedRequest,
    PartialSum,
    Upload,
    decode_oneshot,
)
from secagg.params import Buffer, Identity
from secagg.params_oneshot import OneShotParameters, OneShotPhase
from secagg.protocol.oneshot.progress import OneShotProgress
from secagg.protocol.oneshot.uploads import (
    MemoryPacked,
    PackedStore,
    TakenUpload,
    Total,
    check_upload,
    taken_again,
)
from secagg.protocol.oneshot.view import CommitteeView, OneShotView, require_committee
from secagg.protocol.round import refuse


class EdgeServer:
    """The uploads of some clients of a round. It can shift their sum, as a server can, and reads nothing.

    parameters, committee, known, packed  as for OneShotServer; `read_parameters` and `read_certificate` make
    them of frames

    It has no snapshot. What it says with UploadTaken holds once the root has taken its partial sum; an edge
    that must outlive its process keeps the frames and is fed them again.
    """

    def __init__(
        self,
        parameters: OneShotParameters,
        committee: CommitteeView,
        *,
        known: Collection[Identity] | None,
        packed: PackedStore | None = None,
    ) -> None:
        require_committee(parameters, committee)
        self._view = OneShotView.build(parameters, committee)
        self._known = None if known is None else frozenset(known)
        self._packed: PackedStore = MemoryPacked() if packed is None else packed
        self._total = Total(self._view)
        self._uploads: dict[Identity, TakenUpload] = {}
        self._digests: set[bytes] = set()
        self._sent = self._closed = False

    @property
    def uploads(self) -> frozenset[Identity]:
        """The clients whose uploads were taken."""
        return frozenset(self._uploads)

    @property
    def progress(self) -> OneShotProgress:
        """The standing: uploads come, until the sum of them is sent on; then the root may fetch some."""
        count = len(self._uploads)
        phase = None if self._closed else OneShotPhase.FETCH if self._sent else OneShotPhase.UPLOAD
        return OneShotProgress(phase, count, count, 0, ready=bool(count), missing=frozenset())

    def receive(self, sender: Identity | None, frame: Buffer) -> list[Effect]:
        """Feed a frame of an authenticated client, or of the root (None). Never raises for its bytes."""
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            if envelope.round_id != self._view.parameters.round_id:
                raise refuse(RefusalReason.WRONG_ROUND, "Frame.round_id: not this round's")
            match decode_oneshot(envelope):
                case Upload() as message if sender is not None:
                    return self._on_upload(sender, message)
                case PackedRequest(upload=digest) if sender is None:
                    return self._on_request(digest)
                case message:
                    raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} at an edge")
        except RemoteProtocolError as error:
            return [Refused(sender, RefusalReason(str(error.reason)), error.detail)]

    def send_on(self) -> list[Effect]:
        """Send the partial sum to the root, once; no upload is taken then. Raises LocalProtocolError."""
        if self._sent:
            raise LocalProtocolError("send_on: the partial sum was sent")
        self._sent = True
        dealings = tuple(self._uploads[identity].dealing for identity in sorted(self._uploads))
        message = PartialSum(self._total.packed(), dealings)
        return [Send(None, ONESHOT_FRAMES.encode(self._view.parameters.round_id, message))]

    def close(self) -> None:
        """Forget the vectors: the sum is out."""
        self._packed.clear()
        self._closed = True

    def _on_upload(self, sender: Identity, message: Upload) -> list[Effect]:
        former = self._uploads.get(sender)
        if former is None and self._sent:
            raise refuse(RefusalReason.WRONG_PHASE, "Upload: the edge takes no more")
        if former is None and len(self._uploads) >= self._view.parameters.maximum_uploads:
            raise refuse(RefusalReason.ROUND_FULL, "Upload: maximum_uploads came")
        taken = check_upload(self._view, sender, message, self._known)
        if former is not None:
            return [taken_again(former, taken)]
        self._packed.put(taken.digest, message.packed)
        self._total.add(message.packed)
        self._uploads[sender] = taken
        self._digests.add(taken.digest)
        return [UploadTaken(sender, taken.digest)]

    def _on_request(self, digest: bytes) -> list[Effect]:
        if self._closed:
            raise refuse(RefusalReason.WRONG_PHASE, "PackedRequest: the sum is out")
        if digest not in self._digests:
            raise refuse(RefusalReason.NOT_INCLUDED, "PackedRequest.upload: none of ours")
        message = Packed(digest, self._packed.get(digest))
        return [Send(None, ONESHOT_FRAMES.encode(self._view.parameters.round_id, message))]

    def __repr__(self) -> str:
        return f"EdgeServer(uploads={len(self._uploads)})"
