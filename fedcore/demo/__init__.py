"""The demonstration: hospitals and a server, each a process of its own."""
