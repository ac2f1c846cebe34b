"""The errors of the service, and the one table of gRPC codes."""

from __future__ import annotations

import grpc

from secagg.errors import SecAggError


class ServiceError(SecAggError):
    """Base of the service's own errors."""


class HelloError(ServiceError):
    """A peer could not prove its identity."""

    exit_status = 3


class StreamError(ServiceError):
    """A peer sent something else than records, or a record that is too long."""

    exit_status = 3


class BusyError(ServiceError):
    """A server takes no more of this at the moment; coming back later may help."""

    exit_status = 3


class CrowdedError(BusyError):
    """Too many streams wait to say hello; the oldest gave way."""


class LateError(HelloError):
    """A peer said no hello in time."""


class NotHereError(ServiceError):
    """Another server leads this run, or nobody does at the moment."""

    exit_status = 3


class ConnectionLostError(ServiceError):
    """The server could not be reached within the time allowed."""

    exit_status = 3


CODES: dict[type[ServiceError], grpc.StatusCode] = {
    HelloError: grpc.StatusCode.UNAUTHENTICATED,
    StreamError: grpc.StatusCode.INVALID_ARGUMENT,
    LateError: grpc.StatusCode.DEADLINE_EXCEEDED,  # its network may be slow: it comes back
    CrowdedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotHereError: grpc.StatusCode.UNAVAILABLE,
}


def code_of(error: ServiceError) -> grpc.StatusCode:
    """Return the status code by which gRPC tells a peer of an error."""
    return CODES.get(type(error), grpc.StatusCode.INTERNAL)
