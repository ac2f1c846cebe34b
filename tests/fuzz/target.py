"""What the fuzzer knows of a reader of bytes, and how targets say what became of an input."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secagg.effects import Effect, Refused

MENDED = 0x80  # bit of the second byte of a session's input: sign anew before it is handed over
STRANGER = 0x7F  # sender, instead of a party of the round


@dataclass(frozen=True, slots=True)
class Target:
    """A reader of bytes.

    head   so many bytes of an input say where the rest goes
    shape  of the rest, by the head: "frame", the name of a message or of a snapshot, or "" for anything
    """

    name: str
    run: Callable[[bytes], str]
    seeds: Callable[[], list[bytes]]
    head: int = 0
    shape: Callable[[bytes], str] = lambda _: ""


def is_frame(_head: bytes) -> str:
    """Shape of inputs that are frames behind their head."""
    return "frame"


def was_refused(effects: Sequence[Effect]) -> bool:
    refused = [effect for effect in effects if isinstance(effect, Refused)]
    assert not refused or len(effects) == 1, "refused, and yet something else"
    return bool(refused)


def spoken(effects: Sequence[Effect]) -> str:
    return "; ".join(
        f"{type(effect).__name__} {said_in(getattr(effect, 'detail', ''))}".strip() for effect in effects
    )


def said_in(detail: str) -> str:
    """A message without the values that it quotes: one text per kind of refusal."""
    text = re.sub(r"\b(column|party) .*:", r"\1:", detail, flags=re.DOTALL)
    text = re.sub(r"b?'.*'|\".*\"|\[.*\]|\{.*\}", "...", text, flags=re.DOTALL)
    text = re.sub(r"\b[0-9a-f]{12,}\b|-?\b\d+(\.\d+)?(e[+-]?\d+)?\b", "#", text)
    text = re.sub(r"(#, )+#", "#", text)
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:160]
