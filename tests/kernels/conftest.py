from collections.abc import Iterator

import pytest

from secagg.kernels import VARIANTS, select, variant


@pytest.fixture(scope="module", params=list(VARIANTS))
def each_variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the module once per kernel variant that this CPU can run."""
    before = variant()
    try:
        select(request.param)
    except ImportError as error:
        pytest.skip(str(error))
    yield variant()
    select(before)
