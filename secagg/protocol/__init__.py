"""Sans-IO sessions: bytes and decisions go in, effects come out. No socket, clock, file or randomness."""

from secagg.protocol.client import ClientSession
from secagg.protocol.server import ServerSession, parameters_frame, sender_of

__all__ = ["ClientSession", "ServerSession", "parameters_frame", "sender_of"]
