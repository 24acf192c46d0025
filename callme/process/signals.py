"""The signals that must not end the daemon, although that is their default action."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from ..security.secret_file import SecretFile

log = Logger(namespace="callme")

HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that do not end the daemon; each is logged."""


@define(eq=False, repr=False)
class SignalHandlers:
    """Handlers of the signals that do not end the daemon.

    :param files: the secret files that SIGHUP reloads.
    """

    _reactor: IReactorFromThreads
    _files: Sequence[SecretFile[Any]]
    _previous: dict[int, Any] = field(factory=dict, init=False)

    def install(self) -> None:
        """Install the handlers in place of the current ones."""
        for number in HARMLESS:
            self._previous[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restore the replaced handlers."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A handler may interrupt any code, even the logger, so that the reactor does the rest.
        previous = self._previous.get(number)
        name = signal.Signals(number).name
        if number == signal.SIGUSR1 and callable(previous):
            # With --logfile, twistd has installed a handler.
            previous(number, frame)
            self._later(log.info, "{name}: twistd rotates its log file", name=name)
        elif number != signal.SIGHUP:
            self._later(log.info, "{name} has no effect on callme", name=name)
        elif not self._files:
            self._later(log.info, "{name}: there is no file of secrets to reload", name=name)
        else:
            for file in self._files:
                self._later(file.reload)

    def _later(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self._reactor.callFromThread(function, *arguments, **named)
