"""The service: sockets, clocks and configuration around the sessions. Needs the extra `service`."""

from secagg.embedding.keeping import Question
from secagg.errors import KeyFileError, RegistryError
from secagg.key_files import (
    former_keys,
    read_identity,
    read_private,
    store_key,
    write_identity,
    write_private,
)
from secagg.registry import Registry, accept_file, check_name, follow_file
from secagg.service.authority import CertificateError, PartyCredentials, check_issued
from secagg.service.client import AggregationClient
from secagg.service.clock import Clock, ManualClock, SystemClock
from secagg.service.context import round_context
from secagg.service.errors import (
    BusyError,
    ConnectionLostError,
    HelloError,
    NotHereError,
    ServiceError,
    StreamError,
)
from secagg.service.events import (
    CommitteeFailed,
    CommitteeReady,
    Event,
    LedgerNoted,
    MessageLost,
    MessageRefused,
    Observer,
    PartialSumTaken,
    PhaseDone,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    RoundResumed,
    StoreFailed,
    TranscriptFailed,
    TranscriptSealed,
    UploadTaken,
)
from secagg.service.kept import Deadlines
from secagg.service.keys import ServerCredentials
from secagg.service.oneshot.client import Contribution, OneShotClient
from secagg.service.oneshot.decryptor import Decryptor
from secagg.service.oneshot.edge import EdgeRun, EdgeSettings
from secagg.service.oneshot.plan import OneShotDeadlines
from secagg.service.oneshot.run import OneShotRun, OneShotSettings
from secagg.service.reach import host_and_port, outdated
from secagg.service.run import RunSettings, ServedRun
from secagg.service.seat import BeforeSign, RoundOutcome
from secagg.service.selection import Selection
from secagg.service.server import AggregationServer, Limits, Refusal
from secagg.service.transcripts import Transcripts

__all__ = [
    "AggregationClient",
    "AggregationServer",
    "BeforeSign",
    "BusyError",
    "CertificateError",
    "Clock",
    "CommitteeFailed",
    "CommitteeReady",
    "ConnectionLostError",
    "Contribution",
    "Deadlines",
    "Decryptor",
    "EdgeRun",
    "EdgeSettings",
    "Event",
    "HelloError",
    "KeyFileError",
    "LedgerNoted",
    "Limits",
    "ManualClock",
    "MessageLost",
    "MessageRefused",
    "NotHereError",
    "Observer",
    "OneShotClient",
    "OneShotDeadlines",
    "OneShotRun",
    "OneShotSettings",
    "PartialSumTaken",
    "PartyCredentials",
    "PhaseDone",
    "Question",
    "Refusal",
    "Registry",
    "RegistryError",
    "RoundCompleted",
    "RoundFailed",
    "RoundOpened",
    "RoundOutcome",
    "RoundResumed",
    "RunSettings",
    "Selection",
    "ServedRun",
    "ServerCredentials",
    "ServiceError",
    "StoreFailed",
    "StreamError",
    "SystemClock",
    "TranscriptFailed",
    "TranscriptSealed",
    "Transcripts",
    "UploadTaken",
    "accept_file",
    "check_issued",
    "check_name",
    "follow_file",
    "former_keys",
    "host_and_port",
    "outdated",
    "read_identity",
    "read_private",
    "round_context",
    "store_key",
    "write_identity",
    "write_private",
]
