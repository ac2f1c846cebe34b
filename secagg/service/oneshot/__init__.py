"""The one-upload protocol as a service (PROTOCOL.md, part 2): its rounds, clients and decryptors."""
