"""The example of TRAINING.md runs, and what it names exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from fedcore.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "fedcore" / "TRAINING.md").read_text(encoding="utf-8")


def test_the_example_prints_what_its_comment_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(example, "TRAINING.md", "exec"), {})
    assert capsys.readouterr().out == "[True]\n"


def test_every_strategy_is_in_the_table_and_says_what_it_reveals() -> None:
    table = [line for line in TEXT.splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == set(STRATEGIES)
    for strategy in STRATEGIES.values():
        assert "Reveals to the server:" in (strategy.__doc__ or "")


def test_files_and_modules_that_are_named_exist() -> None:
    for path in re.findall(r"`(tests/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"`(fedcore(?:\.\w+)+)`", TEXT):
        name, _, attribute = module.rpartition(".")
        if name == "fedcore" or attribute.islower():
            import_module(module)
        else:
            assert hasattr(import_module(name), attribute), module
