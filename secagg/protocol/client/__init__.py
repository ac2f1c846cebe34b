"""The client's side of a round: one file per phase, and the session around them."""

from secagg.protocol.client.session import ClientSession

__all__ = ["ClientSession"]
