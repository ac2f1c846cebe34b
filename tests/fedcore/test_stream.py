from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore import stream

SEED = bytes(range(32))


@given(count=st.integers(1, 200_000), share=st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=60)
def test_what_is_chosen_is_the_beginning_of_the_permutation(count: int, share: float) -> None:
    size = max(1, round(share * count))
    wanted = np.sort(stream.permutation(SEED, count)[:size])
    assert np.array_equal(stream.choose(SEED, count, size), wanted)


def test_all_and_one_are_chosen_of_many() -> None:
    count = 3 * stream._TILE + 7
    assert np.array_equal(stream.choose(SEED, count, count), np.arange(count))
    assert stream.choose(SEED, count, 1) == [stream.words(SEED, count).argmin()]
