"""Why a server cannot be reached, in words, and whether waiting may help."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from dataclasses import dataclass

from cryptography import x509

from secagg.errors import ParameterError
from secagg.service.keys import ServerCredentials

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # that gRPC looks at, in its order
_MOST_PORT = 65535
_MOST_WORDS = 300  # characters of a peer's words


def host_and_port(address: str, name: str = "address") -> tuple[str, int]:
    """Split host:port, [IPv6]:port. Raises ParameterError."""
    host, colon, port = address.rpartition(":")
    fine = colon and host.strip("[]") and (":" not in host or host.startswith("[")) and host == host.strip()
    if not fine or not (port.isascii() and port.isdigit()) or int(port) > _MOST_PORT:
        raise ParameterError(f"{name}: must be host:port with a port in 0..{_MOST_PORT}, is {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, which no proxy leads to."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_of(address: str) -> str:
    """Return the proxy that leads to an address, by the environment, without its password; "": none does."""
    host, _ = host_and_port(address)
    if is_loopback(host):
        return ""
    proxy = next((os.environ[name] for name in _PROXIES if os.environ.get(name)), "")
    excepted = next((os.environ[name] for name in ("no_grpc_proxy", "no_proxy") if os.environ.get(name)), "")
    if not proxy or any(_covers(one.strip(), host) for one in excepted.split(",")):
        return ""
    scheme, there, rest = proxy.rpartition("://")
    return printable(f"{scheme}{there}{rest.rpartition('@')[2]}")


def _covers(excepted: str, host: str) -> bool:
    """Tell whether an entry of no_proxy, a network or the end of a name, is about a host."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(excepted, strict=False)
    except ValueError:
        return bool(excepted) and host.endswith(excepted.removeprefix("*"))


def outdated(credentials: ServerCredentials, now: float, whose: str = "the server's certificate") -> str:
    """Return why a certificate does not hold at a time, in seconds since 1970; "": it does."""
    certificate = x509.load_pem_x509_certificate(credentials.certificate)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    here = dt.datetime.fromtimestamp(now, dt.UTC)
    if first <= here <= last:
        return ""
    return (
        f"{whose} holds from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, and by "
        f"this machine's clock it is {here:%Y-%m-%d %H:%M}: set the clock, or get a new certificate"
    )


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why there is no stream. passes: it may be over by itself, as when a server is being restarted."""

    cause: str
    passes: bool


# What gRPC says, in its order of telling: another word for the same thing in every version.
_SIGNS = (
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "the server there has another certificate than the one given: it is another server, or has a new one",
        False,
    ),
    (
        ("Hostname Verification", "Peer name"),
        "the server there is none of secagg's: its certificate has another name",
        False,
    ),
    (("WRONG_VERSION_NUMBER", "wrong version number"), "what listens there does not speak TLS", False),
    (("ALPN",), "what listens there speaks TLS, but not gRPC", False),
    (
        ("DNS resolution failed", "errors resolving", "Domain name not found", "hostname lookup"),
        "there is no such host name",
        False,
    ),
    (("onnection refused",), "nothing listens there (yet)", True),
    (("oute to host", "etwork is unreachable"), "the network does not lead there", True),
    (("imed out", "imeout", "eadline"), "no answer", True),
)


def printable(text: str) -> str:
    """Return words of a peer as one short line that no terminal takes for anything else."""
    line = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return line if len(line) <= _MOST_WORDS else f"{line[:_MOST_WORDS]}..."


def obstacle(details: str, address: str) -> Obstacle:
    """Return what gRPC's details of a call without a stream mean.

    address  that was called; where a proxy leads to it, it is named
    """
    details = printable(details)
    cause, passes = next(
        ((said, passes) for signs, said, passes in _SIGNS if any(sign in details for sign in signs)),
        (details, True),
    )
    if proxy := proxy_of(address):
        cause = f"by the proxy {proxy} of the environment: {cause} (no_proxy=HOST goes around it)"
        passes = passes and "refused" not in details  # a proxy that is not there will hardly come
    return Obstacle(f"{address}: {cause}", passes)
