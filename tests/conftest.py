"""For all tests: machines are noisy, so no deadline per example; gRPC's own log is not ours to test."""

import os

from hypothesis import settings

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")
