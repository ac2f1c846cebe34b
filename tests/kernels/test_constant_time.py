"""No branch and no address depends on a secret (csrc/tests/test_constant_time.c, under valgrind)."""

import platform
import subprocess

import pytest

from tests.kernels.programs import need, program, run

pytestmark = pytest.mark.process

FLAVORS = ["plain", "o2"]  # -O3, as it is shipped, and -O2: compilers may turn a select into a branch


def under_valgrind(flavor: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    need("cc", "valgrind")
    checked = program(f"{flavor}/test_constant_time")
    return run("valgrind", "--quiet", "--error-exitcode=1", checked, *arguments)


@pytest.mark.parametrize("flavor", ["plain", pytest.param("o2", marks=pytest.mark.exhaustive)])
def test_no_branch_and_no_address_depends_on_a_secret(flavor: str) -> None:
    done = under_valgrind(flavor)
    assert done.returncode == 0, done.stderr
    seen = [line.removeprefix("constant time: ") for line in done.stdout.splitlines()]
    assert seen[-2:] == ["variant portable", "field"]
    if platform.machine() == "x86_64":
        assert "variant aesni" in seen


@pytest.mark.parametrize("flavor", FLAVORS)
def test_a_branch_on_a_secret_is_reported(flavor: str) -> None:
    done = under_valgrind(flavor, "leak")
    assert done.returncode == 1
    assert "Conditional jump or move depends on uninitialised value" in done.stderr


def test_the_program_says_nothing_without_valgrind() -> None:
    need("cc", "valgrind")
    assert run(program("plain/test_constant_time")).returncode == 2
