"""Bytes as text that can be mailed: base64 between two lines that say what it is."""

from __future__ import annotations

import base64
import binascii
import re

from secagg.service.enrolment.errors import ArmorError

_LINE = 64
_TEXT = re.compile(r"-----BEGIN SECAGG ([A-Z ]+)-----([A-Za-z0-9+/=\s]*)-----END SECAGG \1-----")


def armored(kind: str, data: bytes) -> str:
    """Return bytes as text. kind: what it is, in capitals."""
    body = base64.b64encode(data).decode("ascii")
    lines = [body[at : at + _LINE] for at in range(0, len(body), _LINE)]
    return "\n".join((f"-----BEGIN SECAGG {kind}-----", *lines, f"-----END SECAGG {kind}-----")) + "\n"


def kind_of(text: str) -> str:
    """Return what a text says that it holds; "": nothing."""
    match = _TEXT.search(text)
    return match[1] if match else ""


def unarmored(kind: str, text: str) -> bytes:
    """Return the bytes of a text, which may stand within others. Raises ArmorError, which quotes nothing."""
    match = _TEXT.search(text)
    if match is None or match[1] != kind:
        found = f"{match[1].lower()}" if match else "nothing of secagg"
        raise ArmorError(f"{kind.lower()}: the text must hold one, holds {found}")
    try:
        return base64.b64decode("".join(match[2].split()), validate=True)
    except binascii.Error:  # its text could quote a secret
        raise ArmorError(f"{kind.lower()}: is damaged; have it sent again") from None
