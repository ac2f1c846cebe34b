"""Secure aggregation inside another stack: requests in, replies out, however the host carries bytes.

On the server a `Round`, or a `OneShotRound`, is an iterator of trips to the nodes; on a node a `Participant`
answers each request with one reply. Needs numpy, cffi, cryptography and PyNaCl alone.
`fedcore.integrations` has adapters for stacks, `secagg.embedding.conformance` what every adapter must pass;
`fedcore/EMBEDDING.md` is the guide.
"""

from pathlib import Path

from secagg.embedding.any_round import AnyRound, Loss, Observer
from secagg.embedding.ask import Ask, Node
from secagg.embedding.committee import Committee
from secagg.embedding.given import MakeVector, Vector
from secagg.embedding.keeping import Question
from secagg.embedding.oneshot_round import OneShotRound
from secagg.embedding.participant import Participant
from secagg.embedding.patience import Patience
from secagg.embedding.replies import LossReason, decline, declined
from secagg.embedding.round import Round, retry
from secagg.key_files import read_identity as read_key
from secagg.key_files import write_identity as write_key
from secagg.params_oneshot import OneShotPolicy
from secagg.registry import Registry
from secagg.store import (
    Counter,
    FolderStore,
    MappingStore,
    MemoryStore,
    ParticipationLedger,
    SqliteStore,
    Store,
    StoredCounter,
)

__all__ = [
    "AnyRound",
    "Ask",
    "Committee",
    "Counter",
    "FolderStore",
    "Loss",
    "LossReason",
    "MakeVector",
    "MappingStore",
    "MemoryStore",
    "Node",
    "Observer",
    "OneShotPolicy",
    "OneShotRound",
    "Participant",
    "ParticipationLedger",
    "Patience",
    "Question",
    "Registry",
    "Round",
    "SqliteStore",
    "Store",
    "StoredCounter",
    "Vector",
    "decline",
    "declined",
    "read_key",
    "read_registry",
    "retry",
    "write_key",
]


def read_registry(path: str | Path) -> Registry:
    """Read who is enrolled: a plain registry, or a signed one whose active participants they are.

    raises  RegistryError
    """
    return Registry.load(Path(path))
