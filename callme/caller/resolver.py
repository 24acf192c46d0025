"""Name resolution in daemon threads, with a deadline.

The reactor resolves names in a pool of ten threads without a deadline: ten calls to a host
whose name server hangs would block all other calls. This resolver looks up each name once for
all calls that wait for it, in a thread of its own that does not keep the process alive.
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
"""Maximum time in seconds that a call waits for the addresses of a name."""
TTL_SECONDS = 5
"""Seconds for which the addresses of a name are cached."""
MAX_LOOKUPS = 500
"""Maximum concurrent lookups; further names are queued."""
MAX_NEW_LOOKUPS = 400
"""Maximum concurrent lookups of names without an earlier success: the remaining lookups are
reserved for names that were resolved before, in case many new names hang."""
MAX_TRACKED_NAMES = 10_000
"""Maximum number of names tracked as resolved by their last lookup."""

Lookup = Callable[[str], Sequence[str]]


def system_lookup(name: str) -> list[str]:
    """Return the addresses of a name, in the system's order of preference.

    :raises OSError: when the name has no address, or the lookup fails.
    """
    # The name is passed as bytes: Python would encode a str by IDNA 2003, which rejects some names.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@define(eq=False)
class _Waiter:
    """Call that waits for the addresses of a name."""

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
    """Resolver of host names.

    :param clock: schedules the deadlines.
    :param threads: receives the results of threads.
    """

    _clock: IReactorTime
    _threads: IReactorFromThreads
    _lookup: Lookup = system_lookup
    _waiters: dict[str, list[_Waiter]] = field(factory=dict, init=False)
    # Queues of names: those that their last lookup resolved, and all others.
    _known_queue: deque[str] = field(factory=deque, init=False)
    _unknown_queue: deque[str] = field(factory=deque, init=False)
    _lookups_in_flight: int = field(default=0, init=False)
    # Names that their last lookup resolved, the least recent first.
    _resolved_before: dict[str, None] = field(factory=dict, init=False)
    # Expiry time and addresses of each cached name, the first to expire first.
    _cache: dict[str, tuple[float, Sequence[str]]] = field(factory=dict, init=False)

    def resolve(self, name: str) -> Deferred[Sequence[str]]:
        """Return the addresses of a name; none if it is not resolved in time."""
        until, addresses = self._cache.get(name, (0.0, ()))
        if self._clock.seconds() < until:
            return succeed(addresses)
        waiter = _Waiter()
        # The deadline of the call may be much later, but a lookup that takes this long fails
        # anyway.
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
                # The system cannot start another thread: the name stays queued until a lookup ends.
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
        # Entries expire in the order in which they were added.
        while self._cache:
            name, (until, _) = next(iter(self._cache.items()))
            if until > now:
                break
            del self._cache[name]
