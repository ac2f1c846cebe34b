"""Extras are loaded by those who use them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fedcore.learners


@pytest.mark.process
def test_the_learners_of_numpy_load_without_the_extras() -> None:
    modules = (
        "fedcore, fedcore.evaluation.metrics, fedcore.learners, fedcore.learners.low_rank, fedcore.names"
    )
    names = "torch sklearn jax flax scipy"
    code = f"import {modules}, sys; print([name for name in '{names}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.process
def test_without_torch_its_learner_says_which_extra_is_missing() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import fedcore.learners\n"
        "try: fedcore.learners.TorchLearner\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "TorchLearner needs the extra [torch], in a checkout: pip install '.[torch]'"
    )


def test_names_that_are_not_learners_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TorchLerner'"):
        getattr(fedcore.learners, "TorchLerner")  # noqa: B009


@pytest.mark.process
def test_the_command_without_its_extra_says_so_in_one_line_with_status_2() -> None:
    code = "import sys; sys.modules['rich.console'] = None; import fedcore.cli.main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "fedcore: this command needs the extra [fedcore], in a checkout: pip install"
    )
    assert "rich.console" in done.stderr  # the import that failed, which may be another one's
    assert done.stderr.count("\n") == 1


@pytest.mark.process
@pytest.mark.parametrize("command", ["fedcore.cli.main", "secagg.cli"])
def test_a_help_text_loads_nothing_that_it_does_not_need(command: str) -> None:
    names = "numpy grpc cryptography msgspec sklearn torch matplotlib"
    code = f"import {command}, sys; print([name for name in '{names}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.process
def test_names_and_modules_of_a_package_are_found_without_importing_them_first() -> None:
    code = (
        "import secagg, fedcore\n"
        "assert secagg.errors.SecAggError is secagg.SecAggError\n"
        "assert secagg.kernels.usable_cpus() >= 1 and secagg.protocol.ClientSession is secagg.ClientSession\n"
        "assert fedcore.errors.TaskError is fedcore.TaskError and fedcore.data.files.inspect\n"
        "assert set(fedcore.__all__) <= set(dir(fedcore)) and set(secagg.__all__) <= set(dir(secagg))\n"
        "for package in (secagg, fedcore, fedcore.data):\n"
        "    assert not hasattr(package, 'no_such_name') and not hasattr(package, '__wrapped__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
