"""The one-upload protocol (PROTOCOL.md, part 2): clients speak once, a committee opens one agreed sum."""

from secagg.protocol.oneshot.committee import CommitteeSession
from secagg.protocol.oneshot.contributor import Contributor
from secagg.protocol.oneshot.decryptor import DecryptorSession
from secagg.protocol.oneshot.edge import EdgeServer
from secagg.protocol.oneshot.progress import OneShotProgress
from secagg.protocol.oneshot.server import OneShotServer

__all__ = [
    "CommitteeSession",
    "Contributor",
    "DecryptorSession",
    "EdgeServer",
    "OneShotProgress",
    "OneShotServer",
]
