"""Secure means inside other stacks: an adapter each, made of the same two ends, and what it must pass.

`exchange` has the two ends: `SecureMean` at the server, `answer_mean` at a node. `plain_calls` and `http` are
the shortest adapters, to be read first; `flower`, `flare` and `declearn` are those of stacks.
`secagg.embedding.conformance` is what every adapter passes, and what one of your own should pass, too. Each
needs its host and the core's four packages.
"""
