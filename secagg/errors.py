"""Errors raised on purpose. Their messages name the field, the limit and the offender, never a secret."""

from __future__ import annotations

from typing import Any, ClassVar


class SecAggError(Exception):
    """Base of everything that secagg raises on purpose.

    exit_status  of a command that ends with it: 2, bad input; 3, bad luck
    """

    exit_status: ClassVar[int] = 2

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by what is there: constructors take other arguments than the message."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[SecAggError], args: tuple[Any, ...], state: dict[str, Any]) -> SecAggError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class LocalProtocolError(SecAggError):
    """Our caller broke the contract: wrong phase, wrong shape, finished session."""


class ParameterError(LocalProtocolError, ValueError):
    """A value given by our caller is out of its range."""


class InfeasibleParameters(ParameterError):  # noqa: N818 - the name is part of the specification
    """No degree and threshold meet the threat model; the message says which demand to relax."""


class RegistryError(SecAggError):
    """The registry file is unusable; the message names the entry."""


class KeyFileError(SecAggError):
    """A key file is missing, unusable or readable by others."""


class ConsentError(SecAggError):
    """Our caller does not consent to a sum over the survivors that its client was asked to sign."""


class StaleSnapshotError(ParameterError):
    """A session's snapshot is older than what the session has released since."""


class RemoteProtocolError(SecAggError):
    """A peer broke the protocol. `reason` is an enumeration, safe to count and to log.

    `breaches` are the demands of a client's policy that are not met.
    """

    def __init__(self, reason: object, detail: str, breaches: tuple[object, ...] = ()) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.breaches = breaches


class RoundAbortedError(SecAggError):
    """A round ended without a result.

    `reason` says why, `blamed` whom the protocol suspects; the `guilty` among them are to be left out of
    the next attempt, the `likely` ones had better be (see `Aborted`).
    """

    exit_status = 3

    def __init__(
        self,
        reason: object,
        detail: str,
        blamed: tuple[bytes, ...] = (),
        guilty: tuple[bytes, ...] = (),
        likely: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.blamed = blamed
        self.guilty = guilty
        self.likely = likely
