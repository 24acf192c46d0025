"""Whether a port can be listened on, and who could reach it, found out before the daemon starts."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from .core.access import is_loopback


class CannotListen(Exception):
    """The port cannot be used; its text is one line that says why."""


def try_port(description: str) -> bool:
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
