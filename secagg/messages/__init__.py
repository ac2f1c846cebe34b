"""What travels: messages as frozen dataclasses, and their one canonical encoding."""

from secagg.messages.frames import decode_frame, encode_frame, parameters_from_wire, parameters_to_wire
from secagg.messages.types import (
    KINDS,
    Advertisement,
    MaskedInput,
    Message,
    RevealedShare,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    RoundParametersMessage,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
)
from secagg.messages.wire import decode, encode

__all__ = [
    "KINDS",
    "Advertisement",
    "MaskedInput",
    "Message",
    "RevealedShare",
    "Roster",
    "RosterAnnouncement",
    "RosterEntry",
    "RoundParametersMessage",
    "SealedShare",
    "ShareDelivery",
    "SharedKeys",
    "SurvivorSet",
    "SurvivorSignature",
    "UnmaskingRequest",
    "UnmaskingResponse",
    "UploadProof",
    "decode",
    "decode_frame",
    "encode",
    "encode_frame",
    "parameters_from_wire",
    "parameters_to_wire",
]
