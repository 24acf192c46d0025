"""Listening: the daemon's endpoint, and the number of connections that file descriptors permit."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..security.hosts import is_loopback
from .certificates import RenewedCertificates, directory_of
from .connection_limits import EVICTION_HEADROOM

log = Logger(namespace="callme")

RESERVED_FDS = 64
"""File descriptors reserved for the daemon itself: database, log, reactor, libraries."""
FDS_PER_CALL = 4
"""File descriptors reserved for each call.

A call uses one for its name lookup or its connection, others for attempts to connect to further
addresses of the name, and one for an idle connection of an earlier call.
"""
ACCEPT_BURST = 1024
"""File descriptors reserved for new clients that arrive before evicted ones are closed.

The number is the length of the system's queue at a port: see :data:`BACKLOG`.
"""
BACKLOG = 1024
"""Length of the queue of connections to accept; the kernel may lower it (net.core.somaxconn)."""


def raise_fd_limit(required: int) -> int:
    """Raise this process's limit on open files to ``required``, as far as the system permits.

    :return: the resulting limit, at most ``required``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= required:
        return required
    allowed = required if hard == resource.RLIM_INFINITY else min(hard, required)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        # Some systems enforce a lower limit than they report.
        return soft
    return allowed


def required_fds(connections: int, concurrency: int) -> int:
    """Return the number of file descriptors that numbers of clients and calls require."""
    return connections + ACCEPT_BURST + FDS_PER_CALL * concurrency + RESERVED_FDS


def client_budget(connections: int, concurrency: int, fd_limit: int) -> int:
    """Return the number of client connections that the limit on open files permits.

    Clients get at least a quarter of the limit, even if calls could use all of it, because
    otherwise no tasks could be put.

    :param connections: the requested number.
    """
    left = fd_limit - FDS_PER_CALL * concurrency - RESERVED_FDS
    return max(1, min(connections, max(left, fd_limit // 4)))


def burst_budget(connections: int, concurrency: int, fd_limit: int) -> int:
    """Return the number of new clients that may connect before evicted ones are closed.

    :param connections: the maximum number of client connections.
    """
    left = fd_limit - FDS_PER_CALL * concurrency - RESERVED_FDS - connections
    return max(0, min(ACCEPT_BURST, left))


def connection_limits_for(wanted: int, concurrency: int) -> tuple[int, int]:
    """Raise the limit on open files, and log a warning if it does not permit all connections.

    :param wanted: the requested number of client connections.
    :param concurrency: the maximum number of calls in flight.
    :return: the maximum number of client connections, and of further ones while evicted ones are
        being closed.
    """
    fd_limit = raise_fd_limit(required_fds(wanted, concurrency))
    permitted = client_budget(wanted, concurrency, fd_limit)
    if permitted < wanted:
        log.warn(
            "only {limit} files may be open, which permits {permitted} clients, not the {wanted} "
            "of --max-connections (see ulimit -Hn)",
            limit=fd_limit,
            permitted=permitted,
            wanted=wanted,
        )
    return permitted, max(EVICTION_HEADROOM, burst_budget(permitted, concurrency, fd_limit))


class CannotListen(Exception):
    """The daemon cannot listen on the endpoint; the text is the reason, in one line."""


def check_bindable(description: str) -> bool:
    """Check that the daemon can listen on an endpoint, by binding its address for a moment.

    :param description: a Twisted endpoint description.
    :return: whether other machines may reach the endpoint.
    :raises CannotListen: when the address cannot be bound.
    """
    failures: list[Failure] = []
    probe = _BindProbe()
    listening = maybeDeferred(_server(probe, description).listen, Factory())
    listening.addErrback(failures.append)
    for failure in failures:
        error = failure.value
        if isinstance(error, _SocketExamined):
            break
        if isinstance(error, AttributeError):
            # The endpoint uses methods of the reactor that the probe lacks, so its address is
            # unknown.
            return True
        reason = getattr(error, "strerror", None) or str(error)
        if not isinstance(error, (OSError, OverflowError)):
            # Twisted's stdio endpoint has no port, and raises a different error.
            reason = "it is not a port that clients can connect to"
        raise CannotListen(f"cannot listen on {description}: {reason}")
    return probe.exposed


class _SocketExamined(Exception):
    """A probe has examined an open socket; otherwise the endpoint would close the socket."""


class _BindProbe:
    """Part of a reactor that endpoints use to listen; it binds an address and closes the socket.

    :ivar exposed: whether the bound address is not a loopback address.
    """

    exposed = False

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((interface, port))
            trial.listen()
            self._examine(trial)

    def _examine(self, bound: socket.socket) -> None:
        # The interface may be a name, or empty for all addresses, so the bound address is examined.
        local = bound.family == socket.AF_UNIX or is_loopback(bound.getsockname()[0])
        self.exposed = not local

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:
        # The socket is open already: systemd has passed it to the daemon.
        descriptor = os.dup(fileDescriptor)
        try:
            handed_over = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        with handed_over:
            self._examine(handed_over)
        raise _SocketExamined

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            if not os.path.lexists(address):
                trial.bind(address)
                os.unlink(address)
            elif trial.connect_ex(address) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            elif not stat.S_ISSOCK(os.stat(address).st_mode):
                raise OSError(errno.EEXIST, "there is a file that is not a socket")


def endpoint_of(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Return the endpoint of a description, with :data:`BACKLOG` by default.

    With Twisted's default of 50, a thousand clients that connect at the same time wait for up to
    20 s, because a client's kernel repeats an attempt that found a full queue after 1 s or more.
    """
    kind, _, rest = description.partition(":")
    if kind in ("tcp", "tcp6", "ssl", "tls", "unix"):
        # A backlog that is a keyword in the description takes precedence. A positional backlog
        # raises TypeError, because the parameter has two values; then the description is used
        # alone.
        with suppress(TypeError):
            return _server(reactor, f"{kind}:backlog={BACKLOG}:{rest}")
    return _server(reactor, description)


def _server(reactor: Any, description: str) -> IStreamServerEndpoint:
    endpoint: Any = serverFromString(reactor, description)
    if description.startswith("tls:"):
        try:
            endpoint.connectionCreator = RenewedCertificates(
                directory=directory_of(description),
                load=lambda: serverFromString(reactor, description).connectionCreator,
            )
        except ValueError as error:
            raise CannotListen(f"cannot listen on {description}: {error}") from None
    server: IStreamServerEndpoint = endpoint
    return server


def address_of(port: IListeningPort | None, description: str) -> str:
    """Return the address of a port for display, such as ``127.0.0.1:6777`` or ``[::1]:6777``.

    :param description: returned for a port without host and number, such as a Unix socket.
    """
    address: Any = None if port is None else port.getHost()
    host, number = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return description
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
