"""Attacks on the protocol, one file per attacker; each fails when the defence against it is removed.

`defences.py` lists the defences as small changes of the source; `mutants.py` removes one after the other.
"""
