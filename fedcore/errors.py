"""Errors of fedcore. Messages name the field, the limit and the offender, not the data."""

from __future__ import annotations

from secagg import SecAggError


def needs(what: str, extra: str, error: ImportError) -> str:
    """Say why an import failed, and which extra brings what is missing, in a checkout of the project."""
    return f"{what} needs the extra [{extra}], in a checkout: pip install '.[{extra}]' ({error})"


class FedcoreError(SecAggError):
    """Base of fedcore's errors."""


class SettingError(FedcoreError, ValueError):
    """A wrong setting, wherever it was given: the message starts with the dotted path of its key."""


class CodecError(FedcoreError, ValueError):
    """A value or a sum that the codec cannot carry."""


class SpoiledError(CodecError):
    """A sum that makes no sense: somebody in it sent something else than a vector of the task."""

    exit_status = 3


class DataError(FedcoreError, ValueError):
    """A table, schema or label that cannot be used; the message names file, column and row."""


class OutOfBoundsError(DataError):
    """A value outside the public bounds of its column."""


class TaskError(FedcoreError, ValueError):
    """A round asks for something that this site does not do."""


class LearnerFailedError(TaskError):
    """A learner failed on the rows of a site; whether it does may tell something about them."""
