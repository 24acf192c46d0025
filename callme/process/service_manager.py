"""Notification of the service manager: readiness and watchdog by sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger(namespace="callme")


@frozen(kw_only=True)
class ServiceManager:
    """Connection to systemd, or to another service manager with the same protocol.

    Without ``NOTIFY_SOCKET`` in the environment, nothing is sent.

    :ivar clock: schedules the messages to the watchdog.
    :ivar makes_progress: returns whether the daemon works; while it returns ``False``, the watchdog
        receives no messages, and restarts the daemon after its timeout.
    :ivar environment: the environment variables, which the service manager has set.
    """

    clock: IReactorTime
    makes_progress: Callable[[], bool]
    environment: Mapping[str, str] = field(factory=lambda: os.environ)
    _loop: LoopingCall = field(init=False)

    @_loop.default
    def _make_loop(self) -> LoopingCall:
        loop = LoopingCall(self._feed_watchdog)
        loop.clock = self.clock
        return loop

    def ready(self, status: str) -> None:
        """Report that the daemon accepts requests, and start feeding the watchdog.

        :param status: one line for ``systemctl status``.
        """
        self._send(f"READY=1\nSTATUS={status}")
        interval = self._watchdog_seconds()
        if interval is not None:
            self._loop.start(interval / 2).addErrback(
                lambda failure: log.failure("the watchdog is no longer fed", failure)
            )

    def stopping(self) -> None:
        """Report that the daemon is stopping; the watchdog is fed until :meth:`close`."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Stop feeding the watchdog."""
        if self._loop.running:
            self._loop.stop()

    def _watchdog_seconds(self) -> float | None:
        """Return the timeout of the watchdog; ``None`` if this process has no watchdog."""
        microseconds = self.environment.get("WATCHDOG_USEC", "")
        watched = self.environment.get("WATCHDOG_PID", str(os.getpid()))
        if watched != str(os.getpid()) or not microseconds.isdecimal() or microseconds == "0":
            return None
        return int(microseconds) / 1_000_000

    def _feed_watchdog(self) -> None:
        if self.makes_progress():
            self._send("WATCHDOG=1")
        else:
            log.error("no tick has ended in time: the watchdog is not fed")

    def _send(self, message: str) -> None:
        path = self.environment.get("NOTIFY_SOCKET", "")
        if not path:
            return
        # A name that begins with @ belongs to Linux's abstract namespace.
        address = "\0" + path[1:] if path.startswith("@") else path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                # The reactor must not block if the service manager does not read.
                channel.setblocking(False)
                channel.sendto(message.encode(), address)
        except OSError as error:
            log.warn("the service manager was not notified: {error}", error=error)
