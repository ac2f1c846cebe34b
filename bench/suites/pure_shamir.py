"""Shamir over GF(2^61 - 1) in plain Python integers: the yardstick beside the C kernels."""

from __future__ import annotations

import secrets

P = 2**61 - 1


def share(limbs: list[int], threshold: int, holders: int) -> list[list[int]]:
    """Split every limb with a polynomial of its own; returns the values at 1..holders by limb."""
    out = []
    for limb in limbs:
        coefficients = [limb, *(secrets.randbelow(P) for _ in range(threshold - 1))]
        values = []
        for x in range(1, holders + 1):
            value = 0
            for coefficient in reversed(coefficients):
                value = (value * x + coefficient) % P
            values.append(value)
        out.append(values)
    return out


def rebuild(points: list[int], values: list[list[int]]) -> list[int]:
    """Interpolate every limb at zero; the weights are computed once."""
    weights = []
    for j, x in enumerate(points):
        above = below = 1
        for i, other in enumerate(points):
            if i != j:
                above = above * other % P
                below = below * (other - x) % P
        weights.append(above * pow(below, -1, P) % P)
    return [sum(w * v for w, v in zip(weights, limb, strict=True)) % P for limb in values]
