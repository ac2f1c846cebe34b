"""Size of the masked upload of a training round, before anybody trains."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.rounds.instructions import Asks
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Train
from fedcore.rounds.terms import Terms
from secagg.kernels import packed_bytes


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """Size of one masked upload of a training round, in entries, bits and bytes.

    values       real values of the update; entries: of the ring, with what follows them
    ring_bits    of an entry; bytes: of the vector, packed; float32_bytes: of the values in the clear
    value_bits   of a rounded value
    """

    values: int
    entries: int
    ring_bits: int
    bytes: int
    float32_bytes: int
    value_bits: int

    @property
    def bytes_per_value(self) -> float:
        """Bytes of the upload by values of the update."""
        return self.bytes / self.values

    @property
    def net_bytes_per_value(self) -> float:
        """The same without the bits that the ring needs for the sum: what the values alone take."""
        return self.entries * self.value_bits / 8 / self.values


def plan_upload(plan: TrainingPlan, asks: Asks, size: int) -> UploadPlan:
    """Return what a training round about `size` parameters uploads. Raises CodecError, TaskError."""
    terms = Terms(plan=plan, asks=asks, passes=0, schema=None, classes=(), size=size)
    norm = plan.first_norm if terms.adapts else None
    encoding = terms.encoding(Train(model={}, norm=norm))
    codec = encoding.codec
    packed = packed_bytes(encoding.length, codec.ring_bits)
    values = encoding.dimension
    return UploadPlan(values, encoding.length, codec.ring_bits, packed, 4 * values, codec.bits)
