"""Every snippet of the pages runs, and prints what it says; those of a host where the host is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fedcore
from secagg.embedding import __main__ as command
from secagg.embedding import conformance

PAGE = Path(fedcore.__file__).parent / "EMBEDDING.md"
TEXT = PAGE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python(?: file=(\S+))?\n(.*?)```", TEXT, flags=re.DOTALL)
FILES = {name: code for name, code in SNIPPETS if name}
PLAIN = [code for name, code in SNIPPETS if not name]


def promised(code: str) -> list[str]:
    return re.findall(r"^ *print\(.*\)  # (\[.*\])$", code, flags=re.MULTILINE)


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_a_snippet_prints_what_its_comments_say(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(PLAIN[number], PAGE.name, "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.splitlines() == promised(PLAIN[number])
    assert promised(PLAIN[number])


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def prepared(folder: Path, *nodes: str) -> None:
    """As the page says: a folder for each node, one registry, a copy of it in each."""
    text = "".join(run(folder, "-m", "secagg.embedding", node) for node in nodes)
    for place in (folder, *(folder / node for node in nodes)):
        (place / "registry.toml").write_text(text, encoding="utf-8")
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")


def test_an_adapter_s_own_tests_are_a_few_lines(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(FILES["test_mine.py"], encoding="utf-8")
    assert f"{len(conformance.CASES)} passed" in run(
        tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"
    )


@pytest.mark.host
@pytest.mark.skipif(find_spec("flwr") is None, reason="Flower is not installed: make test-hosts")
def test_the_page_about_flower_runs_word_by_word(tmp_path: Path) -> None:
    prepared(tmp_path, *(f"node-{i}" for i in range(5)))
    assert run(tmp_path, "try_it.py").splitlines() == promised(FILES["server_app.py"])


@pytest.mark.host
@pytest.mark.skipif(find_spec("nvflare") is None, reason="FLARE is not installed: make test-hosts")
def test_the_page_about_flare_runs_word_by_word(tmp_path: Path) -> None:
    prepared(tmp_path, *(f"site-{i}" for i in range(1, 6)))
    assert promised(FILES["run_it.py"])[0] in run(tmp_path, "run_it.py").splitlines()


def test_user_code_is_five_lines_at_most() -> None:
    ours = ("SecAgg", "Mean", "MEAN", "Participant", "read_registry")
    for name in ("client_app.py", "server_app.py"):
        lines = [line for line in FILES[name].splitlines() if any(word in line for word in ours)]
        assert len([line for line in lines if "import" not in line]) <= 5, lines


def test_the_command_makes_a_key_once_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path / "node-0"), str(tmp_path / "node-1")]) == 0
    first = capsys.readouterr().out
    assert first.count("[[party]]") == 2
    assert (tmp_path / "node-0").stat().st_mode & 0o777 == 0o700
    assert command.main([str(tmp_path / "node-0"), str(tmp_path / "node-1")]) == 0
    assert capsys.readouterr().out == first
    assert command.main([str(tmp_path / "no de")]) == 2
    assert "party.name: letters, digits" in capsys.readouterr().err
    assert not (tmp_path / "no de").exists()
    (tmp_path / "node-1" / "party.key").write_text("x", encoding="utf-8")
    assert command.main([str(tmp_path / "node-1")]) == 2
    assert "party.key" in capsys.readouterr().err
