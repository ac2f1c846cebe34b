"""The C entry points against each other on any bytes (csrc/tests/fuzz_kernels.c)."""

import pytest

from tests.kernels.programs import need, program, run

pytestmark = pytest.mark.slow

SECONDS = 2
LONG_SECONDS = 60


@pytest.mark.process
def test_variants_agree_on_random_inputs_under_sanitizers() -> None:
    need("cc")
    done = run(program("sanitized/fuzz_kernels"), str(SECONDS))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 100


@pytest.mark.fuzz
@pytest.mark.process
def test_variants_agree_on_what_libfuzzer_finds() -> None:
    need("clang")
    done = run(program("fuzz/fuzz_kernels"), f"-max_total_time={LONG_SECONDS}", "-max_len=4096")
    assert done.returncode == 0, done.stderr
