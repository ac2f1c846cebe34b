"""Arithmetic modulo 2^255 - 19 that several tests share."""

P = 2**255 - 19


def square_root(square: int) -> int | None:
    """Square root modulo p, or None."""
    candidate = pow(square, (P + 3) // 8, P)
    for x in (candidate, candidate * pow(2, (P - 1) // 4, P) % P):
        if (x * x - square) % P == 0:
            return x
    return None
