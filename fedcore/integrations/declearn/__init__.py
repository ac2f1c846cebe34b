"""Secure means in declearn (>= 2.8): configurations in its registry, and its two main classes with masks on.

    server = SecAggServer(model, netwk, optim, secagg=SecAggConfigServer(20, 1.0, registry="registry.toml"))
    client = SecAggClient(netwk, data, secagg=SecAggConfigClient(IdentityKeys(...), folder="client-0"))

All phases are setup queries, which declearn's clients take at any time; a client's identity is its Ed25519
key of declearn. Its plain requests are refused, as long as masks are configured. A client that vanishes is
lost alone. Rounds of evaluation tell the mean of the losses.
"""

from fedcore.integrations.declearn.client import SecAggClient, SecAggConfigClient
from fedcore.integrations.declearn.server import SecAggConfigServer, SecAggServer, average

__all__ = ["SecAggClient", "SecAggConfigClient", "SecAggConfigServer", "SecAggServer", "average"]
