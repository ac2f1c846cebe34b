"""Frames: the outermost message, version, round and kind around a body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from secagg.effects import Frame, RefusalReason
from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages.fields import large_octets, malformed, octets, uint, varint
from secagg.messages.types import KINDS, Message, RoundParametersMessage, ThreatModelMessage
from secagg.messages.wire import decode, encode, encode_parts
from secagg.params import FRAME_VERSION, HYBRID, MILLION, Buffer, RoundParameters, Suite, ThreatModel


@dataclass(frozen=True, slots=True)
class _FrameMessage:
    version: int = uint(1)
    round_id: bytes = octets(2, 16)
    kind: int = uint(3)
    body: Buffer = large_octets(4)


_BODY_TAG = varint(4 << 3 | 2)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A frame whose body was not decoded: reading it costs the same for every body."""

    round_id: bytes
    kind: int  # from 0, as in the kinds of its protocol
    body: Buffer


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one protocol: its version, its kinds of messages, and the number of the first."""

    version: int
    kinds: tuple[type, ...]
    first: int

    def encode(self, round_id: bytes, body: object) -> Frame:
        """Encode a message into a frame; a large field is referred to, not copied."""
        parts = encode_parts(body)
        size = sum(memoryview(part).nbytes for part in parts)
        kind = self.kinds.index(type(body)) + self.first
        head = encode(_FrameMessage(self.version, round_id, kind, b""))
        if not size:
            return Frame(head)
        head += _BODY_TAG + varint(size)
        return Frame(head + bytes(parts[0]), *parts[1:]) if len(parts[0]) < 4096 else Frame(head, *parts)

    def open(self, data: Buffer) -> Envelope:
        """Read what stands around a body. Raises RemoteProtocolError: MALFORMED, UNSUPPORTED_VERSION."""
        frame = decode(_FrameMessage, data)
        if frame.version != self.version:
            raise RemoteProtocolError(
                RefusalReason.UNSUPPORTED_VERSION,
                f"Frame.version: {frame.version}, this is version {self.version}",
            )
        last = self.first + len(self.kinds) - 1
        if not self.first <= frame.kind <= last:
            raise malformed(f"Frame.kind: must be in {self.first}..{last}, is {frame.kind}")
        return Envelope(frame.round_id, frame.kind - self.first, frame.body)


_VERSIONS: dict[Suite, int] = {"x25519": 1, HYBRID: 3}  # of RoundParameters; 2 is the one-upload protocol
_SUITES = {version: suite for suite, version in _VERSIONS.items()}
PAIRWISE_FRAMES = Frames(FRAME_VERSION, KINDS, 1)
encode_frame = PAIRWISE_FRAMES.encode
open_frame = PAIRWISE_FRAMES.open


def decode_frame(data: Buffer) -> tuple[bytes, Message]:
    """Return round id and message. Large fields are views of `data`.

    raises  RemoteProtocolError: MALFORMED, UNSUPPORTED_VERSION
    """
    envelope = open_frame(data)
    return envelope.round_id, decode_body(envelope)


def decode_body(envelope: Envelope) -> Message:
    """Return the message. Large fields are views. Raises RemoteProtocolError: MALFORMED."""
    return cast("Message", decode(KINDS[envelope.kind], envelope.body))


def model_to_wire(model: ThreatModel) -> ThreatModelMessage:
    """ThreatModel as the message that parameters hold."""
    return ThreatModelMessage(
        model.corrupt_ppm,
        model.dropout_ppm,
        2 if model.active else 1,
        model.security_bits,
        model.correctness_bits,
        model.grinding_bits,
    )


def model_from_wire(model: ThreatModelMessage) -> ThreatModel:
    """ThreatModel of a message. Raises RemoteProtocolError, ParameterError."""
    if model.adversary not in {1, 2}:
        raise malformed(f"ThreatModel.adversary: must be 1 or 2, is {model.adversary}")
    return ThreatModel(
        corrupt=model.corrupt_ppm / MILLION,
        dropout=model.dropout_ppm / MILLION,
        adversary="active" if model.adversary == 2 else "passive",
        security_bits=model.security_bits,
        correctness_bits=model.correctness_bits,
        grinding_bits=model.grinding_bits,
    )


def parameters_to_wire(parameters: RoundParameters) -> RoundParametersMessage:
    """RoundParameters as the message that is hashed and sent."""
    return RoundParametersMessage(
        _VERSIONS[parameters.suite],
        parameters.round_id,
        parameters.vector_length,
        parameters.ring_bits,
        model_to_wire(parameters.threat_model),
        parameters.minimum_cohort,
        parameters.minimum_survivors,
        parameters.context,
    )


def parameters_from_wire(wire: RoundParametersMessage) -> RoundParameters:
    """RoundParameters of a message. Raises RemoteProtocolError."""
    if wire.version not in _SUITES:
        raise RemoteProtocolError(
            RefusalReason.UNSUPPORTED_VERSION,
            f"RoundParameters.version: {wire.version}, known here are {', '.join(map(str, _SUITES))}",
        )
    try:
        return RoundParameters(
            round_id=wire.round_id,
            vector_length=wire.vector_length,
            ring_bits=wire.ring_bits,
            context=wire.context,
            threat_model=model_from_wire(wire.threat_model),
            minimum_cohort=wire.minimum_cohort,
            minimum_survivors=wire.minimum_survivors,
            suite=_SUITES[wire.version],
        )
    except ParameterError as error:
        raise RemoteProtocolError(RefusalReason.MALFORMED, f"RoundParameters.{error}") from error
