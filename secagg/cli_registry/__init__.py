"""The commands of admission: `secagg authority`, `registry`, `invite`, `enroll` and `admit`.

They work on files, without a network. The operator's keys
are needed for what the operator decides, on a machine of its own; a server needs none.
"""

from __future__ import annotations

import typer

from secagg.cli_registry import authority, enrolment, registry

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.add_typer(authority.app, name="authority")
    app.add_typer(registry.app, name="registry")
    enrolment.add_to(app)
