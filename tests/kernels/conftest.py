from collections.abc import Iterator

import pytest
from hypothesis import settings

from secagg.kernels import VARIANTS, select, variant

settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")


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
