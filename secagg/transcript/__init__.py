"""The record of a round that a third party can check: written while it runs, verified offline."""

from secagg.transcript.entries import total_digest, transcript_digest
from secagg.transcript.oneshot import (
    OneShotReport,
    RecordedOneShotServer,
    is_oneshot,
    verify_oneshot,
)
from secagg.transcript.recorder import RecordedServerSession
from secagg.transcript.verify import Finding, Report, verify

__all__ = [
    "Finding",
    "OneShotReport",
    "RecordedOneShotServer",
    "RecordedServerSession",
    "Report",
    "is_oneshot",
    "total_digest",
    "transcript_digest",
    "verify",
    "verify_oneshot",
]
