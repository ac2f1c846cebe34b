"""Extras are loaded by those who use them."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.process
def test_the_learners_of_numpy_load_without_the_extras() -> None:
    modules = "fedcore, fedcore.metrics, fedcore.learners, fedcore.learners.low_rank, fedcore.learners.select"
    names = "torch sklearn jax flax scipy"
    code = f"import {modules}, sys; print([name for name in '{names}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
