"""Name resolution in which no lookup delays another lookup or the daemon's exit.

The reactor resolves names in a pool of ten threads without a deadline: ten calls to a host
whose name server hangs would block all other calls. This resolver looks a name up once for all
calls that wait for it, in a separate thread that does not keep the process alive.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime

LOOKUP_SECONDS = 10
"""How long a call waits for a name."""
TTL_SECONDS = 5
"""How long the addresses of a name are used again."""
MAX_LOOKUPS = 500
"""Names that are looked up at a time; further ones wait for their turn."""
MAX_NEW_LOOKUPS = 400
"""Names among them that were not found by their last lookup: many that hang must leave some."""
MAX_TRACKED_NAMES = 10_000
"""Names that are remembered as found by their last lookup."""

Lookup = Callable[[str], Sequence[str]]


def system_lookup(name: str) -> list[str]:
    """Return the addresses of a name, in the system's order of preference.

    :raises OSError: when there are none.
    """
    # As bytes: Python would encode text by IDNA 2003, which refuses some names.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@define(eq=False)
class _Waiter:
    """A call that waits for the addresses of a name."""

    deadline: IDelayedCall | None = None
    resolved: Deferred[Sequence[str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.resolved = Deferred(lambda _: self._cancel_deadline())

    def resolve(self, addresses: Sequence[str]) -> None:
        """End the wait, unless it has ended."""
        self._cancel_deadline()
        if not self.resolved.called:
            self.resolved.callback(addresses)

    def _cancel_deadline(self) -> None:
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()


@define(eq=False, kw_only=True)
class Resolver:
    """Resolves the names of hosts.

    :param clock: sets the deadlines.
    :param threads: takes the results of threads.
    """

    _clock: IReactorTime
    _threads: IReactorFromThreads
    _lookup: Lookup = system_lookup
    _waiters: dict[str, list[_Waiter]] = field(factory=dict, init=False)
    # Names that wait for a lookup: those that their last lookup resolved, and all others.
    _known_queue: deque[str] = field(factory=deque, init=False)
    _unknown_queue: deque[str] = field(factory=deque, init=False)
    _lookups_in_flight: int = field(default=0, init=False)
    # Names found by their last lookup, the longest ago first.
    _resolved_before: dict[str, None] = field(factory=dict, init=False)
    # Until when the addresses of a name are used again, the first to expire first.
    _cache: dict[str, tuple[float, Sequence[str]]] = field(factory=dict, init=False)

    def resolve(self, name: str) -> Deferred[Sequence[str]]:
        """Return the addresses of a name; none where it is not found in time."""
        until, addresses = self._cache.get(name, (0.0, ()))
        if self._clock.seconds() < until:
            return succeed(addresses)
        waiter = _Waiter()
        # The call's own deadline may be later: a name not found by now will not be found.
        waiter.deadline = self._clock.callLater(LOOKUP_SECONDS, waiter.resolve, ())
        if name in self._waiters:
            self._waiters[name].append(waiter)
        else:
            self._waiters[name] = [waiter]
            known = name in self._resolved_before
            (self._known_queue if known else self._unknown_queue).append(name)
        self._start_lookups()
        return waiter.resolved

    def _start_lookups(self) -> None:
        self._start_from(self._known_queue, MAX_LOOKUPS)
        self._start_from(self._unknown_queue, MAX_NEW_LOOKUPS)

    def _start_from(self, queue: deque[str], limit: int) -> None:
        while queue and self._lookups_in_flight < limit:
            name = queue.popleft()
            if all(waiter.resolved.called for waiter in self._waiters[name]):
                del self._waiters[name]
                continue
            try:
                Thread(target=partial(self._look_up, name), daemon=True).start()
            except RuntimeError:
                # The system has no thread to spare: the name waits for the next lookup.
                queue.appendleft(name)
                break
            self._lookups_in_flight += 1

    def _look_up(self, name: str) -> None:
        try:
            addresses = self._lookup(name)
        except (OSError, UnicodeError):
            addresses = ()
        self._threads.callFromThread(self._looked_up, name, addresses)

    def _looked_up(self, name: str, addresses: Sequence[str]) -> None:
        self._lookups_in_flight -= 1
        now = self._clock.seconds()
        self._forget_expired(now)
        self._resolved_before.pop(name, None)
        if addresses:
            self._cache[name] = (now + TTL_SECONDS, addresses)
            self._resolved_before[name] = None
            if len(self._resolved_before) > MAX_TRACKED_NAMES:
                del self._resolved_before[next(iter(self._resolved_before))]
        for waiter in self._waiters.pop(name):
            waiter.resolve(addresses)
        self._start_lookups()

    def _forget_expired(self, now: float) -> None:
        # They expire in the order in which they were added.
        while self._cache:
            name, (until, _) = next(iter(self._cache.items()))
            if until > now:
                break
            del self._cache[name]
