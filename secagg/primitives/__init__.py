"""Pure functions: agreement, signatures, sealing, labels, Shamir, masks, graph, bounds.

No state, no randomness of their own, no I/O. PROTOCOL.md is their specification.
"""
