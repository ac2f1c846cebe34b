"""Connections that nobody has said hello on: when there are too many, the oldest give way.

gRPC accepts connections, does their TLS handshakes and holds them, all out of Python's sight. So the
process looks at its own descriptors: it knows the sockets of its port by their addresses, the streams that
said hello by theirs, and shuts down what is over. gRPC finds the end of the connection and closes it.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address, ip_address
from typing import TypeAlias
from urllib.parse import unquote

_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")  # Linux; macOS and the BSDs
_Peer: TypeAlias = tuple[str, int]  # address and port


class Strangers:
    """The connections of a port of this process, and which of them are somebody's.

    port  that the process listens on
    most  connections without a stream that said hello; of more, some are ended
    """

    def __init__(self, port: int, most: int) -> None:
        self._port, self._most = port, most
        self._known: Counter[_Peer] = Counter()  # streams that said hello
        self._there: dict[int, tuple[int, _Peer]] = {}  # by inode, oldest first: descriptor, peer
        self._foreign: dict[int, int] = {}  # what is something else, or was ended: descriptors by inode

    @contextmanager
    def greeted(self, peer: str) -> Iterator[None]:
        """Let the connection of a stream (`ServicerContext.peer`) be somebody's for a while."""
        key = _peer_of(peer)
        if key is None:
            yield
            return
        self._known[key] += 1
        try:
            yield
        finally:
            self._known[key] -= 1
            if not self._known[key]:
                del self._known[key]

    def look(self) -> int:
        """End what is too many; returns how many connections. May block for some milliseconds.

        Of the addresses the one with most connections loses first, and of its connections the oldest.
        """
        descriptors = _descriptors()
        if len(descriptors) - len(self._known) <= self._most:
            return 0
        self._find(descriptors)
        waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        for inode, (_, peer) in self._there.items():
            if peer not in self._known:
                waiting[peer[0]].append(inode)
        excess = sum(map(len, waiting.values())) - self._most
        ended = 0
        while waiting and excess > 0:
            address = max(waiting, key=lambda one: len(waiting[one]))
            ended += self._end(waiting[address].popleft())
            excess -= 1
            if not waiting[address]:
                del waiting[address]
        return ended

    def _find(self, descriptors: Sequence[int]) -> None:
        """Bring what is known of the descriptors up to date."""
        there, foreign, fresh = set(), {}, []
        for descriptor in descriptors:
            try:
                status = os.fstat(descriptor)
            except OSError:
                continue
            if not stat.S_ISSOCK(status.st_mode):
                continue
            inode = status.st_ino
            if self._foreign.get(inode) == descriptor:
                foreign[inode] = descriptor
            elif inode in self._there and self._there[inode][0] == descriptor:
                there.add(inode)
            else:
                fresh.append((inode, descriptor))
        kept = {inode: one for inode, one in self._there.items() if inode in there}
        for inode, descriptor in sorted(fresh):  # Linux numbers them about as they are made
            if (peer := _accepted(descriptor, self._port)) is None:
                foreign[inode] = descriptor
            else:
                kept[inode] = (descriptor, peer)
        self._there, self._foreign = kept, foreign

    def _end(self, inode: int) -> bool:
        descriptor, peer = self._there.pop(inode)
        self._foreign[inode] = descriptor  # until gRPC closes it
        with suppress(OSError):
            # It is gRPC's, which may have closed it: the number could be of another connection by now.
            if os.fstat(descriptor).st_ino == inode and peer not in self._known:
                with _borrowed(descriptor) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
                return True
        return False


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Use a socket that is somebody else's to close. Raises OSError."""
    connection = socket.socket(fileno=descriptor)
    try:
        yield connection
    finally:
        connection.detach()


def _accepted(descriptor: int, port: int) -> _Peer | None:
    """Return the peer of a connection that came to a port; None: it is something else."""
    with suppress(OSError), _borrowed(descriptor) as connection:  # a listener has no peer
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            here, peer = connection.getsockname(), connection.getpeername()
            if here[1] == port:
                return _plain(peer[0]), peer[1]
    return None


def _descriptors() -> Sequence[int]:
    for folder in _DESCRIPTORS:
        try:
            return list(map(int, os.listdir(folder)))  # noqa: PTH208 - names, thousands of them
        except FileNotFoundError:
            continue
        except OSError:  # there is none left to list them with
            break
    return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _peer_of(name: str) -> _Peer | None:
    """Parse what gRPC calls a peer: ipv4:HOST:PORT, ipv6:[HOST]:PORT, percent-encoded."""
    family, _, rest = unquote(name).partition(":")
    host, _, port = rest.rpartition(":")
    if family not in {"ipv4", "ipv6"} or not port.isdecimal():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """Return the one spelling of an address."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
