"""The server's side of a round: one file per phase, and the session around them."""

from secagg.protocol.server.advertise_keys import parameters_frame, sender_of
from secagg.protocol.server.session import ServerSession

__all__ = ["ServerSession", "parameters_frame", "sender_of"]
