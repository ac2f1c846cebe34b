"""Write the known-answer vectors: `python -m tests.vectors.make`.

Everything follows from fixed seeds; a run changes no byte unless the protocol changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secagg.params import Adversary
from tests.vectors.bad_cases import bad_vectors
from tests.vectors.oneshot import recorded_oneshot
from tests.vectors.primitives import primitive_vectors
from tests.vectors.rounds import Json, hybrid_vectors, recorded
from tests.vectors.transcripts import transcript_vectors

FOLDER = Path(__file__).parent
ONESHOT: tuple[tuple[str, Adversary, bool], ...] = (
    ("oneshot_active.json", "active", False),
    ("oneshot_passive.json", "passive", False),
    ("oneshot_kem.json", "active", True),
)


def build() -> dict[str, Json]:
    """Contents by file name."""
    return {
        "active_round.json": recorded("active"),
        "passive_round.json": recorded("passive"),
        "hybrid_round.json": hybrid_vectors(FOLDER / "hybrid_round.json"),
        **{
            name: recorded_oneshot(adversary, post_quantum=post_quantum, file=name)
            for name, adversary, post_quantum in ONESHOT
        },
        "bad_cases.json": bad_vectors(),
        "primitives.json": primitive_vectors(),
        "transcripts.json": transcript_vectors(),
    }


def render(content: Mapping[str, Any]) -> bytes:
    """Bytes of a vector file: one line per item of a list, or per field."""
    lines = []
    for name, value in content.items():
        if isinstance(value, list) and name not in {"survivors", "sum"}:
            items = ",\n".join(f"  {json.dumps(item)}" for item in value)
            lines.append(f" {json.dumps(name)}: [\n{items}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def main() -> None:
    """Write all files."""
    for name, content in build().items():
        (FOLDER / name).write_bytes(render(content))


if __name__ == "__main__":
    main()
