"""Attacks on the one-upload protocol, one file per attacker; `liar.py` tells the lies.

A test that is marked as a finding says what should be: the implementation does something else so far.
"""
