"""The service: sockets, clocks and configuration around the sessions. Needs the extra `service`."""

from secagg.service.client import AggregationClient
from secagg.service.clock import Clock, ManualClock, SystemClock
from secagg.service.context import round_context
from secagg.service.driver import Deadlines
from secagg.service.errors import (
    ConnectionLostError,
    HelloError,
    KeyFileError,
    RegistryError,
    ServiceError,
    StreamError,
)
from secagg.service.events import (
    Event,
    LedgerNoted,
    MessageRefused,
    Observer,
    PhaseDone,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    TranscriptFailed,
    TranscriptSealed,
    UploadTaken,
)
from secagg.service.keys import ServerCredentials, read_identity, write_identity, write_private
from secagg.service.reach import host_and_port, outdated
from secagg.service.registry import Registry, check_name
from secagg.service.seat import BeforeSign, Question, RoundOutcome
from secagg.service.server import AggregationServer
from secagg.service.transcripts import Transcripts

__all__ = [
    "AggregationClient",
    "AggregationServer",
    "BeforeSign",
    "Clock",
    "ConnectionLostError",
    "Deadlines",
    "Event",
    "HelloError",
    "KeyFileError",
    "LedgerNoted",
    "ManualClock",
    "MessageRefused",
    "Observer",
    "PhaseDone",
    "Question",
    "Registry",
    "RegistryError",
    "RoundCompleted",
    "RoundFailed",
    "RoundOpened",
    "RoundOutcome",
    "ServerCredentials",
    "ServiceError",
    "StreamError",
    "SystemClock",
    "TranscriptFailed",
    "TranscriptSealed",
    "Transcripts",
    "UploadTaken",
    "check_name",
    "host_and_port",
    "outdated",
    "read_identity",
    "round_context",
    "write_identity",
    "write_private",
]
