"""The pictures say what the code says, and the API documentation can be made offline."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from secagg import Phase
from secagg.messages.types import KINDS

ROOT = Path(__file__).parent.parent
PICTURES = ("secagg/round.svg", "fedcore/run.svg")


def words_of(picture: str) -> str:
    return "\n".join(ET.parse(ROOT / picture).getroot().itertext())


def words_at(words: str, name: str) -> int:
    found = re.search(rf"\b{name}\b", words)
    assert found, name
    return found.start()


def rows_of(path: str, heading: str) -> list[tuple[str, str]]:
    """The first two columns of the table under a heading."""
    text = (ROOT / path).read_text(encoding="utf-8").split(heading, 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| ([^|]+) \| ([^|]+) \|", text, flags=re.MULTILINE)[1:]


def test_the_numbers_of_the_readme_are_those_of_the_benches() -> None:
    numbers = rows_of("README.md", "## Numbers")
    assert len(numbers) == 13
    assert set(numbers) <= set(rows_of("bench/README.md", "Ratios that matter"))


def test_the_picture_of_a_round_names_every_phase_and_message_in_order() -> None:
    words = words_of("secagg/round.svg")
    phases = [f"{phase.value} {phase.name.replace('_', ' ').title().replace(' ', '')}" for phase in Phase]
    messages = [kind.__name__.removesuffix("Message") for kind in KINDS]
    for names in (phases, messages):
        places = [words_at(words, name) for name in names]
        assert places == sorted(places)


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_shown_and_loads_nothing(picture: str) -> None:
    text = (ROOT / picture).read_text(encoding="utf-8")
    assert not re.search(r"(href|src|url)\s*[=(]\s*[\"']?(http|//)", text)
    assert f"]({picture})" in (ROOT / "README.md").read_text(encoding="utf-8")
    package, name = picture.split("/")
    assert f"]({name})" in (ROOT / package / "__init__.py").read_text(encoding="utf-8")


@pytest.mark.process
def test_documentation_is_made_of_what_is_here(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "--template-directory", ".github/docs"]
    subprocess.run(
        [*command, "--output-directory", tmp_path, "secagg.errors"], cwd=ROOT, check=True, capture_output=True
    )
    page = (tmp_path / "secagg" / "errors.html").read_text(encoding="utf-8")
    assert "StaleSnapshotError" in page
    assert "white-space:pre-wrap" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"'](http|//)", page)
