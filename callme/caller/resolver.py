"""Name look-ups that cannot hold up one another, nor the end of the daemon.

The reactor looks names up in a pool of ten threads without a deadline: ten calls to a host
whose name server hangs would stop all others. Here a name that is being looked up is looked
up once, whoever waits for it, in a thread of its own, which does not keep the process alive.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

LOOKUP_SECONDS = 10
"""How long a call waits for a name."""
KEPT_SECONDS = 5
"""How long what was found is used again."""
MAX_LOOKUPS = 500
"""Names looked up at once; further ones wait for their turn."""
MAX_NEW_LOOKUPS = 400
"""Of them, those that were not found when last looked up: many that hang must leave some."""
MOST_FOUND = 10_000
"""Names of which is kept that they were found."""

Lookup = Callable[[str], Sequence[str]]


def system_lookup(name: str) -> list[str]:
    """Return the addresses of a name, in the order of preference of the system.

    :raises OSError: when there are none.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@implementer(IHostResolution)
@define(eq=False)
class _Waiter:
    """Somebody who waits for the addresses of a name."""

    name: str
    port: int
    receiver: Any
    deadline: IDelayedCall | None = None
    done: bool = False

    def cancel(self) -> None:
        self.done = True
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()

    def answer(self, addresses: Sequence[str]) -> None:
        """Pass on what was found; nothing for a name that was not."""
        if self.done:
            return
        self.cancel()
        for address in addresses:
            kind: Any = IPv6Address if ":" in address else IPv4Address
            self.receiver.addressResolved(kind("TCP", address, self.port))
        self.receiver.resolutionComplete()


@implementer(IHostnameResolver)
@define(eq=False)
class Resolver:
    """Looks up the names of hosts.

    :param clock: what sets the deadlines.
    :param threads: what a thread hands its result to.
    """

    _clock: IReactorTime
    _threads: IReactorFromThreads
    _lookup: Lookup = system_lookup
    _waiting: dict[str, list[_Waiter]] = field(factory=dict, init=False)
    # Names that wait for their turn, those found before and others, and how many have it.
    _queue: deque[str] = field(factory=deque, init=False)
    _new: deque[str] = field(factory=deque, init=False)
    _in_flight: int = field(default=0, init=False)
    # Names that were found when last looked up, the longest ago first.
    _found_before: dict[str, None] = field(factory=dict, init=False)
    _known: dict[str, tuple[float, Sequence[str]]] = field(factory=dict, init=False)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        waiter = _Waiter(hostName, portNumber, resolutionReceiver)
        resolutionReceiver.resolutionBegan(waiter)
        until, addresses = self._known.get(hostName, (0.0, ()))
        if self._clock.seconds() < until:
            waiter.answer(addresses)
        else:
            self._wait(waiter)
        return waiter

    def _wait(self, waiter: _Waiter) -> None:
        # The call's own deadline may be later: what is not found by now will not be found.
        waiter.deadline = self._clock.callLater(LOOKUP_SECONDS, waiter.answer, ())
        if waiter.name in self._waiting:
            self._waiting[waiter.name].append(waiter)
        else:
            self._waiting[waiter.name] = [waiter]
            found_before = waiter.name in self._found_before
            (self._queue if found_before else self._new).append(waiter.name)
        self._take_turns()

    def _take_turns(self) -> None:
        self._take(self._queue, MAX_LOOKUPS)
        self._take(self._new, MAX_NEW_LOOKUPS)

    def _take(self, queue: deque[str], most: int) -> None:
        while queue and self._in_flight < most:
            name = queue.popleft()
            if all(waiter.done for waiter in self._waiting[name]):
                del self._waiting[name]
                continue
            try:
                Thread(target=self._look_up, args=(name,), daemon=True).start()
            except RuntimeError:
                # The system has no thread to spare: another time, as long as somebody waits.
                queue.appendleft(name)
                break
            self._in_flight += 1

    def _look_up(self, name: str) -> None:
        try:
            addresses = self._lookup(name)
        except (OSError, UnicodeError):
            addresses = ()
        self._threads.callFromThread(self._found, name, addresses)

    def _found(self, name: str, addresses: Sequence[str]) -> None:
        self._in_flight -= 1
        now = self._clock.seconds()
        self._known = {name: kept for name, kept in self._known.items() if kept[0] > now}
        self._found_before.pop(name, None)
        if addresses:
            self._known[name] = (now + KEPT_SECONDS, addresses)
            self._found_before[name] = None
            if len(self._found_before) > MOST_FOUND:
                del self._found_before[next(iter(self._found_before))]
        for waiter in self._waiting.pop(name):
            waiter.answer(addresses)
        self._take_turns()
