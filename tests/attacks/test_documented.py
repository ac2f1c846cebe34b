"""SECURITY.md names tests and reasons that exist, one test for every attack."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "secagg" / "SECURITY.md").read_text(encoding="utf-8")


def names_in(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return found


def test_every_test_that_the_security_statement_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 70
    assert named <= names_in(ROOT / "tests"), named - names_in(ROOT / "tests")


def test_every_row_of_attacks_names_its_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and line.count("|") == 5]
    attacks = [row for row in rows if not row.startswith("| attack")]
    assert len(attacks) > 70
    for row in attacks:
        assert re.search(r"`test_\w+` \|$", row), row


def test_reasons_that_are_named_exist() -> None:
    from secagg.effects import AbortReason, BlameReason, DropReason, RefusalReason
    from secagg.store import ConcernKind

    kinds = (AbortReason, BlameReason, DropReason, RefusalReason, ConcernKind)
    known = {name for kind in kinds for name in kind.__members__}
    section = TEXT[TEXT.index("## 5") : TEXT.index("## 6")]
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", section)) <= known
