"""For all tests: machines are noisy, so no deadline per example; gRPC's own log is not ours to test."""

import gc
import os
from collections.abc import Generator, Iterator

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: threads of BLAS would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.postgresql import Cluster, cluster

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# A change is looked at by half as many examples as it is merged by: .ci/run sets CI.
settings.register_profile("any pace", deadline=None, max_examples=100 if "CI" in os.environ else 50)
settings.load_profile("any pace")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made and none is dropped: looking for garbage meanwhile finds nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL of this worker."""
    with cluster() as one:
        yield one
