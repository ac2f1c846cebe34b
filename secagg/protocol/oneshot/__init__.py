"""The one-upload protocol (PROTOCOL.md, part 2): clients speak once, a committee opens one agreed sum."""

from secagg.protocol.oneshot.certificate import read_certificate, read_parameters
from secagg.protocol.oneshot.committee import CommitteeSession
from secagg.protocol.oneshot.contributor import Contributor
from secagg.protocol.oneshot.decryptor import DecryptorSession
from secagg.protocol.oneshot.edge import EdgeServer
from secagg.protocol.oneshot.policy import ANY_COMMITTEE
from secagg.protocol.oneshot.progress import OneShotProgress
from secagg.protocol.oneshot.server import OneShotServer
from secagg.protocol.oneshot.uploads import MemoryPacked, PackedStore
from secagg.protocol.oneshot.view import CommitteeView

__all__ = [
    "ANY_COMMITTEE",
    "CommitteeSession",
    "CommitteeView",
    "Contributor",
    "DecryptorSession",
    "EdgeServer",
    "MemoryPacked",
    "OneShotProgress",
    "OneShotServer",
    "PackedStore",
    "read_certificate",
    "read_parameters",
]
