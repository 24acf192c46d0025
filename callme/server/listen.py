"""Where the daemon listens, and for how many clients there is room."""

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
from .connection_limits import EVICTION_HEADROOM

RESERVED_FDS = 64
"""Descriptors of the daemon itself: database, log, reactor, what libraries open."""
FDS_PER_CALL = 4
"""... of a call: a look-up or a connection, others to the same name's further addresses while
the first does not answer, and one that is kept from the call before."""
ACCEPT_BURST = 1024
"""... of clients that come at once, in the place of others that have not gone yet: as many as the
system lets wait at a port."""


def raise_limit(wanted: int) -> int:
    """Let this process open as many files as it wants, or as many as it may.

    :return: how many it may open now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        # Some systems have a limit below the one that they tell.
        return soft
    return allowed


def required_fds(connections: int, concurrency: int) -> int:
    """Return how many descriptors so many clients and calls need."""
    return connections + ACCEPT_BURST + FDS_PER_CALL * concurrency + RESERVED_FDS


def share_of_clients(connections: int, concurrency: int, limit: int) -> int:
    """Return how many of the connections that clients may have there are descriptors for.

    Where calls alone could use all of them, a quarter is left to clients, who must be able
    to say what is to be called.

    :param limit: how many files this process may open.
    """
    left = limit - FDS_PER_CALL * concurrency - RESERVED_FDS
    return max(1, min(connections, max(left, limit // 4)))


def burst_budget(connections: int, concurrency: int, limit: int) -> int:
    """Return how many clients may come at once in the place of others.

    :param connections: how many there may be.
    :param limit: how many files this process may open.
    """
    return max(
        0, min(ACCEPT_BURST, limit - FDS_PER_CALL * concurrency - RESERVED_FDS - connections)
    )


class CannotListen(Exception):
    """The port cannot be used; its text is one line that says why."""


def check_bindable(description: str) -> bool:
    """Find out whether something can be listened on, by taking it and letting it go.

    :return: whether other machines may reach it.
    :raises CannotListen: where it cannot.
    """
    failures: list[Failure] = []
    probe = _Probe()
    listening = maybeDeferred(serverFromString(probe, description).listen, Factory())
    listening.addErrback(failures.append)
    for failure in failures:
        error = failure.value
        if isinstance(error, AttributeError):
            # An endpoint that wants more of a reactor than the probe has speaks for itself;
            # where it listens (on systemd's socket, say) nobody but itself knows.
            return True
        why = getattr(error, "strerror", None) or str(error)
        if not isinstance(error, (OSError, OverflowError)):
            # stdio:, which Twisted has beside those of ports, fails in a way of its own.
            why = "it is no port that clients connect to"
        raise CannotListen(f"cannot listen on {description}: {why}")
    return probe.exposed


class _Probe:
    """As much of a reactor as an endpoint needs to listen, which only tries.

    :ivar exposed: whether what was listened on is more than this machine's own.
    """

    exposed = False

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((interface, port))
            trial.listen()
            # Not what it was told: a name, and no name at all, mean some address, too.
            self.exposed = not is_loopback(trial.getsockname()[0])

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
                raise OSError(errno.EEXIST, "there is something that is no socket")


log = Logger(namespace="callme")

BACKLOG = 1024
"""Clients that may wait to be let in; the kernel's own limit (net.core.somaxconn) may be lower."""


def endpoint_of(reactor: Any, description: str) -> IStreamServerEndpoint:
    """Return where to listen, with room for a rush of clients unless the description says how much.

    With Twisted's room for fifty, a thousand that come at once wait for some twenty seconds:
    the kernel lets each try again only after one.
    """
    kind, _, rest = description.partition(":")
    if kind in ("tcp", "tcp6", "ssl", "unix"):
        # Of two that are named the last counts; one without a name cannot be given twice.
        with suppress(TypeError):
            return _server(reactor, f"{kind}:backlog={BACKLOG}:{rest}")
    return _server(reactor, description)


def _server(reactor: Any, description: str) -> IStreamServerEndpoint:
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def address_of(port: IListeningPort | None, description: str) -> str:
    """Return where somebody listens, as a person writes it."""
    address: Any = None if port is None else port.getHost()
    host, number = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return description
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def connection_limits_for(asked: int, concurrency: int) -> tuple[int, int]:
    """See to it that there are descriptors for clients.

    :param asked: how many clients there are to be room for.
    :param concurrency: how many calls, which need descriptors too.
    :return: how many there can be, and how many more while others are being closed for them.
    """
    limit = raise_limit(required_fds(asked, concurrency))
    room = share_of_clients(asked, concurrency, limit)
    if room < asked:
        log.warn(
            "{limit} files may be open: enough for {room} clients, not for the {asked} of "
            "--max-connections (see ulimit -Hn)",
            limit=limit,
            room=room,
            asked=asked,
        )
    return room, max(EVICTION_HEADROOM, burst_budget(room, concurrency, limit))
