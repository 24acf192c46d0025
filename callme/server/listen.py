"""Listening: the endpoint of the daemon, and how many connections its file descriptors permit."""

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

A call uses one for its name lookup or its connection, others for connections to further addresses
of the name while the first does not respond, and one for an idle connection of an earlier call.
"""
ACCEPT_BURST = 1024
"""File descriptors reserved for new clients that arrive before evicted ones are closed.

That is as many as the system queues at a port: see :data:`BACKLOG`.
"""
BACKLOG = 1024
"""Length of the queue of connections to accept; the kernel may lower it (net.core.somaxconn)."""


def raise_fd_limit(required: int) -> int:
    """Raise this process's limit on open files to ``required``, as far as the system permits.

    :return: how many of the required files the process may open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= required:
        return required
    allowed = required if hard == resource.RLIM_INFINITY else min(hard, required)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        # Some systems enforce a lower limit than the one that they report.
        return soft
    return allowed


def required_fds(connections: int, concurrency: int) -> int:
    """Return the number of file descriptors that so many clients and calls need."""
    return connections + ACCEPT_BURST + FDS_PER_CALL * concurrency + RESERVED_FDS


def client_budget(connections: int, concurrency: int, fd_limit: int) -> int:
    """Return how many of the wanted client connections the limit on open files permits.

    Clients get a quarter of the limit even if calls could use all of it, because without
    clients there is nothing to call.

    :param connections: the wanted number.
    """
    left = fd_limit - FDS_PER_CALL * concurrency - RESERVED_FDS
    return max(1, min(connections, max(left, fd_limit // 4)))


def burst_budget(connections: int, concurrency: int, fd_limit: int) -> int:
    """Return how many new clients may be connected before evicted ones are closed.

    :param connections: the maximum number of client connections.
    """
    left = fd_limit - FDS_PER_CALL * concurrency - RESERVED_FDS - connections
    return max(0, min(ACCEPT_BURST, left))


def connection_limits_for(wanted: int, concurrency: int) -> tuple[int, int]:
    """Raise the limit on open files, and log a warning if it does not permit all connections.

    :param wanted: the wanted number of client connections.
    :param concurrency: the maximum number of calls in flight.
    :return: the maximum number of client connections, and of those beyond it while others are
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
    """The port cannot be used; the text is one line that gives the reason."""


def check_bindable(description: str) -> bool:
    """Check that an endpoint can be listened on, by binding its address for a moment.

    :param description: a Twisted endpoint description.
    :return: whether other machines may reach it.
    :raises CannotListen: when it cannot be listened on.
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
            # The endpoint uses a part of the reactor that the probe lacks, so its address is
            # unknown here.
            return True
        reason = getattr(error, "strerror", None) or str(error)
        if not isinstance(error, (OSError, OverflowError)):
            # Twisted's stdio endpoint has no port, and fails with an error of its own.
            reason = "it is not a port that clients can connect to"
        raise CannotListen(f"cannot listen on {description}: {reason}")
    return probe.exposed


class _SocketExamined(Exception):
    """The end of a probe of an open socket: the endpoint would close the socket on success."""


class _BindProbe:
    """The part of a reactor that an endpoint needs to listen; it binds and closes at once.

    :ivar exposed: whether the address that was bound is not a loopback address.
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
        # The interface may be a name, or empty for all addresses, so only the bound address
        # says whether other machines can reach it.
        local = bound.family == socket.AF_UNIX or is_loopback(bound.getsockname()[0])
        self.exposed = not local

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:
        # An open socket, which systemd has handed over.
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
    """Return the endpoint of a description, with :data:`BACKLOG` unless it gives a backlog.

    With Twisted's default of 50, a thousand clients that connect at once wait for up to 20 s,
    because a client's kernel repeats an attempt that found the queue full only after 1 s.
    """
    kind, _, rest = description.partition(":")
    if kind in ("tcp", "tcp6", "ssl", "tls", "unix"):
        # A backlog that the description itself gives as a keyword comes later and wins. One given
        # by position is a second value for the parameter: a TypeError, and it is used alone.
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

    :param description: returned when the port has no host and number, as a Unix socket.
    """
    address: Any = None if port is None else port.getHost()
    host, number = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return description
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
