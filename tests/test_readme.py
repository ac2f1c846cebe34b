"""The examples of the README run, and print what they say."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_are_five_examples_and_the_embedding_one_is_short() -> None:
    assert len(EXAMPLES) == 5
    code = [line for line in EXAMPLES[1].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(code) <= 18


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_its_comments_say(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """That of the sessions goes on where the one before it ended."""
    place: dict[str, object] = {}
    example = EXAMPLES[number]
    if "def until(" in example:
        exec(compile(EXAMPLES[number - 1], "README.md", "exec"), place)
        capsys.readouterr()
    exec(compile(example, "README.md", "exec"), place)
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"^print\(.*\)  # ([\[(][^\])]*[\])])", example, flags=re.MULTILINE)
    assert promised
    assert printed == promised
